//! Which arrays belong together, by their names: pictures and labels, to learn from and for the test.

use std::collections::BTreeMap;

use crate::data::names::{Side, listed, side, sides, words};

/// The words for pictures, lower case: of several arrays the first in this order is read.
const IMAGES: [&str; 12] = [
    "x", "images", "image", "imgs", "img", "pictures", "picture", "data", "features", "inputs", "input",
    "pixels",
];

/// The words for labels.
const LABELS: [&str; 11] =
    ["y", "labels", "label", "targets", "target", "classes", "class", "lbls", "digit", "outputs", "output"];

/// What an array is, by its name.
#[derive(Debug, PartialEq)]
struct Role {
    /// The words that say nothing of its part and kind: those of one set have the same.
    key: Vec<String>,
    side: Option<(Side, usize)>,
    /// 0 for pictures, 1 for labels, and the word's place.
    kind: (usize, usize),
}

/// The kind that a word stands for, and its place among the words for it.
fn kind(word: &str) -> Option<(usize, usize)> {
    let place = |words: &[&str]| words.iter().position(|known| *known == word);
    place(&LABELS).map(|at| (1, at)).or_else(|| place(&IMAGES).map(|at| (0, at)))
}

/// A word that is two without a sign between them: `xtrain`, `testlabels`.
fn pieces(word: String) -> Vec<String> {
    let two = |part: &'static str| {
        let rest = word.strip_prefix(part).or_else(|| word.strip_suffix(part))?;
        kind(rest).map(|_| vec![part.to_owned(), rest.to_owned()])
    };
    sides().find_map(two).unwrap_or_else(|| vec![word])
}

fn role(name: &str) -> Option<Role> {
    let (mut key, mut part, mut found) = (Vec::new(), None, None::<(usize, usize)>);
    for word in words(name).into_iter().flat_map(pieces) {
        match (side(&word), kind(&word)) {
            (Some(side), _) if part.is_none() => part = Some(side),
            // The labels of images are labels.
            (None, Some(kind)) if found.is_none_or(|(before, _)| before < kind.0) => found = Some(kind),
            (None, Some((0, _))) => {}
            _ => key.push(word),
        }
    }
    Some(Role { key, side: part, kind: found? })
}

/// A set of arrays by their places among the names: pictures and labels.
#[derive(Debug, PartialEq)]
pub(in crate::data) struct Set {
    /// What its names begin with or have besides.
    pub(super) key: String,
    /// What to learn from.
    pub(super) train: [usize; 2],
    /// What to be judged by.
    pub(super) test: Option<[usize; 2]>,
    /// Pictures for the test that have no labels.
    pub(super) unlabelled: Option<usize>,
    /// What has the names of the set, too, as parts for validation beside those for the test.
    pub(super) unused: Vec<usize>,
}

/// Of each word for a part, and each kind, how early its own word is, and the array's place.
type Slots = BTreeMap<(Option<(Side, usize)>, usize), (usize, usize)>;

/// The whole sets among arrays of these names; and what the others lack, in words.
pub(super) fn sets(names: &[&str]) -> (Vec<Set>, Vec<String>) {
    let mut groups: BTreeMap<Vec<String>, (Slots, Vec<usize>)> = BTreeMap::new();
    for (i, role) in names.iter().enumerate().filter_map(|(i, name)| Some((i, role(name)?))) {
        let (slots, all) = groups.entry(role.key).or_default();
        all.push(i);
        let slot = slots.entry((role.side, role.kind.0)).or_insert((role.kind.1, i));
        *slot = (*slot).min((role.kind.1, i));
    }
    let (mut whole, mut lacking) = (Vec::new(), Vec::new());
    for (key, (slots, all)) in groups {
        let place = |part, kind: usize| slots.get(&(part, kind)).map(|(_, i)| *i);
        let parts = |wanted: Side| {
            slots.keys().filter_map(|(part, _)| *part).filter(move |(side, _)| *side == wanted)
        };
        // Pictures and labels under the same word.
        let pair = |part| Some([place(part, 0)?, place(part, 1)?]);
        let train = parts(Side::Train).find_map(|part| pair(Some(part))).or_else(|| pair(None));
        let test = parts(Side::Test).find_map(|part| pair(Some(part)));
        let alone =
            |kind| parts(Side::Test).find_map(|part| place(Some(part), kind)).filter(|_| test.is_none());
        let Some(train) = train else {
            let has = |kind| {
                parts(Side::Train).any(|part| place(Some(part), kind).is_some())
                    || place(None, kind).is_some()
            };
            let what = match (has(0), has(1)) {
                (true, false) => "labels",
                (false, true) => "pictures",
                _ => "pictures and labels to train on",
            };
            lacking.push(format!("{} found, {what} missing", listed(all.iter().map(|&i| names[i]))));
            continue;
        };
        let unlabelled = alone(0);
        if let Some(labels) = alone(1) {
            lacking.push(format!("{} found, its pictures missing", names[labels]));
            continue;
        }
        let read: Vec<usize> =
            train.into_iter().chain(test.into_iter().flatten()).chain(unlabelled).collect();
        let unused = all.into_iter().filter(|i| !read.contains(i)).collect();
        whole.push(Set { key: key.join("-"), train, test, unlabelled, unused });
    }
    // Those that are called by nothing but their part and kind go before `target_names` and the like.
    if let Some(plain) = whole.iter().position(|set| set.key.is_empty()) {
        whole = vec![whole.swap_remove(plain)];
    }
    (whole, lacking)
}

