//! The parts of data: to learn from and to be judged by, the first, the last, so many of each class.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

use super::dataset::Dataset;
use super::input::refuse;
use crate::error::Result;

/// One image in this many is held out for the test where the data has no test part of its own.
pub const HELD_OUT: u64 = 6;

/// Data to learn from and data to be judged by; both have the same shape and classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// What to learn from.
    pub train: Dataset,
    /// What to be judged by.
    pub test: Dataset,
    /// Where the data has no test part of its own: which of its files or rows were drawn for it.
    pub held_out: Option<Vec<String>>,
    /// What was found and decided on the way, a line for each thing.
    pub notes: Vec<String>,
}

impl Split {
    /// Two parts as they are, of which there is nothing to say.
    pub fn of(train: Dataset, test: Dataset) -> Split {
        Split { train, test, held_out: None, notes: Vec::new() }
    }

    /// Puts two parts, each with the file it is from, together, which have to have images and be of one shape.
    pub(super) fn new(train: (String, Dataset), test: (String, Dataset)) -> Result<Split> {
        let ((train_file, train), (test_file, test)) = (train, test);
        for (file, data) in [(&train_file, &train), (&test_file, &test)] {
            if data.is_empty() {
                return Err(refuse(file.as_str(), "no image found, expected one at least"));
            }
        }
        if (test.channels, test.height, test.width) != (train.channels, train.height, train.width) {
            let planes = |data: &Dataset| match (train.channels, test.channels) {
                (1, 1) => String::new(),
                _ => format!(" in {} channels", data.channels),
            };
            return Err(refuse(
                test_file,
                format!(
                    "images of {}x{} pixels{} found, expected {}x{}{} as in {train_file}",
                    test.width,
                    test.height,
                    planes(&test),
                    train.width,
                    train.height,
                    planes(&train)
                ),
            ));
        }
        Ok(Split::of(train, test))
    }
}

impl Dataset {
    /// Keeps the first `n` images, or all if there are fewer.
    pub fn take(mut self, n: usize) -> Self {
        let n = n.min(self.len());
        self.images.truncate(n * self.pixels());
        self.labels.truncate(n * self.labels_per_image());
        self
    }

    /// A copy of the first `n` images, or of all if there are fewer.
    pub fn first(&self, n: usize) -> Self {
        let n = n.min(self.len());
        Dataset {
            images: self.images.part(0..n * self.pixels()),
            labels: self.labels[..n * self.labels_per_image()].to_vec(),
            name: self.name.clone(),
            class_names: self.class_names.clone(),
            encoding: self.encoding.clone(),
            ..*self
        }
    }

    /// The images of these numbers, in this order.
    ///
    /// # Panics
    ///
    /// When a number is not less than [`Dataset::len`], like the indexing of a slice.
    pub fn pick(&self, numbers: &[usize]) -> Self {
        let places = self.labels_per_image();
        let labels = numbers.iter().flat_map(|&i| &self.labels[i * places..][..places]).copied().collect();
        Dataset {
            images: self.images.pick(self.pixels(), numbers),
            labels,
            name: self.name.clone(),
            class_names: self.class_names.clone(),
            encoding: self.encoding.clone(),
            ..*self
        }
    }

    /// Draws `fraction` of the images as validation data by `seed`, of each class the same share as nearly as can be:
    /// `(train, validation, numbers)`, both in the order of this set, with the numbers of those that were drawn.
    ///
    /// The number of images is rounded to the nearest, but one at least of each class stays; a fraction outside 0 to 1
    /// is taken for the nearer bound, a NaN for 0. Images with maps of labels belong to no one class.
    pub fn hold_out(&self, fraction: f64, seed: u64) -> (Self, Self, Vec<usize>) {
        let places = self.labels_per_image();
        let class = |i: usize| if places > 1 { 0 } else { usize::from(self.labels[i]) };
        let mut of_class = vec![Vec::new(); self.classes];
        (0..self.len()).for_each(|i| of_class[class(i)].push(i));
        let drawn = stratified(&of_class.iter().map(Vec::len).collect::<Vec<_>>(), fraction);
        let mut numbers = Vec::new();
        // Not the stream of an epoch's order.
        let mut random = Pcg64Mcg::seed_from_u64(!seed);
        for (images, count) in of_class.iter_mut().zip(drawn) {
            shuffle(images, &mut random);
            numbers.extend_from_slice(&images[..count]);
        }
        numbers.sort_unstable();
        let mut left = numbers.iter().peekable();
        let rest: Vec<usize> = (0..self.len()).filter(|i| left.next_if_eq(&i).is_none()).collect();
        (self.pick(&rest), self.pick(&numbers), numbers)
    }

    /// Keeps the first `n` images of each class, in their order; of a class with fewer, all. Of images with maps of
    /// labels, which belong to no one class, it keeps `n` for each class there is.
    pub fn per_class(self, n: usize) -> Self {
        if self.labels_per_image() > 1 {
            let all = n.saturating_mul(self.classes);
            return self.take(all);
        }
        let mut taken = vec![0; self.classes];
        let kept = |i: &usize| {
            let taken = &mut taken[usize::from(self.labels[*i])];
            *taken += 1;
            *taken <= n
        };
        let numbers: Vec<usize> = (0..self.len()).filter(kept).collect();
        self.pick(&numbers)
    }
}

