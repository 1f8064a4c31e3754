//! The pieces that ink makes: which belong to what was written, and which to the sheet.

/// Ink that hangs together, over corners, too.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    /// Pixels.
    pub(super) area: usize,
    /// Left, top, right and bottom, the last two exclusive.
    pub(super) bounds: [usize; 4],
    /// Pixels with ground beside, above or below.
    boundary: usize,
    /// Pixels near an edge of the picture.
    near_edge: usize,
    /// Whether it reaches an edge.
    on_edge: bool,
}

impl Piece {
    pub(super) fn width(&self) -> usize {
        self.bounds[2] - self.bounds[0]
    }

    pub(super) fn height(&self) -> usize {
        self.bounds[3] - self.bounds[1]
    }

    fn side(&self) -> usize {
        self.width().max(self.height())
    }

    /// Pixels without ink between two boxes, in the direction where there are more.
    fn gap(&self, other: &Piece) -> usize {
        let between = |axis: usize| {
            let [a, b] = [&self.bounds, &other.bounds];
            a[axis].saturating_sub(b[axis + 2]).max(b[axis].saturating_sub(a[axis + 2]))
        };
        between(0).max(between(1))
    }
}

/// The pieces of a picture.
pub(super) struct Pieces {
    width: usize,
    height: usize,
    /// The number of the piece that each pixel belongs to, from 1; 0 of none.
    labels: Vec<u32>,
    all: Vec<Piece>,
}

/// The part of the shorter side that is near an edge.
const EDGE: f32 = 0.12;

