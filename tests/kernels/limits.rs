//! What a device refuses, and how it fails.

use lenet::backend::{Backend, Gpu, gpu};
use lenet::check;
use lenet::error::Error;
use lenet::kernels::optimizer::Rule;
use lenet::kernels::{CHUNK, Step, Target, batch, conv2d};
use lenet::network::Network;
use lenet::plan::{LARGEST_BATCH, Memory, Options, Phase, Plan, Program};
use pollster::block_on;

use super::common;
use super::whole::plan;

#[test]
fn a_buffer_over_the_limits_is_an_error() {
    let Some(device) = common::gpu() else { return };
    let mut program = Program::default();
    let most = wgpu::Limits::default().max_storage_buffer_binding_size;
    program.add("the largest", CHUNK);
    program.add("too large", most as usize / 4 + CHUNK);
    match block_on(Backend::gpu(&device, &program)) {
        Err(Error::Limit { what, needed, allowed }) => {
            assert!(what.contains("too large"), "{what}");
            assert!(needed > allowed && allowed == most, "{needed} of {allowed}");
        }
        Err(other) => panic!("expected Error::Limit, got {other:?}"),
        Ok(_) => panic!("a buffer of more than {most} bytes was made"),
    }
}

#[test]
fn a_grid_over_elements_folds() {
    let mut program = Program::default();
    let [images, order, output] = ["images", "order", "output"].map(|name| program.add(name, CHUNK));
    let geometry = batch::Geometry {
        channels: 1,
        height: 1024,
        width: 1024,
        pad: 0,
        mean: 0.0,
        deviation: 1.0,
        batch: 1,
        augment: None,
    };
    let launch = geometry.gather(batch::Buffers { images, order, output }).expect("a grid of several rows");
    assert_eq!(launch.grid, [65_535, 5, 1]);
}

#[test]
fn a_grid_over_the_limits_is_an_error() {
    let mut program = Program::default();
    let [mask, weight_grad] = ["mask", "weight_grad"].map(|name| program.add(name, CHUNK));
    // A workgroup for every 64 of its weights.
    let geometry = conv2d::Geometry {
        in_channels: 1024,
        in_size: [9, 9],
        out_channels: 1024,
        out_size: [1, 1],
        kernel: [9, 9],
        stride: [1, 1],
        pad: [0, 0],
        dilation: [1, 1],
        groups: 1,
        bias: false,
        activation: None,
        input_activation: None,
        batch: 1,
        target: Target::CPU,
    };
    match geometry.mask_gradient(mask, weight_grad) {
        Err(Error::Limit { needed, allowed, .. }) => assert!(needed > allowed && allowed == 65_535),
        other => panic!("expected Error::Limit, got {other:?}"),
    }
}

#[test]
fn the_largest_batch_is_the_largest() {
    let network = Network::preset("lenet5").expect("a preset");
    let options = Options { train_images: 97, ..Options::default() };
    let plan = |batch, memory| Plan::within(&network, &Options { batch, ..options.clone() }, memory);
    let largest = |memory| Plan::largest_batch(&network, &options, memory).expect("a network that fits");
    let needs = |batch| plan(batch, Memory::UNBOUNDED).expect("a plan").program.bytes();
    for memory in [
        Memory { total: needs(100), ..Memory::UNBOUNDED },
        Memory { buffer: 1 << 22, ..Memory::UNBOUNDED },
        Memory { buffer: 1 << 27, total: 1 << 28 },
    ] {
        let most = largest(memory).expect("a batch");
        assert!((1..LARGEST_BATCH).contains(&most), "{memory:?}: {most}");
        let program = plan(most, memory).expect("a plan that fits").program;
        assert!(program.fits(memory).is_ok() && program.bytes() <= memory.total);
        match plan(most + 1, memory) {
            Err(Error::Limit { what, needed, allowed }) => {
                assert!(what.contains(&format!("the largest that does is {most}")), "{what}");
                assert!(needed > allowed, "{needed} of {allowed}");
            }
            other => panic!("expected Error::Limit, got {other:?}"),
        }
    }
    assert_eq!(largest(Memory::UNBOUNDED), Some(LARGEST_BATCH));
    assert_eq!(largest(Memory { total: 1000, ..Memory::UNBOUNDED }), None);
    match plan(1, Memory { total: 1000, ..Memory::UNBOUNDED }) {
        Err(Error::Limit { what, .. }) => assert!(what.contains("not even one image"), "{what}"),
        other => panic!("expected Error::Limit, got {other:?}"),
    }
}

#[test]
fn launches_are_timed_by_the_device() {
    let opened = common::gpu();
    if opened.is_none() {
        return;
    }
    let adapters = block_on(gpu::adapters());
    let timed = |adapter| block_on(gpu::Device::open_with(adapter, wgpu::Features::TIMESTAMP_QUERY)).ok();
    let Some(device) = adapters.iter().find_map(timed) else { return };
    let plan = plan(Rule::Sgd);
    let mut gpu = block_on(Gpu::new(&device, &plan.program)).expect("a backend");
    let steps = [Step { count: 20, ..Step::default() }; 3];
    match block_on(gpu.time(Phase::Train, &steps)) {
        Ok(nanoseconds) => {
            assert!(device.has_timestamps());
            assert_eq!(nanoseconds.len(), 3 * plan.program.train.len());
            assert_eq!(gpu.dispatched(), nanoseconds.len() as u64);
            // Whole numbers of ticks; some launch takes longer than one.
            assert!(nanoseconds.iter().all(|&ns| ns >= 0.0) && nanoseconds.iter().sum::<f64>() > 0.0);
        }
        Err(Error::Device(message)) => assert!(!device.has_timestamps(), "{message}"),
        Err(other) => panic!("{other:?}"),
    }
    gpu.repeat(Phase::Train, 0, 5, steps[0]).expect("a launch that exists");
    assert!(matches!(gpu.repeat(Phase::Train, 99, 1, steps[0]), Err(Error::Settings(_))));
    let mut plain = block_on(Gpu::new(&opened.expect("a device"), &plan.program)).expect("a backend");
    assert!(matches!(block_on(plain.time(Phase::Train, &steps)), Err(Error::Device(_))));
}

#[test]
fn a_lost_device_is_an_error() {
    let Some(device) = common::gpu() else { return };
    block_on(check::survives_loss(&device)).expect("errors that say that the device is lost");
    // A second time nothing works at all, and that is an error, too.
    let again = block_on(check::survives_loss(&device));
    assert!(matches!(again, Err(Error::DeviceLost(_))), "expected Error::DeviceLost, got {again:?}");
}
