//! Grey levels as real numbers, and what is done to all of them: means, extremes, a smaller and a larger picture.

use image::GrayImage;

/// Grey levels of a picture, which may lie below 0 or above 255.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plane {
    pub(super) width: usize,
    pub(super) height: usize,
    /// `[height, width]` row-major.
    pub(super) values: Vec<f32>,
}

impl Plane {
    /// Means of squares of `factor` pixels a side, those at the right and lower edges of what there is.
    pub(super) fn of(picture: &GrayImage, factor: usize) -> Plane {
        let (columns, rows) = (picture.width() as usize, picture.height() as usize);
        let (width, height) = (columns.div_ceil(factor), rows.div_ceil(factor));
        let mut values = Vec::with_capacity(width * height);
        let mut sums = vec![0u32; width];
        for band in picture.as_raw().chunks(columns * factor) {
            sums.fill(0);
            for row in band.chunks(columns) {
                for (sum, cells) in sums.iter_mut().zip(row.chunks(factor)) {
                    *sum += cells.iter().map(|&value| u32::from(value)).sum::<u32>();
                }
            }
            let high = band.len() / columns;
            let wide = |x: usize| factor.min(columns - x * factor);
            values.extend(sums.iter().enumerate().map(|(x, &sum)| sum as f32 / (high * wide(x)) as f32));
        }
        Plane { width, height, values }
    }

    /// The same means of a plane.
    pub(super) fn reduced(&self, factor: usize) -> Plane {
        let (width, height) = (self.width.div_ceil(factor), self.height.div_ceil(factor));
        let mut values = vec![0.0; width * height];
        for (y, row) in self.values.chunks(self.width).enumerate() {
            for (x, cells) in row.chunks(factor).enumerate() {
                values[y / factor * width + x] += cells.iter().sum::<f32>();
            }
        }
        for (i, value) in values.iter_mut().enumerate() {
            let side = |at: usize, of: usize| factor.min(of - at * factor);
            *value /= (side(i % width, self.width) * side(i / width, self.height)) as f32;
        }
        Plane { width, height, values }
    }

    /// By how much a plane has to be reduced for neither side to be longer than `most`.
    pub(super) fn factor(width: usize, height: usize, most: usize) -> usize {
        width.max(height).div_ceil(most).max(1)
    }

    /// A plane that was reduced by `factor` at its old size again, by straight lines between the middles.
    pub(super) fn enlarged(&self, factor: usize, width: usize, height: usize) -> Plane {
        if factor == 1 {
            return self.clone();
        }
        let places = |to: usize, of: usize| -> Vec<(usize, usize, f32)> {
            (0..to)
                .map(|i| {
                    let at = ((i as f32 + 0.5) / factor as f32 - 0.5).clamp(0.0, (of - 1) as f32);
                    let low = at as usize;
                    (low, (low + 1).min(of - 1), at - low as f32)
                })
                .collect()
        };
        let (columns, rows) = (places(width, self.width), places(height, self.height));
        let mut values = Vec::with_capacity(width * height);
        for (top, bottom, down) in rows {
            let (top, bottom) = (&self.values[top * self.width..], &self.values[bottom * self.width..]);
            values.extend(columns.iter().map(|&(left, right, across)| {
                let mix = |row: &[f32]| row[left] + across * (row[right] - row[left]);
                let (above, below) = (mix(top), mix(bottom));
                above + down * (below - above)
            }));
        }
        Plane { width, height, values }
    }

    /// The plane with rows and columns exchanged.
    pub(super) fn turned(&self) -> Plane {
        let columns = (0..self.width).flat_map(|x| self.values[x..].iter().step_by(self.width).copied());
        Plane { width: self.height, height: self.width, values: columns.collect() }
    }

    /// Each row by itself: `of` gets a window of at most `2 * radius + 1` values.
    fn in_rows(&self, radius: usize, of: impl Fn(&[f32]) -> f32) -> Plane {
        let mut values = Vec::with_capacity(self.values.len());
        for row in self.values.chunks(self.width) {
            values.extend(
                (0..row.len()).map(|x| of(&row[x.saturating_sub(radius)..(x + radius + 1).min(row.len())])),
            );
        }
        Plane { values, ..*self }
    }

    /// First each row, then each column.
    fn in_both(&self, radius: usize, of: impl Fn(&[f32]) -> f32) -> Plane {
        self.in_rows(radius, &of).turned().in_rows(radius, &of).turned()
    }

