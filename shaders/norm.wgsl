// norm: batch normalisation (Ioffe and Szegedy 2015), with the ReLU or the end of a residual block that follows it, forward and backward.
//
// Layout     x, y, dx, dy, residual [N, C, ..]: element e of channel c is at (e / inner * channels + c) * inner + e % inner, e in 0..count.
//            mean, invstd, weight, bias, running statistics [C], in f32 also where x is f16.
// Bindings   the operands in order (read), the results (read_write), params (uniform)
// Dispatch   a channel is cut into parts, WG * EACH elements at most. moments, normalize, backward_sums*, backward: one workgroup a part, folded to 2-D, part by
//            part of channel 0 first. stats*, coefficients_of: one workgroup a channel, which joins what its parts have found.
// Overrides  WG: invocations per workgroup, a power of two; TRAINING: the statistics depend on x; ADD: the residual is added; RELU: a value v then
//            becomes max(v, 0), with CEILING min(max(v, 0), ceiling)
// Precision  a part's mean, then its squared deviations, from values kept in registers; parts are joined by the formula of Chan, Golub and LeVeque 1979.
//            Sums are WG partial sums joined by a tree.
//#include shared/f32.wgsl
//#include shared/index.wgsl
//#include shared/sum.wgsl

override WG: u32 = 256u;
override TRAINING: bool = true;
override ADD: bool = false;
override RELU: bool = false;
override CEILING: bool = false;
const EACH: u32 = 16u; //#spec

