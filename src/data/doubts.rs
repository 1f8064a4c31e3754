//! What makes a figure untrue before anything is trained: data that has nothing to learn, or whose test is none.

use std::collections::HashSet;

use serde::Serialize;

use super::dataset::Dataset;
use super::names::listed;
use super::pixels::{NO_BYTES, hashed};
use crate::error::Result;

/// A reason not to trust what a network learns from data, or how it is judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Doubt {
    /// Which kind it is: `equal_pictures`, `equal_class`, `narrow_range`, `one_class`, `few_pictures`,
    /// `empty_classes`, `no_shared_class`, `unseen_classes`, `test_in_training`.
    pub kind: &'static str,
    /// It in words.
    pub message: String,
}

/// Pictures of a set that stays in its file that are looked at: the first.
const LOOKED_AT: usize = 20_000;

/// A range of pixels, of 255, that holds nothing to see.
const NARROW: u8 = 2;

/// What the pixels of a part are like.
struct Seen {
    /// A number for each picture that is looked at, which differs when its pixels do but for chance.
    sums: Vec<u64>,
    /// Whether it has more than one value.
    drawn: Vec<bool>,
    least: u8,
    most: u8,
}

impl Seen {
    fn new(data: &Dataset) -> Result<Seen> {
        let count = if data.images.is_filed() { data.len().min(LOOKED_AT) } else { data.len() };
        let mut seen = Seen { sums: Vec::new(), drawn: Vec::new(), least: u8::MAX, most: 0 };
        for i in 0..count {
            let pixels = data.image(i)?;
            let (mut least, mut most) = (u8::MAX, 0);
            pixels.iter().for_each(|&pixel| (least, most) = (least.min(pixel), most.max(pixel)));
            (seen.least, seen.most) = (seen.least.min(least), seen.most.max(most));
            seen.sums.push(hashed(NO_BYTES, &pixels));
            seen.drawn.push(least < most);
        }
        Ok(seen)
    }
}

