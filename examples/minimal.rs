//! The smallest program: trains LeNet-5 on MNIST for one epoch, on a GPU if there is one, and says how well it does.

use lenet::plan::{Options, Plan};
use lenet::session::Session;
use lenet::train::{Advance, Event, Settings, Trainer};
use lenet::{Network, backend::Device, data};
use pollster::block_on;

fn main() -> lenet::Result<()> {
    let mnist = data::mnist()?;
    let settings = Settings { epochs: 1, ..Settings::default() };
    // The device comes first: the plan is made for it.
    let device = block_on(Device::automatic())?;
    let options =
        Options { target: device.target(), ..Trainer::options(&settings, &mnist.train, &mnist.test) };
    let plan = Plan::new(&Network::preset("lenet5")?, &options)?;
    let backend = block_on(device.backend(&plan.program))?;
    println!("training on {}", backend.name());

    let mut trainer = Trainer::new(Session::new(plan, backend), settings, &mnist.train, &mnist.test)?;
    while trainer.advance(64)? != Advance::Done {
        if let Some(Event::Epoch { evaluation, .. }) = block_on(trainer.event())? {
            println!("test accuracy {:.2} %", 100.0 * evaluation.accuracy());
        }
    }
    Ok(())
}