/// Whether an array's name is of the labels that belong to pictures of this name: `y_test` beside `x_test`.
pub(in crate::data) fn is_beside(labels: &str, pictures: &str) -> bool {
    let (Some(labels), Some(pictures)) = (role(labels), role(pictures)) else { return false };
    let of_kinds = [labels.kind.0, pictures.kind.0] == [1, 0];
    of_kinds && labels.key == pictures.key && labels.side == pictures.side
}

/// The labels that belong to an array, by its name and those of all.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn labels_of(name: &str, names: &[&str]) -> Option<usize> {
    let own = words(name);
    let fits = |key: &[String]| {
        names.iter().position(|other| role(other).is_some_and(|r| r.kind.0 == 1 && r.key == key))
    };
    fits(&own).or_else(|| fits(&[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sets among names, as names.
    fn found(names: &str) -> Vec<String> {
        let names: Vec<&str> = names.split(' ').collect();
        let told = |set: Set| {
            let test = set.test.map_or("-".into(), |[x, y]| format!("{} {}", names[x], names[y]));
            format!("{}: {} {} | {test}", set.key, names[set.train[0]], names[set.train[1]])
        };
        sets(&names).0.into_iter().map(told).collect()
    }

    #[test]
    fn names_of_arrays_tell_what_they_are() {
        for names in [
            "x_train y_train x_test y_test",
            "X_train y_train X_test y_test",
            "train_images train_labels test_images test_labels",
            "train_x train_y valid_x valid_y",
            "trainX trainY testX testY",
            "XTrain YTrain XTest YTest",
            "xtrain ytrain xtest ytest",
            "TrainImages TrainLabels TestImages TestLabels",
            "train_data train_target test_data test_target",
            "training-data training-labels validation-data validation-labels",
            "train-imgs train-labels test-imgs test-labels",
        ] {
            let n: Vec<&str> = names.split(' ').collect();
            assert_eq!(found(names), [format!(": {} {} | {} {}", n[0], n[1], n[2], n[3])], "{names}");
        }
        for names in ["x y", "X Y", "images labels", "Image Label", "data target", "features classes"] {
            assert_eq!(found(names), [format!(": {names} | -")], "{names}");
        }
        // Of scikit-learn's arrays the pictures with sides, and not the names of the classes.
        assert_eq!(found("data images target target_names DESCR"), [": images target | -"]);
        assert_eq!(found("val_x val_y test_x test_y train_x train_y"), [": train_x train_y | test_x test_y"]);
        assert_eq!(
            found("k49-train-imgs k49-train-labels kmnist-train-imgs kmnist-train-labels"),
            ["k49: k49-train-imgs k49-train-labels | -", "kmnist: kmnist-train-imgs kmnist-train-labels | -"]
        );
        assert_eq!(found("train_image_labels train_images"), [": train_images train_image_labels | -"]);
        assert_eq!(found("a b notes"), Vec::<String>::new());
        let unlabelled = sets(&["x_train", "y_train", "x_test"]).0.remove(0);
        assert_eq!((unlabelled.test, unlabelled.unlabelled, unlabelled.unused), (None, Some(2), vec![]));
        // Labels belong to the pictures of the same word, and what is not read is told.
        let set = sets(&["x_test", "x_val", "y_val", "x_train", "y_train"]).0.remove(0);
        assert_eq!((set.test, set.unused), (Some([1, 2]), vec![0]));
        for (names, lacks) in [
            (&["x_train", "x_test"][..], "x_train, x_test found, labels missing"),
            (&["labels"], "labels found, pictures missing"),
            (&["x_test", "y_test"], "x_test, y_test found, pictures and labels to train on missing"),
            (&["x", "y", "y_test"], "y_test found, its pictures missing"),
        ] {
            assert_eq!(sets(names), (vec![], vec![lacks.to_owned()]));
        }
        assert_eq!(labels_of("digits", &["labels", "digits", "digits_labels"]), Some(2));
        assert_eq!(labels_of("own", &["labels", "own"]), Some(0));
        assert_eq!(labels_of("own", &["own"]), None);
    }
}
