//! The classes of data: how many, what each is called, and which words of a file stand for which.

#[cfg(not(target_arch = "wasm32"))]
use std::collections::BTreeMap;
#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;

use super::dataset::Dataset;
use super::input::refuse;
use super::pixels::Pixels;
use crate::error::Result;

/// Labels as classes: those that occur, in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Classes {
    /// Numbers by their value, then words.
    labels: Vec<Label>,
    /// What each is called, where that is not the label.
    names: Option<Vec<String>>,
}

impl Classes {
    /// The classes that the labels of all parts make, each part with the file it is from, and each part's labels as
    /// numbers of them.
    ///
    /// # Errors
    ///
    /// [`Error::Data`](crate::Error::Data) when there are not 2 to 256 different ones.
    pub(super) fn of<L>(
        parts: &[(&str, &[L])],
        label: impl Fn(&L) -> Label,
    ) -> Result<(Classes, Vec<Vec<u8>>)> {
        let mut labels: Vec<Label> = Vec::new();
        let file = parts.first().map_or("", |(file, _)| file);
        for found in parts.iter().flat_map(|(_, part)| part.iter()).map(&label) {
            if let Err(at) = labels.binary_search_by(|other| other.order(&found)) {
                if labels.len() == 256 {
                    return Err(refuse(file, "more than 256 classes found, expected 2 to 256"));
                }
                labels.insert(at, found);
            }
        }
        if let [] | [_] = labels[..] {
            let found = labels.first().map_or("no class".into(), |only| format!("1 class, {},", only.name()));
            return Err(refuse(file, format!("{found} found, expected 2 to 256")));
        }
        // Every label is among them.
        let number = |one: &L| labels.binary_search_by(|other| other.order(&label(one))).unwrap_or(0) as u8;
        let numbers = parts.iter().map(|(_, part)| part.iter().map(number).collect()).collect();
        Ok((Classes { labels, names: None }, numbers))
    }

    /// The number that each label is, where all are whole numbers from 0 on.
    fn numbers(&self) -> Option<Vec<usize>> {
        let number =
            |label: &Label| label.number().filter(|n| *n >= 0.0 && n.fract() == 0.0).map(|n| n as usize);
        self.labels.iter().map(number).collect()
    }

    /// These classes as a file calls them: it has a name for each of them, or one for each number from 0 to the
    /// greatest label at least.
    ///
    /// # Errors
    ///
    /// [`Error::Data`](crate::Error::Data) when it has neither.
    pub(super) fn called(self, file: &str, names: Vec<String>) -> Result<Classes> {
        if names.len() == self.labels.len() {
            return Ok(Classes { names: Some(names), ..self });
        }
        self.called_by_number(file, &names)
    }

    /// These classes as a file calls them that has a name for each number from 0 to the greatest label at least.
    ///
    /// # Errors
    ///
    /// [`Error::Data`](crate::Error::Data) when it has not.
    pub(super) fn called_by_number(self, file: &str, names: &[String]) -> Result<Classes> {
        let numbers = self.numbers();
        let name = |number: &usize| names.get(*number).cloned();
        let found = numbers.as_ref().and_then(|numbers| numbers.iter().map(name).collect::<Option<Vec<_>>>());
        if found.is_some() {
            return Ok(Classes { names: found, ..self });
        }
        let classes = self.labels.len();
        let more = match numbers.and_then(|numbers| numbers.last().copied()) {
            Some(top) if top >= classes => format!(", or {} for the labels up to {top}", top + 1),
            _ => String::new(),
        };
        let found = names.len();
        Err(refuse(file, format!("{found} names found, expected {classes} as there are classes{more}")))
    }

    /// These classes under the names that a table of labels gives them.
    ///
    /// # Errors
    ///
    /// [`Error::Data`](crate::Error::Data) when it has none for one of them.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn translated(self, file: &str, names: &BTreeMap<u8, String>) -> Result<Classes> {
        let name = |label: &Label| {
            let known = label.number().and_then(|number| names.get(&(number as u8))).cloned();
            known.ok_or_else(|| {
                refuse(file, format!("no name for the label {} found, expected one", label.name()))
            })
        };
        let names = self.labels.iter().map(name).collect::<Result<_>>()?;
        Ok(Classes { names: Some(names), ..self })
    }

    /// These classes as `classes.txt` in `dir` names them, if it is there.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn named_in(self, dir: &Path) -> Result<Classes> {
        let path = dir.join("classes.txt");
        match read_names(&path)? {
            Some(names) => self.called(&path.to_string_lossy(), names),
            None => Ok(self),
        }
    }

    /// What each class is called in data of this name.
    fn names(&self, data: &str) -> Vec<String> {
        let in_order = || self.numbers().is_some_and(|numbers| numbers.into_iter().eq(0..self.labels.len()));
        let known = || known_names(data, self.labels.len()).filter(|_| in_order());
        self.names.clone().or_else(known).unwrap_or_else(|| self.labels.iter().map(Label::name).collect())
    }

    /// Makes a data set of pictures `[N, C, H, W]` and the numbers of their classes; `shape` is `[C, H, W]`.
    pub(super) fn dataset(
        &self,
        name: &str,
        shape: [usize; 3],
        images: impl Into<Pixels>,
        labels: Vec<u8>,
    ) -> Result<Dataset> {
        let mut data = Dataset::segmented(name, shape, self.labels.len(), images, [1, 1], labels)?;
        data.class_names = self.names(name);
        Ok(data)
    }
}

