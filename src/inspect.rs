//! What a network makes of one picture, layer by layer: outputs, and the gradients of the loss that come back.

use crate::backend::{Backend, gpu};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::kernels::{Range, Step, loss::RECORD};
use crate::network::{Layer, Network, Shape};
use crate::plan::{Options, Phase, Plan, to_rows};
use crate::session::Session;

/// What a layer made of the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The layer's name.
    pub name: String,
    /// The shape of its output.
    pub shape: Shape,
    /// Its output, `[channels, rows, columns]` row-major.
    pub values: Vec<f32>,
    /// The gradient of the loss with respect to it, of the same shape; none before the first layer that learns.
    pub gradient: Option<Vec<f32>>,
}

/// A parameter, and what the picture would have it do.
#[derive(Debug, Clone, PartialEq)]
pub struct Pull {
    /// The parameter's name.
    pub name: String,
    /// Its shape: OIHW for filters.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
    /// The gradient of the loss with respect to it, of the same shape.
    pub gradient: Vec<f32>,
}

/// All that one picture does in a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The loss of the picture.
    pub loss: f32,
    /// Each layer's output, in the order in which they run.
    pub layers: Vec<View>,
    /// Each parameter, in the network's order.
    pub parameters: Vec<Pull>,
}

/// A copy of a network for one picture, in which every layer is a launch of its own and nothing shares memory, so
/// that all of it can be looked at. What it computes is what training computes, but for dropout, which is left out.
pub struct Inspector {
    session: Session,
    shapes: Vec<(String, Shape)>,
}

/// Takes the dropout, which draws anew each time, out of a sequence.
fn leave_dropout_out(layers: &mut Vec<Layer>) {
    layers.retain(|layer| !matches!(layer, Layer::Dropout(_)));
    layers.iter_mut().flat_map(Layer::inside_mut).for_each(leave_dropout_out);
}

impl Inspector {
    /// Compiles the copy, for the CPU or for a GPU that may be shared with the training.
    ///
    /// # Errors
    /// As [`Plan::new`] and [`Backend::gpu`].
    pub async fn new(network: &Network, device: Option<&gpu::Device>) -> Result<Inspector> {
        let mut network = network.clone();
        leave_dropout_out(&mut network.layers);
        let options = Options { batch: 1, fuse: false, reuse: false, ..Options::default() };
        let plan = Plan::new(&network, &options)?;
        let backend = match device {
            Some(device) => Backend::gpu(device, &plan.program).await?,
            None => Backend::cpu(&plan.program),
        };
        let placed = network.place()?;
        let shapes = placed
            .iter()
            .flat_map(|layer| layer.all())
            .map(|(_, layer)| (layer.name.clone(), layer.output))
            .collect();
        Ok(Inspector { session: Session::new(plan, backend), shapes })
    }

    /// Runs one picture, laid out like a data set's, forward and backward with flat parameters such as
    /// [`Session::parameters`] gives of a plan of the same network.
    ///
    /// # Errors
    /// [`Error::Network`] when the picture or the label is none of the network's,
    /// [`Error::Settings`] when there are more or fewer parameters, and what the device reports.
    pub async fn look(&mut self, parameters: &[f32], picture: &[u8], label: u8) -> Result<Inspection> {
        let plan = self.session.plan();
        let input = plan.network.input;
        let shape = [input.channels, input.height, input.width];
        let one = Dataset::new("the picture", shape, plan.classes(), picture.to_vec(), vec![label])?;
        let (all, metrics, gradients) = (plan.parameters, plan.metrics, plan.gradients);
        let views: Vec<(String, Range, Option<Range>)> = plan.activations.clone();
        if parameters.len() != all.len {
            return Err(Error::Settings(format!("{} parameters, expected {}", parameters.len(), all.len)));
        }
        self.session.set_training(&one)?;
        self.session.backend().write(all, bytemuck::cast_slice(parameters))?;
        // With a learning rate of 0 the weights stay as they are.
        let step = Step { count: 1, correction1: 1.0, correction2: 1.0, ..Step::default() };
        let backend = self.session.backend();
        backend.run(Phase::Train, &[step])?;
        // All are asked for before the first is waited for.
        let metrics = backend.read(Range { len: RECORD, ..metrics });
        let gradients = backend.read(gradients);
        let views: Vec<_> = views
            .into_iter()
            .map(|(name, value, gradient)| {
                (name, backend.read(value), gradient.map(|range| backend.read(range)))
            })
            .collect();
        let loss = f32::from_bits(metrics.await?[0]);
        let gradients: Vec<f32> = bytemuck::cast_vec(gradients.await?);
        let mut layers = Vec::with_capacity(views.len());
        for (name, value, gradient) in views {
            // What a plan calls a value is the layer that gave it.
            let shape = self.shapes.iter().find(|(layer, _)| *layer == name);
            let Some(&(_, shape)) = shape else { continue };
            let row = |words: Vec<u32>| to_rows(bytemuck::cast_slice(&words), shape.len(), 1);
            let values = row(value.await?);
            let gradient = match gradient {
                Some(gradient) => Some(row(gradient.await?)),
                None => None,
            };
            layers.push(View { name, shape, values, gradient });
        }
        let plan = self.session.plan();
        let pulls = plan.split(parameters).zip(plan.split_gradients(&gradients));
        let parameters = pulls
            .map(|((parameter, values), (_, gradient))| Pull {
                name: parameter.name.clone(),
                shape: parameter.shape.clone(),
                values: values.to_vec(),
                gradient: gradient.to_vec(),
            })
            .collect();
        Ok(Inspection { loss, layers, parameters })
    }
}
