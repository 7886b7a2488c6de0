// norm: batch normalisation (Ioffe and Szegedy 2015), with the ReLU or the end of a residual block that follows it, forward and backward.
//
// Layout     x, y, dx, dy [N, C, ..]: element e of channel c is at (e / inner * channels + c) * inner + e % inner, e in 0..count.
//            mean, invstd, weight, bias, running statistics [C], in f32 also where x is f16.
// Bindings   the operands in order (read), the results (read_write), params (uniform)
// Dispatch   stats, sums: one workgroup a channel, folded to 2-D; the others: one invocation an element
//            Backward: sums, of which a workgroup makes its channel's coefficients, then dx, which reads those, x and dy alone.
// Overrides  WG: invocations per workgroup, a power of two; TRAINING: the statistics depend on x; RELU: a value v becomes min(max(v, 0), ceiling)
// Precision  two passes (mean, then deviations); sums are WG partial sums joined by a tree.
//#include shared/f32.wgsl
//#include shared/index.wgsl

override WG: u32 = 256u;
override TRAINING: bool = true;
override RELU: bool = false;

struct Params {
    channels: u32,
    inner: u32,
    count: u32,
    total: u32,
    eps: f32,
    momentum: f32,
    ceiling: f32,
    pad0: u32,
}

@group(0) @binding(0) var<storage, read> x: array<T>;
@group(0) @binding(1) var<storage, read_write> mean: array<f32>;
@group(0) @binding(2) var<storage, read_write> invstd: array<f32>;
@group(0) @binding(3) var<uniform> params3: Params;
@group(0) @binding(3) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(4) var<storage, read_write> running_var: array<f32>;
@group(0) @binding(5) var<uniform> params5: Params;

@group(0) @binding(1) var<storage, read> given_mean: array<f32>;
@group(0) @binding(2) var<storage, read> given_invstd: array<f32>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<T>;
@group(0) @binding(6) var<uniform> params6: Params;

@group(0) @binding(0) var<storage, read> variance: array<f32>;
@group(0) @binding(1) var<storage, read_write> root: array<f32>;
@group(0) @binding(2) var<uniform> params2: Params;

// normalize_add: the residual stands behind the other operands.
@group(0) @binding(5) var<storage, read> residual: array<T>;
@group(0) @binding(6) var<storage, read_write> y_add: array<T>;
@group(0) @binding(7) var<uniform> params7: Params;

// backward_sums: `bias` anything without RELU. backward_sums_add: the operand behind the others is y, and the residual's gradient a result.
@group(0) @binding(3) var<storage, read> dy: array<T>;
@group(0) @binding(4) var<storage, read> weight4: array<f32>;
@group(0) @binding(5) var<storage, read> bias5: array<f32>;
@group(0) @binding(6) var<storage, read_write> sums: array<Coefficients>;
@group(0) @binding(5) var<storage, read> given_y: array<T>;
@group(0) @binding(7) var<storage, read_write> dresidual: array<T>;
@group(0) @binding(8) var<uniform> params8: Params;

@group(0) @binding(1) var<storage, read> dy1: array<T>;
@group(0) @binding(2) var<storage, read> coefficients: array<Coefficients>;
@group(0) @binding(3) var<storage, read_write> dx: array<T>;
@group(0) @binding(4) var<uniform> params4: Params;

@group(0) @binding(0) var<storage, read> coefficients0: array<Coefficients>;
@group(0) @binding(1) var<storage, read_write> dweight: array<f32>;
@group(0) @binding(2) var<storage, read_write> dbias: array<f32>;

// Of a channel: dx = scale (g - shift - (x - mean) slope), with g = dy where (x - mean) scale + bias passes; and the gradients of weight and bias.
struct Coefficients {
    mean: f32,
    scale: f32,
    shift: f32,
    slope: f32,
    bias: f32,
    dweight: f32,
    dbias: f32,
    pad: f32,
}

var<workgroup> lanes: array<f32, WG>;

// Sum of `v` over the workgroup, in every lane. Uniform control flow only.
fn group_sum(lane: u32, v: f32) -> f32 {
    workgroupBarrier();
    lanes[lane] = v;
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if lane < width { lanes[lane] += lanes[lane + width]; }
    }
    workgroupBarrier();
    return lanes[0];
}

fn element(c: u32, e: u32, p: Params) -> u32 {
    return (e / p.inner * p.channels + c) * p.inner + e % p.inner;
}

// (mean, biased variance) of channel c.
fn statistics(c: u32, lane: u32, p: Params) -> vec2<f32> {
    // Relative to the first value, so that a common offset does not cost digits.
    let origin = f32(x[element(c, 0u, p)]);
    var sum = 0.0;
    for (var e = lane; e < p.count; e += WG) { sum += f32(x[element(c, e, p)]) - origin; }
    let shift = group_sum(lane, sum) / f32(p.count);
    var squares = 0.0;
    for (var e = lane; e < p.count; e += WG) {
        let d = (f32(x[element(c, e, p)]) - origin) - shift;
        squares += d * d;
    }
    return vec2(origin + shift, group_sum(lane, squares) / f32(p.count));
}

