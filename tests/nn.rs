//! Layers, optimisers, models and weight files through the public interface, on the CPU.

use mappa::io::safetensors;
use mappa::nn::{
    Activation, AvgPool2d, BatchNorm2d, Context, Conv2d, Dropout, Flatten, Folded, GlobalAvgPool2d, Init, Linear, MaxPool2d, Module,
    NamedArray, Parameter, Residual, Sequential, initialize, load_state_dict, named_buffers, named_parameters, state_dict,
};
use mappa::op::Conv2dOptions;
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::rng::Stream;
use mappa::shape::Shape;
use mappa::{Device, Error, Tensor, autodiff, models};
use std::path::Path;
use std::sync::{Arc, Mutex};

fn cpu() -> Device {
    Device::cpu(1).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec_blocking().unwrap()
}

fn random(device: &Device, shape: &[usize], seed: u64) -> Tensor {
    Tensor::uniform(device, shape, -1.0, 1.0, Stream::new(seed, "test", 0, 0)).unwrap()
}

fn names(module: &dyn Module) -> Vec<String> {
    state_dict(module).into_iter().map(|(name, _)| name).collect()
}

#[track_caller]
fn assert_close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        // Written so that NaN fails.
        assert!((g as f64 - w).abs() <= tolerance * w.abs().max(1.0), "element {i}: got {g}, expected {w}");
    }
}

// ---------------------------------------------------------------- layers

#[test]
fn layers_have_pytorchs_shapes_and_names() {
    let device = cpu();
    let linear = Linear::new(&device, 3, 5, true).unwrap();
    let shapes: Vec<(String, Vec<usize>)> = named_parameters(&linear).into_iter().map(|(name, p)| (name, p.shape().to_vec())).collect();
    assert_eq!(shapes, [("weight".to_owned(), vec![5, 3]), ("bias".to_owned(), vec![5])]);
    assert_eq!(names(&Linear::new(&device, 3, 5, false).unwrap()), ["weight"]);

    let options = Conv2dOptions { stride: [2, 1], padding: [1, 0], groups: 2, ..Default::default() };
    let conv = Conv2d::new(&device, 4, 6, [3, 2], options, true).unwrap();
    assert_eq!(conv.weight().shape()[..], [6, 2, 3, 2]);
    let y = conv.forward(&mut Context::eval(), &random(&device, &[2, 4, 7, 5], 0)).unwrap();
    assert_eq!(y.shape()[..], [2, 6, 4, 4]);
    assert_eq!(conv.describe(), "Conv2d 4 -> 6, 3x2, stride 2x1, padding 1x0, groups 2");

    let error = Conv2d::new(&device, 4, 6, [3, 3], Conv2dOptions { groups: 4, ..Default::default() }, true).unwrap_err();
    assert_eq!(error.to_string(), "Conv2d: groups = 4 must divide in_channels = 4 and out_channels = 6");
}

#[test]
fn linear_computes_x_times_the_transposed_weight_plus_bias() {
    let device = cpu();
    let linear = Linear::new(&device, 3, 2, true).unwrap();
    linear.weight().write(&[1., 2., 3., 4., 5., 6.]).unwrap();
    linear.bias().unwrap().write(&[0.5, -0.5]).unwrap();
    let x = Tensor::from_slice(&device, &[1, 3], &[1.0f32, 0.0, -1.0]).unwrap();
    let y = linear.forward(&mut Context::eval(), &x).unwrap();
    assert_eq!(values(&y), [-1.5, -2.5]);
    // Any leading dimensions, as in PyTorch.
    let y = linear.forward(&mut Context::eval(), &random(&device, &[4, 5, 3], 0)).unwrap();
    assert_eq!(y.shape()[..], [4, 5, 2]);
}

#[test]
fn nested_modules_are_named_by_path() {
    let device = cpu();
    let block = || {
        let body = Sequential::new()
            .named("conv1", Conv2d::new(&device, 2, 2, [1, 1], Conv2dOptions::default(), false).unwrap())
            .named("bn1", BatchNorm2d::new(&device, 2).unwrap());
        let shortcut = Sequential::new().then(Conv2d::new(&device, 2, 2, [1, 1], Conv2dOptions::default(), false).unwrap());
        Residual::new(body, Some(shortcut))
    };
    let model = Sequential::new().named("layer1", Sequential::new().then(block())).then(Linear::new(&device, 2, 2, true).unwrap());
    let expected = [
        "layer1.0.conv1.weight",
        "layer1.0.bn1.weight",
        "layer1.0.bn1.bias",
        "layer1.0.bn1.running_mean",
        "layer1.0.bn1.running_var",
        "layer1.0.downsample.0.weight",
        "1.weight",
        "1.bias",
    ];
    assert_eq!(names(&model), expected);
    assert_eq!(named_buffers(&model).len(), 2);
    assert_eq!(named_parameters(&model).len(), 6);
}