/// Looks for what speaks against training on `train` and judging by `test`.
///
/// # Errors
///
/// As [`Pixels::get`](super::Pixels::get).
pub fn doubts(train: &Dataset, test: &Dataset) -> Result<Vec<Doubt>> {
    let mut found = Vec::new();
    let mut doubt = |kind: &'static str, message: String| found.push(Doubt { kind, message });
    let (of_train, of_test) = (train.label_counts(), test.label_counts());
    let name = |class: usize| train.class_names.get(class).map_or("?", String::as_str);
    let named = |wanted: &dyn Fn(usize) -> bool| listed((0..train.classes).filter(|&c| wanted(c)).map(name));
    let (seen, judged) = (Seen::new(train)?, Seen::new(test)?);

    let first = seen.sums.first();
    if seen.sums.len() > 1 && seen.sums.iter().all(|sum| Some(sum) == first) {
        doubt("equal_pictures", format!("all {} training pictures are the same one", train.len()));
    } else if train.labels_per_image() == 1 {
        let mut kinds = vec![HashSet::new(); train.classes];
        seen.sums.iter().zip(&train.labels).for_each(|(sum, &label)| {
            kinds[usize::from(label)].insert(sum);
        });
        let equal = |class: usize| kinds[class].len() == 1 && of_train[class] > 2;
        if (0..train.classes).any(equal) {
            doubt(
                "equal_class",
                format!("all training pictures of a class are the same one: {}", named(&equal)),
            );
        }
    }
    if seen.most.saturating_sub(seen.least) <= NARROW && seen.sums.len() > 1 {
        let (least, most) = (seen.least, seen.most);
        doubt(
            "narrow_range",
            format!("all pixels are {least} to {most} of 255: divided by 255 once too often?"),
        );
    }
    let occurring = of_train.iter().filter(|&&count| count > 0).count();
    if occurring == 1 {
        let only = named(&|class| of_train[class] > 0);
        doubt("one_class", format!("all training pictures are of one class, {only}"));
    }
    if train.len() < train.classes {
        let (pictures, classes) = (train.len(), train.classes);
        doubt("few_pictures", format!("{pictures} training pictures are fewer than the {classes} classes"));
    } else if occurring > 1 && occurring < train.classes {
        let empty = named(&|class| of_train[class] == 0);
        doubt("empty_classes", format!("there are classes without a training picture: {empty}"));
    }
    let both = (0..train.classes.min(test.classes)).any(|class| of_train[class] > 0 && of_test[class] > 0);
    let unseen = |class: usize| of_train[class] == 0 && of_test.get(class).is_some_and(|&count| count > 0);
    if !both && !test.is_empty() {
        doubt("no_shared_class", "the training and the test pictures share no class".into());
    } else if (0..train.classes).any(unseen) {
        doubt("unseen_classes", format!("the test has classes that training never sees: {}", named(&unseen)));
    }
    let known: HashSet<u64> = seen.sums.iter().copied().collect();
    // Empty pictures are alike without being copies.
    let copies = judged.sums.iter().zip(&judged.drawn).filter(|(sum, drawn)| **drawn && known.contains(sum));
    let again = copies.count();
    if again > 0 {
        let of = judged.sums.len();
        doubt("test_in_training", format!("{again} of {of} test pictures are training pictures, too"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures of two pixels.
    fn set(pixels: &[[u8; 2]], labels: &[u8]) -> Dataset {
        Dataset::new("it", [1, 1, 2], 3, pixels.concat(), labels.to_vec()).unwrap()
    }

    #[test]
    fn what_cannot_be_trusted_is_told() {
        let good = set(&[[0, 9], [80, 7], [3, 3], [0, 255]], &[0, 1, 2, 0]);
        // An empty picture may come twice.
        let test = set(&[[1, 1], [3, 3]], &[1, 2]);
        assert_eq!(doubts(&good, &test).unwrap(), []);
        let kinds = |train: &Dataset, test: &Dataset| {
            doubts(train, test).unwrap().iter().map(|doubt| doubt.kind).collect::<Vec<_>>()
        };
        let equal = set(&[[0, 9]; 4], &[0, 1, 2, 0]);
        assert_eq!(kinds(&equal, &test), ["equal_pictures"]);
        let of_class = set(&[[0, 9], [80, 7], [0, 9], [0, 9], [3, 3]], &[0, 1, 0, 0, 2]);
        assert_eq!(kinds(&of_class, &test), ["equal_class"]);
        let narrow = set(&[[0, 1], [1, 0], [2, 2]], &[0, 1, 2]);
        assert_eq!(kinds(&narrow, &set(&[[7, 7]], &[0])), ["narrow_range"]);
        let one = set(&[[0, 9], [80, 7], [3, 3]], &[1, 1, 1]);
        assert_eq!(kinds(&one, &set(&[[1, 1]], &[1])), ["one_class"]);
        assert_eq!(kinds(&one, &set(&[[1, 1]], &[2])), ["one_class", "no_shared_class"]);
        assert_eq!(kinds(&set(&[[0, 9], [80, 7]], &[0, 1]), &set(&[[1, 1]], &[1])), ["few_pictures"]);
        let lacking = set(&[[0, 9], [80, 7], [3, 3]], &[0, 1, 0]);
        assert_eq!(kinds(&lacking, &set(&[[1, 1]], &[1])), ["empty_classes"]);
        assert_eq!(kinds(&lacking, &test), ["empty_classes", "unseen_classes"]);
        let told = doubts(&good, &set(&[[80, 7], [4, 4]], &[1, 1])).unwrap();
        assert_eq!(told[0].kind, "test_in_training");
        assert_eq!(told[0].message, "1 of 2 test pictures are training pictures, too");
    }

    #[test]
    fn the_data_of_the_program_is_beyond_doubt() {
        for name in super::super::NAMES {
            let split = super::super::named(name).unwrap();
            let told = doubts(&split.train, &split.test).unwrap();
            assert_eq!(told, [], "{name}");
        }
    }
}
