//! The loss of a device, on purpose: it must become an error at every call that follows, not a panic.

use super::cases;
use crate::backend::{Backend, gpu};
use crate::error::{Error, Result};
use crate::kernels::{CHUNK, Range};
use crate::plan::Phase;

/// Runs a launch, destroys the device and goes on as if nothing had happened. The device must be one that nobody else
/// uses.
///
/// # Errors
/// [`Error::Device`] when a call says something else than that the device is lost, and what fails before.
pub async fn survives_loss(device: &gpu::Device) -> Result<()> {
    let wrong = |what: &str, found: String| {
        Err(Error::Device(format!("{}: after the device was lost, {what} gave {found}", device.name())))
    };
    let Some(case) = cases("batch", device.target().fill)?.into_iter().next() else { return Ok(()) };
    let mut backend = Backend::gpu(device, &case.program).await?;
    let range = Range { len: CHUNK, ..case.program.train[0].bindings[0].1 };
    backend.run(Phase::Train, &case.steps)?;
    backend.read(range).await?;
    device.device().destroy();
    // GPUs report late: what is only queued may be accepted until the device has been polled, but a read must
    // fail at once.
    let _ = backend.write(range, &[0; CHUNK]);
    let _ = backend.run(Phase::Train, &case.steps);
    match backend.read(range).await {
        Err(Error::DeviceLost(_) | Error::Device(_)) => {}
        other => return wrong("the first read", format!("{other:?}")),
    }
    let _ = device.device().poll(wgpu::PollType::Poll);
    let run = backend.run(Phase::Train, &case.steps);
    let read = backend.read(range).await.map(drop);
    let made = Backend::gpu(device, &case.program).await.map(drop);
    for (what, result) in [("a step", run), ("a read", read), ("a new backend", made)] {
        if !matches!(result, Err(Error::DeviceLost(_))) {
            return wrong(what, format!("{result:?}"));
        }
    }
    Ok(())
}