#[test]
fn an_error_begins_with_the_layers_path() {
    let device = cpu();
    let conv = Conv2d::new(&device, 16, 64, [3, 3], Conv2dOptions::default(), true).unwrap();
    let model = Sequential::new().named("features", Sequential::new().then(conv));
    let error = model.forward(&mut Context::eval(), &random(&device, &[2, 3, 8, 8], 0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "features.0: conv2d got input [2, 3, 8, 8] (C = 3) but weight [64, 16, 3, 3] with groups = 1 expects C = 16; \
         set in_channels = 3, or groups so that C / groups matches the weight"
    );
}

#[test]
fn residual_adds_the_shortcut_and_refuses_to_broadcast() {
    let device = cpu();
    let x = Tensor::from_slice(&device, &[1, 1, 1, 3], &[-2.0f32, 1.0, 3.0]).unwrap();
    // An empty body is the identity: relu(x + x).
    let y = Residual::new(Sequential::new(), None).forward(&mut Context::eval(), &x).unwrap();
    assert_eq!(values(&y), [0., 2., 6.]);
    let pooled = Residual::new(Sequential::new().then(GlobalAvgPool2d), None);
    let error = pooled.forward(&mut Context::eval(), &x).unwrap_err().to_string();
    assert_eq!(error, "0: residual: the body gives [1, 1, 1, 1] but the shortcut [1, 1, 1, 3]; give both the same channels and stride");
}

#[test]
fn activations_and_pools_compute_their_functions() {
    let device = cpu();
    let x = Tensor::from_slice(&device, &[1, 1, 2, 2], &[-2.0f32, 0.0, 1.0, 3.0]).unwrap();
    let run = |module: &dyn Module| values(&module.forward(&mut Context::eval(), &x).unwrap());
    assert_eq!(run(&Activation::Relu), [0., 0., 1., 3.]);
    assert_eq!(run(&Activation::LeakyRelu { negative_slope: 0.5 }), [-1., 0., 1., 3.]);
    assert_close(&run(&Activation::Sigmoid), &[-2.0f64, 0.0, 1.0, 3.0].map(|v| 1.0 / (1.0 + (-v).exp())), 1e-6);
    assert_close(&run(&Activation::Tanh), &[-2.0f64, 0.0, 1.0, 3.0].map(f64::tanh), 1e-6);
    assert_eq!(run(&MaxPool2d::new(2)), [3.]);
    assert_eq!(run(&AvgPool2d::new(2)), [0.5]);
    assert_eq!(run(&GlobalAvgPool2d), [0.5]);
    assert_eq!(Flatten.forward(&mut Context::eval(), &x).unwrap().shape()[..], [1, 4]);
}

#[test]
fn dropout_repeats_for_the_same_key_and_differs_otherwise() {
    let device = cpu();
    let x = Tensor::ones(&device, &[256]).unwrap();
    let dropout = Dropout::new(0.25).unwrap();
    let pass = |ctx: &mut Context, layer: &str| values(&ctx.call(layer, &dropout, &x).unwrap());
    let first = pass(&mut Context::train(1, 7), "a");
    assert_eq!(first, pass(&mut Context::train(1, 7), "a"));
    assert!(first.iter().all(|&v| v == 0.0 || v == 1.0 / 0.75));
    // 256 draws with p = 1/4: 64 expected, standard deviation 7.
    let zeros = first.iter().filter(|&&v| v == 0.0).count();
    assert!((36..=92).contains(&zeros), "{zeros} zeros");

    let mut ctx = Context::train(1, 7);
    let (used_once, used_twice) = (pass(&mut ctx, "a"), pass(&mut ctx, "a"));
    assert_eq!(first, used_once);
    let others = [
        used_twice,
        pass(&mut Context::train(1, 7), "b"),
        pass(&mut Context::train(1, 8), "a"),
        pass(&mut Context::train(2, 7), "a"),
        pass(&mut Context::train(1, 7).micro_step(1), "a"),
    ];
    assert!(others.iter().all(|other| *other != first));
    assert_eq!(pass(&mut Context::eval(), "a"), vec![1.0; 256]);
    assert!(Dropout::new(1.0).is_err() && Dropout::new(-0.1).is_err() && Dropout::new(f64::NAN).is_err());
}

#[test]
fn batch_norm_updates_its_running_statistics_in_training_only() {
    let device = cpu();
    let norm = BatchNorm2d::new(&device, 2).unwrap();
    initialize(&norm, 0).unwrap();
    // Channel 0 holds 0, 2, 4, 6 (mean 3, unbiased variance 20/3), channel 1 holds 5 throughout.
    let x = Tensor::from_slice(&device, &[2, 2, 1, 2], &[0.0f32, 2., 5., 5., 4., 6., 5., 5.]).unwrap();
    let y = norm.forward(&mut Context::train(0, 0), &x).unwrap();
    // The output uses the biased variance 5.
    let s = 1.0 / (5.0f64 + 1e-5).sqrt();
    assert_close(&values(&y), &[-3.0 * s, -s, 0.0, 0.0, s, 3.0 * s, 0.0, 0.0], 1e-6);
    let running = || named_buffers(&norm).into_iter().flat_map(|(_, t)| values(&t)).collect::<Vec<f32>>();
    let expected = [0.3, 0.5, 0.9 + 0.1 * 20.0 / 3.0, 0.9];
    assert_close(&running(), &expected, 1e-6);
    let y = norm.forward(&mut Context::eval(), &x).unwrap();
    assert_close(&running(), &expected, 1e-6);
    let normal = |v: f64, c: usize| (v - expected[c]) / (expected[c + 2] + 1e-5).sqrt();
    assert_close(&values(&y)[..4], &[normal(0., 0), normal(2., 0), normal(5., 1), normal(5., 1)], 1e-6);
    assert!(norm.forward(&mut Context::eval(), &random(&device, &[3, 2], 0)).unwrap_err().to_string().contains("[N, C, H, W]"));
}

#[test]
fn a_frozen_parameter_gets_no_gradient_and_a_thawed_one_does() {
    let device = cpu();
    let linear = Linear::new(&device, 2, 1, true).unwrap();
    linear.weight().set_trainable(false);
    let backward = || {
        let x = random(&device, &[4, 2], 1);
        linear.forward(&mut Context::train(0, 0), &x).unwrap().sum(None, false).unwrap().backward().unwrap();
    };
    backward();
    assert!(linear.weight().grad().is_none());
    assert_eq!(values(&linear.bias().unwrap().grad().unwrap()), [4.0]);
    linear.weight().set_trainable(true);
    backward();
    assert!(linear.weight().grad().is_some());
    // The bias's gradient was summed over both passes.
    assert_eq!(values(&linear.bias().unwrap().grad().unwrap()), [8.0]);
}

#[test]
fn setting_a_parameter_copies_the_values() {
    let device = cpu();
    let parameter = Parameter::new(&device, &[2], Init::Default).unwrap();
    let source = Tensor::from_slice(&device, &[2], &[1.0f32, 2.0]).unwrap();
    parameter.set(&source).unwrap();
    source.write(&[9.0f32, 9.0]).unwrap();
    assert_eq!(values(&parameter.data()), [1.0, 2.0]);
    assert!(matches!(parameter.set(&random(&device, &[3], 0)), Err(Error::Shape(_))));
    assert!(matches!(parameter.set(&random(&cpu(), &[2], 0)), Err(Error::Device(_))));
}

/// Batch norm with what follows it, in one pass, against the same layers one by one, as an observer sees them: equal to the bit on the CPU, in training with
/// all gradients and running statistics, and in evaluation. On a GPU drivers may round each in their own way.
#[test]
fn layers_in_one_pass_compute_what_they_compute_one_by_one() {
    let run = |device: &Device, name: &str, observed: bool| {
        let network = models::build(name, [3, 32, 32], 5, device, 7).unwrap();
        let x = random(device, &[4, 3, 32, 32], 3);
        let observe = |ctx: Context| if observed { ctx.observe(Box::new(|_, _, _| None)) } else { ctx };
        let y = network.forward(&mut observe(Context::train(1, 1)), &x).unwrap();
        y.backward_with(&random(device, y.shape(), 5)).unwrap();
        let mut all = vec![("logits".to_owned(), values(&y))];
        all.extend(named_parameters(&network).iter().map(|(name, p)| (format!("gradient of {name}"), values(&p.grad().unwrap()))));
        all.extend(state_dict(&network).iter().map(|(name, t)| (name.clone(), values(t))));
        all.push(("evaluation".into(), values(&network.forward(&mut observe(Context::eval()), &x).unwrap())));
        all
    };
    for name in ["resnet8", "mobilenet_v2", "vgg11_bn", "lenet5"] {
        let (together, apart) = (run(&cpu(), name, false), run(&cpu(), name, true));
        for ((what, a), (_, b)) in together.iter().zip(&apart) {
            assert_eq!(
                a.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
                b.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
                "{name}: {what}"
            );
        }
    }
    let count = |observed: bool| {
        let (device, counts) = Device::null();
        let network = models::build("resnet8", [3, 32, 32], 5, &device, 7).unwrap();
        let calls = || counts.lock().unwrap().ops.len();
        let ctx = if observed { Context::eval().observe(Box::new(|_, _, _| None)) } else { Context::eval() };
        let x = Tensor::zeros(&device, &[1, 3, 32, 32]).unwrap();
        let before = calls();
        network.forward(&mut { ctx }, &x).unwrap();
        calls() - before
    };
    // 9 convolutions and norms, 7 ReLUs and 3 sums, then pool and product; the ReLUs and sums are part of norms.
    assert_eq!((count(true), count(false)), (30, 20));
}

#[test]
fn norms_are_folded_into_convolutions_where_that_is_asked_for_and_nothing_else_changes() {
    // Statistics that make a difference; results within a hundred roundings of the largest, a few for each layer.
    let check = |device: &Device, name: &str| {
        let network = models::build(name, [3, 32, 32], 5, device, 7).unwrap();
        network.forward(&mut Context::train(1, 1), &random(device, &[4, 3, 32, 32], 3)).unwrap();
        let x = random(device, &[2, 3, 32, 32], 4);
        let (_guard, folded) = (autodiff::no_grad(), Folded::default());
        let plain = values(&network.forward(&mut Context::eval(), &x).unwrap());
        let largest = plain.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        for _ in 0..2 {
            let got = values(&network.forward(&mut Context::eval().folding(&folded), &x).unwrap());
            assert!(
                plain.iter().zip(&got).all(|(a, b)| (a - b).abs() <= 100.0 * f32::EPSILON / 2.0 * largest),
                "{name}: {plain:?} and {got:?}"
            );
            // EfficientNet's untrained features are too small to change the last bits of its biases; its norms are counted below.
            assert!(["lenet5", "efficientnet_lite0"].contains(&name) || plain != got, "{name}: nothing was folded");
        }
    };
    for name in ["resnet8", "resnet18", "mobilenet_v2", "vgg11_bn", "efficientnet_lite0", "lenet5"] {
        check(&cpu(), name);
    }
    #[cfg(feature = "gpu")]
    if let Ok(gpu) = pollster::block_on(Device::gpu(None)) {
        check(&gpu, "resnet8");
    } else {
        assert_ne!(std::env::var("MAPPA_REQUIRE_GPU").as_deref(), Ok("1"), "no GPU adapter was found");
    }

    for (to, channels) in [(1, 3), (3, 1), (3, 2)] {
        let device = cpu();
        let conv = Conv2d::new(&device, 2, to, [3, 3], Conv2dOptions::default(), false).unwrap();
        let network = Sequential::new().then(conv).then(BatchNorm2d::new(&device, channels).unwrap());
        let (_guard, x) = (autodiff::no_grad(), random(&device, &[1, 2, 5, 5], 0));
        let error = network.forward(&mut Context::eval().folding(&Folded::default()), &x).unwrap_err().to_string();
        assert!(error.contains(&format!("{channels} channels cannot follow {to}")), "{error}");
    }

    // 9 norms: the 3 at the ends of the residual blocks keep a pass of their own, with the sum.
    let count = |name: &str, ctx: fn(&Folded) -> Context, recording: bool| {
        let (device, counts) = Device::null();
        let network = models::build(name, [3, 32, 32], 5, &device, 7).unwrap();
        let norms = || counts.lock().unwrap().ops.iter().filter(|(name, ..)| name.starts_with("batch_norm")).count();
        let folded = Folded::default();
        let _guard = (!recording).then(autodiff::no_grad);
        network.forward(&mut ctx(&folded), &Tensor::zeros(&device, &[1, 3, 32, 32]).unwrap()).unwrap();
        norms()
    };
    assert_eq!(count("resnet8", |folded| Context::eval().folding(folded), false), 3);
    assert_eq!(count("resnet8", |folded| Context::eval().folding(folded), true), 9);
    for name in ["mobilenet_v2", "efficientnet_lite0"] {
        assert_eq!(count(name, |folded| Context::eval().folding(folded), false), 0, "{name}");
    }
    assert_eq!(count("mobilenet_v2", |_| Context::eval(), false), 52);
    assert_eq!(count("resnet8", |folded| Context::train(1, 1).folding(folded), false), 9);
    assert_eq!(count("resnet8", |folded| Context::eval().folding(folded).observe(Box::new(|_, _, _| None)), false), 9);
}

#[test]
fn an_observer_sees_every_layer_with_its_path_and_output() {
    let device = cpu();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let mut ctx = Context::eval().observe(Box::new(move |path, layer, y| {
        log.lock().unwrap().push(format!("{path}: {} {}", layer.describe(), y.shape()));
        None
    }));
    let inner = Sequential::new().then(Linear::new(&device, 3, 2, true).unwrap()).then(Activation::Relu);
    Sequential::new().named("head", inner).forward(&mut ctx, &random(&device, &[4, 3], 0)).unwrap();
    assert_eq!(*seen.lock().unwrap(), ["head.0: Linear 3 -> 2 [4, 2]", "head.1: Relu [4, 2]", "head: Sequential [4, 2]"]);
}

// ---------------------------------------------------------------- optimisers

/// A parameter with given values.
fn parameter(device: &Device, data: &[f32]) -> Parameter {
    Parameter::from_tensor(&Tensor::from_slice(device, &[data.len()], data).unwrap())
}

/// Makes `gradient` the parameter's gradient, through the tape.
fn set_gradient(parameter: &Parameter, gradient: &[f32]) {
    let tensor = parameter.tensor();
    let upstream = Tensor::from_slice(tensor.device(), tensor.shape(), gradient).unwrap();
    tensor.mul(&upstream).unwrap().sum(None, false).unwrap().backward().unwrap();
}

fn gradient(parameter: usize, step: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| (Stream::new(5, "gradient", parameter as u64, step as u64).uniform(i as u64) - 0.5) * 2.0).collect()
}

