// softmax: log-softmax and cross-entropy, one row of classes at a time.
//
// Layout     element c of row r is at (r / inner * classes + c) * inner + r % inner. target i32, weight [classes], loss and row_weight one a row.
// Bindings   the operands in order (read), the results (read_write), params (uniform); weight is anything when WEIGHTED is false
// Dispatch   a workgroup takes ROWS_A_GROUP rows of LANES lanes each, folded to 2-D
// Overrides  LANES: lanes a row, a power of two; ROWS_A_GROUP; WEIGHTED
// Precision  exp and log of shared/math.wgsl; sums are LANES partial sums joined by a tree.
//#include shared/index.wgsl
//#include shared/math.wgsl

const LANES: u32 = 1u; //#spec
const ROWS_A_GROUP: u32 = 64u; //#spec
override WEIGHTED: bool = false;

struct Params {
    rows: u32,
    classes: u32,
    inner: u32,
    ignore: i32,
    ignores: u32,
    smoothing: f32,
    nan_bits: u32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params2: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(3) var<uniform> params3: Params;
@group(0) @binding(1) var<storage, read> targets: array<i32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;
@group(0) @binding(4) var<storage, read_write> row_weight: array<f32>;
@group(0) @binding(5) var<uniform> params5: Params;
@group(0) @binding(3) var<storage, read> dloss: array<f32>;
@group(0) @binding(4) var<storage, read_write> dlogits: array<f32>;
var<workgroup> lanes: array<f32, LANES * ROWS_A_GROUP>;

// Sum of `v` over the lanes of the row, in every lane. Uniform control flow only.
fn row_sum(lane: u32, v: f32) -> f32 {
    workgroupBarrier();
    lanes[lane] = v;
    for (var width = LANES / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if lane % LANES < width { lanes[lane] += lanes[lane + width]; }
    }
    workgroupBarrier();
    return lanes[lane - lane % LANES];
}

fn row_max(lane: u32, v: f32) -> f32 {
    workgroupBarrier();
    lanes[lane] = v;
    for (var width = LANES / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if lane % LANES < width { lanes[lane] = max(lanes[lane], lanes[lane + width]); }
    }
    workgroupBarrier();
    return lanes[lane - lane % LANES];
}

// (maximum, log of the sum of exp(x - maximum)) of the row that begins at `base`.
fn row_lse(lane: u32, base: u32, classes: u32, inner: u32) -> vec2<f32> {
    let first = lane % LANES;
    var top = x[base];
    for (var c = first; c < classes; c += LANES) { top = max(top, x[base + c * inner]); }
    top = row_max(lane, top);
    var sum = 0.0;
    for (var c = first; c < classes; c += LANES) { sum += accurate_exp(x[base + c * inner] - top); }
    return vec2(top, accurate_log(row_sum(lane, sum)));
}

// A row's first element. Rows past the end repeat the last one, so that all lanes meet at the barriers.
fn row_base(row: u32, rows: u32, classes: u32, inner: u32) -> u32 {
    let r = min(row, rows - 1u);
    return r / inner * classes * inner + r % inner;
}

@compute @workgroup_size(LANES * ROWS_A_GROUP)
fn log_softmax(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(group, groups) * ROWS_A_GROUP + lane / LANES;
    let base = row_base(row, params2.rows, params2.classes, params2.inner);
    let lse = row_lse(lane, base, params2.classes, params2.inner);
    if row >= params2.rows { return; }
    for (var c = lane % LANES; c < params2.classes; c += LANES) {
        let i = base + c * params2.inner;
        y[i] = (x[i] - lse.x) - lse.y;
    }
}

@compute @workgroup_size(LANES * ROWS_A_GROUP)
fn log_softmax_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(group, groups) * ROWS_A_GROUP + lane / LANES;
    let base = row_base(row, params3.rows, params3.classes, params3.inner);
    var part = 0.0;
    for (var c = lane % LANES; c < params3.classes; c += LANES) { part += dy[base + c * params3.inner]; }
    let sum = row_sum(lane, part);
    if row >= params3.rows { return; }
    for (var c = lane % LANES; c < params3.classes; c += LANES) {
        let i = base + c * params3.inner;
        dx[i] = dy[i] - accurate_exp(x[i]) * sum;
    }
}

fn class_weight(c: u32) -> f32 {
    if WEIGHTED { return weight[c]; }
    return 1.0;
}

fn ignored(t: i32) -> bool {
    return params5.ignores == 1u && t == params5.ignore;
}

@compute @workgroup_size(LANES * ROWS_A_GROUP)
fn cross_entropy(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(group, groups) * ROWS_A_GROUP + lane / LANES;
    let classes = params5.classes;
    let base = row_base(row, params5.rows, classes, params5.inner);
    let lse = row_lse(lane, base, classes, params5.inner);
    var part = 0.0;
    if params5.smoothing > 0.0 {
        for (var c = lane % LANES; c < classes; c += LANES) {
            part += class_weight(c) * ((lse.x - x[base + c * params5.inner]) + lse.y);
        }
    }
    let spread = row_sum(lane, part);
    if row >= params5.rows || lane % LANES != 0u { return; }
    let t = targets[row];
    if ignored(t) {
        loss[row] = 0.0;
        row_weight[row] = 0.0;
    } else if t < 0 || t >= i32(classes) {
        loss[row] = bitcast<f32>(params5.nan_bits);
        row_weight[row] = bitcast<f32>(params5.nan_bits);
    } else {
        let w = class_weight(u32(t));
        let own = (lse.x - x[base + u32(t) * params5.inner]) + lse.y;
        loss[row] = (1.0 - params5.smoothing) * w * own + params5.smoothing / f32(classes) * spread;
        row_weight[row] = w;
    }
}

@compute @workgroup_size(LANES * ROWS_A_GROUP)
fn cross_entropy_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(group, groups) * ROWS_A_GROUP + lane / LANES;
    let classes = params5.classes;
    let base = row_base(row, params5.rows, classes, params5.inner);
    let lse = row_lse(lane, base, classes, params5.inner);
    var part = 0.0;
    if params5.smoothing > 0.0 {
        for (var c = lane % LANES; c < classes; c += LANES) { part += class_weight(c); }
    }
    let total = row_sum(lane, part);
    if row >= params5.rows { return; }
    let t = targets[row];
    let outside = t < 0 || t >= i32(classes);
    for (var c = lane % LANES; c < classes; c += LANES) {
        let i = base + c * params5.inner;
        var g = 0.0;
        if !ignored(t) {
            if outside {
                g = bitcast<f32>(params5.nan_bits);
            } else {
                let p = accurate_exp((x[i] - lse.x) - lse.y);
                let hard = (1.0 - params5.smoothing) * class_weight(u32(t)) * (p - select(0.0, 1.0, i32(c) == t));
                g = hard + params5.smoothing / f32(classes) * (p * total - class_weight(c));
            }
        }
        dlogits[i] = g * dloss[row];
    }
}
