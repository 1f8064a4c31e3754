//! From layers to operations: what one launch can do together, and the geometry of each.

use super::Options;
use super::node::by_value;
use crate::kernels::norm::Kind;
use crate::kernels::{conv_pool, conv2d, depthwise, dropout, linear, lrn, norm, pool2d, rbf};
use crate::network::{Activation, Conv2d, Layer, Linear, Placed, Pool2d, Size};

/// What a launch does.
#[derive(Clone, Copy)]
pub(super) enum Op {
    Conv2d(conv2d::Geometry),
    Depthwise(depthwise::Geometry),
    ConvPool(conv_pool::Geometry),
    Linear(linear::Geometry),
    Rbf(rbf::Geometry),
    MaxPool(pool2d::Geometry),
    AveragePool(pool2d::Geometry),
    AdaptivePool(pool2d::Geometry),
    Upsample(pool2d::Geometry),
    Norm(norm::Geometry),
    LocalResponseNorm(lrn::Geometry),
    Dropout(dropout::Geometry),
    Activation(Activation),
    /// The sum of all inputs, and an activation of it.
    Sum(Option<Activation>),
    /// The inputs' channels side by side.
    Concat,
}

impl Op {
    /// Partial sums of the gradients of its parameters.
    pub(super) fn splits(&self) -> usize {
        match self {
            Op::Conv2d(g) => g.splits(),
            Op::Depthwise(g) => g.splits(),
            Op::ConvPool(g) => g.splits(),
            Op::Linear(g) => g.splits(),
            Op::Rbf(g) => g.splits(),
            Op::Norm(g) => g.splits(),
            _ => 1,
        }
    }

    /// Words that its backward launches need beside input and output, for so many rows of a batch.
    pub(super) fn saved(&self, rows: usize) -> Option<usize> {
        match self {
            Op::MaxPool(g) => Some(g.channels * g.out_size[0] * g.out_size[1] * rows),
            Op::ConvPool(g) => Some(g.saved()),
            Op::Norm(g) if g.kind == Kind::Batch => Some(g.saved()),
            _ => None,
        }
    }

    /// The same as it is when nothing is learned; none where the input passes as it is.
    pub(super) fn evaluated(self) -> Option<Op> {
        match self {
            Op::Dropout(_) => None,
            Op::Norm(g) if g.kind == Kind::Batch => {
                Some(Op::Norm(norm::Geometry { kind: Kind::Running, ..g }))
            }
            same => Some(same),
        }
    }

    /// The activation that ends the forward launch, where the gradient that comes back must have been multiplied
    /// by its derivative.
    pub(super) fn activation(&self) -> Option<Activation> {
        match self {
            Op::Sum(activation) => *activation,
            Op::Linear(g) => g.activation,
            Op::Conv2d(g) => g.activation,
            Op::Depthwise(g) => g.activation,
            // A maximum says by itself where a ReLU is flat, and a mean knows the values it was made of.
            Op::ConvPool(g) => {
                g.activation.filter(|activation| !g.average && *activation != Activation::Relu)
            }
            _ => None,
        }
    }

    /// Has the launch that makes the gradient of the input multiply it by the derivative of `activation`, which
    /// ended the launch before. Says whether it can.
    pub(super) fn multiply(&mut self, activation: Activation) -> bool {
        match self {
            Op::Linear(g) => g.input_activation = Some(activation),
            Op::Conv2d(g) => g.input_activation = Some(activation),
            Op::Depthwise(g) => g.input_activation = Some(activation),
            Op::ConvPool(g) => g.input_activation = Some(activation),
            _ => return false,
        }
        true
    }
}

/// An operation and the layers that it stands for.
pub(super) struct Fused<'a> {
    pub(super) op: Op,
    /// The layer that has the parameters.
    pub(super) first: &'a Placed,
    /// The layer whose output it gives.
    pub(super) last: &'a Placed,
    /// The names of all that it does, from the first to the last.
    pub(super) layers: Vec<String>,
    /// Whether the next operation multiplies its input's gradient by the derivative of this one's activation.
    pub(super) multiplied: bool,
}

