//! The device that tiles and splits are chosen for, in figures.

use super::{MOST_GROUPS, MOST_PARTIALS};

/// What a device is like, as far as a plan's tiles and splits depend on it. A model by the kind of device, not a
/// measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Invocations that fill the device: tiles are cut up and sums are split until there are so many.
    pub fill: usize,
    /// The multiply-adds that cost as much as a load.
    pub load: usize,
    /// Bytes of memory that a workgroup may share.
    pub memory: usize,
    /// Workgroups that a row of a grid may have, at least 2: what is more makes further rows.
    pub row: usize,
}

/// How a sum over the rows of some blocks of images is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Partial sums by blocks.
    pub blocks: usize,
    /// Partial sums by rows of each of them.
    pub rows: usize,
    /// Invocations of a workgroup that share the rows of a partial sum: 1, 2 or 4.
    pub shares: usize,
}

impl Parts {
    /// Partial sums.
    pub fn splits(&self) -> usize {
        self.blocks * self.rows
    }
}

/// All the workgroup memory that WebGPU promises.
const MEMORY: usize = 16 << 10;

impl Target {
    /// A CPU, by its twins or by a software adapter, which loads lane by lane.
    pub const CPU: Target = Target { fill: 256, load: 13, memory: MEMORY, row: MOST_GROUPS };

    /// A GPU that shares the CPU's memory.
    pub const INTEGRATED: Target = Target { fill: 4_096, load: 4, memory: MEMORY, row: MOST_GROUPS };

    /// A GPU with memory of its own.
    pub const DISCRETE: Target = Target { fill: 16_384, load: 4, memory: MEMORY, row: MOST_GROUPS };

    /// A device that `fill` invocations fill, in all else like the largest of the three above that is no larger.
    pub fn filled_by(fill: usize) -> Target {
        let like = [Target::DISCRETE, Target::INTEGRATED].into_iter().find(|like| like.fill <= fill);
        Target { fill, ..like.unwrap_or(Target::CPU) }
    }

    /// How a sum over the rows of some blocks of images is split, each of whose parts is so many invocations: until
    /// the device is filled. Invocations that share a workgroup's memory come first, which leave nothing to add up;
    /// then blocks, evenly where that is possible; then rows.
    pub(crate) fn parts(&self, invocations: usize, blocks: usize, rows: usize) -> Parts {
        if !self.fine() {
            return Parts { blocks: (self.fill / invocations).clamp(1, blocks), rows: 1, shares: 1 };
        }
        let wanted = self.fill.div_ceil(invocations);
        let shares = [4, 2].into_iter().find(|&shares| shares <= rows.min(wanted)).unwrap_or(1);
        let splits = wanted.div_ceil(shares).min(MOST_PARTIALS);
        let even = (splits..=blocks.min(MOST_PARTIALS)).find(|n| blocks.is_multiple_of(*n));
        let blocks = even.filter(|&n| n <= 2 * splits).unwrap_or(splits.min(blocks));
        Parts { blocks, rows: (splits / blocks).clamp(1, (rows / shares).max(1)), shares }
    }

    /// A grid whose rows are all alike: of each kind of workgroups each row has as many as any other, the last some
    /// that have nothing to do. Gives the grid, and its rows for `GRID_ROWS`, of which there are as few as may be.
    ///
    /// Layers are not folded: the largest batch has 4,096 blocks of images, and sums are split no further than by
    /// those or than fills a device.
    pub(crate) fn grid<const KINDS: usize>(
        &self,
        groups: [usize; KINDS],
        layers: usize,
    ) -> ([usize; 3], usize) {
        let most = self.row.max(KINDS);
        let across = |rows: usize| groups.iter().map(|n| n.div_ceil(rows)).sum::<usize>();
        let mut rows = across(1).div_ceil(most).max(1);
        while across(rows) > most {
            rows += 1;
        }
        ([across(rows), rows, layers], rows)
    }

    /// Whether idle invocations cost more than loads that are made twice and barriers do: then tiles become as small,
    /// and sums are split as far, as it takes to fill the device.
    pub(crate) fn fine(&self) -> bool {
        self.load < Target::CPU.load
    }
}

impl Default for Target {
    fn default() -> Target {
        Target::CPU
    }
}

#[cfg(test)]
mod tests {
    use super::{Parts, Target};

    #[test]
    fn a_fill_is_like_the_named_device_below_it() {
        for named in [Target::CPU, Target::INTEGRATED, Target::DISCRETE] {
            assert_eq!(Target::filled_by(named.fill), named);
        }
        assert_eq!(Target::filled_by(1), Target { fill: 1, ..Target::CPU });
        assert_eq!(Target::filled_by(4_095), Target { fill: 4_095, ..Target::CPU });
        assert_eq!(Target::filled_by(5_000), Target { fill: 5_000, ..Target::INTEGRATED });
        assert_eq!(Target::filled_by(1 << 20), Target { fill: 1 << 20, ..Target::DISCRETE });
        assert!(!Target::CPU.fine() && Target::INTEGRATED.fine() && Target::DISCRETE.fine());
    }

    #[test]
    fn a_sum_is_split_until_the_device_is_filled() {
        let parts = |blocks, rows, shares| Parts { blocks, rows, shares };
        let gpu = Target { fill: 1000, ..Target::DISCRETE };
        // Enough by itself, by sharing, by even blocks, by blocks, by rows; and more than there is.
        assert_eq!(gpu.parts(1000, 8, 8), parts(1, 1, 1));
        assert_eq!(gpu.parts(250, 8, 8), parts(1, 1, 4));
        assert_eq!(gpu.parts(84, 8, 8), parts(4, 1, 4));
        assert_eq!(gpu.parts(84, 7, 8), parts(3, 1, 4));
        assert_eq!(gpu.parts(42, 2, 16), parts(2, 3, 4));
        assert_eq!(gpu.parts(42, 2, 3), parts(2, 1, 2));
        assert_eq!(gpu.parts(10, 1, 1), parts(1, 1, 1));
        assert_eq!(gpu.parts(1, 1 << 10, 1 << 10).splits(), super::MOST_PARTIALS);
        // A CPU has few invocations to fill, and only blocks to give them.
        assert_eq!(Target::CPU.parts(48, 8, 8), parts(5, 1, 1));
        assert_eq!(Target::CPU.parts(16, 8, 8), parts(8, 1, 1));
    }

    #[test]
    fn a_grid_has_as_few_rows_as_may_be() {
        let grid = |groups| Target::DISCRETE.grid([groups], 3);
        assert_eq!(grid(65_535), ([65_535, 1, 3], 1));
        assert_eq!(grid(65_536), ([32_768, 2, 3], 2));
        assert_eq!(grid(65_535 * 2 + 1), ([43_691, 3, 3], 3));
        // Each kind has as many in every row.
        let both = |groups| Target::DISCRETE.grid(groups, 1);
        assert_eq!(both([40_000, 25_535]), ([65_535, 1, 1], 1));
        assert_eq!(both([40_001, 25_535]), ([32_769, 2, 1], 2));
        assert_eq!(both([65_535, 65_535]), ([43_690, 3, 1], 3));
        let narrow = |row| Target { row, ..Target::CPU }.grid([5, 4], 1);
        assert_eq!(narrow(9), ([9, 1, 1], 1));
        assert_eq!(narrow(4), ([4, 3, 1], 3));
        // No row is narrower than its kinds.
        assert_eq!(narrow(0), ([2, 5, 1], 5));
    }
}