/// Where each class of one list stands in another, by name: numbers by their value, all else by the letter.
pub fn places(of: &[String], among: &[String]) -> Vec<Option<usize>> {
    let among: Vec<Label> = among.iter().map(|name| Label::new(name.trim())).collect();
    of.iter().map(|name| among.iter().position(|other| *other == Label::new(name.trim()))).collect()
}

impl Dataset {
    /// The same images with the classes that `names` lists: a class is the one of its name, whatever its number.
    ///
    /// # Errors
    ///
    /// [`Error::Data`](crate::Error::Data) when an image is of a class that is not listed: all such classes, and both lists.
    pub fn with_classes(mut self, names: &[String]) -> Result<Dataset> {
        let places = places(&self.class_names, names);
        let counts = self.label_counts();
        let listed = |names: &[String]| names.join(", ");
        let of = |class: usize| self.class_names.get(class).map_or_else(|| class.to_string(), Clone::clone);
        let unknown: Vec<String> = (0..self.classes)
            .filter(|&class| counts[class] > 0 && places.get(class).copied().flatten().is_none())
            .map(of)
            .collect();
        if !unknown.is_empty() {
            let (own, plural) =
                (listed(&self.class_names), if unknown.len() == 1 { "class" } else { "classes" });
            return Err(refuse(
                self.name,
                format!(
                    "the {plural} {} found, expected classes among {}; the data's are {own}",
                    listed(&unknown),
                    listed(names)
                ),
            ));
        }
        // What does not occur has no place to go to.
        self.labels.iter_mut().for_each(|label| {
            *label = places[usize::from(*label)].unwrap_or_default() as u8;
        });
        self.classes = names.len();
        self.class_names = names.to_vec();
        Ok(self)
    }
}

/// What the classes of well-known data are called whose files do not say it.
fn known_names(name: &str, classes: usize) -> Option<Vec<String>> {
    let name = name.to_lowercase();
    let has = |part: &str| name.contains(part);
    let known = match classes {
        10 if has("fashion") => [
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ],
        10 if has("kmnist") || has("kuzushiji") => {
            ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]
        }
        10 if has("cifar") => {
            ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
        }
        _ => return None,
    };
    Some(known.map(String::from).to_vec())
}

/// The names in a file with one class a line, if it is there.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn read_names(path: &Path) -> Result<Option<Vec<String>>> {
    let Some(names) = super::input::read_lines(path)? else { return Ok(None) };
    let file = path.to_string_lossy();
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(refuse(file, format!("line {} is empty, expected the name of class {i}", i + 1)));
        }
        if names[..i].contains(name) {
            return Err(refuse(file, format!("the name {name} found twice, expected different ones")));
        }
    }
    Ok(Some(names))
}

/// A label, and its place in the order of classes: numbers by their value, then words.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Label {
    Number(f64),
    /// A number, and how it is written.
    #[cfg(not(target_arch = "wasm32"))]
    Written(f64, String),
    Word(String),
}

impl Label {
    /// What a text stands for.
    pub(super) fn new(text: &str) -> Label {
        match text.parse::<f64>() {
            // Minus zero is zero.
            Ok(number) if number.is_finite() => Label::Number(number + 0.0),
            _ => Label::Word(text.to_owned()),
        }
    }

