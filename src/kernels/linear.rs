//! `shaders/linear.wgsl`: a fully connected layer and its gradients.

pub use super::{Gradients, LayerBuffers as Buffers};

use super::shaders::linear as shader;
use super::{LANES, Launch, MOST_PARTIALS, Range, Target, WORKGROUP, blocks, fused};
use crate::error::Result;
use crate::network::Activation;

/// Shapes of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Features of the input.
    pub inputs: usize,
    /// Features of the output.
    pub outputs: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// The activation that ends this layer, if it is one of [`Activation::by_value`].
    pub activation: Option<Activation>,
    /// The activation that made the input, if this layer's backward pass multiplies by its derivative.
    pub input_activation: Option<Activation>,
    /// Images in a batch.
    pub batch: usize,
    /// The device: tiles are cut up and sums are split until it is filled.
    pub target: Target,
}

/// Fours of images in a block.
const QUADS: usize = LANES / 4;

/// The most invocations that share a sum.
const MOST_SHARES: usize = 16;

/// What an invocation of a workgroup does.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// Features that it holds: 8, 4, 2 or 1.
    features: usize,
    /// Invocations that share each sum.
    shares: usize,
    /// Fours of images side by side in the workgroup.
    across: usize,
}

impl Geometry {
    /// Weights, without the bias.
    pub fn weights(&self) -> usize {
        self.inputs * self.outputs
    }

    fn weight_tiles(&self) -> usize {
        self.outputs.div_ceil(4) * (self.inputs.div_ceil(4) + usize::from(self.bias))
    }

    /// Invocations that share a tile of the weights' gradient, and partial sums of it: no more than fill the device,
    /// never more than there are images.
    fn weight_cut(&self) -> [usize; 2] {
        let blocks = blocks(self.batch);
        let wanted = self.target.fill / self.weight_tiles();
        if !self.target.fine() {
            return [1, wanted.clamp(1, blocks)];
        }
        // Sharing first: what meets in a workgroup leaves the optimizer nothing to add up.
        let shares = wanted.next_power_of_two().min(MOST_SHARES).min((QUADS * blocks).next_power_of_two());
        [shares, (wanted / shares).clamp(1, (QUADS * blocks).div_ceil(shares).min(MOST_PARTIALS))]
    }

    /// Partial sums of the weights' gradient.
    pub fn splits(&self) -> usize {
        self.weight_cut()[1]
    }

    /// How a launch over `features` is cut up, each a sum of so many terms: as it takes the least time, which is the
    /// work of all invocations on a full device, and that of one where they leave some of it idle.
    fn cut(&self, features: usize, terms: usize) -> Cut {
        if !self.target.fine() {
            return Cut { features: 8, shares: 1, across: 16 };
        }
        let quads = QUADS * blocks(self.batch);
        let cuts = [8, 4, 2, 1].into_iter().flat_map(|features| {
            let most = if features > 4 { 1 } else { MOST_SHARES.min(terms / 4) };
            std::iter::successors(Some(1), |shares| Some(2 * shares))
                .take_while(move |&shares| shares <= most.max(1))
                .map(move |shares| {
                    let across = quads.next_power_of_two().min(16).min(WORKGROUP / shares);
                    Cut { features, shares, across }
                })
        });
        let time = |cut: &Cut| {
            // Four terms are a vec4 of four images each, and a vec4 of weights for each feature.
            let multiply_adds = 16 * cut.features;
            let loads = 16 + cut.features;
            let rounds = terms.div_ceil(4 * cut.shares);
            let halvings = cut.shares.ilog2() as usize * (4 + 2 * cut.features);
            let work = rounds * (multiply_adds + self.target.load * loads) + self.target.load * halvings;
            let invocations = quads * features.div_ceil(cut.features) * cut.shares;
            work * invocations.max(self.target.fill)
        };
        cuts.min_by_key(time).unwrap_or(Cut { features: 8, shares: 1, across: 16 })
    }

    fn output_cut(&self) -> Cut {
        self.cut(self.outputs, self.inputs)
    }

    fn input_cut(&self) -> Cut {
        self.cut(self.inputs, self.outputs)
    }

    /// Those of a launch over a grid of so many rows.
    fn constants(&self, grid_rows: usize) -> shader::Constants {
        let (output, input) = (self.output_cut(), self.input_cut());
        let [weight_shares, splits] = self.weight_cut();
        shader::Constants {
            inputs: self.inputs,
            outputs: self.outputs,
            bias: self.bias,
            activation: fused(self.activation),
            input_activation: fused(self.input_activation),
            features: output.features,
            shares: output.shares,
            across: output.across,
            in_features: input.features,
            in_shares: input.shares,
            in_across: input.across,
            weight_shares,
            blocks: blocks(self.batch),
            splits,
            grid_rows,
        }
    }

    fn flop(&self) -> u64 {
        2 * (self.weights() * self.batch) as u64
    }

    fn weight_groups(&self) -> usize {
        let [shares, splits] = self.weight_cut();
        (splits * self.weight_tiles()).div_ceil(WORKGROUP / shares)
    }

    /// Workgroups of a launch over `features`.
    fn groups(&self, cut: Cut, features: usize) -> usize {
        let along = WORKGROUP / cut.shares / cut.across * cut.features;
        (QUADS * blocks(self.batch)).div_ceil(cut.across) * features.div_ceil(along)
    }

    fn input_groups(&self) -> usize {
        self.groups(self.input_cut(), self.inputs)
    }

    /// The output.
    pub fn forward(self, b: Buffers) -> Result<Launch> {
        let (grid, rows) = self.target.grid([self.groups(self.output_cut(), self.outputs)], 1);
        let Buffers { input, weight, bias, output } = b;
        let bindings = shader::forward::Bindings { input, weight, bias, output };
        shader::forward::launch(self.constants(rows), bindings, grid, self.flop())
    }

    /// The gradient of the input.
    pub fn input_gradient(self, b: Buffers, g: Gradients, input_grad: Range) -> Result<Launch> {
        let Buffers { input, weight, .. } = b;
        let bindings = shader::input_gradient::Bindings { input, weight, output_grad: g.output, input_grad };
        let (grid, rows) = self.target.grid([self.input_groups()], 1);
        shader::input_gradient::launch(self.constants(rows), bindings, grid, self.flop())
    }

    /// The partial sums of the gradients of weights and bias.
    pub fn weight_gradient(self, b: Buffers, g: Gradients) -> Result<Launch> {
        let Gradients { output: output_grad, weight: weight_grad, bias: bias_grad } = g;
        let bindings =
            shader::weight_gradient::Bindings { input: b.input, output_grad, weight_grad, bias_grad };
        let (grid, rows) = self.target.grid([self.weight_groups()], 1);
        shader::weight_gradient::launch(self.constants(rows), bindings, grid, self.flop())
    }

    /// [`Geometry::weight_gradient`] and [`Geometry::input_gradient`] in one launch.
    pub fn backward(self, b: Buffers, g: Gradients, input_grad: Range) -> Result<Launch> {
        let Buffers { input, weight, .. } = b;
        let Gradients { output: output_grad, weight: weight_grad, bias: bias_grad } = g;
        let bindings =
            shader::backward::Bindings { input, weight, output_grad, input_grad, weight_grad, bias_grad };
        let (grid, rows) = self.target.grid([self.weight_groups(), self.input_groups()], 1);
        shader::backward::launch(self.constants(rows), bindings, grid, 2 * self.flop())
    }
}
