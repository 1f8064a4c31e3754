//! A data set of the pictures in folders.

use std::path::Path;

use super::files::{Entry, Pictures, decoded, entries};
use super::layout::{Content, Layout, layout, near};
use crate::data::classes::{Classes, Label};
use crate::data::dataset::Encoding;
use crate::data::input::refuse;
use crate::data::names::{counted, listed};
use crate::data::split::{Split, held_out};
use crate::error::{Error, Result};

/// Loads pictures from `DIR/train/CLASS/` and `DIR/test/CLASS/`, or from `DIR/CLASS/` alone.
///
/// In place of `train` there may be `training`, and in place of `test` `testing`, `val`, `valid` or `validation`, in
/// any case, also with the same words before or behind both (`seg_train`, `seg_test`); of several the first in this
/// order is read. The classes are the names of the folders with pictures, numbers by their value, then words; pictures
/// are sorted by name within them. Without a test part, one picture in [`HELD_OUT`](crate::data::HELD_OUT) of each
/// class is it, by a hash of its file's name: almost always the same ones, whatever else is added.
///
/// What a file is, is told by its content. What systems and programs leave in folders, files beside the folders of
/// classes, and folders without a file are passed over, and a note counts them. All pictures have to be of one size,
/// unless `size`, a height and a width, asks for one: then each is cropped about its middle to that proportion and
/// scaled. If every picture is grey (red, green and blue are equal everywhere) there is one channel, else three planes.
/// Transparent parts are white. With `skip_damaged` files that are no pictures, or damaged ones, are left out.
///
/// # Errors
///
/// [`Error::Data`] when there are fewer than 2 or more than 256 classes, the test part has no picture, files are no
/// pictures, are damaged, larger than 64 MiB or 16384 pixels in a direction (all of them are counted), a picture is of
/// another size than the first, or a part comes to more than 2 GiB; [`Error::Io`] when a folder cannot be read.
pub fn load(dir: &Path, name: &str, size: Option<[usize; 2]>, skip_damaged: bool) -> Result<Split> {
    let refused = |message: String| refuse(dir.to_string_lossy(), message);
    let Some(layout) = layout(dir, true)? else {
        let told = near(dir)?.join("; ");
        return Err(refused(format!(
            "no folders of pictures found, expected train/CLASS/… or CLASS/…; {told}"
        )));
    };
    let (mut passed, mut empty) = (Vec::new(), Vec::new());
    let (train, test, mut notes) = match layout {
        Layout::Parts { train, test, notes } => {
            let Content { files, left, .. } = Content::of(dir)?;
            passed.extend(left.into_iter().chain(files));
            (train, test, notes)
        }
        Layout::Classes => (dir.to_owned(), None, Vec::new()),
    };
    let mut parts = vec![entries(&train, &mut passed, &mut empty)?];
    if let Some(test) = &test {
        parts.push(entries(test, &mut passed, &mut empty)?);
    }
    if let (Some(test), [_, pictures]) = (&test, &parts[..])
        && pictures.is_empty()
    {
        return Err(refuse(test.to_string_lossy(), "no picture for the test found, expected one at least"));
    }
    if !passed.is_empty() {
        let names = listed(passed.iter().map(String::as_str));
        let what = if passed.len() == 1 { "entry" } else { "entries" };
        notes.push(format!("passed over {} {what} that belong to no class: {names}", passed.len()));
    }
    if !empty.is_empty() {
        let names = listed(empty.iter().map(String::as_str));
        notes.push(format!("passed over {} without a picture: {names}", counted(empty.len(), "folder")));
    }
    let first = parts[0].len();
    let all: Vec<&Entry> = parts.iter().flatten().collect();
    let Pictures { pictures, height, width, note } = decoded(dir, &parts, size, skip_damaged)?;
    notes.extend(note);
    let (mut train_of, mut test_of): (Vec<_>, Vec<_>) = pictures.into_iter().partition(|(i, _)| *i < first);
    let mut drawn = None;
    if test.is_none() {
        let entries: Vec<&Entry> = train_of.iter().map(|(i, _)| all[*i]).collect();
        let mut held = drawn_of(&entries).into_iter();
        (test_of, train_of) = train_of.into_iter().partition(|_| held.next().unwrap_or(false));
        let below = |path: &Path| path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned();
        drawn = Some(test_of.iter().map(|(i, _)| below(&all[*i].path)).collect());
    }
    let [train_file, test_file] =
        [&train, test.as_ref().unwrap_or(&train)].map(|path| path.to_string_lossy().into_owned());
    let labels =
        |part: &[(usize, Vec<u8>)]| part.iter().map(|(i, _)| all[*i].class.as_str()).collect::<Vec<_>>();
    let (of_train, of_test) = (labels(&train_of), labels(&test_of));
    let (classes, mut numbers) =
        Classes::of(&[(&train_file, &of_train[..]), (&test_file, &of_test)], |name| Label::written(name))?;
    let colour = train_of.iter().chain(&test_of).any(|(_, picture)| picture.len() > height * width);
    let channels = if colour { 3 } else { 1 };
    let mut made = |file: String, part: Vec<(usize, Vec<u8>)>| {
        let mut images = Vec::with_capacity(part.len() * channels * height * width);
        for (_, picture) in part {
            images.extend(picture.repeat(channels * height * width / picture.len().max(1)));
        }
        let mut data = classes.dataset(name, [channels, height, width], images, numbers.remove(0))?;
        data.encoding = Encoding::Picture;
        Ok::<_, Error>((file, data))
    };
    let (train, test) = (made(train_file, train_of)?, made(test_file, test_of)?);
    Ok(Split { held_out: drawn, notes, ..Split::new(train, test)? })
}

/// Which of the pictures, in the order of their classes, are the test.
fn drawn_of(entries: &[&Entry]) -> Vec<bool> {
    let mut classes: Vec<usize> = Vec::with_capacity(entries.len());
    for (i, entry) in entries.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| (classes[i], &entries[i].class));
        classes.push(before.map_or(0, |(number, class)| number + usize::from(*class != entry.class)));
    }
    held_out(&classes, |i| {
        entries[i].path.file_name().unwrap_or_default().to_string_lossy().into_owned().into_bytes()
    })
}