/// Runs an optimiser with two groups (0.1 times the learning rate and weight decay 0.3 in the second) for six steps with a learning rate
/// that changes, and `reference(group weight decay, rate, step, weight, gradient, two numbers of state) -> weight` beside it.
fn compare(config: OptimizerConfig, reference: impl Fn(f64, f64, usize, f64, f64, &mut [f64; 2]) -> f64) {
    let device = cpu();
    let start: [&[f32]; 3] = [&[1.0, -2.0, 0.5], &[3.0], &[0.25, -0.125]];
    let parameters: Vec<Parameter> = start.iter().map(|data| parameter(&device, data)).collect();
    let group = |range: std::ops::Range<usize>| ParamGroup::new(range.map(|i| (format!("p{i}"), parameters[i].clone())).collect());
    let groups = vec![group(0..2), ParamGroup { lr_factor: 0.1, weight_decay: Some(0.3), ..group(2..3) }];
    let mut optimizer = Optimizer::new(config, groups).unwrap();
    let mut expected: Vec<Vec<(f64, [f64; 2])>> = start.iter().map(|data| data.iter().map(|&v| (v as f64, [0.0; 2])).collect()).collect();
    for step in 1..=6 {
        optimizer.zero_grad();
        let rate = config.lr() / step as f64;
        for (i, parameter) in parameters.iter().enumerate() {
            let gradient = gradient(i, step, start[i].len());
            set_gradient(parameter, &gradient);
            let (lr, decay) = if i < 2 { (rate, config.weight_decay()) } else { (0.1 * rate, 0.3) };
            for ((w, state), &g) in expected[i].iter_mut().zip(&gradient) {
                *w = reference(decay, lr, step, *w, g as f64, state);
            }
        }
        optimizer.step(rate).unwrap();
        for (parameter, expected) in parameters.iter().zip(&expected) {
            // Weights and state are rounded to f32 each step.
            assert_close(&values(&parameter.data()), &expected.iter().map(|(w, _)| *w).collect::<Vec<_>>(), 1e-6);
        }
    }
    assert_eq!(optimizer.steps(), 6);
}