    /// The same under the name that it has: a folder `007` is called so.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn written(text: &str) -> Label {
        match Label::new(text) {
            Label::Number(number) => Label::Written(number, text.to_owned()),
            word => word,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Label::Number(number) => Some(*number),
            #[cfg(not(target_arch = "wasm32"))]
            Label::Written(number, _) => Some(*number),
            Label::Word(_) => None,
        }
    }

    fn name(&self) -> String {
        match self {
            Label::Number(number) => number.to_string(),
            #[cfg(not(target_arch = "wasm32"))]
            Label::Written(_, text) => text.clone(),
            Label::Word(text) => text.clone(),
        }
    }

    pub(super) fn order(&self, other: &Label) -> std::cmp::Ordering {
        match (self, other) {
            (Label::Word(a), Label::Word(b)) => a.cmp(b),
            (Label::Word(_), _) => std::cmp::Ordering::Greater,
            (_, Label::Word(_)) => std::cmp::Ordering::Less,
            (a, b) => a.number().unwrap_or(0.0).total_cmp(&b.number().unwrap_or(0.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_matched_by_name() {
        let data = |names: &[&str], labels: &[u8]| {
            let mut data =
                Dataset::new("it", [1, 1, 1], names.len(), vec![0; labels.len()], labels.to_vec()).unwrap();
            data.class_names = names.iter().map(|&name| name.to_owned()).collect();
            data
        };
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let known = names(&["apple", "pear", "plum"]);
        let some = data(&["apple", "plum"], &[1, 0, 1]).with_classes(&known).unwrap();
        assert_eq!((some.labels, some.classes, some.class_names), (vec![2, 0, 2], 3, known.clone()));
        // Numbers are names, too.
        let numbers = data(&["1", "2.0", "3"], &[0, 1, 2]);
        assert_eq!(
            numbers.clone().with_classes(&names(&["0", "1", "2", "3", "4"])).unwrap().labels,
            [1, 2, 3]
        );
        let refused = numbers.with_classes(&names(&["0", "1", "2"])).unwrap_err().to_string();
        assert_eq!(
            refused,
            "it: the class 3 found, expected classes among 0, 1, 2; the data's are 1, 2.0, 3"
        );
        let refused =
            data(&["Apple", "fig", "plum"], &[0, 1, 2]).with_classes(&known).unwrap_err().to_string();
        assert!(refused.contains("the classes Apple, fig found"), "{refused}");
        // A class without an image asks for nothing.
        assert!(data(&["apple", "fig"], &[0, 0]).with_classes(&known).is_ok());
    }

    fn of(parts: &[&[f64]]) -> Result<(Classes, Vec<Vec<u8>>), String> {
        let parts: Vec<_> = parts.iter().map(|part| ("f", *part)).collect();
        Classes::of(&parts, |label| Label::Number(*label)).map_err(|error| error.to_string())
    }

    #[test]
    fn classes_are_the_labels_that_occur() {
        let (classes, numbers) = of(&[&[7.0, -1.0, 7.0], &[30.0]]).unwrap();
        assert_eq!(numbers, [vec![1, 0, 1], vec![2]]);
        assert_eq!(classes.names("it"), ["-1", "7", "30"]);
        let words = ["b", "10", "9", "a", "9.0"].map(String::from);
        let (classes, numbers) = Classes::of(&[("f", &words[..])], |label| Label::new(label)).unwrap();
        assert_eq!(
            (classes.names("it").join(" "), &numbers[0][..]),
            ("9 10 a b".into(), &[3, 1, 0, 2, 0][..])
        );
        assert_eq!(of(&[]).unwrap_err(), ": no class found, expected 2 to 256");
        assert_eq!(of(&[&[3.0, 3.0], &[3.0]]).unwrap_err(), "f: 1 class, 3, found, expected 2 to 256");
        let many: Vec<f64> = (0..257).map(f64::from).collect();
        assert_eq!(of(&[&many[..256]]).unwrap().1[0][255], 255);
        assert_eq!(of(&[&many]).unwrap_err(), "f: more than 256 classes found, expected 2 to 256");
    }

    #[test]
    fn names_are_one_a_class_or_one_a_number() {
        let called = |labels: &[f64], count: usize| {
            let names = (0..count).map(|i| format!("n{i}")).collect();
            let classes = of(&[labels]).unwrap().0.called("c", names);
            classes.map(|classes| classes.names("it").join(" ")).map_err(|error| error.to_string())
        };
        assert_eq!(called(&[1.0, 2.0, 5.0], 3).unwrap(), "n0 n1 n2");
        for count in [6, 7] {
            assert_eq!(called(&[1.0, 2.0, 5.0], count).unwrap(), "n1 n2 n5");
        }
        let wrong = called(&[1.0, 2.0, 5.0], 4).unwrap_err();
        assert_eq!(wrong, "c: 4 names found, expected 3 as there are classes, or 6 for the labels up to 5");
        assert_eq!(called(&[0.0, 1.0], 1).unwrap_err(), "c: 1 names found, expected 2 as there are classes");
        assert_eq!(called(&[-1.0, 1.0], 3).unwrap_err(), "c: 3 names found, expected 2 as there are classes");
        // Well-known names belong to ten classes that are numbered from 0.
        let fashion = |labels: Vec<f64>| of(&[&labels]).unwrap().0.names("fashion").swap_remove(1);
        assert_eq!(fashion((0..10).map(f64::from).collect()), "Trouser");
        assert_eq!(fashion((1..11).map(f64::from).collect()), "2");
    }

    #[test]
    fn well_known_classes_have_names() {
        assert_eq!(known_names("Fashion-MNIST", 10).unwrap()[9], "Ankle boot");
        assert_eq!(known_names("kmnist", 10).unwrap()[1], "ki");
        assert_eq!(known_names("cifar-10-batches-bin", 10).unwrap()[3], "cat");
        assert_eq!(known_names("fashion", 11), None);
        assert_eq!(known_names("mnist", 10), None);
    }
}
