// scan: cumulative sums, and the k largest or smallest elements, along one dimension.
//
// Layout     rows [outer, len, inner]; of topk the results are [outer, k, inner]
// Bindings   0 x (read)   1 y or values (read_write)   2 index (read_write; topk)   then params (uniform)
// Dispatch   cumsum: a workgroup a row, WG elements at a time; topk: one invocation an element. Folded to 2-D
// Overrides  FLAG: from the end (cumsum), the largest (topk)
// Precision  cumsum adds in a tree of depth 8 within WG elements, and the tiles in order. topk is exact.
//#include shared/index.wgsl

override FLAG: bool = false;
const WG: u32 = 256u;

struct Params {
    rows: u32,
    len: u32,
    inner: u32,
    k: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params2: Params;
@group(0) @binding(2) var<storage, read_write> index: array<u32>;
@group(0) @binding(3) var<uniform> params3: Params;
var<workgroup> sums: array<f32, WG>;

@compute @workgroup_size(WG)
fn cumsum(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(group, groups);
    if row >= params2.rows { return; }
    let base = row / params2.inner * params2.len * params2.inner + row % params2.inner;
    var before = 0.0;
    for (var begin = 0u; begin < params2.len; begin += WG) {
        let step = begin + lane;
        let place = select(step, params2.len - 1u - step, FLAG);
        var sum = 0.0;
        if step < params2.len { sum = x[base + place * params2.inner]; }
        // Hillis and Steele 1986: after round d every lane holds the sum of the 2^(d + 1) elements up to its own.
        sums[lane] = sum;
        for (var distance = 1u; distance < WG; distance *= 2u) {
            workgroupBarrier();
            if lane >= distance { sum += sums[lane - distance]; }
            workgroupBarrier();
            sums[lane] = sum;
        }
        workgroupBarrier();
        if step < params2.len { y[base + place * params2.inner] = before + sum; }
        before += sums[WG - 1u];
        workgroupBarrier();
    }
}

fn is_nan(v: f32) -> bool {
    return (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u;
}

// True when (a, i) comes before (b, j) in the order of the result: NaN is the largest, of equal ones the first comes first.
fn precedes(a: f32, i: u32, b: f32, j: u32) -> bool {
    if is_nan(a) || is_nan(b) {
        if is_nan(a) && is_nan(b) { return i < j; }
        return is_nan(a) == FLAG;
    }
    if a == b { return i < j; }
    return (a > b) == FLAG;
}

// An element's place is the number of those that precede it.
@compute @workgroup_size(WG)
fn topk(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let element = flat_group(group, groups) * WG + lane;
    if element >= params3.rows * params3.len { return; }
    let inner = element % params3.inner;
    let i = element / params3.inner % params3.len;
    let outer = element / params3.inner / params3.len;
    let base = outer * params3.len * params3.inner + inner;
    let v = x[element];
    var place = 0u;
    for (var j = 0u; j < params3.len; j++) {
        if precedes(x[base + j * params3.inner], j, v, i) { place += 1u; }
    }
    if place < params3.k {
        let at = (outer * params3.k + place) * params3.inner + inner;
        y[at] = v;
        index[at] = i;
    }
}
