//! The lines of ruled and squared paper.

use super::plane::{Plane, median};

/// Parts that a line is followed through, from one edge to the other.
const PARTS: usize = 16;

/// Parts of a line that have to be there: what a digit hides or the light swallows may be missing.
const FOUND: usize = 14;

/// The least side of a picture in which lines are looked for, in pixels.
const LEAST: usize = 64;

/// Takes the lines off that run from edge to edge, a twenty-fifth of the shorter side wide at most, and fills the places
/// from above and below, or from both sides; says how strong they were, if there were any. What is `least` stronger
/// than its surroundings counts.
pub(super) fn without(ink: &Plane, least: f32) -> Option<(Plane, f32)> {
    if ink.width.min(ink.height) < LEAST {
        return None;
    }
    let across = Lines::find(ink, least);
    let turned = ink.turned();
    let down = Lines::find(&turned, least);
    let count = across.count + down.count;
    // One line alone may be a stroke: the bar of a seven, a one.
    if count == 0 || (count == 1 && across.widest.max(down.widest) * 60 > ink.width.min(ink.height)) {
        return None;
    }
    let mut levels = across.levels(ink);
    levels.extend(down.levels(&turned));
    let without = across.filled(ink);
    // A part of them lies under ink, a part was marked beside them.
    levels.sort_by(f32::total_cmp);
    let level = levels.get(levels.len() * 3 / 4).copied().unwrap_or_default();
    Some((down.filled(&without.turned()).turned(), level))
}

/// Lines that run across a picture.
struct Lines {
    /// Whether a row of a part belongs to one, `[PARTS, height]`.
    marked: Vec<bool>,
    count: usize,
    /// The width of the widest, in pixels.
    widest: usize,
}

/// The columns of a part.
fn columns(part: usize, width: usize) -> std::ops::Range<usize> {
    part * width / PARTS..(part + 1) * width / PARTS
}

impl Lines {
    fn find(ink: &Plane, least: f32) -> Lines {
        let (width, height) = (ink.width, ink.height);
        let most = ink.width.min(ink.height) / 25;
        // How much stronger each row of a part is than what is above and below, where that is wider than any line.
        let over: Vec<f32> = (0..PARTS)
            .flat_map(|part| {
                let columns = columns(part, width);
                let mean = |row: &[f32]| row[columns.clone()].iter().sum::<f32>() / columns.len() as f32;
                let means: Vec<f32> = ink.values.chunks(width).map(mean).collect();
                let part = Plane { width: height, height: 1, values: means };
                let ground = part.opened_beyond(most / 2 + 1);
                part.values
                    .into_iter()
                    .zip(ground.values)
                    .map(|(mean, ground)| mean - ground)
                    .collect::<Vec<_>>()
            })
            .collect();
        let over = |part: usize, y: usize| over[part * height + y];
        let mut marked = vec![false; PARTS * height];
        let mut slopes = Vec::new();
        for start in 0..height {
            // The paper may lie askew: from one part to the next a line rises or falls by a pixel or none.
            let mut path = [start; PARTS];
            for part in 1..PARTS {
                let from = path[part - 1];
                let around = [from, from.saturating_sub(1), (from + 1).min(height - 1)];
                // Of equals the first.
                let best = around.into_iter().rev().max_by(|&a, &b| over(part, a).total_cmp(&over(part, b)));
                path[part] = best.unwrap_or(from);
            }
            let there = |part: usize| over(part, path[part]) > least;
            let found = (0..PARTS).filter(|&part| there(part)).count();
            if found >= FOUND && there(0) && there(PARTS - 1) {
                (0..PARTS).for_each(|part| marked[part * height + path[part]] = true);
                slopes.push(path[PARTS - 1] as f32 - path[0] as f32);
            }
        }
        // Those that go over the upper or the lower edge are as steep as the others.
        let slope = if slopes.is_empty() { 0.0 } else { median(&mut slopes) / (PARTS - 1) as f32 };
        let beyond = (slope.abs() * PARTS as f32) as isize;
        for start in
            (-beyond..0).chain(height as isize - beyond..height as isize + beyond).filter(|_| beyond > 0)
        {
            let row = |part: usize| {
                let y = start as f32 + slope * part as f32;
                ((0.0..height as f32 - 0.5).contains(&y)).then(|| y.round() as usize)
            };
            let best = |part: usize| {
                let around = row(part).map(|y| y.saturating_sub(1)..(y + 2).min(height));
                around.and_then(|mut rows| rows.find(|&y| over(part, y) > least))
            };
            let inside = (0..PARTS).filter(|&part| row(part).is_some()).count();
            let found: Vec<(usize, usize)> =
                (0..PARTS).filter_map(|part| Some((part, best(part)?))).collect();
            if (3..PARTS).contains(&inside) && 8 * found.len() >= 7 * inside {
                found.into_iter().for_each(|(part, y)| marked[part * height + y] = true);
            }
        }
        // Rows side by side are one line; what is too wide is none.
        let (mut counts, mut widest) = (Vec::new(), 0);
        for part in marked.chunks_mut(height) {
            let mut count = 0;
            let mut y = 0;
            while y < height {
                let wide = part[y..].iter().take_while(|marked| **marked).count();
                if wide > most {
                    part[y..y + wide].fill(false);
                } else if wide > 0 {
                    count += 1;
                    widest = widest.max(wide);
                }
                y += wide.max(1);
            }
            counts.push(count);
        }
        counts.sort_unstable();
        Lines { marked, count: counts[PARTS / 2], widest }
    }

    /// How strong what belongs to the lines is.
    fn levels(&self, ink: &Plane) -> Vec<f32> {
        let rows = self.marked.chunks(ink.height).enumerate();
        rows.flat_map(|(part, marked)| {
            let rows = (0..ink.height).filter(|&y| marked[y]);
            rows.flat_map(move |y| ink.values[y * ink.width..][columns(part, ink.width)].iter().copied())
        })
        .collect()
    }

    /// The picture with what is above and below in place of the lines, and of a pixel on either side, which is soft.
    fn filled(&self, ink: &Plane) -> Plane {
        let (width, height) = (ink.width, ink.height);
        let mut filled = ink.clone();
        for (part, marked) in self.marked.chunks(height).enumerate() {
            let soft = |y: usize| (y.saturating_sub(1)..(y + 2).min(height)).any(|y| marked[y]);
            let mut y = 0;
            while y < height {
                let wide = (y..height).take_while(|&y| soft(y)).count();
                let (above, below) = (y.checked_sub(1), Some(y + wide).filter(|&y| y < height));
                for x in columns(part, width).filter(|_| wide > 0) {
                    let at = |y: usize| ink.values[y * width + x];
                    for row in 0..wide {
                        let share = (row + 1) as f32 / (wide + 1) as f32;
                        filled.values[(y + row) * width + x] = match (above, below) {
                            (Some(above), Some(below)) => at(above) + share * (at(below) - at(above)),
                            (Some(only), None) | (None, Some(only)) => at(only).min(0.0),
                            (None, None) => 0.0,
                        };
                    }
                }
                y += wide.max(1);
            }
        }
        filled
    }
}