#[test]
fn sgd_follows_its_formula() {
    let cases = [
        (0.0, 0.0, 0.0, false, false),
        (0.0, 0.0, 0.1, false, true),
        (0.9, 0.0, 0.05, false, false),
        (0.9, 0.0, 0.05, true, false),
        (0.8, 0.3, 0.0, false, true),
    ];
    for (momentum, dampening, weight_decay, nesterov, maximize) in cases {
        let config = OptimizerConfig::Sgd { lr: 0.2, momentum, dampening, weight_decay, nesterov, maximize };
        compare(config, |decay, lr, step, w, g, [buffer, _]| {
            let g = if maximize { -g } else { g } + decay * w;
            *buffer = if step == 1 { g } else { momentum * *buffer + (1.0 - dampening) * g };
            let direction = match (momentum > 0.0, nesterov) {
                (false, _) => g,
                (true, false) => *buffer,
                (true, true) => g + momentum * *buffer,
            };
            w - lr * direction
        });
    }
}

#[test]
fn adam_and_adamw_follow_their_formulas() {
    for (decoupled, weight_decay, maximize) in [(false, 0.0, false), (false, 0.1, true), (true, 0.01, false), (true, 0.2, true)] {
        let (lr, betas, eps) = (0.05, [0.8, 0.95], 1e-6);
        let config = if decoupled {
            OptimizerConfig::AdamW { lr, betas, eps, weight_decay, maximize }
        } else {
            OptimizerConfig::Adam { lr, betas, eps, weight_decay, maximize }
        };
        compare(config, |decay, lr, step, mut w, g, [m, v]| {
            let mut g = if maximize { -g } else { g };
            if decoupled {
                w -= lr * decay * w;
            } else {
                g += decay * w;
            }
            *m = betas[0] * *m + (1.0 - betas[0]) * g;
            *v = betas[1] * *v + (1.0 - betas[1]) * g * g;
            let m_hat = *m / (1.0 - betas[0].powi(step as i32));
            let v_hat = *v / (1.0 - betas[1].powi(step as i32));
            w - lr * m_hat / (v_hat.sqrt() + eps)
        });
    }
}