    /// The plane without what is lighter than its surroundings and narrower than `2 * radius + 1` pixels.
    pub(super) fn opened(&self, radius: usize) -> Plane {
        let least = |window: &[f32]| window.iter().copied().fold(f32::INFINITY, f32::min);
        let most = |window: &[f32]| window.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        self.in_both(radius, least).in_both(radius, most)
    }

    /// The same where what reaches an edge goes on beyond it, so that a shadow there is as wide as any.
    pub(super) fn opened_beyond(&self, radius: usize) -> Plane {
        let inside = |at: usize, of: usize| at.saturating_sub(radius).min(of - 1);
        let (width, height) = (self.width + 2 * radius, self.height + 2 * radius);
        let at = |i: usize| {
            self.values[inside(i / width, self.height) * self.width + inside(i % width, self.width)]
        };
        let opened = Plane { width, height, values: (0..width * height).map(at).collect() }.opened(radius);
        let rows = opened.values.chunks(width).skip(radius).take(self.height);
        Plane { values: rows.flat_map(|row| &row[radius..radius + self.width]).copied().collect(), ..*self }
    }

    /// Means of squares of `2 * radius + 1` pixels a side.
    pub(super) fn blurred(&self, radius: usize) -> Plane {
        if radius == 0 {
            return self.clone();
        }
        self.in_both(radius, |window| window.iter().sum::<f32>() / window.len() as f32)
    }

    /// The median of what lies in squares of `2 * radius + 1` pixels a side, to whole levels of 0 to 255.
    pub(super) fn medians(&self, radius: usize) -> Plane {
        let levels: Vec<u8> = self.values.iter().map(|value| value.round() as u8).collect();
        let mut values = Vec::with_capacity(self.values.len());
        for y in 0..self.height {
            let rows = y.saturating_sub(radius)..(y + radius + 1).min(self.height);
            let (mut counts, mut total) = ([0u32; 256], 0);
            // From one pixel to the next a column comes in and another goes.
            let column = |x: usize| rows.clone().map(move |row| row * self.width + x);
            for x in 0..self.width + radius {
                if x < self.width {
                    column(x).for_each(|i| counts[usize::from(levels[i])] += 1);
                    total += rows.len() as u32;
                }
                if let Some(gone) = x.checked_sub(2 * radius + 1) {
                    column(gone).for_each(|i| counts[usize::from(levels[i])] -= 1);
                    total -= rows.len() as u32;
                }
                if x >= radius {
                    let mut below = 0;
                    let reaches = |count: &u32| {
                        below += count;
                        2 * below > total
                    };
                    values.push(counts.iter().position(reaches).unwrap_or(255) as f32);
                }
            }
        }
        Plane { values, ..*self }
    }

    /// By how much a place is darker, or else lighter, than what is on both sides of it, as far away as a sixth of the
    /// picture's longer side at most, in the direction where that is the most; 0 where it is not.
    pub(super) fn ridge(&self, at: usize, darker: bool) -> f32 {
        let (x, y) = (at % self.width, at / self.width);
        let side = self.width.max(self.height);
        let value = |right: isize, down: isize| {
            let x = x.saturating_add_signed(right).min(self.width - 1);
            let y = y.saturating_add_signed(down).min(self.height - 1);
            self.values[y * self.width + x]
        };
        let own = self.values[at];
        let mut most = 0.0_f32;
        for part in [48, 24, 12, 6] {
            let away = (side / part).max(1) as isize;
            for [right, down] in [[away, 0], [0, away], [away, away], [away, -away]] {
                let (one, other) = (value(right, down), value(-right, -down));
                most = most.max(if darker { one.min(other) - own } else { own - one.max(other) });
            }
        }
        most
    }

    /// The standard deviation of the grain: from the differences of neighbours, of which the median is no edge.
    pub(super) fn grain(&self) -> f32 {
        let rows = self.values.chunks(self.width);
        let mut differences: Vec<f32> =
            rows.flat_map(|row| row.windows(2).map(|pair| (pair[0] - pair[1]).abs())).collect();
        // The median of the absolute values of a normal distribution is 0.6745 of its deviation.
        if differences.is_empty() { 0.0 } else { median(&mut differences) / (0.6745 * 2.0_f32.sqrt()) }
    }
}

/// The median, of an even number the upper one; 0 of none.
pub(super) fn median(values: &mut [f32]) -> f32 {
    let middle = values.len() / 2;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(middle, f32::total_cmp).1 }
}
