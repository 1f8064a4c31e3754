//! What the names of files and folders say: which part of the data, and what is none of it.

/// A part of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// What to learn from.
    Train,
    /// What to be judged by.
    Test,
}

/// The words for the part to learn from, lower case.
const TRAIN: [&str; 2] = ["train", "training"];

/// The words for the part to be judged by: of several parts the first in this order is read.
const TEST: [&str; 6] = ["test", "testing", "t10k", "val", "valid", "validation"];

/// The part that a word in lower case stands for, and its place among the words for it.
pub(super) fn side(word: &str) -> Option<(Side, usize)> {
    let place = |words: &[&str]| words.iter().position(|known| *known == word);
    place(&TRAIN).map(|at| (Side::Train, at)).or_else(|| place(&TEST).map(|at| (Side::Test, at)))
}

/// The words for both parts.
pub(super) fn sides() -> impl Iterator<Item = &'static str> {
    TRAIN.into_iter().chain(TEST)
}

/// The words of a name in lower case: signs part them, and a capital letter begins one (`trainX`, `XTrain`).
pub(super) fn words(name: &str) -> Vec<String> {
    let letters: Vec<char> = name.chars().collect();
    let mut words = vec![String::new()];
    for (i, &letter) in letters.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| letters[i]);
        let follows = letters.get(i + 1).is_some_and(|next| next.is_lowercase());
        let begins = letter.is_uppercase()
            && before.is_some_and(|before| before.is_lowercase() || (before.is_uppercase() && follows));
        if !letter.is_alphanumeric() || begins {
            words.push(String::new());
        }
        if letter.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Whether a name is of what systems and programs leave in a folder, or of what is written about data.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn is_left_behind(name: &str, is_folder: bool) -> bool {
    const EITHER: [&str; 9] = [
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "__macosx",
        "__pycache__",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "@eadir",
    ];
    let lower = name.to_lowercase();
    let about = ["readme", "license", "licence", "copying"].iter().any(|start| lower.starts_with(start));
    lower.starts_with('.') || EITHER.contains(&lower.as_str()) || (about && !is_folder)
}

/// Names in a row, the first few of many.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.len() {
        0..=8 => names.join(", "),
        many => format!("{} and {} more", names[..8].join(", "), many - 8),
    }
}

/// A number of things: `1 file`, `2 files`.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fall_into_words() {
        for (name, words_of) in [
            ("x_train", "x train"),
            ("trainX", "train x"),
            ("XTrain", "x train"),
            ("X_TRAIN", "x train"),
            ("emnist-letters-train-images.idx3-ubyte (1).gz", "emnist letters train images idx3 ubyte 1 gz"),
            ("T10K-Images", "t10k images"),
            ("--", ""),
            ("ÄpfelBirnen", "äpfel birnen"),
        ] {
            assert_eq!(words(name).join(" "), words_of, "{name}");
        }
        assert_eq!(side("training"), Some((Side::Train, 1)));
        assert_eq!((side("valid"), side("tests")), (Some((Side::Test, 4)), None));
    }

    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    fn what_is_left_behind_is_known() {
        for name in [".DS_Store", "._a.png", "Thumbs.db", "__MACOSX", "README.md", "LICENSE", "desktop.ini"] {
            assert!(is_left_behind(name, false), "{name}");
        }
        assert!(!is_left_behind("readme", true) && !is_left_behind("a.png", false));
    }

    #[test]
    fn many_names_are_cut_short() {
        assert_eq!(listed(["a", "b"]), "a, b");
        assert_eq!(listed(["a"; 10]), "a, a, a, a, a, a, a, a and 2 more");
    }
}
