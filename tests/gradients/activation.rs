//! Activation functions.

use super::*;

/// Φ(x), the normal distribution, by Simpson's rule over its density from 0 to x.
fn normal(x: f64) -> f64 {
    let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let pieces = 400;
    let h = x / f64::from(pieces);
    let weight = |i: i32| if i == 0 || i == pieces { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
    0.5 + (0..=pieces).map(|i| weight(i) * density(f64::from(i) * h)).sum::<f64>() * h / 3.0
}

pub fn activation_reference(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu(slope) => {
            if x > 0.0 {
                x
            } else {
                f64::from(slope) * x
            }
        }
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::ScaledTanh => 1.7159 * (2.0 / 3.0 * x).tanh(),
        Activation::Gelu => x * normal(x),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Silu => x * sigmoid(x),
        Activation::Elu(alpha) => {
            if x > 0.0 {
                x
            } else {
                f64::from(alpha) * (x.exp() - 1.0)
            }
        }
        Activation::Softplus => (1.0 + x.exp()).ln(),
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
    }
}

#[test]
fn activations() {
    let all = [
        Activation::Relu,
        Activation::LeakyRelu(0.0625),
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::ScaledTanh,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Elu(0.75),
        Activation::Softplus,
        Activation::HardSwish,
    ];
    // A new function has to be added above: this match does not compile without it.
    let kinks = |activation: Activation| -> &[f64] {
        match activation {
            Activation::Relu | Activation::LeakyRelu(_) | Activation::Elu(_) => &[0.0],
            Activation::HardSwish => &[-3.0, 3.0],
            Activation::Sigmoid
            | Activation::Tanh
            | Activation::ScaledTanh
            | Activation::Gelu
            | Activation::GeluTanh
            | Activation::Silu
            | Activation::Softplus => &[],
        }
    };
    let mut random = Random(5);
    for activation in all {
        let mut worst = Worst::default();
        let near = |x: f64| kinks(activation).iter().any(|kink| (x - kink).abs() < 1e-4);
        let input: Vec<f64> = random.units(331).iter().map(|x| 6.0 * x).filter(|&x| !near(x)).collect();
        // 6 x is not exact in f32.
        let input: Vec<f64> = input.iter().map(|&x| f64::from(x as f32)).collect();
        let upstream = random.units(input.len());
        let images = Images { shape: [1, input.len(), 1, 1], values: input.clone() };
        let [outputs, input_grad] = flow(&images, &upstream, |_, f| {
            vec![
                activation.forward(f.input, f.output).unwrap(),
                activation.backward(f.input, f.output_grad, f.input_grad).unwrap(),
            ]
        });
        let want: Vec<f64> = input.iter().map(|&x| activation_reference(activation, x)).collect();
        worst.close(&format!("{activation:?}: output"), &outputs, &want, FUNCTIONS);
        let want: Vec<f64> = input
            .iter()
            .zip(&upstream)
            .map(|(&x, u)| u * slope(&[x], 0, &|x| activation_reference(activation, x[0])))
            .collect();
        worst.close(&format!("{activation:?}: input"), &input_grad, &want, FUNCTIONS);
        if activation.by_value() {
            let by_value =
                outputs.iter().zip(&upstream).map(|(&y, &u)| activation.slope_by_value(y) * u as f32);
            let got: Vec<f32> = by_value.collect();
            worst.close(&format!("{activation:?}: by value"), &got, &want, FUNCTIONS);
        }
        worst.report(&format!("{activation:?}"));
    }
}
