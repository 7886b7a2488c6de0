// optimizer: fused steps of SGD and Adam on whole arenas, and the clip factor.
//
// Layout     weight, gradient and state: n f32 values each, padding included (where all are 0, and stay 0). scale[0] multiplies the gradient.
// Bindings   the operands as in src/op/optimizer.rs: those updated in place read_write, the others read; then params (uniform)
// Dispatch   one invocation an element, WG a workgroup, folded to 2-D; clip_factor: one workgroup
// Overrides  WG: invocations per workgroup, a power of two; NESTEROV, FIRST (SGD), DECOUPLED (AdamW)
// Precision  a few roundings an element. Bias corrections 1 - beta^t come from the host, computed in f64.
//#include shared/index.wgsl

override WG: u32 = 256u;
override NESTEROV: bool = false;
override FIRST: bool = false;
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
    // Adam: lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t). clip_factor: max_norm in step_size.
    step_size: f32,
    root: f32,
    // AdamW: 1 - lr weight_decay.
    keep: f32,
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
var<workgroup> lanes: array<f32, WG>;

@compute @workgroup_size(WG)
fn sgd(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params3.n { return; }
    let w = weight[i];
    let g = params3.direction * (gradient[i] * scale[0]) + params3.weight_decay * w;
    weight[i] = w - params3.lr * g;
}

@compute @workgroup_size(WG)
fn sgd_momentum(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params4.n { return; }
    let w = weight[i];
    let g = params4.direction * (gradient[i] * scale[0]) + params4.weight_decay * w;
    var v = g;
    if !FIRST { v = params4.a * momentum[i] + params4.b * g; }
    momentum[i] = v;
    if NESTEROV { v = g + params4.a * v; }
    weight[i] = w - params4.lr * v;
}

@compute @workgroup_size(WG)
fn adam(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params5.n { return; }
    var w = weight[i];
    var g = params5.direction * (gradient[i] * scale[0]);
    if DECOUPLED { w *= params5.keep; } else { g += params5.weight_decay * w; }
    let m = params5.a * momentum[i] + params5.b * g;
    let v = params5.c * second[i] + params5.d * g * g;
    momentum[i] = m;
    second[i] = v;
    weight[i] = w - params5.step_size * m / (sqrt(v) * params5.root + params5.eps);
}

@compute @workgroup_size(WG)
fn clip_factor(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < params2.n; i += WG) { sum += sums[i]; }
    lanes[lane] = sum;
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if lane < width { lanes[lane] += lanes[lane + width]; }
    }
    if lane == 0u {
        let norm = sqrt(lanes[0]);
        factor[0] = min(1.0, params2.step_size / (norm + 1e-6));
        factor[1] = norm;
    }
}
