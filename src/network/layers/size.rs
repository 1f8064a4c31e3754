//! Rows and columns, as the text form has them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Rows and columns; in text one number stands for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrTwo", into = "OneOrTwo")]
pub struct Size(pub [usize; 2]);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrTwo {
    One(usize),
    Two([usize; 2]),
}

impl From<OneOrTwo> for Size {
    fn from(size: OneOrTwo) -> Size {
        match size {
            OneOrTwo::One(n) => Size([n, n]),
            OneOrTwo::Two(pair) => Size(pair),
        }
    }
}

impl From<Size> for OneOrTwo {
    fn from(Size(pair): Size) -> OneOrTwo {
        if pair[0] == pair[1] { OneOrTwo::One(pair[0]) } else { OneOrTwo::Two(pair) }
    }
}

impl Size {
    /// 1 × 1.
    pub const ONE: Size = Size([1, 1]);
    /// 0 × 0.
    pub const ZERO: Size = Size([0, 0]);

    pub(super) fn is_one(&self) -> bool {
        *self == Size::ONE
    }

    pub(super) fn is_zero(&self) -> bool {
        *self == Size::ZERO
    }

    /// `, what size` where the size is not the usual one.
    pub(super) fn extra(self, what: &str, usual: Size) -> String {
        if self == usual { String::new() } else { format!(", {what} {self}") }
    }
}

impl Default for Size {
    fn default() -> Size {
        Size::ONE
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}", self.0[0], self.0[1])
    }
}