#[test]
fn gathered_parameters_share_an_arena_and_keep_their_values() {
    let device = cpu();
    let model = models::build("lenet5", [1, 8, 8], 10, &device, 3).unwrap();
    let before: Vec<Vec<f32>> = named_parameters(&model).iter().map(|(_, p)| values(&p.data())).collect();
    let mut optimizer = Optimizer::new(OptimizerConfig::sgd(0.1), vec![ParamGroup::new(named_parameters(&model))]).unwrap();
    let parameters: Vec<Parameter> = named_parameters(&model).into_iter().map(|(_, p)| p).collect();
    let arena = parameters[0].data().operand().buffer.clone();
    for (parameter, before) in parameters.iter().zip(&before) {
        let data = parameter.data();
        assert!(data.operand().buffer.same(&arena));
        assert_eq!(data.operand().range().start % device.capabilities().alignment, 0);
        assert_eq!(values(&data), *before);
    }
    // A tensor taken before the step is a view: the step is seen through it. Every gradient is a slice of one arena.
    let seen: Vec<Tensor> = parameters.iter().map(Parameter::data).collect();
    parameters.iter().for_each(|p| set_gradient(p, &vec![1.0; p.shape().len()].iter().map(|_| 1.0).collect::<Vec<f32>>()[..]));
    let gradients = parameters[0].grad().unwrap().operand().buffer.clone();
    assert!(parameters.iter().all(|p| p.grad().unwrap().operand().buffer.same(&gradients)));
    optimizer.step(0.5).unwrap();
    for (tensor, before) in seen.iter().zip(&before) {
        assert_eq!(values(tensor), before.iter().map(|v| v - 0.5).collect::<Vec<f32>>());
    }
}

#[test]
fn a_parameter_without_a_gradient_counts_as_zero() {
    let device = cpu();
    let (a, b) = (parameter(&device, &[1.0]), parameter(&device, &[2.0]));
    let group = ParamGroup::new(vec![("a".into(), a.clone()), ("b".into(), b.clone())]);
    let mut optimizer = Optimizer::new(OptimizerConfig::sgd(0.1), vec![group]).unwrap();
    set_gradient(&a, &[1.0]);
    set_gradient(&b, &[1.0]);
    optimizer.step(1.0).unwrap();
    assert_eq!((values(&a.data()), values(&b.data())), (vec![0.0], vec![1.0]));
    // The old gradient of b is still in the arena's memory, and must not be used.
    optimizer.zero_grad();
    assert!(b.grad().is_none());
    set_gradient(&a, &[1.0]);
    optimizer.step(1.0).unwrap();
    assert_eq!((values(&a.data()), values(&b.data())), (vec![-1.0], vec![1.0]));
}

#[test]
fn gradients_of_several_passes_are_summed_until_they_are_cleared() {
    let device = cpu();
    let a = parameter(&device, &[0.0, 0.0, 0.0]);
    let mut optimizer = Optimizer::new(OptimizerConfig::sgd(0.1), vec![ParamGroup::new(vec![("a".into(), a.clone())])]).unwrap();
    set_gradient(&a, &[1.0, 2.0, 3.0]);
    set_gradient(&a, &[10.0, 20.0, 30.0]);
    assert_eq!(values(&a.grad().unwrap()), [11.0, 22.0, 33.0]);
    optimizer.zero_grad();
    set_gradient(&a, &[1.0, 1.0, 1.0]);
    assert_eq!(values(&a.grad().unwrap()), [1.0, 1.0, 1.0]);
}

#[test]
fn clipping_scales_the_next_step_by_the_norm_over_all_groups() {
    let device = cpu();
    // Two groups, so two arenas. The gradients' norm is sqrt(9 + 16 + 144) = 13; the padding after [3, 4, 0] counts nothing.
    let (a, b) = (parameter(&device, &[0.0; 3]), parameter(&device, &[0.0]));
    let groups = vec![ParamGroup::new(vec![("a".into(), a.clone())]), ParamGroup::new(vec![("b".into(), b.clone())])];
    let mut optimizer = Optimizer::new(OptimizerConfig::sgd(1.0), groups).unwrap();
    let mut step = |max_norm: Option<f64>| {
        optimizer.zero_grad();
        a.write(&[0.0; 3]).unwrap();
        b.write(&[0.0]).unwrap();
        set_gradient(&a, &[3.0, 4.0, 0.0]);
        set_gradient(&b, &[12.0]);
        let norm = max_norm.map(|max_norm| optimizer.clip_grad_norm(max_norm).unwrap());
        optimizer.step(1.0).unwrap();
        let norm = norm.map(|norm| (norm.shape().to_vec(), values(&norm)));
        ([values(&a.data()), values(&b.data())].concat(), norm)
    };
    let (weights, norm) = step(Some(2.6));
    assert_close(&weights, &[-0.6, -0.8, 0.0, -2.4], 1e-6);
    assert_eq!(norm, Some((vec![1], vec![13.0])));
    let (weights, _) = step(Some(100.0));
    assert_close(&weights, &[-3.0, -4.0, 0.0, -12.0], 1e-6);
    step(Some(1.0));
    let (weights, _) = step(None);
    assert_close(&weights, &[-3.0, -4.0, 0.0, -12.0], 0.0);
    assert!(matches!(optimizer.clip_grad_norm(0.0), Err(Error::Config(_))));
    // The factor 1/13 is for one step: the same gradients count in full in the step after.
    optimizer.clip_grad_norm(1.0).unwrap();
    optimizer.step(1.0).unwrap();
    let before = values(&b.data());
    optimizer.step(1.0).unwrap();
    assert_close(&values(&b.data()), &[before[0] as f64 - 12.0], 1e-6);
}

