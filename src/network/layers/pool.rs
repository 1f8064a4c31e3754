//! Pooling: windows over pictures and series, and means of whole channels.

use serde::{Deserialize, Serialize};

use super::{Kind, Outcome, Site, Size, is_false, is_true, is_zero, yes};
use crate::error::Result;
use crate::network::Shape;

fn zero() -> Size {
    Size::ZERO
}

/// Pooling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool2d {
    /// Size of the windows.
    pub kernel: Size,
    /// Distance of neighbouring windows; the windows' size where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<Size>,
    /// Cells added on each side.
    #[serde(default = "zero", skip_serializing_if = "Size::is_zero")]
    pub padding: Size,
    /// Whether the output's size is rounded up, so that every cell of the input lies in a window.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ceil: bool,
    /// Whether a mean counts the padding.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub count_padding: bool,
}

impl Pool2d {
    /// Square windows side by side.
    pub fn new(kernel: usize) -> Pool2d {
        let kernel = Size([kernel, kernel]);
        Pool2d { kernel, stride: None, padding: Size::ZERO, ceil: false, count_padding: true }
    }
}

/// Pooling over the columns of a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool1d {
    /// Length of the windows.
    pub kernel: usize,
    /// Distance of neighbouring windows; the windows' length where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Cells added at both ends.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub padding: usize,
}

impl Pool1d {
    /// The same over one row.
    pub fn two_dimensional(&self) -> Pool2d {
        Pool2d {
            kernel: Size([1, self.kernel]),
            stride: self.stride.map(|stride| Size([1, stride])),
            padding: Size([0, self.padding]),
            ceil: false,
            count_padding: true,
        }
    }
}

/// What becomes of the cells of a window.
#[derive(Clone, Copy)]
pub(in crate::network) enum Reduction {
    /// Their maximum.
    Max,
    /// Their mean.
    Average,
}

/// Pooling by the maximum or the mean.
pub(in crate::network) struct Windowed<'a>(pub Reduction, pub &'a Pool2d);

impl Kind for Windowed<'_> {
    fn title(&self) -> String {
        "pool".into()
    }

    fn describe(&self) -> String {
        let Windowed(reduction, p) = self;
        let mut text = match reduction {
            Reduction::Max => format!("max pool {}", p.kernel),
            Reduction::Average => format!("average pool {}", p.kernel),
        };
        text += &p.stride.unwrap_or(p.kernel).extra("stride", p.kernel);
        text += &p.padding.extra("padding", Size::ZERO);
        text
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        let Windowed(_, p) = self;
        let stride = p.stride.unwrap_or(p.kernel);
        at.within("kernel", 1, &p.kernel.0)?;
        at.within("stride", 1, &stride.0)?;
        if p.padding.0.iter().zip(&p.kernel.0).any(|(pad, kernel)| 2 * pad > *kernel) {
            return Err(at.wrong("the padding is more than half of the window".into()));
        }
        let side = |d: usize, size: usize| {
            let room = (size + 2 * p.padding.0[d])
                .checked_sub(p.kernel.0[d])
                .ok_or_else(|| at.wrong(format!("its window is larger than the input {}", at.input)))?;
            if !p.ceil {
                return Ok(room / stride.0[d] + 1);
            }
            let windows = room.div_ceil(stride.0[d]) + 1;
            // As in PyTorch, the last window must start within the input or the padding before it.
            Ok(if (windows - 1) * stride.0[d] >= size + p.padding.0[d] { windows - 1 } else { windows })
        };
        Ok(Outcome::plain(Shape {
            height: side(0, at.input.height)?,
            width: side(1, at.input.width)?,
            ..at.input
        }))
    }
}

/// Pooling over a series by the maximum or the mean.
pub(in crate::network) struct Windowed1d<'a>(pub Reduction, pub &'a Pool1d);

impl Kind for Windowed1d<'_> {
    fn title(&self) -> String {
        "pool".into()
    }

    fn describe(&self) -> String {
        let Windowed1d(reduction, p) = self;
        // Sizes of one row lose their rows.
        Windowed(*reduction, &p.two_dimensional()).describe().replace("1×", "")
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        at.one_row()?;
        let pool = self.1.two_dimensional();
        // Both place their windows alike; complaints about these speak of the maximum's.
        let windowed = Windowed(Reduction::Max, &pool);
        windowed.place(&mut at.under(&windowed))
    }
}

/// Means of so many windows, whatever the input's size.
pub(in crate::network) struct AdaptiveAverage(pub Size);

impl Kind for AdaptiveAverage {
    fn title(&self) -> String {
        "pool".into()
    }

    fn describe(&self) -> String {
        format!("average pool to {}", self.0)
    }

    fn slides(&self) -> bool {
        false
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        let Size(size) = self.0;
        at.within("size", 1, &size)?;
        if size[0] > at.input.height || size[1] > at.input.width {
            return Err(at.wrong(format!("the input {} is smaller", at.input)));
        }
        Ok(Outcome::plain(Shape { height: size[0], width: size[1], ..at.input }))
    }
}

/// The mean of each channel.
pub(in crate::network) struct GlobalAverage;

impl Kind for GlobalAverage {
    fn title(&self) -> String {
        "pool".into()
    }

    fn describe(&self) -> String {
        "global average pool".into()
    }

    fn slides(&self) -> bool {
        false
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        Ok(Outcome::plain(Shape { height: 1, width: 1, ..at.input }))
    }
}
