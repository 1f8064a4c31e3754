//! From layers to operations: the one place that knows which operation a layer is.

use super::Options;
use super::operation::{
    AdaptivePool, AveragePool, Concat, Conv2d, CrossEntropy, Depthwise, Dropout, Elementwise, Linear,
    LocalResponseNorm, MaxPool, Norm, Operation, Rbf, SquaredError, Sum, Upsample,
};
use crate::kernels::norm::Kind;
use crate::kernels::{conv2d, depthwise, dropout, linear, loss, lrn, norm, pool2d, rbf, squared_error};
use crate::network::{self, Layer, Loss, Network, Placed, Pool2d, Shape};

/// The operation of one layer; flattening only renames dimensions and has none.
pub(super) fn lower(layer: &Placed, options: &Options) -> Option<Box<dyn Operation>> {
    let Options { batch, target, .. } = *options;
    let channels = layer.input.channels;
    let [in_size, out_size] = [layer.input, layer.output].map(|shape| [shape.height, shape.width]);
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
    let norm = |kind, epsilon| {
        let positions = in_size[0] * in_size[1];
        Norm(norm::Geometry { channels, positions, kind, epsilon, activation: None, batch, target })
    };
    Some(match &layer.layer {
        Layer::Conv2d(c) => convolution(layer, c, options),
        Layer::Conv1d(c) => convolution(layer, &c.two_dimensional(), options),
        Layer::Linear(l) => Box::new(Linear(linear::Geometry {
            inputs: layer.input.len(),
            outputs: l.outputs,
            bias: l.bias,
            activation: None,
            input_activation: None,
            batch,
            target,
        })),
        Layer::MaxPool2d(p) => Box::new(MaxPool(pool(p))),
        Layer::AveragePool2d(p) => Box::new(AveragePool(pool(p))),
        Layer::MaxPool1d(p) => Box::new(MaxPool(pool(&p.two_dimensional()))),
        Layer::AveragePool1d(p) => Box::new(AveragePool(pool(&p.two_dimensional()))),
        Layer::AdaptiveAveragePool2d(_) | Layer::GlobalAveragePool => {
            Box::new(AdaptivePool(pool2d::Geometry::adaptive(channels, in_size, out_size, batch)))
        }
        Layer::Upsample(factor) => {
            Box::new(Upsample(pool2d::Geometry::upsampling(channels, in_size, [*factor; 2], batch)))
        }
        Layer::Rbf(r) => {
            let (inputs, outputs) = (layer.input.len(), r.outputs);
            Box::new(Rbf(rbf::Geometry { inputs, outputs, batch, target }))
        }
        Layer::BatchNorm(n) => Box::new(norm(Kind::Batch, n.epsilon)),
        Layer::Scale(_) => Box::new(norm(Kind::Affine, 0.0)),
        Layer::LocalResponseNorm(n) => Box::new(LocalResponseNorm(lrn::Geometry {
            channels,
            positions: in_size[0] * in_size[1],
            size: n.size,
            alpha: n.alpha,
            beta: n.beta,
            k: n.k,
            batch,
        })),
        Layer::Dropout(rate) => {
            let features = layer.input.len();
            Box::new(Dropout(dropout::Geometry { features, rate: *rate, layer: 0, batch }))
        }
        Layer::Activation(activation) => Box::new(Elementwise(*activation)),
        Layer::Residual(_) => Box::new(Sum(None)),
        Layer::Branches(_) => Box::new(Concat),
        Layer::Flatten => return None,
    })
}

fn convolution(layer: &Placed, c: &network::Conv2d, options: &Options) -> Box<dyn Operation> {
    let geometry = conv2d::Geometry {
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
        target: options.target,
    };
    match depthwise::Geometry::of(&geometry) {
        Some(by_channels) => Box::new(Depthwise(by_channels)),
        None => Box::new(Conv2d(geometry)),
    }
}

/// The operation of a network's loss over logits of this shape.
pub(super) fn loss(network: &Network, logits: Shape, options: &Options) -> Box<dyn Operation> {
    let Options { smoothing, batch, .. } = *options;
    let (classes, positions) = (logits.channels, logits.height * logits.width);
    let entropy = |rubbish| CrossEntropy(loss::Geometry { classes, positions, smoothing, rubbish, batch });
    match network.loss {
        Loss::CrossEntropy => Box::new(entropy(None)),
        Loss::Map { rubbish } => Box::new(entropy(Some(rubbish))),
        Loss::MeanSquaredError => {
            Box::new(SquaredError(squared_error::Geometry { classes, positions, smoothing, batch }))
        }
    }
}
