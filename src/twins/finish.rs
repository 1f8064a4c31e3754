//! What ends a launch that computes sums: an activation, or the derivative of one.

use pulp::Simd;

use super::simd::{relu, wide};
use crate::network::Activation;

/// What is done to a sum before it is stored.
#[derive(Clone, Copy)]
pub(super) enum Finish<'a> {
    /// The activation.
    Value(Option<Activation>),
    /// It is multiplied by the activation's derivative where its value is this.
    Slope(Option<Activation>, &'a [f32]),
}

impl<'a> Finish<'a> {
    /// The same for what is stored from element `at` on.
    #[inline(always)]
    pub(super) fn from(self, at: usize) -> Finish<'a> {
        match self {
            Finish::Slope(Some(activation), value) => Finish::Slope(Some(activation), &value[at..]),
            other => other,
        }
    }

    /// What has an instruction of its own, for the sum that goes to register `at`.
    #[inline(always)]
    pub(super) fn register<S: Simd>(self, simd: S, at: usize, sum: S::f32s) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        match self {
            Finish::Value(Some(Activation::Relu)) => relu(simd, sum),
            Finish::Slope(Some(Activation::Relu), value) => {
                let positive = simd.greater_than_f32s(wide::<S>(value)[at], zero);
                simd.mul_f32s(sum, simd.select_f32s(positive, simd.splat_f32s(1.0), zero))
            }
            _ => sum,
        }
    }

    /// What has none, for all that was stored.
    #[inline(always)]
    pub(super) fn rest(self, stored: &mut [f32]) {
        match self {
            Finish::Value(Some(activation)) if activation != Activation::Relu => {
                stored.iter_mut().for_each(|y| *y = activation.value(*y));
            }
            Finish::Slope(Some(activation), value) if activation != Activation::Relu => {
                let slopes = value.iter().map(|&y| activation.slope_by_value(y));
                stored.iter_mut().zip(slopes).for_each(|(grad, slope)| *grad *= slope);
            }
            _ => {}
        }
    }
}
