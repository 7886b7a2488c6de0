// norm: batch normalisation (Ioffe and Szegedy 2015), forward and backward.
//
// Layout     x, y, dx, dy [N, C, ..]: element e of channel c is at (e / inner * channels + c) * inner + e % inner, e in 0..count.
//            mean, invstd, weight, bias, running statistics [C], in f32 also where x is f16.
// Bindings   the operands in order (read), the results (read_write), params (uniform)
// Dispatch   stats, sums: one workgroup a channel, folded to 2-D; the others: one invocation an element
// Overrides  WG: invocations per workgroup, a power of two; TRAINING: the statistics depend on x
// Precision  two passes (mean, then deviations); sums are WG partial sums joined by a tree.
//#include shared/f32.wgsl
//#include shared/index.wgsl

override WG: u32 = 256u;
override TRAINING: bool = true;

struct Params {
    channels: u32,
    inner: u32,
    count: u32,
    total: u32,
    eps: f32,
    momentum: f32,
    pad0: u32,
    pad1: u32,
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

@group(0) @binding(3) var<storage, read> dy: array<T>;
@group(0) @binding(4) var<storage, read_write> dweight: array<f32>;
@group(0) @binding(5) var<storage, read_write> dbias: array<f32>;

@group(0) @binding(4) var<storage, read> weight4: array<f32>;
@group(0) @binding(5) var<storage, read> sum_dy_xhat: array<f32>;
@group(0) @binding(6) var<storage, read> sum_dy: array<f32>;
@group(0) @binding(7) var<storage, read_write> dx: array<T>;
@group(0) @binding(8) var<uniform> params8: Params;

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

@compute @workgroup_size(WG)
fn normalize(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params6.total { return; }
    let c = i / params6.inner % params6.channels;
    y[i] = T((f32(x[i]) - given_mean[c]) * (given_invstd[c] * weight[c]) + bias[c]);
}

@compute @workgroup_size(WG)
fn backward_sums(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = flat_group(group, groups);
    if c >= params6.channels { return; }
    let m = given_mean[c];
    var with_x = 0.0;
    var alone = 0.0;
    for (var e = lane; e < params6.count; e += WG) {
        let i = element(c, e, params6);
        let g = f32(dy[i]);
        with_x += g * (f32(x[i]) - m);
        alone += g;
    }
    let first = group_sum(lane, with_x);
    let second = group_sum(lane, alone);
    if lane == 0u {
        dweight[c] = first * given_invstd[c];
        dbias[c] = second;
    }
}

@compute @workgroup_size(WG)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params8.total { return; }
    let c = i / params8.inner % params8.channels;
    let scale = weight4[c] * given_invstd[c];
    var g = f32(dy[i]);
    if TRAINING {
        let n = f32(params8.count);
        let xhat = (f32(x[i]) - given_mean[c]) * given_invstd[c];
        g = (g - sum_dy[c] / n) - xhat * (sum_dy_xhat[c] / n);
    }
    dx[i] = T(scale * g);
}
