//! The convolutional form of a network: laid over a picture of any size, each of its outputs judges a window.

use super::{Conv2d, Layer, Linear, Network, Padding, Shape, Size};
use crate::error::{Error, Result};

/// Where the windows of a convolutional form lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Rows and columns of a window, the padding of the input among them.
    pub field: usize,
    /// From one window to the next, in both directions.
    pub stride: usize,
}

impl Network {
    /// The same network for pictures of `height` rows and `width` columns, with convolutions in place of its linear
    /// layers: the first has filters as large as the picture was, the others of 1 × 1 (LeCun et al. 1998, section
    /// VII). Its parameters are the same values in the same order; only the shapes of the linear layers' weights have
    /// two dimensions more. What it gives for a picture of the old size is what the network gave.
    ///
    /// # Errors
    /// [`Error::Network`] with the layer that has no such form, or that does not fit the size.
    pub fn convolutional(&self, height: usize, width: usize) -> Result<Network> {
        let mut layers = Vec::with_capacity(self.layers.len());
        // Rows and columns that the next linear layer sees.
        let mut seen = Shape { channels: 1, height: 1, width: 1 };
        for placed in self.place()? {
            match placed.layer {
                Layer::Flatten => {
                    seen = placed.input;
                    continue;
                }
                Layer::Linear(Linear { outputs, bias, .. }) => {
                    if placed.input.height * placed.input.width > 1 {
                        seen = placed.input;
                    }
                    layers.push(Layer::Conv2d(Conv2d {
                        name: Some(placed.name),
                        kernel: Size([seen.height, seen.width]),
                        padding: Padding::NONE,
                        bias,
                        ..Conv2d::new(outputs, 1)
                    }));
                    seen = placed.output;
                }
                layer if !layer.ask(|kind| kind.slides()) => {
                    return Err(Error::Network(format!(
                        "layer {} ({}) has no convolutional form",
                        placed.name,
                        layer.describe()
                    )));
                }
                // Names count from the start of the network: a convolution in place of a linear layer must not
                // change those after it.
                Layer::Conv2d(conv) => layers.push(Layer::Conv2d(Conv2d { name: Some(placed.name), ..conv })),
                other => layers.push(other),
            }
        }
        let mut network = self.clone();
        (network.input.height, network.input.width) = (height, width);
        network.layers = layers;
        network.place()?;
        Ok(network)
    }

    /// Where the windows of the convolutional form lie.
    ///
    /// # Errors
    /// As [`Network::convolutional`]; [`Error::Network`] when the windows are not square or their distance differs
    /// between rows and columns.
    pub fn windows(&self) -> Result<Windows> {
        let Shape { height, width, .. } = self.input_shape();
        let size = |more: usize| {
            let output = self.convolutional(self.input.height + more, self.input.width + more)?.output()?;
            Ok([output.height, output.width])
        };
        if height != width || size(0)? != [1, 1] {
            return Err(Error::Network(format!(
                "{} does not judge one square window of its picture at a time",
                self.name
            )));
        }
        // A stride beyond the window would leave gaps.
        for stride in 1..=height {
            match size(stride)? {
                [1, 1] => {}
                [2, 2] => return Ok(Windows { field: height, stride }),
                _ => break,
            }
        }
        Err(Error::Network(format!("the windows of {} do not lie on a square grid", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;
    use crate::plan::{Options, Plan};
    use crate::session::Session;

    fn logits_of(network: &Network, parameters: &[Vec<f32>], pictures: &[u8], count: usize) -> Vec<f32> {
        let plan = Plan::new(network, &Options { batch: count, ..Options::default() }).unwrap();
        let backend = Backend::cpu(&plan.program);
        let mut session = Session::new(plan, backend);
        session.set_parameters(parameters.iter().map(Vec::as_slice)).unwrap();
        let probabilities = pollster::block_on(session.predict(pictures)).unwrap();
        assert_eq!(probabilities.len(), count * session.plan().outputs());
        probabilities
    }

    #[test]
    fn windows_are_judged_as_the_network_judges_them() {
        let network = Network::preset("lenet5-windows").unwrap();
        assert_eq!(network.windows().unwrap(), Windows { field: 32, stride: 4 });
        let parameters = network.initial(3).unwrap();
        let (height, width) = (36, 48);
        let picture: Vec<u8> = (0..height * width).map(|i| (i * i % 251) as u8).collect();
        let wide = network.convolutional(height, width).unwrap();
        let output = wide.output().unwrap();
        assert_eq!((output.channels, output.height, output.width), (11, 2, 5));
        let scores = logits_of(&wide, &parameters, &picture, 1);
        for (row, column) in [(0, 0), (1, 0), (0, 4), (1, 3)] {
            let window: Vec<u8> = (0..32)
                .flat_map(|y| (0..32).map(move |x| (y, x)))
                .map(|(y, x)| picture[(4 * row + y) * width + 4 * column + x])
                .collect();
            let want = logits_of(&network, &parameters, &window, 1);
            for (class, want) in want.iter().enumerate() {
                let got = scores[class * 10 + row * 5 + column];
                assert!((got - want).abs() < 1e-5, "{row}, {column}, class {class}: {got}, expected {want}");
            }
        }
    }

    #[test]
    fn what_has_no_convolutional_form_says_so() {
        let refused =
            |name: &str| Network::preset(name).unwrap().convolutional(40, 40).unwrap_err().to_string();
        assert_eq!(refused("resnet"), "network: layer pool1 (global average pool) has no convolutional form");
        assert_eq!(
            refused("lenet5-1998"),
            "network: layer output (radial basis 10) has no convolutional form"
        );
    }
}