/// How many of each class are drawn, if `fraction` of all are: the whole parts of each class's share, then one more of
/// those with the largest rests; of no class all.
fn stratified(classes: &[usize], fraction: f64) -> Vec<usize> {
    let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
    let all: usize = classes.iter().sum();
    let share = |count: usize| count as f64 * fraction;
    let mut drawn: Vec<usize> = classes.iter().map(|&count| share(count) as usize).collect();
    let mut order: Vec<usize> = (0..classes.len()).collect();
    order.sort_by(|&a, &b| share(classes[b]).fract().total_cmp(&share(classes[a]).fract()).then(a.cmp(&b)));
    let left = (share(all).round() as usize).saturating_sub(drawn.iter().sum());
    order.into_iter().take(left).for_each(|class| drawn[class] += 1);
    drawn.iter().zip(classes).map(|(&drawn, &count)| drawn.min(count.saturating_sub(1))).collect()
}

/// Which of several, whose classes are given as numbers, go to the test part: of each class one in [`HELD_OUT`], those
/// whose `key` (their file's name, their place in a file) has the least sum. Two of a class are enough for one to go.
pub(super) fn held_out(classes: &[usize], key: impl Fn(usize) -> Vec<u8>) -> Vec<bool> {
    let mut order: Vec<(usize, u64, usize)> =
        classes.iter().enumerate().map(|(i, &class)| (class, hash(&key(i)), i)).collect();
    order.sort_unstable();
    let mut held = vec![false; classes.len()];
    for class in order.chunk_by(|a, b| a.0 == b.0) {
        let count = (class.len() as f64 / HELD_OUT as f64).round() as usize;
        let count = count.max(1).min(class.len() - 1);
        class[..count].iter().for_each(|&(.., i)| held[i] = true);
    }
    held
}

/// The same of what stands in a file in this order.
pub(super) fn drawn<T: Ord>(labels: &[T]) -> Vec<bool> {
    let mut classes = std::collections::BTreeMap::new();
    let number = |label| {
        let next = classes.len();
        *classes.entry(label).or_insert(next)
    };
    held_out(&labels.iter().map(number).collect::<Vec<_>>(), |i| i.to_string().into_bytes())
}

/// The places of those that are drawn, and of those that are not, as `[rest, drawn]`.
pub(super) fn places_of(drawn: &[bool]) -> [Vec<usize>; 2] {
    [false, true].map(|which| (0..drawn.len()).filter(|&i| drawn[i] == which).collect())
}

/// What a test part that was drawn is recorded as: what each is and its place.
pub(super) fn recorded(what: &str, drawn: &[usize]) -> Option<Vec<String>> {
    Some(drawn.iter().map(|i| format!("{what} {i}")).collect())
}

/// Whether one of several that belong to no class goes to the test part: one in [`HELD_OUT`].
pub(super) fn held_out_alone(key: &[u8]) -> bool {
    hash(key).is_multiple_of(HELD_OUT)
}

