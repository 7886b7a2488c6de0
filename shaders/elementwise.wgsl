// elementwise: y[i] = f(x[i]), dx[i] = f'(s[i]) dy[i], y = f(a, b) broadcast, acc += x, fill.
//
// Layout     f32, contiguous. The entries ending in 4 take vectors of four values and need n % 4 == 0.
// Bindings   the operands in order (read), the result (read_write), params (uniform)
// Dispatch   one invocation an element (or a vector), WG a workgroup, folded to 2-D
// Overrides  WG: invocations per workgroup; OP: the function, numbered in src/backend/gpu/kernels/elementwise.rs
// Precision  shared/math.wgsl for exp, log, tanh, sigmoid; WGSL's own for the rest (division 2.5 ulp).
//#include shared/index.wgsl
//#include shared/math.wgsl

override WG: u32 = 256u;
override OP: u32 = 0u;

struct Params {
    n: u32,
    p: f32,
    q: f32,
    bits: u32,
    sizes: array<vec4<u32>, 2>,
    stride_a: array<vec4<u32>, 2>,
    stride_b: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;
@group(0) @binding(0) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> z: array<f32>;
@group(0) @binding(3) var<uniform> params3: Params;
@group(0) @binding(1) var<storage, read> b4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> z4: array<vec4<f32>>;
@group(0) @binding(0) var<storage, read_write> words: array<u32>;
@group(0) @binding(1) var<uniform> params1: Params;

fn unary_of(v: f32, p: f32, q: f32) -> f32 {
    switch OP {
        case 0u: { return -v; }
        case 1u: { return accurate_exp(v); }
        case 2u: { return accurate_log(v); }
        case 3u: { return sqrt(v); }
        case 4u: { return v * v; }
        case 5u: { return abs(v); }
        case 6u: { return 1.0 / v; }
        // `select` rather than `max`, which may turn NaN into 0.
        case 7u: { return select(v, 0.0, v <= 0.0); }
        case 8u: { return select(p * v, v, v > 0.0); }
        case 9u: { return sigmoid(v); }
        case 10u: { return accurate_tanh(v); }
        default: { return p * v + q; }
    }
}

// f'(s) dy, s being the input or the output as `Unary::saved` says.
fn derivative_of(s: f32, dy: f32, p: f32) -> f32 {
    switch OP {
        case 0u: { return -dy; }
        case 1u: { return s * dy; }
        case 2u: { return dy / s; }
        case 3u: { return dy / (2.0 * s); }
        case 4u: { return 2.0 * s * dy; }
        case 5u: { return sign(s) * dy; }
        case 6u: { return -s * s * dy; }
        case 7u: { return select(0.0, dy, s > 0.0); }
        case 8u: { return select(p * dy, dy, s > 0.0); }
        case 9u: { return s * (1.0 - s) * dy; }
        case 10u: { return (1.0 - s * s) * dy; }
        default: { return p * dy; }
    }
}

fn binary_of(a: f32, b: f32) -> f32 {
    switch OP {
        case 0u: { return a + b; }
        case 1u: { return a - b; }
        case 2u: { return a * b; }
        case 3u: { return a / b; }
        default: { return select(0.0, 1.0, a == b); }
    }
}

@compute @workgroup_size(WG)
fn unary(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i < params.n { y[i] = unary_of(x[i], params.p, params.q); }
}

@compute @workgroup_size(WG)
fn unary4(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params.n { return; }
    let v = x4[i];
    let p = params.p;
    let q = params.q;
    y4[i] = vec4(unary_of(v.x, p, q), unary_of(v.y, p, q), unary_of(v.z, p, q), unary_of(v.w, p, q));
}

@compute @workgroup_size(WG)
fn unary_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i < params3.n { z[i] = derivative_of(x[i], b[i], params3.p); }
}

@compute @workgroup_size(WG)
fn unary_backward4(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params3.n { return; }
    let s = x4[i];
    let d = b4[i];
    let p = params3.p;
    z4[i] = vec4(derivative_of(s.x, d.x, p), derivative_of(s.y, d.y, p), derivative_of(s.z, d.z, p), derivative_of(s.w, d.w, p));
}

@compute @workgroup_size(WG)
fn binary(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params3.n { return; }
    z[i] = binary_of(x[offset8(i, params3.sizes, params3.stride_a)], b[offset8(i, params3.sizes, params3.stride_b)]);
}

// Both operands have the result's shape.
@compute @workgroup_size(WG)
fn binary4(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params3.n { return; }
    let p = x4[i];
    let q = b4[i];
    z4[i] = vec4(binary_of(p.x, q.x), binary_of(p.y, q.y), binary_of(p.z, q.z), binary_of(p.w, q.w));
}

@compute @workgroup_size(WG)
fn add_assign(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i < params.n { y[i] += x[i]; }
}

// One 32-bit pattern, whatever its type.
@compute @workgroup_size(WG)
fn fill(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i < params1.n { words[i] = params1.bits; }
}