impl Pieces {
    /// Those of the pixels that are ink.
    pub(super) fn of(ink: &[bool], width: usize) -> Pieces {
        let height = ink.len() / width.max(1);
        let mut pieces = Pieces { width, height, labels: vec![0; ink.len()], all: Vec::new() };
        let margin = (width.min(height) as f32 * EDGE).ceil() as usize;
        let mut queue = Vec::new();
        for start in 0..ink.len() {
            if !ink[start] || pieces.labels[start] != 0 {
                continue;
            }
            let label = pieces.all.len() as u32 + 1;
            let mut piece =
                Piece { area: 0, bounds: [width, height, 0, 0], boundary: 0, near_edge: 0, on_edge: false };
            pieces.labels[start] = label;
            queue.push(start);
            while let Some(at) = queue.pop() {
                let (x, y) = (at % width, at / width);
                piece.area += 1;
                let [left, top, right, bottom] = piece.bounds;
                piece.bounds = [left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)];
                let away = x.min(y).min(width - 1 - x).min(height - 1 - y);
                piece.near_edge += usize::from(away < margin);
                piece.on_edge |= away == 0;
                let mut inside = true;
                for (near_x, near_y) in around(x, y, width, height) {
                    let near = near_y * width + near_x;
                    inside &= ink[near] || (near_x != x && near_y != y);
                    if ink[near] && pieces.labels[near] == 0 {
                        pieces.labels[near] = label;
                        queue.push(near);
                    }
                }
                piece.boundary += usize::from(!inside);
            }
            pieces.all.push(piece);
        }
        pieces
    }

    /// The parts of the sheet: its edges, what lies beside it, and frames around what is written on it.
    pub(super) fn of_the_sheet(&self) -> Vec<bool> {
        let edge = |piece: &Piece| {
            let spans = 10 * piece.width() >= 6 * self.width || 10 * piece.height() >= 6 * self.height;
            let share = piece.near_edge as f32 / piece.area as f32;
            let [left, top, right, bottom] = piece.bounds;
            let edges = [left == 0, top == 0, right == self.width, bottom == self.height];
            // A strip along a whole side, such as a shadow as dark as the ink, is fuller than any digit.
            let strip = edges.iter().filter(|edge| **edge).count() >= 3
                && 10 * piece.area > 8 * piece.width() * piece.height();
            strip || (piece.on_edge && (share > 0.95 || (spans && share > 0.7)))
        };
        let mut sheet: Vec<bool> = self.all.iter().map(edge).collect();
        for (number, piece) in self.all.iter().enumerate() {
            let [left, top, right, bottom] = piece.bounds;
            let inside = |other: &Piece| {
                let [l, t, r, b] = other.bounds;
                left < l && top < t && r < right && b < bottom && 8 * other.side() >= piece.side()
            };
            sheet[number] |= self.all.iter().any(inside) && self.is_hollow(number, 0.1, 0.97);
        }
        let long = |piece: &Piece| {
            let (length, width) = (piece.side(), piece.width().min(piece.height()));
            length >= 10 * width && 2 * length >= self.width.min(self.height)
        };
        for (number, piece) in self.all.iter().enumerate().filter(|(_, piece)| long(piece)) {
            // A line under or beside what is written; the pieces of a broken stroke go on in its direction.
            let beside = |other: &Piece| {
                let across = if piece.width() > piece.height() { other.height() } else { other.width() };
                6 * piece.side() > 5 * other.side()
                    && across >= 3 * piece.width().min(piece.height())
                    && 12 * other.side() >= self.width.min(self.height)
            };
            let others = self.all.iter().zip(&sheet).enumerate();
            sheet[number] |= others
                .filter(|(i, (_, sheet))| *i != number && !**sheet)
                .any(|(_, (other, _))| beside(other));
        }
        // What is all that there is was written, wherever it is.
        let rest = (self.all.iter().zip(&sheet)).filter(|(_, sheet)| !**sheet).map(|(piece, _)| piece);
        let least = self.width.min(self.height) / 12;
        if !rest.clone().any(|piece| piece.side() >= least) {
            sheet.fill(false);
        }
        sheet
    }

    /// Whether `share` of a piece's pixels lie in the outer part of its box.
    fn is_hollow(&self, number: usize, part: f32, share: f32) -> bool {
        let piece = &self.all[number];
        let [left, top, right, bottom] = piece.bounds;
        let (wide, high) = (piece.width() as f32 * part, piece.height() as f32 * part);
        let mut outer = 0;
        for y in top..bottom {
            for x in (left..right).filter(|x| self.labels[y * self.width + x] == number as u32 + 1) {
                let near = |at: usize, from: usize, to: usize, most: f32| {
                    ((at - from).min(to - 1 - at) as f32) < most
                };
                outer += usize::from(near(x, left, right, wide) || near(y, top, bottom, high));
            }
        }
        outer as f32 >= share * piece.area as f32
    }

    /// Of the pieces that are `left`, those that belong to one thing that was written: at least a twentieth of the
    /// largest, and not both small and far from it.
    pub(super) fn of_the_largest(&self, left: &[bool]) -> Vec<bool> {
        let pieces = || self.all.iter().zip(left).filter(|(_, left)| **left).map(|(piece, _)| piece);
        let Some(largest) = pieces().max_by_key(|piece| piece.area) else { return left.to_vec() };
        let belongs = |piece: &Piece| {
            20 * piece.area >= largest.area
                && (4 * piece.area >= largest.area || 10 * piece.gap(largest) <= 6 * largest.side())
        };
        self.all.iter().zip(left).map(|(piece, left)| *left && belongs(piece)).collect()
    }

    /// Of the pieces that are `left`, those that may be writing: at least a thirtieth of the largest.
    pub(super) fn of_the_line(&self, left: &[bool]) -> Vec<bool> {
        let pieces = || self.all.iter().zip(left);
        let largest = pieces().filter(|(_, left)| **left).map(|(piece, _)| piece.area).max().unwrap_or(0);
        pieces().map(|(piece, left)| *left && 30 * piece.area >= largest).collect()
    }

    /// What makes it doubtful that the pieces are one digit.
    pub(super) fn doubts(&self, kept: &[bool]) -> Vec<String> {
        let mut pieces: Vec<&Piece> =
            self.all.iter().zip(kept).filter(|(_, kept)| **kept).map(|(piece, _)| piece).collect();
        let Some(largest) = pieces.iter().copied().max_by_key(|piece| piece.area) else { return Vec::new() };
        let highest = pieces.iter().map(|piece| piece.height()).max().unwrap_or(0);
        let mut doubts = Vec::new();
        let apart = pieces.iter().any(|piece| 2 * piece.gap(largest) > largest.side());
        pieces.retain(|piece| 4 * piece.area >= largest.area && 2 * piece.height() >= highest);
        pieces.sort_by_key(|piece| piece.bounds[0]);
        let beside = |pair: &[&Piece]| pair[1].bounds[0] + 2 >= pair[0].bounds[2];
        let side_by_side = 1 + pieces.windows(2).filter(|pair| beside(pair)).count();
        if side_by_side > 1 {
            doubts.push(format!("{side_by_side} pieces of about one height side by side: several digits?"));
        } else if apart {
            doubts.push("the ink is in pieces far apart".into());
        }
        doubts
    }

    /// How wide the strokes of some pieces are, in pixels.
    pub(super) fn stroke(&self, kept: &[bool]) -> f32 {
        let kept = self.all.iter().zip(kept).filter(|(_, kept)| **kept);
        let (area, boundary) =
            kept.fold((0, 0), |(area, boundary), (piece, _)| (area + piece.area, boundary + piece.boundary));
        2.0 * area as f32 / boundary.max(1) as f32
    }

    /// Whether a pixel belongs to one of some pieces.
    pub(super) fn mask(&self, kept: &[bool]) -> Vec<bool> {
        let in_kept = |label: u32| label.checked_sub(1).is_some_and(|number| kept[number as usize]);
        self.labels.iter().map(|&label| in_kept(label)).collect()
    }

    pub(super) fn all(&self) -> &[Piece] {
        &self.all
    }
}

/// The pixels around one.
fn around(x: usize, y: usize, width: usize, height: usize) -> impl Iterator<Item = (usize, usize)> {
    let rows = y.saturating_sub(1)..(y + 2).min(height);
    rows.flat_map(move |near_y| (x.saturating_sub(1)..(x + 2).min(width)).map(move |near_x| (near_x, near_y)))
        .filter(move |&near| near != (x, y))
}

/// A mask with what is reached from it in `steps` steps through `open` pixels.
pub(super) fn grown(mask: &[bool], open: &[bool], width: usize, steps: usize) -> Vec<bool> {
    let height = mask.len() / width.max(1);
    let mut grown = mask.to_vec();
    let mut rim: Vec<usize> = (0..mask.len()).filter(|&i| mask[i]).collect();
    for _ in 0..steps {
        let mut next = Vec::new();
        for at in rim {
            for (x, y) in around(at % width, at / width, width, height) {
                let near = y * width + x;
                if open[near] && !grown[near] {
                    grown[near] = true;
                    next.push(near);
                }
            }
        }
        rim = next;
    }
    grown
}