/// Finds what one launch can do in a run of layers without branches: convolution, activation and 2×2 pooling;
/// convolution, linear layer or normalisation and activation.
pub(super) fn fuse<'a>(layers: &'a [Placed], options: &Options) -> Vec<Fused<'a>> {
    let mut found: Vec<Fused<'a>> = Vec::new();
    let mut rest = layers;
    while let [first, others @ ..] = rest {
        let longest = if options.fuse { rest.len().min(3) } else { 1 };
        let several = (2..=longest).rev().find_map(|n| Some((together(&rest[..n], options)?, n)));
        let (op, n) = match several {
            Some(several) => several,
            None => match alone(first, options) {
                Some(op) => (op, 1),
                // Flattening only renames dimensions.
                None => {
                    rest = others;
                    continue;
                }
            },
        };
        let layers = rest[..n].iter().map(|layer| layer.name.clone()).collect();
        found.push(Fused { op, first, last: &rest[n - 1], layers, multiplied: false });
        rest = &rest[n..];
    }
    for i in 1..found.len() {
        if let Some(activation) = found[i - 1].op.activation() {
            found[i - 1].multiplied = found[i].op.multiply(activation);
        }
    }
    found
}

/// The one operation of two or three layers, if there is one.
fn together(layers: &[Placed], options: &Options) -> Option<Op> {
    let activated = |layer: &Placed, c: &Conv2d, activation: Activation| {
        let geometry = conv_geometry(layer, c, options);
        convolution(conv2d::Geometry { activation: Some(activation), ..geometry })
    };
    match layers {
        [conv, activation, pool] => {
            conv_pool_geometry(conv, Some(by_value(activation)?), pool, options).map(Op::ConvPool)
        }
        [first, second] => match &first.layer {
            Layer::Linear(l) => {
                let activation = Some(by_value(second)?);
                Some(Op::Linear(linear::Geometry { activation, ..linear_geometry(first, l, options) }))
            }
            Layer::BatchNorm(_) | Layer::Scale(_) => {
                let activation = Some(by_value(second)?);
                Some(Op::Norm(norm::Geometry { activation, ..norm_geometry(first, options)? }))
            }
            Layer::Conv2d(c) => match by_value(second) {
                Some(activation) => Some(activated(first, c, activation)),
                None => conv_pool_geometry(first, None, second, options).map(Op::ConvPool),
            },
            Layer::Conv1d(c) => Some(activated(first, &c.two_dimensional(), by_value(second)?)),
            _ => None,
        },
        _ => None,
    }
}

/// The operation of one layer; flattening has none.
fn alone(layer: &Placed, options: &Options) -> Option<Op> {
    let Options { batch, fill, .. } = *options;
    let channels = layer.input.channels;
    let [in_size, out_size] = [layer.input, layer.output].map(|shape| [shape.height, shape.width]);
    let positions = in_size[0] * in_size[1];
    let pool = |p: &Pool2d| pool2d::Geometry {
        channels,
        in_size,
        out_size,
        kernel: p.kernel.0,
        stride: p.stride.unwrap_or(p.kernel).0,
        pad: p.padding.0,
        count_pad: p.count_padding,
        batch,
    };
    match &layer.layer {
        Layer::Conv2d(c) => Some(convolution(conv_geometry(layer, c, options))),
        Layer::Conv1d(c) => Some(convolution(conv_geometry(layer, &c.two_dimensional(), options))),
        Layer::Linear(l) => Some(Op::Linear(linear_geometry(layer, l, options))),
        Layer::MaxPool2d(p) => Some(Op::MaxPool(pool(p))),
        Layer::AveragePool2d(p) => Some(Op::AveragePool(pool(p))),
        Layer::MaxPool1d(p) => Some(Op::MaxPool(pool(&p.two_dimensional()))),
        Layer::AveragePool1d(p) => Some(Op::AveragePool(pool(&p.two_dimensional()))),
        Layer::AdaptiveAveragePool2d(_) | Layer::GlobalAveragePool => {
            Some(Op::AdaptivePool(pool2d::Geometry::adaptive(channels, in_size, out_size, batch)))
        }
        Layer::Upsample(factor) => {
            Some(Op::Upsample(pool2d::Geometry::upsampling(channels, in_size, [*factor; 2], batch)))
        }
        Layer::Rbf(r) => {
            Some(Op::Rbf(rbf::Geometry { inputs: layer.input.len(), outputs: r.outputs, batch, fill }))
        }
        Layer::BatchNorm(_) | Layer::Scale(_) => norm_geometry(layer, options).map(Op::Norm),
        Layer::LocalResponseNorm(n) => Some(Op::LocalResponseNorm(lrn::Geometry {
            channels,
            positions,
            size: n.size,
            alpha: n.alpha,
            beta: n.beta,
            k: n.k,
            batch,
        })),
        // Every layer draws its own numbers; the graph counts them.
        Layer::Dropout(rate) => {
            Some(Op::Dropout(dropout::Geometry { features: layer.input.len(), rate: *rate, layer: 0, batch }))
        }
        Layer::Activation(activation) => Some(Op::Activation(*activation)),
        Layer::Flatten | Layer::Residual(_) | Layer::Branches(_) => None,
    }
}

