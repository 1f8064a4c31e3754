//! Convolutions over pictures and series, their padding and their connection tables.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Kind, Outcome, Site, Size, is_one, is_true, one, yes};
use crate::error::Result;
use crate::network::Shape;

/// Zeros added on each side; in text a number, two, `"valid"` (none) or `"same"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Padding {
    /// So many rows and columns.
    Explicit(Size),
    /// By a word.
    Named(PaddingName),
}

/// Padding by a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaddingName {
    /// As much as keeps the size, which takes stride 1 and a filter that reaches over an odd number of pixels.
    Same,
    /// None.
    Valid,
}

impl Padding {
    /// No padding.
    pub const NONE: Padding = Padding::Explicit(Size::ZERO);
    /// The size stays.
    pub const SAME: Padding = Padding::Named(PaddingName::Same);

    fn is_none(&self) -> bool {
        *self == Padding::NONE
    }
}

impl Default for Padding {
    fn default() -> Padding {
        Padding::NONE
    }
}

/// Which input channels each output channel of a convolution sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Connections {
    /// A table by its name.
    Named(ConnectionTable),
    /// The input channels of each output channel.
    Lists(Vec<Vec<usize>>),
}

/// A connection table with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectionTable {
    /// Layer C3 of LeNet-5: 6 to 16 channels, 60 of the 96 pairs (LeCun et al. 1998, table I).
    #[serde(rename = "lenet5-c3")]
    Lenet5C3,
}

impl Connections {
    /// The input channels of each output channel.
    pub fn lists(&self) -> Vec<Vec<usize>> {
        match self {
            Connections::Lists(lists) => lists.clone(),
            Connections::Named(ConnectionTable::Lenet5C3) => {
                let run = |first: usize, n: usize| (0..n).map(|i| (first + i) % 6).collect::<Vec<_>>();
                let mut lists: Vec<_> = (0..6).map(|i| run(i, 3)).chain((0..6).map(|i| run(i, 4))).collect();
                // Two pairs of neighbours, opposite each other; the last sees everything.
                lists.extend((0..3).map(|i| vec![i, i + 1, (i + 3) % 6, (i + 4) % 6]));
                lists.push(run(0, 6));
                lists
            }
        }
    }
}

/// 2-D convolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// The name of its parameters; `conv1`, `conv2`, … where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Channels of its output.
    pub channels: usize,
    /// Size of the filters.
    pub kernel: Size,
    /// Distance of neighbouring outputs.
    #[serde(default, skip_serializing_if = "Size::is_one")]
    pub stride: Size,
    /// Zeros added on each side.
    #[serde(default, skip_serializing_if = "Padding::is_none")]
    pub padding: Padding,
    /// Distance of neighbouring taps.
    #[serde(default, skip_serializing_if = "Size::is_one")]
    pub dilation: Size,
    /// Groups of channels that do not see each other; as many as input channels make it depthwise.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub groups: usize,
    /// Which input channels each output channel sees; all of its group where none are given. Filters of pairs
    /// that are not connected are 0 and stay so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// Whether a bias is added.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub bias: bool,
}

impl Conv2d {
    /// A convolution with a square filter, its stride 1, without padding.
    pub fn new(channels: usize, kernel: usize) -> Conv2d {
        Conv2d {
            name: None,
            channels,
            kernel: Size([kernel, kernel]),
            stride: Size::ONE,
            padding: Padding::NONE,
            dilation: Size::ONE,
            groups: 1,
            connections: None,
            bias: true,
        }
    }

    /// Rows and columns of zeros added on each side.
    pub fn pad(&self) -> [usize; 2] {
        match self.padding {
            Padding::Explicit(Size(pad)) => pad,
            Padding::Named(PaddingName::Valid) => [0, 0],
            Padding::Named(PaddingName::Same) => [0, 1].map(|d| (self.reach(d) - 1) / 2),
        }
    }

    /// Pixels that a filter reaches over.
    fn reach(&self, d: usize) -> usize {
        self.dilation.0[d] * (self.kernel.0[d] - 1) + 1
    }
}

impl Kind for Conv2d {
    fn given(&self) -> Option<&String> {
        self.name.as_ref()
    }

    fn title(&self) -> String {
        "conv".into()
    }