@compute @workgroup_size(WG)
fn stats(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = flat_group(group, groups);
    if c >= params3.channels { return; }
    let s = statistics(c, lane, params3);
    if lane == 0u {
        mean[c] = s.x;
        invstd[c] = 1.0 / sqrt(s.y + params3.eps);
    }
}

@compute @workgroup_size(WG)
fn stats_running(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = flat_group(group, groups);
    if c >= params5.channels { return; }
    let s = statistics(c, lane, params5);
    if lane == 0u {
        mean[c] = s.x;
        invstd[c] = 1.0 / sqrt(s.y + params5.eps);
        let m = params5.momentum;
        let n = f32(params5.count);
        running_mean[c] = (1.0 - m) * running_mean[c] + m * s.x;
        // The estimate kept for evaluation is unbiased.
        running_var[c] = (1.0 - m) * running_var[c] + m * s.y * (n / (n - 1.0));
    }
}

// invstd of given variances.
@compute @workgroup_size(WG)
fn inverse_root(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = flat_group(group, groups) * WG + lane;
    if c < params2.channels { root[c] = 1.0 / sqrt(variance[c] + params2.eps); }
}

// A normalised value, the same in the forward and the backward pass.
fn line(x: f32, mean: f32, scale: f32, bias: f32) -> f32 {
    return (x - mean) * scale + bias;
}

// NaN stays, as in the elementwise ReLU.
fn relu(v: f32) -> f32 {
    return select(v, 0.0, v <= 0.0);
}

@compute @workgroup_size(WG)
fn normalize(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params6.total { return; }
    let c = i / params6.inner % params6.channels;
    var v = line(f32(x[i]), given_mean[c], given_invstd[c] * weight[c], bias[c]);
    if RELU {
        v = relu(v);
        v = select(v, params6.ceiling, v >= params6.ceiling);
    }
    y[i] = T(v);
}

@compute @workgroup_size(WG)
fn normalize_add(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params7.total { return; }
    let c = i / params7.inner % params7.channels;
    y_add[i] = T(relu(line(f32(x[i]), given_mean[c], given_invstd[c] * weight[c], bias[c]) + f32(residual[i])));
}

// Of the sums of g (x - mean) and of g over channel c.
fn coefficients_of(c: u32, lane: u32, with_x: f32, alone: f32, bias: f32, p: Params) {
    let first = group_sum(lane, with_x);
    let second = group_sum(lane, alone);
    if lane == 0u {
        let invstd = given_invstd[c];
        let n = f32(p.count);
        sums[c] = Coefficients(
            given_mean[c],
            invstd * weight4[c],
            select(0.0, second / n, TRAINING),
            select(0.0, first * invstd / n * invstd, TRAINING),
            bias,
            first * invstd,
            second,
            0.0,
        );
    }
}

fn passes(v: f32, ceiling: f32) -> bool {
    return !RELU || (v > 0.0 && v < ceiling);
}

@compute @workgroup_size(WG)
fn backward_sums(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = flat_group(group, groups);
    if c >= params7.channels { return; }
    let m = given_mean[c];
    let scale = given_invstd[c] * weight4[c];
    let b = bias5[c];
    var with_x = 0.0;
    var alone = 0.0;
    for (var e = lane; e < params7.count; e += WG) {
        let i = element(c, e, params7);
        let value = f32(x[i]);
        let g = select(0.0, f32(dy[i]), passes(line(value, m, scale, b), params7.ceiling));
        with_x += g * (value - m);
        alone += g;
    }
    coefficients_of(c, lane, with_x, alone, b, params7);
}

@compute @workgroup_size(WG)
fn backward_sums_add(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = flat_group(group, groups);
    if c >= params8.channels { return; }
    let m = given_mean[c];
    var with_x = 0.0;
    var alone = 0.0;
    for (var e = lane; e < params8.count; e += WG) {
        let i = element(c, e, params8);
        let g = select(0.0, f32(dy[i]), f32(given_y[i]) > 0.0);
        dresidual[i] = T(g);
        with_x += g * (f32(x[i]) - m);
        alone += g;
    }
    coefficients_of(c, lane, with_x, alone, 0.0, params8);
}

@compute @workgroup_size(WG)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params4.total { return; }
    let k = coefficients[i / params4.inner % params4.channels];
    let value = f32(x[i]);
    let g = select(0.0, f32(dy1[i]), passes(line(value, k.mean, k.scale, k.bias), params4.ceiling));
    dx[i] = T(k.scale * (g - k.shift - (value - k.mean) * k.slope));
}

@compute @workgroup_size(WG)
fn parameter_gradients(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = flat_group(group, groups) * WG + lane;
    if c >= params3.channels { return; }
    dweight[c] = coefficients0[c].dweight;
    dbias[c] = coefficients0[c].dbias;
}