struct Params {
    channels: u32,
    inner: u32,
    count: u32,
    parts: u32,
    // WG elements further on: so many images, and so many elements of a plane.
    step_images: u32,
    step_rest: u32,
    eps: f32,
    momentum: f32,
    ceiling: f32,
    // Elements of a part; the last one may have fewer.
    part: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read> x: array<T>;
// Of each part: mean and sum of squared deviations, or the sums of g (x - mean) and of g.
@group(0) @binding(1) var<storage, read_write> parts1: array<vec2<f32>>;
@group(0) @binding(2) var<uniform> params2: Params;

@group(0) @binding(0) var<storage, read> given_parts: array<vec2<f32>>;
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
// Anything without ADD.
@group(0) @binding(5) var<storage, read> residual: array<T>;
@group(0) @binding(6) var<storage, read_write> y: array<T>;
@group(0) @binding(7) var<uniform> params7: Params;

@group(0) @binding(0) var<storage, read> variance: array<f32>;
@group(0) @binding(1) var<storage, read_write> root: array<f32>;

// backward_sums: `bias5` anything without RELU.
@group(0) @binding(3) var<storage, read> dy: array<T>;
@group(0) @binding(4) var<storage, read> weight4: array<f32>;
@group(0) @binding(5) var<storage, read> bias5: array<f32>;
@group(0) @binding(6) var<storage, read_write> parts6: array<vec2<f32>>;
// backward_sums_add: the operand behind the others is y, and the residual's gradient a result.
@group(0) @binding(2) var<storage, read> dy2: array<T>;
@group(0) @binding(3) var<storage, read> given_y: array<T>;
@group(0) @binding(4) var<storage, read_write> parts4: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> dresidual: array<T>;
@group(0) @binding(6) var<uniform> params6: Params;

// coefficients_of: `bias4` anything without RELU.
@group(0) @binding(3) var<storage, read> weight3: array<f32>;
@group(0) @binding(4) var<storage, read> bias4: array<f32>;
@group(0) @binding(5) var<storage, read_write> made: array<Coefficients>;
@group(0) @binding(6) var<storage, read_write> dweight: array<f32>;
@group(0) @binding(7) var<storage, read_write> dbias: array<f32>;
@group(0) @binding(8) var<uniform> params8: Params;

@group(0) @binding(1) var<storage, read> dy1: array<T>;
@group(0) @binding(2) var<storage, read> coefficients: array<Coefficients>;
@group(0) @binding(3) var<storage, read_write> dx: array<T>;
@group(0) @binding(4) var<uniform> params4: Params;

// Of a channel: dx = scale (g - shift - (x - mean) slope), with g = dy where (x - mean) scale + bias passes the ReLU.
struct Coefficients {
    mean: f32,
    scale: f32,
    shift: f32,
    slope: f32,
    bias: f32,
    pad0: f32,
    pad1: f32,
    pad2: f32,
}

// A workgroup's part: its channel, its first element, and how many there are.
struct Part {
    channel: u32,
    begin: u32,
    count: u32,
}

fn part_of(group: u32, p: Params) -> Part {
    let number = group % p.parts;
    return Part(group / p.parts, number * p.part, size_of(number, p));
}

fn size_of(number: u32, p: Params) -> u32 {
    return min(p.part, p.count - number * p.part);
}

// An element of a channel as image and place in the plane; the one WG further on, without a division; and where it lies.
fn place_of(e: u32, p: Params) -> vec2<u32> {
    return vec2(e / p.inner, e % p.inner);
}
fn next_place(place: vec2<u32>, p: Params) -> vec2<u32> {
    let rest = place.y + p.step_rest;
    let over = rest >= p.inner;
    return vec2(place.x + p.step_images + select(0u, 1u, over), select(rest, rest - p.inner, over));
}
fn address(place: vec2<u32>, channel: u32, p: Params) -> u32 {
    return (place.x * p.channels + channel) * p.inner + place.y;
}

@compute @workgroup_size(WG)
fn moments(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = flat_group(group, groups);
    if g >= params2.channels * params2.parts { return; }
    let part = part_of(g, params2);
    // Relative to the first value, so that a common offset does not cost digits.
    let origin = f32(x[address(place_of(part.begin, params2), part.channel, params2)]);
    var place = place_of(part.begin + lane, params2);
    var values: array<f32, EACH>;
    var sum = 0.0;
    for (var j = 0u; j < EACH; j++) {
        if lane + j * WG < part.count {
            values[j] = f32(x[address(place, part.channel, params2)]) - origin;
            sum += values[j];
        }
        place = next_place(place, params2);
    }
    let shift = group_sum(lane, sum) / f32(part.count);
    var squares = 0.0;
    for (var j = 0u; j < EACH; j++) {
        let d = values[j] - shift;
        if lane + j * WG < part.count { squares += d * d; }
    }
    let all = group_sum(lane, squares);
    if lane == 0u { parts1[g] = vec2(origin + shift, all); }
}

// (mean, biased variance) of channel c.
fn joined_moments(c: u32, lane: u32, p: Params) -> vec2<f32> {
    let first = c * p.parts;
    let origin = given_parts[first].x;
    var sum = 0.0;
    for (var i = lane; i < p.parts; i += WG) {
        sum += f32(size_of(i, p)) * (given_parts[first + i].x - origin);
    }
    let average = origin + group_sum(lane, sum) / f32(p.count);
    var squares = 0.0;
    for (var i = lane; i < p.parts; i += WG) {
        let d = given_parts[first + i].x - average;
        squares += given_parts[first + i].y + f32(size_of(i, p)) * d * d;
    }
    return vec2(average, group_sum(lane, squares) / f32(p.count));
}

@compute @workgroup_size(WG)
fn stats(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = flat_group(group, groups);
    if c >= params3.channels { return; }
    let s = joined_moments(c, lane, params3);
    if lane == 0u {
        mean[c] = s.x;
        invstd[c] = 1.0 / sqrt(s.y + params3.eps);
    }
}

@compute @workgroup_size(WG)
fn stats_running(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = flat_group(group, groups);
    if c >= params5.channels { return; }
    let s = joined_moments(c, lane, params5);
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
    let g = flat_group(group, groups);
    if g >= params7.channels * params7.parts { return; }
    let part = part_of(g, params7);
    let c = part.channel;
    let scale = given_invstd[c] * weight[c];
    var place = place_of(part.begin + lane, params7);
    for (var j = 0u; j < EACH; j++) {
        if lane + j * WG < part.count {
            let i = address(place, c, params7);
            var v = (f32(x[i]) - given_mean[c]) * scale + bias[c];
            if ADD { v += f32(residual[i]); }
            // NaN stays, as in the elementwise ReLU.
            if RELU { v = select(v, 0.0, v <= 0.0); }
            if CEILING { v = select(v, params7.ceiling, v >= params7.ceiling); }
            y[i] = T(v);
        }
        place = next_place(place, params7);
    }
}

// Whether the gradient passes the ReLU behind p + bias. By p alone, a product: of the sum some compilers round the product first and some do not, and beside 0
// they would differ.
fn passes(p: f32, bias: f32, ceiling: f32) -> bool {
    return !RELU || (p > -bias && (!CEILING || p < ceiling - bias));
}

@compute @workgroup_size(WG)
fn backward_sums(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = flat_group(group, groups);
    if g >= params7.channels * params7.parts { return; }
    let part = part_of(g, params7);
    let c = part.channel;
    let m = given_mean[c];
    let scale = given_invstd[c] * weight4[c];
    var place = place_of(part.begin + lane, params7);
    var with_x = 0.0;
    var alone = 0.0;
    for (var j = 0u; j < EACH; j++) {
        if lane + j * WG < part.count {
            let i = address(place, c, params7);
            let value = f32(x[i]);
            let gradient = select(0.0, f32(dy[i]), passes((value - m) * scale, bias5[c], params7.ceiling));
            with_x += gradient * (value - m);
            alone += gradient;
        }
        place = next_place(place, params7);
    }
    let first = group_sum(lane, with_x);
    let second = group_sum(lane, alone);
    if lane == 0u { parts6[g] = vec2(first, second); }
}

@compute @workgroup_size(WG)
fn backward_sums_add(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = flat_group(group, groups);
    if g >= params6.channels * params6.parts { return; }
    let part = part_of(g, params6);
    let c = part.channel;
    let m = given_mean[c];
    var place = place_of(part.begin + lane, params6);
    var with_x = 0.0;
    var alone = 0.0;
    for (var j = 0u; j < EACH; j++) {
        if lane + j * WG < part.count {
            let i = address(place, c, params6);
            let gradient = select(0.0, f32(dy2[i]), f32(given_y[i]) > 0.0);
            dresidual[i] = T(gradient);
            with_x += gradient * (f32(x[i]) - m);
            alone += gradient;
        }
        place = next_place(place, params6);
    }
    let first = group_sum(lane, with_x);
    let second = group_sum(lane, alone);
    if lane == 0u { parts4[g] = vec2(first, second); }
}

@compute @workgroup_size(WG)
fn coefficients_of(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = flat_group(group, groups);
    if c >= params8.channels { return; }
    var sums = vec2(0.0);
    for (var i = lane; i < params8.parts; i += WG) { sums += given_parts[c * params8.parts + i]; }
    let first = group_sum(lane, sums.x) * given_invstd[c];
    let second = group_sum(lane, sums.y);
    if lane == 0u {
        let n = f32(params8.count);
        let shift = select(0.0, second / n, TRAINING);
        let slope = select(0.0, first / n * given_invstd[c], TRAINING);
        made[c] = Coefficients(given_mean[c], given_invstd[c] * weight3[c], shift, slope, bias4[c], 0.0, 0.0, 0.0);
        dweight[c] = first;
        dbias[c] = second;
    }
}

@compute @workgroup_size(WG)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = flat_group(group, groups);
    if g >= params4.channels * params4.parts { return; }
    let part = part_of(g, params4);
    let k = coefficients[part.channel];
    var place = place_of(part.begin + lane, params4);
    for (var j = 0u; j < EACH; j++) {
        if lane + j * WG < part.count {
            let i = address(place, part.channel, params4);
            let value = f32(x[i]);
            let gradient = select(0.0, f32(dy1[i]), passes((value - k.mean) * k.scale, k.bias, params4.ceiling));
            dx[i] = T(k.scale * (gradient - k.shift - (value - k.mean) * k.slope));
        }
        place = next_place(place, params4);
    }
}