    fn describe(&self) -> String {
        let mut text = format!("conv2d {}@{}", self.channels, self.kernel);
        text += &self.stride.extra("stride", Size::ONE);
        text += &match self.padding {
            Padding::Named(PaddingName::Same) => ", same size".into(),
            Padding::Named(PaddingName::Valid) => String::new(),
            Padding::Explicit(size) => size.extra("padding", Size::ZERO),
        };
        text += &self.dilation.extra("dilation", Size::ONE);
        if self.groups > 1 {
            text += &format!(", {} groups", self.groups);
        }
        if let Some(connections) = &self.connections {
            let pairs: usize = connections.lists().iter().map(Vec::len).sum();
            text += &format!(", {pairs} connections");
        }
        text
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        at.within("channels", 1, &[self.channels])?;
        at.within("kernel", 1, &self.kernel.0)?;
        at.within("stride", 1, &self.stride.0)?;
        at.within("dilation", 1, &self.dilation.0)?;
        if self.padding == Padding::SAME
            && (self.stride != Size::ONE || [0, 1].iter().any(|&d| self.reach(d).is_multiple_of(2)))
        {
            return Err(
                at.wrong("same padding takes stride 1 and an odd filter; give the padding as numbers".into())
            );
        }
        at.within("padding", 0, &self.pad())?;
        if self.groups == 0
            || !at.input.channels.is_multiple_of(self.groups)
            || !self.channels.is_multiple_of(self.groups)
        {
            return Err(at.wrong(format!(
                "{} groups do not divide {} input and {} output channels",
                self.groups, at.input.channels, self.channels
            )));
        }
        let side = |d: usize, size: usize| {
            let reach = self.reach(d);
            (size + 2 * self.pad()[d]).checked_sub(reach).map(|room| room / self.stride.0[d] + 1).ok_or_else(
                || at.wrong(format!("its filter reaches over {reach} pixels, the input is {}", at.input)),
            )
        };
        let output = Shape {
            channels: self.channels,
            height: side(0, at.input.height)?,
            width: side(1, at.input.width)?,
        };
        let weight = vec![self.channels, at.input.channels / self.groups, self.kernel.0[0], self.kernel.0[1]];
        at.sized(&weight)?;
        at.sized(&[output.channels, output.height, output.width])?;
        let taps: usize = self.kernel.0.iter().product();
        let mut list = at.parameters(weight, self.bias);
        let mut pairs = self.channels * (at.input.channels / self.groups);
        if let Some(connections) = &self.connections {
            let lists = connections.lists();
            let known = |list: &Vec<usize>| !list.is_empty() && list.iter().all(|&i| i < at.input.channels);
            if self.groups != 1 || lists.len() != self.channels || !lists.iter().all(known) {
                return Err(at.wrong(format!(
                    "its connections must be {} lists of input channels below {}, in one group",
                    self.channels, at.input.channels
                )));
            }
            let mut mask = vec![false; self.channels * at.input.channels];
            for (o, inputs) in lists.iter().enumerate() {
                inputs.iter().for_each(|&i| mask[o * at.input.channels + i] = true);
            }
            pairs = mask.iter().filter(|&&connected| connected).count();
            // The mean number of inputs decides how the filters start.
            let fan_in = (pairs * taps).div_ceil(self.channels);
            list[0].init = at.weight_init(fan_in);
            list[0].mask = Some(Arc::new(mask));
        }
        let multiply_adds = (pairs * taps) as u64 * (output.height * output.width) as u64;
        Ok(Outcome { parameters: list, multiply_adds, ..Outcome::plain(output) })
    }
}

/// 1-D convolution: over the columns of a series, which has one row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv1d {
    /// The name of its parameters; `conv1`, `conv2`, … where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Channels of its output.
    pub channels: usize,
    /// Length of the filters.
    pub kernel: usize,
    /// Distance of neighbouring outputs.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub stride: usize,
    /// Zeros added on each side.
    #[serde(default, skip_serializing_if = "Padding1d::is_none")]
    pub padding: Padding1d,
    /// Distance of neighbouring taps.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub dilation: usize,
    /// Groups of channels that do not see each other.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub groups: usize,
    /// Whether a bias is added.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub bias: bool,
}

/// Zeros added at both ends of a series; in text a number, `"valid"` (none) or `"same"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Padding1d {
    /// So many.
    Explicit(usize),
    /// By a word.
    Named(PaddingName),
}

impl Padding1d {
    fn is_none(&self) -> bool {
        *self == Padding1d::Explicit(0)
    }
}

impl Default for Padding1d {
    fn default() -> Padding1d {
        Padding1d::Explicit(0)
    }
}

impl Conv1d {
    /// The same as a convolution over one row.
    pub fn two_dimensional(&self) -> Conv2d {
        Conv2d {
            name: self.name.clone(),
            channels: self.channels,
            kernel: Size([1, self.kernel]),
            stride: Size([1, self.stride]),
            padding: match self.padding {
                Padding1d::Explicit(n) => Padding::Explicit(Size([0, n])),
                Padding1d::Named(name) => Padding::Named(name),
            },
            dilation: Size([1, self.dilation]),
            groups: self.groups,
            connections: None,
            bias: self.bias,
        }
    }
}

impl Kind for Conv1d {
    fn given(&self) -> Option<&String> {
        self.name.as_ref()
    }

    fn title(&self) -> String {
        "conv".into()
    }

    fn describe(&self) -> String {
        self.two_dimensional().describe().replacen("conv2d", "conv1d", 1).replace("1×", "")
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        at.one_row()?;
        at.within("kernel", 1, &[self.kernel])?;
        at.within("dilation", 1, &[self.dilation])?;
        let conv = self.two_dimensional();
        let mut outcome = conv.place(&mut at.under(&conv))?;
        // PyTorch's filters of a series have no rows.
        outcome.parameters[0].shape.remove(2);
        Ok(outcome)
    }
}
