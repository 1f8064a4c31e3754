//! The header of an `.npy` file: a Python dictionary of type, order and shape.

/// What the header of an `.npy` file says.
pub(super) struct Header {
    pub(super) descr: String,
    /// Whether the first index moves fastest.
    pub(super) fortran: bool,
    pub(super) shape: Vec<usize>,
}

impl std::str::FromStr for Header {
    type Err = &'static str;

    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, its keys in any order.
    fn from_str(text: &str) -> Result<Header, &'static str> {
        let mut rest = text
            .trim()
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
            .ok_or("a dictionary")?
            .trim();
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            let value = after.trim_start().strip_prefix(':').ok_or("a colon after a key")?.trim_start();
            rest = match key {
                "descr" => {
                    let (text, after) = quoted(value).map_err(|_| "numbers of one type")?;
                    descr = Some(text.to_owned());
                    after
                }
                "fortran_order" => {
                    let (word, known) =
                        if value.starts_with("True") { ("True", true) } else { ("False", false) };
                    fortran = Some(known);
                    value.strip_prefix(word).ok_or("True or False as fortran_order")?
                }
                "shape" => {
                    let (list, after) = value
                        .strip_prefix('(')
                        .and_then(|value| value.split_once(')'))
                        .ok_or("a list of sizes as shape")?;
                    let sizes = list.trim().strip_suffix(',').unwrap_or(list.trim()).trim();
                    let sizes: Option<Vec<usize>> = match sizes {
                        "" => Some(Vec::new()),
                        sizes => sizes
                            .split(',')
                            // A large size of Python 2 ends in L.
                            .map(|size| size.trim().trim_end_matches('L').parse().ok())
                            .collect(),
                    };
                    shape = Some(sizes.ok_or("whole numbers as shape")?);
                    after
                }
                _ => return Err("the keys descr, fortran_order and shape"),
            }
            .trim_start();
            rest = match rest.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if rest.is_empty() => rest,
                None => return Err("a comma between two entries"),
            };
        }
        match (descr, fortran, shape) {
            (Some(descr), Some(fortran), Some(shape)) => Ok(Header { descr, fortran, shape }),
            _ => Err("descr, fortran_order and shape"),
        }
    }
}

/// A text in quotes, and what follows it.
fn quoted(text: &str) -> Result<(&str, &str), &'static str> {
    let quote = text.chars().next().filter(|mark| ['\'', '"'].contains(mark)).ok_or("a name in quotes")?;
    text[1..].split_once(quote).ok_or("a quote at a name's end")
}
