// optimizer: fused steps of SGD and Adam on whole arenas, the clip factor, and the loss scale of mixed precision.
//
// Layout     weight, gradient and state: n f32 values each, padding included (where all are 0, and stay 0). scale[0] multiplies the gradient; with
//            SCALED it is what loss_scale made: scale[2] skips the step unless it is 0, scale[3] steps were skipped and do not count in `number`.
// Bindings   the operands as in src/op/optimizer.rs: those updated in place read_write, the others read; then params (uniform)
// Dispatch   one invocation an element, WG a workgroup, folded to 2-D; clip_factor, loss_scale: one workgroup
// Overrides  WG: invocations per workgroup, a power of two; SCALED; NESTEROV (SGD), DECOUPLED (AdamW)
// Precision  a few roundings an element. Bias corrections 1 - beta^t come from the host, computed in f64; with SCALED they are -expm1(t log beta).
//#include shared/index.wgsl
//#include shared/math.wgsl
//#include shared/sum.wgsl

override WG: u32 = 256u;
override NESTEROV: bool = false;
override SCALED: bool = false;
override DECOUPLED: bool = false;

struct Params {
    n: u32,
    lr: f32,
    weight_decay: f32,
    // 1, or -1 to ascend.
    direction: f32,
    // SGD: momentum and 1 - dampening. Adam: beta1 and 1 - beta1.
    a: f32,
    b: f32,
    // Adam: beta2 and 1 - beta2.
    c: f32,
    d: f32,
    eps: f32,
    // Adam: lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t). clip_factor, loss_scale: max_norm in step_size, infinite as 3.4e38.
    step_size: f32,
    root: f32,
    // AdamW: 1 - lr weight_decay.
    keep: f32,
    // Number of the step, from 1. loss_scale: the interval of growth; a and b are the factors of growth and backoff.
    number: u32,
    // Adam: log beta1 and log beta2.
    log_a: f32,
    log_c: f32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read_write> weight: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<uniform> params3: Params;
@group(0) @binding(3) var<storage, read_write> momentum: array<f32>;
@group(0) @binding(4) var<uniform> params4: Params;
@group(0) @binding(4) var<storage, read_write> second: array<f32>;
@group(0) @binding(5) var<uniform> params5: Params;
@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read_write> factor: array<f32>;
@group(0) @binding(2) var<uniform> params2: Params;
@group(0) @binding(1) var<storage, read_write> scaler: array<f32>;
@group(0) @binding(2) var<storage, read_write> made: array<f32>;

fn skips() -> bool {
    if SCALED { return scale[2] != 0.0; }
    return false;
}

// The step's number without those skipped.
fn steps(number: u32) -> f32 {
    if SCALED { return f32(number) - scale[3]; }
    return f32(number);
}

@compute @workgroup_size(WG)
fn sgd(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params3.n || skips() { return; }
    let w = weight[i];
    let g = params3.direction * (gradient[i] * scale[0]) + params3.weight_decay * w;
    weight[i] = w - params3.lr * g;
}

@compute @workgroup_size(WG)
fn sgd_momentum(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params4.n || skips() { return; }
    let w = weight[i];
    let g = params4.direction * (gradient[i] * scale[0]) + params4.weight_decay * w;
    var v = g;
    if steps(params4.number) != 1.0 { v = params4.a * momentum[i] + params4.b * g; }
    momentum[i] = v;
    if NESTEROV { v = g + params4.a * v; }
    weight[i] = w - params4.lr * v;
}

@compute @workgroup_size(WG)
fn adam(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params5.n || skips() { return; }
    var w = weight[i];
    var g = params5.direction * (gradient[i] * scale[0]);
    if DECOUPLED { w *= params5.keep; } else { g += params5.weight_decay * w; }
    let m = params5.a * momentum[i] + params5.b * g;
    let v = params5.c * second[i] + params5.d * g * g;
    momentum[i] = m;
    second[i] = v;
    var step_size = params5.step_size;
    var root = params5.root;
    if SCALED {
        let t = steps(params5.number);
        step_size = params5.lr / -accurate_expm1(t * params5.log_a);
        root = 1.0 / sqrt(-accurate_expm1(t * params5.log_c));
    }
    weight[i] = w - step_size * m / (sqrt(v) * root + params5.eps);
}

// The sum of sums[0..n].
fn total(n: u32, lane: u32) -> f32 {
    var sum = 0.0;
    for (var i = lane; i < n; i += WG) { sum += sums[i]; }
    return group_sum(lane, sum);
}

@compute @workgroup_size(WG)
fn clip_factor(@builtin(local_invocation_index) lane: u32) {
    let squares = total(params2.n, lane);
    if lane == 0u {
        let norm = sqrt(squares);
        factor[0] = min(1.0, params2.step_size / (norm + 1e-6));
        factor[1] = norm;
    }
}

@compute @workgroup_size(WG)
fn loss_scale(@builtin(local_invocation_index) lane: u32) {
    let squares = total(params3.n, lane);
    if lane == 0u {
        let s = scaler[0];
        // By the exponent's bits: a compiler may assume that neither infinity nor NaN occurs.
        if (bitcast<u32>(squares) & 0x7f800000u) == 0x7f800000u {
            scaler[0] = s * params3.b;
            scaler[1] = 0.0;
            scaler[2] += 1.0;
            made[0] = 0.0;
            made[1] = 0.0;
            made[2] = 1.0;
        } else {
            let norm = sqrt(squares) / s;
            let streak = scaler[1] + 1.0;
            let grows = streak >= f32(params3.number);
            scaler[0] = select(s, s * params3.a, grows);
            scaler[1] = select(streak, 0.0, grows);
            made[0] = min(1.0, params3.step_size / (norm + 1e-6)) / s;
            made[1] = norm;
            made[2] = 0.0;
        }
        made[3] = scaler[2];
    }
}
