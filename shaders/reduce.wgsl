// reduce: sums, sums of squares, squared deviations, products, maxima and minima and their indices, over any set of dimensions.
//
// Layout     term j of output o is x[offset(o, kept) + offset(j, reduced)]; result [outputs, chunks].
//            reduce_four takes terms that lie side by side four at a time: its terms, sizes and strides are of vectors' first numbers.
// Bindings   0 x (read)   1 per-output helper (read): the mean for KIND 2, the candidates for argmax_again, else anything
//            2 result (read_write)   3 params (uniform)
// Dispatch   a workgroup takes RX outputs and one chunk of their terms; outputs folded to 2-D, z is the chunk
// Overrides  RX, RY: outputs and lanes an output in a workgroup (RX RY = 256, RY a power of two); KIND: 0 sum, 1 squares, 2 squared deviations, 3 maximum,
//            4 minimum, 5 product; argmax finds the index of the minimum with KIND 4
// Precision  a lane adds at most 16 terms in order, or four vectors of four, each joined by pairs; a tree joins the RY lanes, and the chunks of a long reduction are reduced by a further
//            pass: the error grows with the logarithm of the length.
//#include shared/index.wgsl

const RX: u32 = 1u; //#spec
const RY: u32 = 256u; //#spec
override KIND: u32 = 0u;

struct Params {
    outputs: u32,
    terms: u32,
    terms_a_chunk: u32,
    chunks: u32,
    kept_sizes: vec4<u32>,
    kept_strides: vec4<u32>,
    reduced_sizes: vec4<u32>,
    reduced_strides: vec4<u32>,
    scale: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(0) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> helper: array<f32>;
@group(0) @binding(1) var<storage, read> candidates: array<u32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
@group(0) @binding(2) var<storage, read_write> index: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;
var<workgroup> values: array<f32, RX * RY>;
var<workgroup> places: array<u32, RX * RY>;

fn is_nan(v: f32) -> bool {
    return (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u;
}

fn join(a: f32, b: f32) -> f32 {
    if KIND == 3u { return select(a, b, b > a || is_nan(b)); }
    if KIND == 4u { return select(a, b, b < a || is_nan(b)); }
    if KIND == 5u { return a * b; }
    return a + b;
}

// The end of the chunk that begins there, and what changes nothing where it is joined.
fn end_of(begin: u32) -> u32 { return min(begin + params.terms_a_chunk, params.terms); }
fn neutral() -> f32 { return select(0.0, 1.0, KIND == 5u); }

// What is joined of a number of output o.
fn value(v: f32, o: u32) -> f32 {
    switch KIND {
        case 1u: { return v * v; }
        case 2u: { let d = v - helper[o]; return d * d; }
        default: { return v; }
    }
}

fn term(base: u32, o: u32, j: u32) -> f32 { return value(x[base + offset4(j, params.reduced_sizes, params.reduced_strides)], o); }

fn four_terms(base: u32, o: u32, j: u32) -> f32 {
    let v = x4[(base + offset4(j, params.reduced_sizes, params.reduced_strides)) / 4u];
    return join(join(value(v.x, o), value(v.y, o)), join(value(v.z, o), value(v.w, o)));
}

// Joins the lanes' values of output o, in a tree. Called in uniform control flow.
fn store_joined(lane: u32, o: u32, chunk: u32, value: f32) {
    let ly = lane / RX;
    values[lane] = value;
    for (var width = RY / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if ly < width { values[lane] = join(values[lane], values[lane + width * RX]); }
    }
    if ly == 0u && o < params.outputs { result[o * params.chunks + chunk] = values[lane] * params.scale; }
}

@compute @workgroup_size(RX * RY)
fn reduce(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let lx = lane % RX;
    let ly = lane / RX;
    let o = flat_group(group, groups) * RX + lx;
    let begin = group.z * params.terms_a_chunk;
    let end = end_of(begin);
    var sum = neutral();
    if o < params.outputs {
        let base = offset4(o, params.kept_sizes, params.kept_strides);
        // A lane without terms of its own repeats the chunk's first where a 0 would win.
        if KIND == 3u || KIND == 4u { sum = term(base, o, begin); }
        for (var j = begin + ly; j < end; j += RY) { sum = join(sum, term(base, o, j)); }
    }
    store_joined(lane, o, group.z, sum);
}

@compute @workgroup_size(RX * RY)
fn reduce_four(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let o = flat_group(group, groups) * RX + lane % RX;
    let begin = group.z * params.terms_a_chunk;
    let end = end_of(begin);
    var sum = neutral();
    if o < params.outputs {
        let base = offset4(o, params.kept_sizes, params.kept_strides);
        if KIND == 3u || KIND == 4u { sum = four_terms(base, o, begin); }
        for (var j = begin + lane / RX; j < end; j += RY) { sum = join(sum, four_terms(base, o, j)); }
    }
    store_joined(lane, o, group.z, sum);
}

// True when candidate (v, at) beats (best, best_at): larger (smaller with KIND 4), or as large and earlier; NaN beats all.
fn beats(v: f32, at: u32, best: f32, best_at: u32) -> bool {
    if is_nan(best) { return is_nan(v) && at < best_at; }
    return select(v > best, v < best, KIND == 4u) || is_nan(v) || (v == best && at < best_at);
}

fn argmax_tree(lane: u32, ly: u32, v: f32, at: u32) {
    values[lane] = v;
    places[lane] = at;
    for (var width = RY / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if ly < width {
            let other = lane + width * RX;
            if beats(values[other], places[other], values[lane], places[lane]) {
                values[lane] = values[other];
                places[lane] = places[other];
            }
        }
    }
}

@compute @workgroup_size(RX * RY)
fn argmax(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let lx = lane % RX;
    let ly = lane / RX;
    let o = flat_group(group, groups) * RX + lx;
    let begin = group.z * params.terms_a_chunk;
    let end = end_of(begin);
    var best = 0.0;
    var at = begin;
    if o < params.outputs {
        let base = offset4(o, params.kept_sizes, params.kept_strides);
        best = x[base + offset4(begin, params.reduced_sizes, params.reduced_strides)];
        for (var j = begin + ly; j < end; j += RY) {
            let v = x[base + offset4(j, params.reduced_sizes, params.reduced_strides)];
            if beats(v, j, best, at) { best = v; at = j; }
        }
    }
    argmax_tree(lane, ly, best, at);
    if ly == 0u && o < params.outputs { index[o * params.chunks + group.z] = places[lane]; }
}

// A further pass over `terms` candidates an output, which are indices of terms.
@compute @workgroup_size(RX * RY)
fn argmax_again(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let lx = lane % RX;
    let ly = lane / RX;
    let o = flat_group(group, groups) * RX + lx;
    let begin = group.z * params.terms_a_chunk;
    let end = end_of(begin);
    var best = 0.0;
    var at = 0u;
    if o < params.outputs {
        let base = offset4(o, params.kept_sizes, params.kept_strides);
        at = candidates[o * params.terms + begin];
        best = x[base + offset4(at, params.reduced_sizes, params.reduced_strides)];
        for (var j = begin + ly; j < end; j += RY) {
            let candidate = candidates[o * params.terms + j];
            let v = x[base + offset4(candidate, params.reduced_sizes, params.reduced_strides)];
            if beats(v, candidate, best, at) { best = v; at = candidate; }
        }
    }
    argmax_tree(lane, ly, best, at);
    if ly == 0u && o < params.outputs { index[o * params.chunks + group.z] = places[lane]; }
}
