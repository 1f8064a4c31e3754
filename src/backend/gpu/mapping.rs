//! Words on their way back from the device.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use super::Device;
use crate::error::{Error, Result};

/// A staging buffer that is being mapped.
pub struct Mapping {
    device: Device,
    staging: wgpu::Buffer,
    /// The submission that fills the buffer.
    #[cfg(not(target_arch = "wasm32"))]
    submission: wgpu::SubmissionIndex,
    state: Arc<Mutex<Mapped>>,
    #[cfg(not(target_arch = "wasm32"))]
    watched: bool,
}

/// Wakes whoever waits, without holding the lock: the waker may ask at once.
fn wake(state: &Mutex<Mapped>) {
    let waker = state.lock().unwrap_or_else(PoisonError::into_inner).waker.take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[derive(Default)]
struct Mapped {
    result: Option<Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

impl Mapping {
    pub(super) fn new(device: &Device, staging: wgpu::Buffer, submission: wgpu::SubmissionIndex) -> Mapping {
        #[cfg(target_arch = "wasm32")]
        let _ = submission;
        let state = Arc::new(Mutex::new(Mapped::default()));
        let told = state.clone();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            told.lock().unwrap_or_else(PoisonError::into_inner).result = Some(result);
            wake(&told);
        });
        Mapping {
            device: device.clone(),
            staging,
            #[cfg(not(target_arch = "wasm32"))]
            submission,
            state,
            #[cfg(not(target_arch = "wasm32"))]
            watched: false,
        }
    }

    /// The words, if they have arrived.
    pub(in crate::backend) fn try_take(&mut self) -> Option<Result<Vec<u32>>> {
        // Does nothing in a browser, where the event loop runs the callback.
        let polled = self.device.device.poll(wgpu::PollType::Poll);
        let result = self.state.lock().unwrap_or_else(PoisonError::into_inner).result.take();
        match (result, polled) {
            (Some(Ok(())), _) => Some(match self.staging.get_mapped_range(..) {
                Ok(view) => Ok(bytemuck::pod_collect_to_vec::<u8, u32>(&view)),
                Err(error) => Err(self.device.error(&error)),
            }),
            (Some(Err(error)), _) => {
                Some(Err(self.device.check().err().unwrap_or_else(|| Error::DeviceLost(error.to_string()))))
            }
            (None, Err(error)) => Some(Err(self.device.error(&error))),
            (None, Ok(_)) => self.device.check().err().map(Err),
        }
    }

    /// Has `waker` woken when the words arrive.
    pub(in crate::backend) fn wake(&mut self, waker: &Waker) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).waker = Some(waker.clone());
        #[cfg(not(target_arch = "wasm32"))]
        if !std::mem::replace(&mut self.watched, true) {
            let (device, state) = (self.device.device.clone(), self.state.clone());
            // Not for all that was submitted: the device's owner may be far ahead by then.
            let wait =
                wgpu::PollType::Wait { submission_index: Some(self.submission.clone()), timeout: None };
            // Natively someone has to wait for the device: a thread does, so that no executor has to.
            let watch = std::thread::Builder::new().name("lenet readback".into());
            let spawned = watch.spawn(move || {
                let _ = device.poll(wait);
                self::wake(&state);
            });
            if spawned.is_err() {
                // Without a thread the executor has to ask again by itself.
                self.watched = false;
                waker.wake_by_ref();
            }
        }
    }
}

/// So that a long run's memory stays flat in a browser, too.
impl Drop for Mapping {
    fn drop(&mut self) {
        self.staging.destroy();
    }
}
