//! What a device refuses, and how it fails.

use lenet::backend::{Backend, Gpu, gpu};
use lenet::check;
use lenet::error::Error;
use lenet::kernels::optimizer::Rule;
use lenet::kernels::{
    CHUNK, Gradients, LayerBuffers, Range, Step, Target, batch, conv_pool, conv2d, depthwise, linear, norm,
    padded, pool2d,
};
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

/// A convolution of 1×1 filters.
fn convolution([in_channels, out_channels]: [usize; 2], size: [usize; 2], batch: usize) -> conv2d::Geometry {
    conv2d::Geometry {
        in_channels,
        in_size: size,
        out_channels,
        out_size: size,
        kernel: [1, 1],
        stride: [1, 1],
        pad: [0, 0],
        dilation: [1, 1],
        groups: 1,
        bias: true,
        activation: None,
        input_activation: None,
        batch,
        target: Target::DISCRETE,
    }
}

#[test]
fn no_grid_is_too_large() {
    let mut program = Program::default();
    let mut range = |name| program.add(name, CHUNK);
    let [input, weight, bias, output, input_grad] =
        ["input", "weight", "bias", "output", "input_grad"].map(&mut range);
    let [upstream, weight_grad, bias_grad, saved] =
        ["upstream", "weight_grad", "bias_grad", "saved"].map(&mut range);
    let b = LayerBuffers { input, weight, bias, output };
    let g = Gradients { output: upstream, weight: weight_grad, bias: bias_grad };
    let mut launches = Vec::new();
    // Of pictures and of channels that are many.
    for conv in [convolution([1, 2], [3000, 3000], 1), convolution([3, 900_000], [1, 1], 16)] {
        launches.push(conv.forward(b));
        launches.push(
            conv2d::Geometry { in_channels: conv.out_channels, ..conv }.input_gradient(b, g, input_grad),
        );
    }
    launches.push(convolution([4000, 4000], [1, 1], 1).weight_gradient(b, g));
    let many = 1 << 20;
    let alone = conv2d::Geometry { groups: many, ..convolution([many; 2], [1, 1], 16) };
    let alone = depthwise::Geometry::of(&alone).expect("channels by themselves");
    launches.extend([alone.forward(b), alone.input_gradient(b, g, input_grad), alone.weight_gradient(b, g)]);
    let (activation, input_activation, target) = (None, None, Target::DISCRETE);
    let conv = convolution([1, 8], [3000, 3000], 16);
    let pooled =
        conv_pool::Geometry { conv, average: false, activation, input_activation, gather: None, target };
    let buffers = conv_pool::Buffers { input, order: input, weight, bias, output, saved };
    launches.push(pooled.forward(buffers, true));
    launches.push(pooled.backward(buffers, g, Some(input_grad)));
    launches.push(pooled.input_gradient(buffers, upstream, input_grad));
    let conv = convolution([2000, 2000], [2, 2], 1);
    launches.push(conv_pool::Geometry { conv, ..pooled }.backward(buffers, g, None));
    for [inputs, outputs] in [[3, 20_000_000], [20_000_000, 3]] {
        let geometry =
            linear::Geometry { inputs, outputs, bias: true, activation, input_activation, batch: 16, target };
        launches.push(if inputs == 3 {
            geometry.forward(b)
        } else {
            geometry.input_gradient(b, g, input_grad)
        });
        launches.extend([geometry.weight_gradient(b, g), geometry.backward(b, g, input_grad)]);
    }
    let (channels, epsilon) = (5_000_000, 1e-5);
    let norm = norm::Geometry {
        channels,
        positions: 1,
        kind: norm::Kind::Batch,
        epsilon,
        activation,
        batch: 1,
        target,
    };
    let buffers = norm::Buffers {
        input,
        weight,
        bias,
        running_mean: weight,
        running_variance: weight,
        batch: [weight_grad, bias_grad],
        saved,
        output,
    };
    launches.extend(norm.statistics(buffers).expect("statistics").into_iter().map(Ok));
    launches.push(norm.weight_gradient(buffers, g));
    for launch in launches {
        let launch = launch.expect("a grid of several rows");
        assert!(launch.grid[1] > 1 && launch.grid.iter().all(|&n| n <= 65_535), "{launch:?}");
    }
}

#[test]
fn windows_beyond_32_bits_are_refused() {
    let mut program = Program::default();
    let [input, output] = ["input", "output"].map(|name| program.add(name, CHUNK));
    let geometry = |len: usize| pool2d::Geometry::adaptive(1, [1, len], [1, len], 1);
    assert!(geometry(65_000).adaptive_forward(input, output).is_ok());
    for refused in
        [geometry(70_000).adaptive_forward(input, output), geometry(70_000).adaptive_backward(input, output)]
    {
        assert!(matches!(refused, Err(Error::Limit { .. })), "{refused:?}");
    }
}

#[test]
fn a_grid_of_several_rows_runs() {
    let Some(device) = common::gpu() else { return };
    // A workgroup for every 64 of its weights, in two rows.
    let geometry = convolution([2050, 2049], [1, 1], 1);
    let weights = geometry.weights();
    let mut program = Program::default();
    let mask = program.add("mask", weights);
    let weight_grad = program.add("weight_grad", padded(weights));
    program.train.push(geometry.mask_gradient(mask, weight_grad).expect("a launch"));
    assert_eq!(program.train[0].grid, [32_817, 2, 1]);
    let seen: Vec<u32> = (0..weights).map(|i| u32::from(i % 3 != 0)).collect();
    let before: Vec<u32> = (1..=weights as u32).collect();
    let mut backend = block_on(Backend::gpu(&device, &program)).expect("a backend");
    backend.write(mask, &seen).expect("a mask");
    backend.write(Range { len: weights, ..weight_grad }, &before).expect("gradients");
    backend.run(Phase::Train, &[Step::default()]).expect("a step");
    let after = block_on(backend.read(Range { len: weights, ..weight_grad })).expect("gradients");
    let wrong = (0..weights).find(|&i| after[i] != before[i] * seen[i]);
    assert_eq!(wrong, None, "a weight's gradient that is not what the mask leaves of it");
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
