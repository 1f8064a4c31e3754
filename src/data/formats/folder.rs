//! Pictures in folders: one folder for each class, its name the name of the class.

/// The most bytes that a file of one picture may have: 64 MiB.
pub const MAX_FILE: u64 = 64 << 20;

/// The ends of names that are taken for pictures.
pub const EXTENSIONS: [&str; 7] = ["png", "jpg", "jpeg", "pnm", "pbm", "pgm", "ppm"];

/// Reads a size, `WIDTHxHEIGHT` or one number for both, in pixels: height and width.
pub fn parse_size(text: &str) -> Option<[usize; 2]> {
    let side = |text: &str| match text.parse() {
        Ok(side @ 1..=crate::data::picture::MAX_SIDE) if !text.starts_with('+') => Some(side as usize),
        _ => None,
    };
    let (width, height) = text.split_once('x').unwrap_or((text, text));
    Some([side(height)?, side(width)?])
}

#[cfg(not(target_arch = "wasm32"))]
pub use files::load;

#[cfg(not(target_arch = "wasm32"))]
mod files {
    use std::path::{Path, PathBuf};

    use rayon::prelude::*;

    use super::{EXTENSIONS, MAX_FILE};
    use crate::data::classes::Classes;
    use crate::data::dataset::Encoding;
    use crate::data::input::{MAX_CONTENT, extension, list, refuse};
    use crate::data::picture;
    use crate::data::split::{Split, held_out};
    use crate::error::{Error, Result};

    /// A picture's file and its class.
    type Entry = (PathBuf, u8);

    /// Loads pictures from `DIR/train/CLASS/` and `DIR/test/CLASS/`, or from `DIR/CLASS/` alone.
    ///
    /// The classes are the names of the folders of the training part, sorted; pictures are sorted by name within
    /// them. In place of `test` there may be `val`, `valid` or `validation`; of several the first in this order
    /// is read. Without a `train`, one picture in [`HELD_OUT`](crate::data::HELD_OUT) is the test part, by a hash
    /// of its file's name: always the same ones, whatever else is added.
    ///
    /// PNG, JPEG and PNM files are read; names that begin with a dot are passed over, and anything else is refused.
    /// All pictures have to be of one size, unless `size`, a height and a width, asks for one: then each is
    /// cropped about its middle to that proportion and scaled. If every picture is grey (red, green and blue are
    /// equal everywhere) there is one channel, else three planes. Transparent parts are white.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] when there are fewer than 2 or more than 256 classes, a class has no picture to train on, a
    /// class of the test part is unknown, a picture is damaged, larger than 64 MiB as a file or 16384 pixels in
    /// a direction, or of another size than the first, or a part comes to more than 2 GiB; [`Error::Io`] when
    /// a file cannot be read.
    pub fn load(dir: &Path, name: &str, size: Option<[usize; 2]>) -> Result<Split> {
        let whole = dir.join("train");
        let (names, train, test, files) = if whole.is_dir() {
            let other = ["test", "val", "valid", "validation"].map(|part| dir.join(part));
            let Some(other) = other.into_iter().find(|part| part.is_dir()) else {
                return Err(refuse(
                    dir.to_string_lossy(),
                    "a folder train found without a folder test or val",
                ));
            };
            let names = class_folders(&whole)?;
            let train = entries(&whole, &names)?;
            let unknown = class_folders(&other)?.into_iter().find(|class| !names.contains(class));
            if let Some(class) = unknown {
                return Err(refuse(
                    other.join(class).to_string_lossy(),
                    format!("a class found that is not in {}", whole.display()),
                ));
            }
            let test = entries(&other, &names)?;
            (names, train, test, [whole, other])
        } else {
            let names = class_folders(dir)?;
            let all = entries(dir, &names)?;
            let classes: Vec<usize> = all.iter().map(|(_, class)| usize::from(*class)).collect();
            let name = |i: usize| all[i].0.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut held = held_out(&classes, |i| name(i).into_bytes()).into_iter();
            let (test, train) = all.into_iter().partition(|_| held.next().unwrap_or(false));
            (names, train, test, [dir.to_owned(), dir.to_owned()])
        };
        let files = files.map(|path| path.to_string_lossy().into_owned());
        let classes = Classes::named(&files[0], names)?;
        for (class, name) in classes.names.iter().flatten().enumerate() {
            if !train.iter().any(|(_, label)| usize::from(*label) == class) {
                return Err(refuse(
                    format!("{}/{name}", files[0]),
                    "no picture to train on found, expected one at least",
                ));
            }
        }
        if test.is_empty() {
            return Err(refuse(files[1].as_str(), "no picture for the test found, expected one at least"));
        }
        let below = |path: &Path| path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned();
        let drawn: Vec<String> = test.iter().map(|(path, _)| below(path)).collect();
        let mut first = None;
        let parts = [decode(&train, size, &mut first)?, decode(&test, size, &mut first)?];
        let (height, width) = first.map_or((0, 0), |(_, size)| size);
        let colour = parts.iter().flatten().any(|picture| picture.len() > height * width);
        let channels = if colour { 3 } else { 1 };
        let [train, test] = [(train, &parts[0]), (test, &parts[1])].map(|(entries, pictures)| {
            let planes = |picture: &Vec<u8>| channels * height * width / picture.len().max(1);
            let images =
                pictures.iter().flat_map(|picture| picture.repeat(planes(picture))).collect::<Vec<_>>();
            let labels = entries.iter().map(|(_, label)| *label).collect();
            let mut data = classes.dataset(name, &files[0], [channels, height, width], images, labels)?;
            data.encoding = Encoding::Picture;
            Ok::<_, Error>(data)
        });
        let drawn = (files[0] == files[1]).then_some(drawn);
        let [train_file, test_file] = files;
        Ok(Split { held_out: drawn, ..Split::new((train_file, train?), (test_file, test?))? })
    }