/// One training step on fixed random data; returns the loss before it.
fn train_step(model: &dyn Module, optimizer: &mut Optimizer, x: &Tensor, target: &Tensor, lr: f64) -> f32 {
    let mut ctx = Context::train(11, optimizer.steps());
    optimizer.zero_grad();
    let loss = model.forward(&mut ctx, x).unwrap().cross_entropy_mean(target).unwrap();
    loss.backward().unwrap();
    optimizer.step(lr).unwrap();
    loss.item_blocking().unwrap()
}

fn arrays(tensors: &[(String, Tensor)]) -> Vec<NamedArray> {
    tensors.iter().map(|(name, t)| NamedArray { name: name.clone(), shape: *t.shape(), values: values(t) }).collect()
}

#[test]
fn a_run_continued_from_saved_state_gives_the_same_bits() {
    let device = cpu();
    let x = random(&device, &[8, 1, 8, 8], 1);
    let target = Tensor::from_slice(&device, &[8], &[0i32, 1, 2, 3, 0, 1, 2, 3]).unwrap();
    for config in [OptimizerConfig::named("sgd", 0.05).unwrap(), OptimizerConfig::adamw(0.01)] {
        let fresh = |seed| {
            let model = models::build("cnn", [1, 8, 8], 4, &device, seed).unwrap();
            let optimizer = Optimizer::new(config, ParamGroup::split_decay(named_parameters(&model))).unwrap();
            (model, optimizer)
        };
        let (model, mut optimizer) = fresh(1);
        for _ in 0..3 {
            train_step(&model, &mut optimizer, &x, &target, config.lr());
        }
        let (weights, state) = (arrays(&state_dict(&model)), arrays(&optimizer.state()));
        let losses: Vec<f32> = (0..3).map(|_| train_step(&model, &mut optimizer, &x, &target, config.lr())).collect();

        let (other, mut resumed) = fresh(2);
        load_state_dict(&other, &weights).unwrap();
        resumed.load_state(3, &state).unwrap();
        let again: Vec<f32> = (0..3).map(|_| train_step(&other, &mut resumed, &x, &target, config.lr())).collect();
        assert_eq!(losses, again);
        assert_eq!(arrays(&state_dict(&model)), arrays(&state_dict(&other)));
    }
}

#[test]
fn optimizer_state_is_named_by_parameter_and_checked() {
    let device = cpu();
    let model = models::build("mlp", [1, 2, 2], 3, &device, 0).unwrap();
    let mut optimizer = Optimizer::new(OptimizerConfig::adam(0.1), vec![ParamGroup::new(named_parameters(&model))]).unwrap();
    let state = optimizer.state();
    let names: Vec<&str> = state.iter().map(|(name, _)| name.as_str()).collect();
    let kinds = ["exp_avg", "exp_avg_sq"];
    let expected: Vec<String> =
        kinds.iter().flat_map(|kind| ["0.weight", "0.bias", "2.weight", "2.bias"].map(|p| format!("{kind}.{p}"))).collect();
    assert_eq!(names, expected);
    assert_eq!(state[0].1.shape()[..], [128, 4]);
    let mut saved = arrays(&state);
    saved.remove(0);
    saved[0].shape = Shape::new(&[64, 2]).unwrap();
    let error = optimizer.load_state(5, &saved).unwrap_err().to_string();
    assert_eq!(
        error,
        "the optimizer's state does not fit: missing: exp_avg.0.weight; of another shape: exp_avg.0.bias is [64, 2], expected [128]"
    );
    assert_eq!(optimizer.steps(), 0);
}

#[test]
fn mistakes_in_making_an_optimizer_are_named() {
    let device = cpu();
    let a = parameter(&device, &[1.0]);
    let named = |name: &str, p: &Parameter| (name.to_owned(), p.clone());
    let make = |config, parameters: Vec<(String, Parameter)>| Optimizer::new(config, vec![ParamGroup::new(parameters)]).map(drop);
    let message = |result: mappa::Result<()>| result.unwrap_err().to_string();
    let sgd = OptimizerConfig::sgd(0.1);
    assert_eq!(message(make(sgd, vec![])), "optimizer: there is no parameter to train; all are frozen, or the model has none");
    assert_eq!(
        message(make(sgd, vec![named("a", &a), named("tied", &a)])),
        "optimizer: parameter tied is given twice (also as a); give each once"
    );
    assert!(matches!(make(sgd, vec![named("a", &a), named("b", &parameter(&cpu(), &[1.0]))]), Err(Error::Device(_))));
    let nesterov = OptimizerConfig::Sgd { lr: 0.1, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: true, maximize: false };
    assert!(message(make(nesterov, vec![named("a", &a)])).contains("nesterov needs momentum"));
    for lr in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(make(OptimizerConfig::adam(lr), vec![named("a", &a)]), Err(Error::Config(_))));
    }
    assert_eq!(
        message(OptimizerConfig::named("adamaxx", 0.1).map(drop)),
        format!("unknown optimizer 'adamaxx'; use {}", OptimizerConfig::NAMES.join(", "))
    );
}

#[test]
fn an_optimizer_whose_parameters_were_gathered_again_says_so() {
    let device = cpu();
    let a = parameter(&device, &[1.0]);
    let make = || Optimizer::new(OptimizerConfig::sgd(0.1), vec![ParamGroup::new(vec![("a".into(), a.clone())])]).unwrap();
    let mut old = make();
    let mut new = make();
    let error = old.step(0.1).unwrap_err().to_string();
    assert_eq!(error, "optimizer: parameter a belongs to another optimizer now; make one optimizer for each set of parameters");
    set_gradient(&a, &[1.0]);
    new.step(0.5).unwrap();
    assert_eq!(values(&a.data()), [0.5]);
}

// ---------------------------------------------------------------- models

