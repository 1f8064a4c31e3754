//! The classes of data: how many, what each is called, and which words of a file stand for which.

#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;

use super::dataset::Dataset;
use super::input::refuse;
use super::pixels::Pixels;
use crate::error::Result;

/// Labels as classes: the number of classes and what each is called.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Classes {
    pub(super) count: usize,
    /// `[count]`, or none where numbers will do.
    pub(super) names: Option<Vec<String>>,
}

impl Classes {
    /// As many classes as the greatest label asks for, at least two.
    pub(super) fn by_labels(labels: &[u8]) -> Classes {
        let top = labels.iter().max().map_or(0, |&label| usize::from(label));
        Classes { count: (top + 1).max(2), names: None }
    }

    /// Classes with the given names, of which there have to be 2 to 256.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn named(path: &str, names: Vec<String>) -> Result<Classes> {
        if !(2..=256).contains(&names.len()) {
            return Err(refuse(path, format!("{} classes found, expected 2 to 256", names.len())));
        }
        Ok(Classes { count: names.len(), names: Some(names) })
    }

    /// These classes of numbered labels as `classes.txt` in `dir` names them, if it is there.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn named_in(self, dir: &Path) -> Result<Classes> {
        let path = dir.join("classes.txt");
        let Some(names) = read_names(&path)? else { return Ok(self) };
        let file = path.to_string_lossy();
        // More names than labels is no contradiction where labels are numbers: a class may have no image.
        let exact = self.names.is_some() && names.len() != self.count;
        if exact || names.len() < self.count {
            return Err(refuse(
                file,
                format!("{} names found, expected {} as there are classes", names.len(), self.count),
            ));
        }
        Classes::named(&file, names)
    }

    /// Makes a data set; `file` is where the labels come from.
    pub(super) fn dataset(
        &self,
        name: &str,
        file: &str,
        shape: [usize; 3],
        images: impl Into<Pixels>,
        labels: Vec<u8>,
    ) -> Result<Dataset> {
        // Checked here as well as in `Dataset::new`, so that the message names the label file.
        let top = labels.iter().max().map_or(0, |&label| usize::from(label));
        if top >= self.count {
            return Err(refuse(
                file,
                format!(
                    "the label {top} found, expected less than {}, the classes of the training data",
                    self.count
                ),
            ));
        }
        let mut data = Dataset::segmented(name, shape, self.count, images, [1, 1], labels)?;
        if let Some(names) = self.names.clone().or_else(|| known_names(name, self.count)) {
            data.class_names = names;
        }
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
pub(super) fn known_names(name: &str, classes: usize) -> Option<Vec<String>> {
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

/// A label's place in the order of classes: numbers by their value, then words.
#[derive(Clone, Debug, PartialEq)]
enum Label {
    Number(f64),
    Word(String),
}

impl Label {
    fn new(text: &str) -> Label {
        match text.parse::<f64>() {
            // Minus zero is zero.
            Ok(number) if number.is_finite() => Label::Number(number + 0.0),
            _ => Label::Word(text.to_owned()),
        }
    }

    fn name(&self) -> String {
        match self {
            Label::Number(number) => number.to_string(),
            Label::Word(text) => text.clone(),
        }
    }

    fn order(&self, other: &Label) -> std::cmp::Ordering {
        match (self, other) {
            (Label::Number(a), Label::Number(b)) => a.total_cmp(b),
            (Label::Word(a), Label::Word(b)) => a.cmp(b),
            (Label::Number(_), Label::Word(_)) => std::cmp::Ordering::Less,
            (Label::Word(_), Label::Number(_)) => std::cmp::Ordering::Greater,
        }
    }
}

/// The classes that the labels of the training part make, in order: their names, and each label's number.
///
/// # Errors
///
/// [`Error::Data`](crate::Error::Data) when there are not 2 to 256 different ones, or another part has one that the first lacks.
pub(super) fn label_classes(parts: [(&str, &[String]); 2]) -> Result<(Vec<String>, [Vec<u8>; 2])> {
    let [(train_file, train), _] = parts;
    let mut known: Vec<Label> = Vec::new();
    for text in train {
        let label = Label::new(text);
        if let Err(at) = known.binary_search_by(|other| other.order(&label)) {
            if known.len() == 256 {
                return Err(refuse(train_file, "more than 256 different labels found, expected 2 to 256"));
            }
            known.insert(at, label);
        }
    }
    if known.len() < 2 {
        return Err(refuse(
            train_file,
            format!("{} label found, expected 2 to 256 different ones", known.len()),
        ));
    }
    let number = |(file, labels): (&str, &[String])| {
        labels
            .iter()
            .map(|text| {
                let label = Label::new(text);
                known.binary_search_by(|other| other.order(&label)).map(|class| class as u8).map_err(|_| {
                    refuse(file, format!("the label {text} found, expected one of those in {train_file}"))
                })
            })
            .collect::<Result<Vec<u8>>>()
    };
    let numbers = [number(parts[0])?, number(parts[1])?];
    Ok((known.iter().map(Label::name).collect(), numbers))
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

    #[test]
    fn well_known_classes_have_names() {
        assert_eq!(known_names("Fashion-MNIST", 10).unwrap()[9], "Ankle boot");
        assert_eq!(known_names("kmnist", 10).unwrap()[1], "ki");
        assert_eq!(known_names("cifar-10-batches-bin", 10).unwrap()[3], "cat");
        assert_eq!(known_names("fashion", 11), None);
        assert_eq!(known_names("mnist", 10), None);
    }
}
