//! Elementwise functions and their derivatives.

use serde::{Deserialize, Serialize};

use super::layers::{Kind, Outcome, Site};
use crate::error::Result;

/// An elementwise function.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(x, 0)`; its slope at 0 is 0.
    Relu,
    /// `x`, or `slope · x` for negative `x`.
    LeakyRelu(f32),
    /// `1 / (1 + e^−x)`.
    Sigmoid,
    /// `tanh x`.
    Tanh,
    /// `1.7159 · tanh(2x/3)` (LeCun et al. 1998, appendix A).
    ScaledTanh,
    /// `x · Φ(x)` (Hendrycks and Gimpel 2016).
    Gelu,
    /// GELU's approximation by `tanh`.
    GeluTanh,
    /// `x · sigmoid(x)`, also called swish.
    Silu,
    /// `x`, or `alpha · (eˣ − 1)` for negative `x`.
    Elu(f32),
    /// `log(1 + eˣ)`.
    Softplus,
    /// `x · clamp(x + 3, 0, 6) / 6`.
    HardSwish,
}

/// `1 / √2`, `√(2/π)` and `1 / √(2π)`, as the shader has them.
const HALF_ROOT: f32 = 0.707_106_77;
const ROOT_2_PI: f32 = 0.797_884_6;
const DENSITY: f32 = 0.398_942_3;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let series =
        ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_8) * t - 0.284_496_72) * t + 0.254_829_6) * t;
    (1.0 - series * (-x * x).exp()).copysign(x)
}

impl Activation {
    /// The number by which the shaders know the function, and its parameter.
    pub(crate) fn code(self) -> (usize, f32) {
        match self {
            Activation::Relu => (0, 0.0),
            Activation::LeakyRelu(slope) => (1, slope),
            Activation::Sigmoid => (2, 0.0),
            Activation::Tanh => (3, 0.0),
            Activation::ScaledTanh => (4, 0.0),
            Activation::Gelu => (5, 0.0),
            Activation::GeluTanh => (6, 0.0),
            Activation::Silu => (7, 0.0),
            Activation::Elu(alpha) => (8, alpha),
            Activation::Softplus => (9, 0.0),
            Activation::HardSwish => (10, 0.0),
        }
    }

    /// The function of a [`code`](Activation::code); none where the number is no function's.
    pub(crate) fn of_code(number: usize, parameter: f32) -> Option<Activation> {
        let all = [
            Activation::Relu,
            Activation::LeakyRelu(parameter),
            Activation::Sigmoid,
            Activation::Tanh,
            Activation::ScaledTanh,
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Silu,
            Activation::Elu(parameter),
            Activation::Softplus,
            Activation::HardSwish,
        ];
        all.into_iter().find(|activation| activation.code().0 == number)
    }

    /// `f(x)`.
    #[inline(always)]
    pub fn value(self, x: f32) -> f32 {
        match self {
            Activation::Relu => {
                // Not a maximum, which would leave a NaN out; of a sum, since a compiler that sees a value stored over
                // itself stores the others one by one.
                let x = x + 0.0;
                if x <= 0.0 { 0.0 } else { x }
            }
            Activation::LeakyRelu(slope) => {
                if x > 0.0 {
                    x
                } else {
                    slope * x
                }
            }
            Activation::Sigmoid => sigmoid(x),
            Activation::Tanh => x.tanh(),
            Activation::ScaledTanh => 1.7159 * (x * (2.0 / 3.0)).tanh(),
            Activation::Gelu => 0.5 * x * (1.0 + erf(x * HALF_ROOT)),
            Activation::GeluTanh => 0.5 * x * (1.0 + (ROOT_2_PI * (x + 0.044_715 * x * x * x)).tanh()),
            Activation::Silu => x * sigmoid(x),
            Activation::Elu(alpha) => {
                if x > 0.0 {
                    x
                } else {
                    alpha * (x.exp() - 1.0)
                }
            }
            Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        }
    }

    /// `f′(x)`.
    #[inline(always)]
    pub fn slope(self, x: f32) -> f32 {
        match self {
            Activation::Relu => f32::from(x > 0.0),
            Activation::LeakyRelu(slope) => {
                if x > 0.0 {
                    1.0
                } else {
                    slope
                }
            }
            Activation::Sigmoid => {
                let y = sigmoid(x);
                y * (1.0 - y)
            }
            Activation::Tanh => 1.0 - x.tanh().powi(2),
            Activation::ScaledTanh => 1.7159 * (2.0 / 3.0) * (1.0 - (x * (2.0 / 3.0)).tanh().powi(2)),
            Activation::Gelu => 0.5 * (1.0 + erf(x * HALF_ROOT)) + x * DENSITY * (-0.5 * x * x).exp(),
            Activation::GeluTanh => {
                let t = (ROOT_2_PI * (x + 0.044_715 * x * x * x)).tanh();
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * ROOT_2_PI * (1.0 + 0.134_145 * x * x)
            }
            Activation::Silu => {
                let y = sigmoid(x);
                y * (1.0 + x * (1.0 - y))
            }
            Activation::Elu(alpha) => {
                if x > 0.0 {
                    1.0
                } else {
                    alpha * x.exp()
                }
            }
            Activation::Softplus => sigmoid(x),
            Activation::HardSwish => {
                if x <= -3.0 {
                    0.0
                } else if x >= 3.0 {
                    1.0
                } else {
                    (2.0 * x + 3.0) / 6.0
                }
            }
        }
    }

    /// Whether the derivative is a function of the value, so that a launch can end with the activation and a
    /// later one multiply by its derivative without having kept the argument.
    pub fn by_value(self) -> bool {
        matches!(self, Activation::Relu | Activation::Sigmoid | Activation::Tanh | Activation::ScaledTanh)
    }

    /// `f′(x)` where `f(x) = y`, for activations that are [`Activation::by_value`]; 1 for others.
    #[inline(always)]
    pub fn slope_by_value(self, y: f32) -> f32 {
        match self {
            Activation::Relu => f32::from(y > 0.0),
            Activation::Sigmoid => y * (1.0 - y),
            Activation::Tanh => 1.0 - y * y,
            Activation::ScaledTanh => 1.7159 * (2.0 / 3.0) - y * y * (2.0 / 3.0 / 1.7159),
            _ => 1.0,
        }
    }
}

impl Kind for Activation {
    fn title(&self) -> String {
        self.describe().split('(').next().unwrap_or_default().to_string()
    }

    fn describe(&self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        if let Activation::LeakyRelu(slope) | Activation::Elu(slope) = self
            && !slope.is_finite()
        {
            return Err(at.wrong(format!("its slope is {slope}")));
        }
        Ok(Outcome::plain(at.input))
    }
}