#[test]
fn models_fit_their_data_on_the_null_device() {
    for (shape, classes) in [([1, 28, 28], 10), ([1, 8, 8], 10), ([3, 32, 32], 7), ([3, 13, 20], 2), ([3, 96, 64], 5), ([1, 4, 4], 2)] {
        for name in models::NAMES {
            let (device, counts) = Device::null();
            let model = models::build(name, shape, classes, &device, 0).unwrap();
            let x = Tensor::zeros(&device, &[3, shape[0], shape[1], shape[2]]).unwrap();
            // Five halvings, or three after a convolution without padding, leave nothing of smaller images.
            let smallest = match name {
                "vgg11_bn" | "vgg16_bn" => 32,
                "alexnet" => 8,
                "squeezenet1_0" => 29,
                "squeezenet1_1" => 17,
                _ => 1,
            };
            if shape[1].min(shape[2]) < smallest {
                let error = model.forward(&mut Context::eval(), &x).map(|_| ()).unwrap_err().to_string();
                assert!(error.contains("features."), "{name} on {shape:?}: {error}");
                continue;
            }
            for mut ctx in [Context::train(0, 0), Context::eval()] {
                let y = model.forward(&mut ctx, &x).unwrap_or_else(|error| panic!("{name} on {shape:?}: {error}"));
                assert_eq!(y.shape()[..], [3, classes], "{name} on {shape:?}");
            }
            assert!(counts.lock().unwrap().flops() > 0);
            let mut names = names(&model);
            names.sort();
            names.dedup();
            assert_eq!(names.len(), state_dict(&model).len(), "{name} has two entries of one name");
        }
    }
}

fn count(model: &dyn Module) -> usize {
    named_parameters(model).iter().map(|(_, p)| p.shape().len()).sum()
}

#[test]
fn lenet5_is_the_published_network_on_mnist_and_pads_small_images() {
    let (device, _) = Device::null();
    let model = models::build("lenet5", [1, 28, 28], 10, &device, 0).unwrap();
    let shapes: Vec<String> = state_dict(&model).iter().map(|(name, t)| format!("{name} {}", t.shape())).collect();
    let expected = [
        "conv1.weight [6, 1, 5, 5]",
        "conv1.bias [6]",
        "conv2.weight [16, 6, 5, 5]",
        "conv2.bias [16]",
        "fc1.weight [120, 400]",
        "fc1.bias [120]",
        "fc2.weight [84, 120]",
        "fc2.bias [84]",
        "fc3.weight [10, 84]",
        "fc3.bias [10]",
    ];
    assert_eq!(shapes, expected);
    assert_eq!(count(&model), 61_706);
    let digits = models::build("lenet5", [1, 8, 8], 10, &device, 0).unwrap();
    assert_eq!(named_parameters(&digits)[4].1.shape()[..], [120, 16 * 2 * 2]);
    let error = models::build("lenet5", [1, 3, 8], 10, &device, 0).err().unwrap().to_string();
    assert_eq!(error, "lenet5 halves the image twice and needs at least 4x4 pixels, got 3x8; use --model mlp");
}

#[test]
fn alexnet_is_torchvisions_at_224_and_small_below_65() {
    let (device, _) = Device::null();
    let model = models::build("alexnet", [3, 224, 224], 1000, &device, 0).unwrap();
    // torchvision.models.alexnet's number of parameters.
    assert_eq!(count(&model), 61_100_840);
    let all = names(&model);
    for expected in ["features.0.weight", "features.10.bias", "classifier.1.weight", "classifier.6.bias"] {
        assert!(all.iter().any(|name| name == expected), "{expected} is not in {all:?}");
    }
    assert!(count(&models::build("alexnet", [3, 32, 32], 10, &device, 0).unwrap()) < 10_000_000);
}