/// FNV-1a, then mixed: names that differ in their last digit differ in few bits of the sum, and MurmurHash3's finalizer
/// spreads them.
fn hash(key: &[u8]) -> u64 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// Puts things into an order that `random` decides.
pub(crate) fn shuffle<T>(things: &mut [T], random: &mut Pcg64Mcg) {
    for i in (1..things.len()).rev() {
        // The product's high half is uniform to within len / 2⁶⁴.
        let j = (u128::from(random.next_u64()) * (i as u128 + 1)) >> 64;
        things.swap(i, j as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Dataset {
        Dataset::new("small", [1, 1, 2], 3, (0..10).collect(), vec![0, 1, 2, 1, 0]).unwrap()
    }

    #[test]
    fn images_are_found_taken_and_split() {
        let data = small();
        assert_eq!((data.len(), data.is_empty(), data.pixels()), (5, false, 2));
        assert_eq!(data.picture(3), [6, 7]);
        assert_eq!(data.class_names, ["0", "1", "2"]);
        assert_eq!(data.clone().take(2).images.to_vec(), [0, 1, 2, 3]);
        assert_eq!(data.clone().take(2).labels, [0, 1]);
        assert_eq!(data.clone().take(9), data);
        let picked = data.pick(&[3, 0]);
        assert_eq!((picked.labels, picked.images.to_vec()), (vec![1, 0], vec![6, 7, 0, 1]));
    }

    #[test]
    fn validation_is_the_same_share_of_each_class_by_seed() {
        // Sorted as folders of classes are: 60, 30 and 10 of them.
        let labels: Vec<u8> = [vec![0; 60], vec![1; 30], vec![2; 10]].concat();
        let data = Dataset::new("sorted", [1, 1, 1], 4, (0..100).collect(), labels).unwrap();
        let count = |data: &Dataset| {
            [0, 1, 2, 3].map(|class| data.labels.iter().filter(|&&label| label == class).count())
        };
        let (train, validation, numbers) = data.hold_out(0.1, 7);
        assert_eq!((count(&train), count(&validation)), ([54, 27, 9, 0], [6, 3, 1, 0]));
        // Both keep the order of the file, and together they are all of it.
        assert!(
            numbers.is_sorted()
                && numbers.iter().zip(validation.images.to_vec()).all(|(&i, byte)| i == usize::from(byte))
        );
        let mut all = [train.images.to_vec(), validation.images.to_vec()].concat();
        assert!(train.images.to_vec().is_sorted());
        all.sort_unstable();
        assert_eq!(all, data.images.to_vec());
        // The seed decides, and nothing else.
        assert_eq!(data.hold_out(0.1, 7).2, numbers);
        assert!((8..30).all(|seed| data.hold_out(0.1, seed).2 != numbers));
        // Each is drawn sooner or later: 10 of 100 in 200 draws, with a deviation of 4.
        let mut drawn = [0; 100];
        (0..200).for_each(|seed| data.hold_out(0.1, seed).2.iter().for_each(|&i| drawn[i] += 1));
        assert!(drawn.iter().all(|count| (5..=38).contains(count)), "{drawn:?}");
        // The rests go where they are largest; one of a class always stays.
        assert_eq!(stratified(&[60, 30, 10, 0, 1], 0.15), [9, 5, 1, 0, 0]);
        assert_eq!(stratified(&[5, 5, 5], 0.3), [2, 2, 1]);
        for (fraction, drawn) in
            [(0.0, 0), (1.0, 97), (-1.0, 0), (7.0, 97), (f64::NAN, 0), (f64::INFINITY, 97)]
        {
            assert_eq!(data.hold_out(fraction, 0).2.len(), drawn, "{fraction}");
        }
    }

    #[test]
    fn maps_of_labels_stay_with_their_images() {
        let maps = |labels: Vec<u8>| {
            Dataset::segmented("maps", [1, 1, 2], 3, (0..6).collect::<Vec<_>>(), [2, 1], labels)
        };
        let data = maps(vec![0, 1, 2, 1, 0, 2]).unwrap();
        assert_eq!((data.len(), data.labels_per_image()), (3, 2));
        assert_eq!((small().label_size, small().labels_per_image()), ([1, 1], 1));
        let first = data.clone().take(1);
        assert_eq!((first.images.to_vec(), first.labels), (vec![0, 1], vec![0, 1]));
        let (train, validation, numbers) = data.hold_out(0.34, 0);
        assert_eq!((train.len(), numbers.len(), validation.label_size), (2, 1, [2, 1]));
        let i = numbers[0];
        assert_eq!(
            (validation.picture(0), &validation.labels[..]),
            (data.picture(i), &data.labels[2 * i..][..2])
        );

        assert_eq!(
            maps(vec![0; 5]).unwrap_err().to_string(),
            "maps: 5 labels found, expected whole maps of [2, 1] with no size zero"
        );
        assert_eq!(
            maps(vec![0; 4]).unwrap_err().to_string(),
            "maps: 6 bytes of pixels found, expected 2 images of shape [1, 1, 2] to go with the labels"
        );
        for size in [[0, 3], [usize::MAX, 2]] {
            assert!(Dataset::segmented("maps", [1, 1, 1], 3, vec![], size, vec![]).is_err());
        }
    }

    #[test]
    fn so_many_of_each_class_are_kept() {
        let data = Dataset::new("d", [1, 1, 2], 4, (0..14).collect(), vec![0, 2, 0, 1, 2, 0, 2]).unwrap();
        let few = data.clone().per_class(2);
        assert_eq!(few.labels, [0, 2, 0, 1, 2]);
        assert_eq!(few.images.to_vec(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(data.clone().per_class(1).images.to_vec(), [0, 1, 2, 3, 6, 7]);
        assert_eq!((data.clone().per_class(0).len(), data.clone().per_class(9)), (0, data));
    }

    #[test]
    fn one_in_six_of_each_class_is_held_out_by_its_name() {
        let classes: Vec<usize> = (0..600).map(|i| usize::from(i >= 60) + usize::from(i >= 597)).collect();
        let key = |i: usize| format!("image_{i:05}.png").into_bytes();
        let held = held_out(&classes, key);
        let count = |class| (0..600).filter(|&i| held[i] && classes[i] == class).count();
        assert_eq!([0, 1, 2].map(count), [10, 90, 1]);
        // Data that was split once stays split that way.
        let which: Vec<_> = (0..60).filter(|&i| held[i]).collect();
        assert_eq!(which, [7, 16, 17, 18, 20, 22, 39, 40, 42, 43]);
        assert_eq!(held_out(&[0, 1, 1], key).iter().filter(|&&held| held).count(), 1);
        let count = (0..60_000).filter(|i| held_out_alone(format!("word{i}").as_bytes())).count();
        assert!((9_500..10_500).contains(&count), "{count}");
    }
}