fn norm_geometry(layer: &Placed, options: &Options) -> Option<norm::Geometry> {
    let (kind, epsilon, momentum) = match &layer.layer {
        Layer::BatchNorm(n) => (Kind::Batch, n.epsilon, n.momentum),
        Layer::Scale(_) => (Kind::Affine, 0.0, 0.0),
        _ => return None,
    };
    Some(norm::Geometry {
        channels: layer.input.channels,
        positions: layer.input.height * layer.input.width,
        kind,
        epsilon,
        momentum,
        activation: None,
        batch: options.batch,
        fill: options.fill,
    })
}

fn conv_geometry(layer: &Placed, c: &Conv2d, options: &Options) -> conv2d::Geometry {
    conv2d::Geometry {
        in_channels: layer.input.channels,
        in_size: [layer.input.height, layer.input.width],
        out_channels: layer.output.channels,
        out_size: [layer.output.height, layer.output.width],
        kernel: c.kernel.0,
        stride: c.stride.0,
        pad: c.pad(),
        dilation: c.dilation.0,
        groups: c.groups,
        bias: c.bias,
        activation: None,
        input_activation: None,
        batch: options.batch,
        fill: options.fill,
    }
}

/// The operation that suits a convolution.
fn convolution(geometry: conv2d::Geometry) -> Op {
    depthwise::Geometry::of(&geometry).map_or(Op::Conv2d(geometry), Op::Depthwise)
}

fn linear_geometry(layer: &Placed, l: &Linear, options: &Options) -> linear::Geometry {
    linear::Geometry {
        inputs: layer.input.len(),
        outputs: l.outputs,
        bias: l.bias,
        activation: None,
        input_activation: None,
        batch: options.batch,
        fill: options.fill,
    }
}

/// The fused geometry of a convolution and a pooling layer, with an activation between them, if there is one.
fn conv_pool_geometry(
    conv: &Placed,
    activation: Option<Activation>,
    pool: &Placed,
    options: &Options,
) -> Option<conv_pool::Geometry> {
    let Layer::Conv2d(c) = &conv.layer else { return None };
    let geometry = conv_geometry(conv, c, options);
    let (average, p) = match &pool.layer {
        Layer::MaxPool2d(p) => (false, p),
        Layer::AveragePool2d(p) => (true, p),
        _ => return None,
    };
    let two = Size([2, 2]);
    let even = geometry.out_size.iter().all(|n| n % 2 == 0);
    let windows =
        p.kernel == two && p.stride.unwrap_or(two) == two && p.padding == Size::ZERO && (even || !p.ceil);
    let plain = geometry.stride == [1, 1] && geometry.dilation == [1, 1] && geometry.groups == 1;
    let fused = conv_pool::Geometry {
        conv: geometry,
        average,
        activation,
        input_activation: None,
        gather: None,
        fill: options.fill,
    };
    (windows && plain && fused.fits()).then_some(fused)
}