    /// The folders in `dir`, sorted.
    fn class_folders(dir: &Path) -> Result<Vec<String>> {
        let mut names = list(dir)?;
        names.retain(|name| !name.starts_with('.'));
        if let Some(file) = names.iter().find(|name| !dir.join(name).is_dir()) {
            return Err(refuse(
                dir.join(file).to_string_lossy(),
                "a file found beside the folders, expected a folder for each class",
            ));
        }
        Ok(names)
    }

    /// The pictures of each class that has a folder in `dir`, with the class's number.
    fn entries(dir: &Path, names: &[String]) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        // More than 256 names are refused by the caller; none of them may be counted here.
        for (label, class) in (0..=u8::MAX).zip(names) {
            let folder = dir.join(class);
            if !folder.is_dir() {
                continue;
            }
            for file in list(&folder)? {
                if file.starts_with('.') {
                    continue;
                }
                let path = folder.join(&file);
                if !EXTENSIONS.contains(&extension(&file).as_str()) || !path.is_file() {
                    return Err(refuse(
                        path.to_string_lossy(),
                        format!("not a picture, expected a file that ends in {}", EXTENSIONS.join(", ")),
                    ));
                }
                entries.push((path, label));
            }
        }
        Ok(entries)
    }

    /// Decodes pictures to one plane where they are grey, else to three; `first` is the size that all have to have.
    fn decode(
        entries: &[Entry],
        size: Option<[usize; 2]>,
        first: &mut Option<(PathBuf, (usize, usize))>,
    ) -> Result<Vec<Vec<u8>>> {
        let read = |path: &PathBuf| {
            let file = path.to_string_lossy();
            let length = std::fs::metadata(path).map_err(Error::io(path))?.len();
            if length > MAX_FILE {
                return Err(refuse(file, format!("{length} bytes found, expected at most {MAX_FILE}")));
            }
            picture::read(&crate::files::read(path)?, size).map_err(|message| refuse(file, message))
        };
        let Some((path, _)) = entries.first() else { return Ok(Vec::new()) };
        if first.is_none() {
            let (_, height, width) = read(path)?;
            *first = Some((path.clone(), (height, width)));
        }
        let Some((like, (height, width))) = &*first else { return Ok(Vec::new()) };
        let bytes = (entries.len() as u64).saturating_mul(3 * (height * width) as u64);
        if bytes > MAX_CONTENT {
            return Err(refuse(
                path.to_string_lossy(),
                format!(
                    "{} pictures of {width}x{height} pixels found, expected at most {MAX_CONTENT} bytes of them; \
                     a smaller size can be asked for with DIR@WIDTHxHEIGHT",
                    entries.len()
                ),
            ));
        }
        entries
            .par_iter()
            .map(|(path, _)| {
                let (pixels, rows, columns) = read(path)?;
                if (rows, columns) != (*height, *width) {
                    return Err(refuse(
                        path.to_string_lossy(),
                        format!(
                            "{columns}x{rows} pixels found, expected {width}x{height} as in {}; \
                             DIR@WIDTHxHEIGHT scales all pictures to one size",
                            like.display()
                        ),
                    ));
                }
                Ok(pixels)
            })
            // Of several errors the one of the first picture is told, whichever thread finds it.
            .collect::<Vec<Result<_>>>()
            .into_iter()
            .collect()
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use std::path::Path;

    use image::{GrayImage, Luma, Rgb, RgbImage};

    use super::*;
    use crate::data::{Encoding, Split};

    fn grey(dir: &Path, name: &str, value: u8) {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_fn(3, 2, |x, y| Luma([value + (3 * y + x) as u8])).save(path).unwrap();
    }

    fn colour(dir: &Path, name: &str, width: u32, height: u32) {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, 100 + y as u8, 200])).save(path).unwrap();
    }

    fn load(dir: &Path, end: &str) -> Result<Split, String> {
        let path = dir.to_str().unwrap();
        crate::data::load(&format!("{path}{end}"))
            .map_err(|error| error.to_string().replace(path, "DIR").replace('\\', "/"))
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in [
            ("train/dog/b.png", 20),
            ("train/dog/a.pgm", 10),
            ("train/cat/x.png", 30),
            ("test/dog/1.png", 40),
            ("test/cat/2.png", 50),
        ] {
            grey(dir.path(), name, value);
        }
        dir
    }

    #[test]
    fn parts_and_classes_are_folders() {
        let dir = tree();
        std::fs::write(dir.path().join("train/.hidden"), "x").unwrap();
        std::fs::write(dir.path().join("train/dog/.hidden"), "x").unwrap();
        let Split { train, test, .. } = load(dir.path(), "").unwrap();
        assert_eq!((train.channels, train.height, train.width, train.classes), (1, 2, 3, 2));
        assert_eq!(
            (&train.class_names[..], &train.labels[..]),
            (&["cat".to_owned(), "dog".to_owned()][..], &[0, 1, 1][..])
        );
        assert_eq!(train.images, [30, 31, 32, 33, 34, 35, 10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25]);
        assert_eq!((test.picture(0)[0], test.labels, test.encoding), (50, vec![0, 1], Encoding::Picture));
        std::fs::rename(dir.path().join("test"), dir.path().join("val")).unwrap();
        assert_eq!(load(dir.path(), "").unwrap().test.labels, [0, 1]);
    }

    #[test]
    fn one_colour_picture_makes_three_planes() {
        let dir = tree();
        colour(dir.path(), "test/cat/3.png", 3, 2);
        // Colour by its kind, but grey in every pixel.
        RgbImage::from_pixel(3, 2, Rgb([7; 3])).save(dir.path().join("train/cat/y.png")).unwrap();
        let Split { train, test, .. } = load(dir.path(), "").unwrap();
        assert_eq!((train.channels, test.channels), (3, 3));
        assert_eq!(train.picture(0), [30, 31, 32, 33, 34, 35].repeat(3));
        assert_eq!(train.picture(1), [7; 18]);
        assert_eq!(
            test.picture(1),
            [0, 1, 2, 0, 1, 2, 100, 100, 100, 101, 101, 101, 200, 200, 200, 200, 200, 200]
        );
        std::fs::remove_file(dir.path().join("test/cat/3.png")).unwrap();
        assert_eq!(load(dir.path(), "").unwrap().train.channels, 1);
    }

    #[test]
    fn a_size_that_is_asked_for_is_made() {
        let dir = tree();
        colour(dir.path(), "train/cat/y.png", 40, 10);
        assert_eq!(
            load(dir.path(), "").unwrap_err(),
            "DIR/train/cat/y.png: 40x10 pixels found, expected 3x2 as in DIR/train/cat/x.png; \
             DIR@WIDTHxHEIGHT scales all pictures to one size"
        );
        let Split { train, .. } = load(dir.path(), "@8x4").unwrap();
        assert_eq!((train.channels, train.height, train.width), (3, 4, 8));
        // Cropped to 20x10 about the middle, then halved or so: red runs from 10 to 29.
        let red = &train.picture(1)[..8];
        assert!(red[0] >= 10 && red[7] <= 29 && red.is_sorted(), "{red:?}");
        assert_eq!(load(dir.path(), "@5").unwrap().test.picture(0).len(), 75);
        assert!(load(dir.path(), "@0x4").unwrap_err().contains("no such data"));
        for (text, size) in [
            ("32", Some([32, 32])),
            ("32x8", Some([8, 32])),
            ("", None),
            ("x", None),
            ("8x", None),
            ("+8", None),
            ("16385", None),
            ("8x8x8", None),
            ("-1", None),
        ] {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }

    #[test]
    fn one_in_six_is_held_out_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..120 {
            grey(dir.path(), &format!("{}/picture{i}.png", ["a", "b"][i % 2]), i as u8);
        }
        let first = load(dir.path(), "").unwrap();
        assert_eq!(first.train.len() + first.test.len(), 120);
        let of_class = |class| first.test.labels.iter().filter(|&&label| label == class).count();
        assert_eq!([of_class(0), of_class(1)], [10, 10]);
        assert!(
            first.held_out.iter().flatten().any(|file| file.starts_with("a/picture")),
            "{:?}",
            first.held_out
        );
        // Pictures that are added move few others.
        grey(dir.path(), "a/another.png", 200);
        grey(dir.path(), "b/one-more.png", 201);
        let second = load(dir.path(), "").unwrap();
        let values = |data: &crate::data::Dataset| {
            (0..data.len()).map(|i| data.picture(i)[0]).filter(|&v| v < 200).collect::<Vec<_>>()
        };
        let (before, after) = (values(&first.test), values(&second.test));
        assert!(before.iter().filter(|value| after.contains(value)).count() >= 18, "{before:?} {after:?}");
    }

    #[test]
    fn what_does_not_belong_is_refused() {
        let with = |change: &dyn Fn(&Path)| {
            let dir = tree();
            change(dir.path());
            load(dir.path(), "").unwrap_err()
        };
        assert_eq!(
            with(&|dir| std::fs::write(dir.join("train/dog/notes.txt"), "x").unwrap()),
            "DIR/train/dog/notes.txt: not a picture, expected a file that ends in png, jpg, jpeg, pnm, pbm, pgm, ppm"
        );
        assert_eq!(
            with(&|dir| std::fs::write(dir.join("train/notes.txt"), "x").unwrap()),
            "DIR/train/notes.txt: a file found beside the folders, expected a folder for each class"
        );
        assert_eq!(
            with(&|dir| std::fs::remove_dir_all(dir.join("test")).unwrap()),
            "DIR: a folder train found without a folder test or val"
        );
        assert_eq!(
            with(&|dir| grey(dir, "test/bird/1.png", 0)),
            "DIR/test/bird: a class found that is not in DIR/train"
        );
        assert_eq!(
            with(&|dir| std::fs::remove_dir_all(dir.join("train/dog")).unwrap()),
            "DIR/test/dog: a class found that is not in DIR/train"
        );
        assert_eq!(
            with(&|dir| std::fs::create_dir(dir.join("train/empty")).unwrap()),
            "DIR/train/empty: no picture to train on found, expected one at least"
        );
        assert_eq!(
            with(&|dir| {
                std::fs::remove_file(dir.join("test/cat/2.png")).unwrap();
                std::fs::remove_file(dir.join("test/dog/1.png")).unwrap();
            }),
            "DIR/test: no picture for the test found, expected one at least"
        );
        assert_eq!(
            with(&|dir| {
                for part in ["train", "test"] {
                    std::fs::remove_dir_all(dir.join(part).join("dog")).unwrap();
                }
            }),
            "DIR/train: 1 classes found, expected 2 to 256"
        );
        let message = with(&|dir| {
            let path = dir.join("test/dog/1.png");
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..40]).unwrap();
        });
        assert!(message.starts_with("DIR/test/dog/1.png: the picture cannot be decoded: "), "{message}");
        assert_eq!(
            with(&|dir| {
                let file = std::fs::File::create(dir.join("train/dog/c.png")).unwrap();
                file.set_len(MAX_FILE + 1).unwrap();
            }),
            "DIR/train/dog/c.png: 67108865 bytes found, expected at most 67108864"
        );
    }
}