#[test]
fn resnet8_has_torchvisions_names() {
    let (device, _) = Device::null();
    let model = models::build("resnet8", [3, 32, 32], 10, &device, 0).unwrap();
    let names = names(&model);
    for expected in
        ["conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight", "layer3.0.bn2.bias", "fc.bias"]
    {
        assert!(names.iter().any(|name| name == expected), "{expected} is not in {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("layer1.0.downsample")));
    // Hand count: conv1 432, bn1 32; layer1 4,608 + 64; layer2 4,608 + 9,216 + 512 + 192; layer3 18,432 + 36,864 + 2,048 + 384; fc 650.
    assert_eq!(count(&model), 78_042);
}

#[test]
fn a_model_is_the_same_for_the_same_seed_only() {
    let device = cpu();
    let build = |seed| arrays(&state_dict(&models::build("cnn", [1, 8, 8], 10, &device, seed).unwrap()));
    assert_eq!(build(1), build(1));
    assert_ne!(build(1), build(2));
}

#[test]
fn every_model_learns_random_data() {
    let device = cpu();
    let x = random(&device, &[16, 1, 8, 8], 4);
    let target: Vec<i32> = (0..16).map(|i| i % 4).collect();
    let target = Tensor::from_slice(&device, &[16], &target).unwrap();
    // The large ones are trained for a step by the golden cases.
    for name in ["cnn", "mlp", "lenet5", "resnet8", "resnet20"] {
        let model = models::build(name, [1, 8, 8], 4, &device, 5).unwrap();
        let mut optimizer = Optimizer::new(OptimizerConfig::adam(0.01), vec![ParamGroup::new(named_parameters(&model))]).unwrap();
        let losses: Vec<f32> = (0..30).map(|_| train_step(&model, &mut optimizer, &x, &target, 0.01)).collect();
        assert!(losses[0] > 1.0 && losses[29] < 0.5 * losses[0], "{name}: {losses:?}");
        // Every parameter took part: none of the gradients is missing.
        for (path, parameter) in named_parameters(&model) {
            assert!(parameter.grad().is_some(), "{name}: {path} has no gradient");
        }
    }
}

// ---------------------------------------------------------------- files

#[test]
fn weights_come_back_from_a_file_and_equal_weights_give_equal_bytes() {
    let (device, dir) = (cpu(), tempfile::tempdir().unwrap());
    let path = dir.path().join("model.safetensors");
    let model = models::build("resnet8", [3, 8, 8], 4, &device, 1).unwrap();
    // Running statistics that differ from those of a fresh model.
    model.forward(&mut Context::train(0, 0), &random(&device, &[4, 3, 8, 8], 2)).unwrap();
    safetensors::save(&path, &state_dict(&model), Some(("model", "resnet8"))).unwrap();
    let bytes = std::fs::read(&path).unwrap();

    let other = models::build("resnet8", [3, 8, 8], 4, &device, 2).unwrap();
    assert_ne!(arrays(&state_dict(&other)), arrays(&state_dict(&model)));
    safetensors::load_into(&other, &path).unwrap();
    assert_eq!(arrays(&state_dict(&other)), arrays(&state_dict(&model)));

    // The order in which tensors are given does not matter, nor whether they live in an arena.
    let _optimizer = Optimizer::new(OptimizerConfig::sgd(0.1), vec![ParamGroup::new(named_parameters(&other))]).unwrap();
    let mut reversed = state_dict(&other);
    reversed.reverse();
    safetensors::save(&path, &reversed, Some(("model", "resnet8"))).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn weights_that_do_not_fit_are_named_and_change_nothing() {
    let (device, dir) = (cpu(), tempfile::tempdir().unwrap());
    let path = dir.path().join("other.safetensors");
    let mut state = state_dict(&models::build("lenet5", [1, 8, 8], 5, &device, 1).unwrap());
    state.retain(|(name, _)| name != "conv1.bias");
    state.push(("extra".into(), Tensor::zeros(&device, &[2]).unwrap()));
    safetensors::save(&path, &state, None).unwrap();
    let model = models::build("lenet5", [1, 8, 8], 10, &device, 2).unwrap();
    let before = arrays(&state_dict(&model));
    let error = safetensors::load_into(&model, &path).unwrap_err();
    assert!(matches!(error, Error::Data { .. }) && error.is_bad_input());
    let expected = format!(
        "{}: the weights do not fit the model: missing: conv1.bias; unexpected: extra; \
         of another shape: fc3.weight is [5, 84], expected [10, 84], fc3.bias is [5], expected [10]",
        path.display()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(arrays(&state_dict(&model)), before);
}

#[test]
fn truncated_and_corrupt_files_are_refused() {
    let (device, dir) = (cpu(), tempfile::tempdir().unwrap());
    let path = dir.path().join("model.safetensors");
    let model = models::build("mlp", [1, 2, 2], 3, &device, 1).unwrap();
    let before = arrays(&state_dict(&model));
    safetensors::save(&path, &state_dict(&model), None).unwrap();
    let good = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = safetensors::load_into(&model, &path).expect_err(what);
        assert!(matches!(&error, Error::Data { path: p, .. } if *p == path), "{what}: {error:?}");
        assert!(error.to_string().contains("not a complete safetensors file"), "{what}: {error}");
    };
    for len in [0, 7, 8, 100, good.len() / 2, good.len() - 1] {
        refused(&good[..len], &format!("cut to {len} bytes"));
    }
    refused(&[&good[..], &[0]].concat(), "a byte too many");
    refused(&[255; 64], "noise");
    let mut header = good.clone();
    header[8] = b'[';
    refused(&header, "broken header");
    assert_eq!(arrays(&state_dict(&model)), before);

    let error = safetensors::load(dir.path().join("missing.safetensors")).unwrap_err();
    assert!(matches!(error, Error::Data { .. }) && error.to_string().ends_with("missing.safetensors: there is no such file"), "{error}");
    assert!(matches!(safetensors::load(dir.path()), Err(Error::Io { .. })));
}

/// A safetensors file by hand: a header and some bytes.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn files_of_other_writers_are_understood() {
    let header = r#"{"b":{"dtype":"F64","shape":[2],"data_offsets":[8,24]},"bn.num_batches_tracked":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[],"data_offsets":[24,28]}}"#;
    let data = [&7i64.to_le_bytes()[..], &1.5f64.to_le_bytes(), &(-2.0f64).to_le_bytes(), &0.25f32.to_le_bytes()].concat();
    let arrays = safetensors::decode(Path::new("x"), &file(header, &data)).unwrap();
    let expected = [
        NamedArray { name: "a".into(), shape: Shape::scalar(), values: vec![0.25] },
        NamedArray { name: "b".into(), shape: Shape::new(&[2]).unwrap(), values: vec![1.5, -2.0] },
    ];
    assert_eq!(arrays, expected);
    let half = file(r#"{"h":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}"#, &[0, 0]);
    let error = safetensors::decode(Path::new("x"), &half).unwrap_err().to_string();
    assert_eq!(error, "x: tensor h is of type F16; convert it to F32");
    let deep = file(r#"{"d":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#, &[0; 4]);
    assert!(matches!(safetensors::decode(Path::new("x"), &deep), Err(Error::Data { .. })));
}

#[test]
fn what_cannot_be_saved_is_refused() {
    let (device, dir) = (cpu(), tempfile::tempdir().unwrap());
    let path = dir.path().join("x.safetensors");
    let labels = Tensor::from_slice(&device, &[1], &[1i32]).unwrap();
    assert!(matches!(safetensors::save(&path, &[("labels".into(), labels)], None), Err(Error::DType(_))));
    let t = Tensor::zeros(&device, &[1]).unwrap();
    let twice = [("t".to_owned(), t.clone()), ("t".to_owned(), t.clone())];
    assert!(matches!(safetensors::save(&path, &twice, None), Err(Error::Config(_))));
    assert!(matches!(safetensors::save(dir.path().join("no").join("x"), &[("t".into(), t)], None), Err(Error::Io { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn evaluation_under_no_grad_keeps_no_tape() {
    let device = cpu();
    let model = models::build("mlp", [1, 2, 2], 3, &device, 1).unwrap();
    let _guard = autodiff::no_grad();
    let y = model.forward(&mut Context::eval(), &random(&device, &[2, 1, 2, 2], 1)).unwrap();
    assert!(matches!(y.sum(None, false).unwrap().backward(), Err(Error::Autodiff(_))));
}
