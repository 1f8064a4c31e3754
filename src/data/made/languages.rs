//! `languages`: phrases of common words in six languages.

use rand_pcg::{
    Pcg64Mcg,
    rand_core::{Rng, SeedableRng},
};

use crate::data::formats::text;
use crate::data::split::{Split, held_out_alone};
use crate::error::Result;

/// The words of each language.
const LANGUAGES: [(&str, &str); 6] = [
    ("Dutch", include_str!("../../../assets/words/dutch.txt")),
    ("English", include_str!("../../../assets/words/english.txt")),
    ("French", include_str!("../../../assets/words/french.txt")),
    ("German", include_str!("../../../assets/words/german.txt")),
    ("Italian", include_str!("../../../assets/words/italian.txt")),
    ("Spanish", include_str!("../../../assets/words/spanish.txt")),
];

/// `languages`: 6000 and 1000 phrases of three to five random words of one language of six, as many of each: in
/// which language are they?
///
/// The words are common ones, 270 to 300 of each language. One in [`HELD_OUT`](crate::data::HELD_OUT) is kept for the
/// test, whose phrases have no word that the training part has in that language. The same on every machine.
///
/// # Errors
///
/// None in practice; the type is that of all data.
pub fn languages() -> Result<Split> {
    let mut random = Pcg64Mcg::seed_from_u64(0x6c61_6e67);
    let mut part = |count: usize, test: bool| {
        let words = LANGUAGES.map(|(_, text)| {
            let mut words: Vec<&str> =
                text.split_whitespace().filter(|word| held_out_alone(word.as_bytes()) == test).collect();
            words.sort_unstable();
            words.dedup();
            words
        });
        (0..count)
            .map(|i| {
                let language = i % LANGUAGES.len();
                let words = &words[language];
                let phrase: Vec<&str> = (0..3 + random.next_u32() % 3)
                    .map(|_| words[((u64::from(random.next_u32()) * words.len() as u64) >> 32) as usize])
                    .collect();
                (LANGUAGES[language].0.to_owned(), phrase.join(" "))
            })
            .collect::<Vec<_>>()
    };
    let (train, test) = (part(6000, false), part(1000, true));
    text::texts("languages", ["languages"; 2], [&train, &test])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::formats::text::decode;
    use crate::data::{Dataset, Encoding};

    #[test]
    fn languages_are_balanced_and_keep_words_for_the_test() {
        let Split { train, test, .. } = languages().unwrap();
        assert_eq!((train.len(), test.len(), train.classes), (6000, 1000, 6));
        assert_eq!(train.class_names, ["Dutch", "English", "French", "German", "Italian", "Spanish"]);
        assert!((0..6).all(|class| train.labels.iter().filter(|&&label| label == class).count() == 1000));
        let Encoding::Text { alphabet } = &train.encoding else { panic!() };
        let words = |data: &Dataset| {
            let mut words = std::collections::BTreeSet::new();
            for i in 0..data.len() {
                let text = decode(data.picture(i), alphabet, data.width);
                // The last word may be cut where the test's phrases are longer.
                let text =
                    if text.chars().count() == data.width { text.rsplit_once(' ').unwrap().0 } else { &text };
                words.extend(text.split(' ').map(|word| (data.labels[i], word.to_owned())));
            }
            words
        };
        let (learnt, asked) = (words(&train), words(&test));
        assert!(learnt.len() > 1200 && asked.len() > 200, "{} {}", learnt.len(), asked.len());
        assert_eq!(learnt.intersection(&asked).collect::<Vec<_>>(), Vec::<&(u8, String)>::new());
        assert_eq!(languages().unwrap().test, test);
    }
}
