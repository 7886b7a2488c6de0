// elementwise: y[i] = f(x[i]), dx[i] = f'(s[i]) dy[i], y = f(a, b) broadcast, comparisons, where, casts, acc += x, fill.
//
// Layout     T (f32 or f16), contiguous. The entries ending in 4 take vectors of four values and need n % 4 == 0.
// Bindings   the operands in order (read), the result (read_write), params (uniform)
// Dispatch   one invocation an element (or a vector), WG a workgroup, folded to 2-D
// Overrides  WG: invocations per workgroup; OP: the function, numbered in src/backend/gpu/kernels/elementwise.rs
// Precision  shared/math.wgsl for the transcendental functions; WGSL's own for the rest (division 2.5 ulp).
//#include shared/f32.wgsl
//#include shared/index.wgsl
//#include shared/math.wgsl

override WG: u32 = 256u;
override OP: u32 = 0u;
// Types of the operands of `compare` and of the conversions, and of the result of the latter: 0 float, 1 i32, 2 u32.
override FROM: u32 = 0u;
override TO: u32 = 0u;

struct Params {
    n: u32,
    p: f32,
    q: f32,
    bits: u32,
    sizes: array<vec4<u32>, 2>,
    stride_a: array<vec4<u32>, 2>,
    stride_b: array<vec4<u32>, 2>,
    stride_c: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<storage, read> x: array<T>;
@group(0) @binding(1) var<storage, read_write> y: array<T>;
@group(0) @binding(2) var<uniform> params: Params;
@group(0) @binding(0) var<storage, read> x4: array<T4>;
@group(0) @binding(1) var<storage, read_write> y4: array<T4>;
@group(0) @binding(1) var<storage, read> b: array<T>;
@group(0) @binding(2) var<storage, read_write> z: array<T>;
@group(0) @binding(3) var<uniform> params3: Params;
@group(0) @binding(1) var<storage, read> b4: array<T4>;
@group(0) @binding(2) var<storage, read_write> z4: array<T4>;
@group(0) @binding(0) var<storage, read> word_a: array<Word>;
@group(0) @binding(1) var<storage, read_write> number_y: array<u32>;
@group(0) @binding(1) var<storage, read> word_b: array<Word>;
@group(0) @binding(2) var<storage, read_write> flag_z: array<u32>;
@group(0) @binding(0) var<storage, read> flag_a: array<u32>;
@group(0) @binding(0) var<storage, read> number_a: array<u32>;
@group(0) @binding(2) var<storage, read> word_c: array<Word>;
@group(0) @binding(3) var<storage, read_write> word_w: array<Word>;
@group(0) @binding(4) var<uniform> params4: Params;
@group(0) @binding(0) var<storage, read_write> words: array<Word>;
@group(0) @binding(1) var<uniform> params1: Params;

const SELU_SCALE: f32 = 1.050701;
const SELU_ALPHA: f32 = 1.6732632;
// sqrt(1/2), and sqrt(2/pi).
const HALF_ROOT: f32 = 0.70710677;
const GELU_SLOPE: f32 = 0.7978846;

fn gelu_angle(v: f32) -> f32 {
    return GELU_SLOPE * (v + 0.044715 * v * v * v);
}

// v within [0, high]; NaN stays.
fn clamped(v: f32, high: f32) -> f32 {
    return select(select(v, 0.0, v < 0.0), high, v > high);
}

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
        case 11u: { return p * v + q; }
        case 12u: { return 1.0 / sqrt(v); }
        case 13u: { return select(select(0.0, 1.0, v > 0.0), -1.0, v < 0.0); }
        case 14u: { return floor(v); }
        case 15u: { return ceil(v); }
        case 16u: { return round(v); }
        case 17u: { return cos_sin(v).y; }
        case 18u: { return cos_sin(v).x; }
        case 19u: { let t = cos_sin(v); return t.y / t.x; }
        case 20u: { return accurate_asin(v); }
        case 21u: { return accurate_acos(v); }
        case 22u: { return accurate_atan(v); }
        case 23u: { return accurate_sinh(v); }
        case 24u: { return accurate_cosh(v); }
        case 25u: { return accurate_asinh(v); }
        case 26u: { return accurate_acosh(v); }
        case 27u: { return accurate_atanh(v); }
        case 28u: { return accurate_erf(v); }
        case 29u: { return accurate_pow(v, p); }
        // `select` lets NaN pass.
        case 30u: { let low = select(v, p, v < p); return select(low, q, low > q); }
        case 31u: { return select(v, q, v <= p); }
        case 32u: { return select(p * accurate_expm1(v), v, v > 0.0); }
        case 33u: { return SELU_SCALE * select(SELU_ALPHA * accurate_expm1(v), v, v > 0.0); }
        case 34u: { return select(p * accurate_expm1(v / p), v, v > 0.0); }
        case 35u: { return 0.5 * v * (1.0 + accurate_erf(v * HALF_ROOT)); }
        case 36u: { return 0.5 * v * (1.0 + accurate_tanh(gelu_angle(v))); }
        case 37u: { return v * sigmoid(v); }
        case 38u: { return v * accurate_tanh(softplus(v)); }
        case 39u: { return v * (clamped(v + 3.0, 6.0) / 6.0); }
        case 40u: { return clamped(v + 3.0, 6.0) / 6.0; }
        case 41u: { return select(softplus(p * v) / p, v, p * v > q); }
        case 42u: { return v / (1.0 + abs(v)); }
        default: { return -softplus(-v); }
    }
}

// f'(s) dy, s being the input or the output as `Unary::saved` says.
fn derivative_of(s: f32, dy: f32, p: f32, q: f32) -> f32 {
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
        case 11u: { return p * dy; }
        case 12u: { return -0.5 * s * s * s * dy; }
        case 13u, 14u, 15u, 16u: { return 0.0; }
        case 17u: { return cos_sin(s).x * dy; }
        case 18u: { return -cos_sin(s).y * dy; }
        case 19u: { return (1.0 + s * s) * dy; }
        case 20u: { return dy / sqrt((1.0 - s) * (1.0 + s)); }
        case 21u: { return -dy / sqrt((1.0 - s) * (1.0 + s)); }
        case 22u: { return dy / (1.0 + s * s); }
        case 23u: { return accurate_cosh(s) * dy; }
        case 24u: { return accurate_sinh(s) * dy; }
        case 25u: { return dy / sqrt(1.0 + s * s); }
        case 26u: { return dy / sqrt((s - 1.0) * (s + 1.0)); }
        case 27u: { return dy / ((1.0 - s) * (1.0 + s)); }
        case 28u: { return 1.1283792 * accurate_exp(-s * s) * dy; }
        case 29u: {
            if p == 0.0 { return 0.0; }
            return p * accurate_pow(s, p - 1.0) * dy;
        }
        case 30u: { return select(0.0, dy, s > p && s < q); }
        case 31u: { return select(0.0, dy, s > p); }
        case 32u: { return select(p * accurate_exp(s) * dy, dy, s > 0.0); }
        case 33u: { return SELU_SCALE * select(SELU_ALPHA * accurate_exp(s), 1.0, s > 0.0) * dy; }
        case 34u: { return select(accurate_exp(s / p) * dy, dy, s > 0.0); }
        // Probability and density of the normal distribution.
        case 35u: { return (0.5 * (1.0 + accurate_erf(s * HALF_ROOT)) + s * 0.3989423 * accurate_exp(-0.5 * s * s)) * dy; }
        case 36u: {
            let t = accurate_tanh(gelu_angle(s));
            return (0.5 * (1.0 + t) + 0.5 * s * (1.0 - t * t) * GELU_SLOPE * (1.0 + 0.134145 * s * s)) * dy;
        }
        case 37u: { let g = sigmoid(s); return g * (1.0 + s * (1.0 - g)) * dy; }
        case 38u: { let t = accurate_tanh(softplus(s)); return (t + s * sigmoid(s) * (1.0 - t * t)) * dy; }
        case 39u: { return select(select((s / 3.0 + 0.5) * dy, dy, s >= 3.0), 0.0, s <= -3.0); }
        case 40u: { return select(0.0, dy / 6.0, s > -3.0 && s < 3.0); }
        case 41u: { return select(sigmoid(p * s) * dy, dy, p * s > q); }
        case 42u: { let d = 1.0 + abs(s); return dy / (d * d); }
        default: { return sigmoid(-s) * dy; }
    }
}

fn binary_of(a: f32, b: f32) -> f32 {
    switch OP {
        case 0u: { return a + b; }
        case 1u: { return a - b; }
        case 2u: { return a * b; }
        case 3u: { return a / b; }
        // NaN where one operand is.
        case 4u: { return select(select(b, a, a > b), a + b, is_nan(a) || is_nan(b)); }
        case 5u: { return select(select(b, a, a < b), a + b, is_nan(a) || is_nan(b)); }
        case 6u: { return accurate_pow(a, b); }
        case 7u: {
            let rest = exact_fmod(a, b);
            return select(rest, rest + b, rest != 0.0 && (rest < 0.0) != (b < 0.0));
        }
        default: { return exact_fmod(a, b); }
    }
}

@compute @workgroup_size(WG)
fn unary(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i < params.n { y[i] = T(unary_of(f32(x[i]), params.p, params.q)); }
}

@compute @workgroup_size(WG)
fn unary4(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params.n { return; }
    let v = vec4<f32>(x4[i]);
    let p = params.p;
    let q = params.q;
    y4[i] = T4(vec4(unary_of(v.x, p, q), unary_of(v.y, p, q), unary_of(v.z, p, q), unary_of(v.w, p, q)));
}

@compute @workgroup_size(WG)
fn unary_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i < params3.n { z[i] = T(derivative_of(f32(x[i]), f32(b[i]), params3.p, params3.q)); }
}

@compute @workgroup_size(WG)
fn unary_backward4(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params3.n { return; }
    let s = vec4<f32>(x4[i]);
    let d = vec4<f32>(b4[i]);
    let p = params3.p;
    let q = params3.q;
    let dx = vec4(derivative_of(s.x, d.x, p, q), derivative_of(s.y, d.y, p, q), derivative_of(s.z, d.z, p, q), derivative_of(s.w, d.w, p, q));
    z4[i] = T4(dx);
}

@compute @workgroup_size(WG)
fn binary(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params3.n { return; }
    let p = f32(x[offset8(i, params3.sizes, params3.stride_a)]);
    let q = f32(b[offset8(i, params3.sizes, params3.stride_b)]);
    z[i] = T(binary_of(p, q));
}

// Both operands have the result's shape.
@compute @workgroup_size(WG)
fn binary4(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params3.n { return; }
    let p = vec4<f32>(x4[i]);
    let q = vec4<f32>(b4[i]);
    z4[i] = T4(vec4(binary_of(p.x, q.x), binary_of(p.y, q.y), binary_of(p.z, q.z), binary_of(p.w, q.w)));
}

// NaN is known by its bits: a compiler may assume that it does not occur.
fn less(a: Word, b: Word) -> bool {
    switch FROM {
        case 0u: { return float_of(a) < float_of(b) && !is_nan(float_of(a)) && !is_nan(float_of(b)); }
        case 1u: { return int_of(a) < int_of(b); }
        default: { return uint_of(a) < uint_of(b); }
    }
}

fn equal(a: Word, b: Word) -> bool {
    if FROM == 0u { return float_of(a) == float_of(b) && !is_nan(float_of(a)) && !is_nan(float_of(b)); }
    return uint_of(a) == uint_of(b);
}

@compute @workgroup_size(WG)
fn compare(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params3.n { return; }
    let p = word_a[offset8(i, params3.sizes, params3.stride_a)];
    let q = word_b[offset8(i, params3.sizes, params3.stride_b)];
    var holds = false;
    switch OP {
        case 0u: { holds = equal(p, q); }
        case 1u: { holds = !equal(p, q); }
        case 2u: { holds = less(p, q); }
        case 3u: { holds = less(p, q) || equal(p, q); }
        case 4u: { holds = less(q, p); }
        default: { holds = less(q, p) || equal(p, q); }
    }
    flag_z[i] = u32(holds);
}

@compute @workgroup_size(WG)
fn choose(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params4.n { return; }
    if flag_a[offset8(i, params4.sizes, params4.stride_a)] != 0u {
        word_w[i] = word_b[offset8(i, params4.sizes, params4.stride_b)];
    } else {
        word_w[i] = word_c[offset8(i, params4.sizes, params4.stride_c)];
    }
}

// From float. Saturating; the f32 bounds are the largest values below 2^31 and 2^32.
@compute @workgroup_size(WG)
fn from_float(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params.n { return; }
    let f = f32(x[i]);
    var out = bitcast<u32>(f);
    if TO == 1u {
        out = bitcast<u32>(i32(clamp(f, -2147483648.0, 2147483520.0)));
        if f >= 2147483648.0 { out = 0x7fffffffu; }
    }
    if TO == 2u {
        out = u32(clamp(f, 0.0, 4294967040.0));
        if f >= 4294967296.0 { out = 0xffffffffu; }
    }
    if TO != 0u && is_nan(f) { out = 0u; }
    number_y[i] = out;
}

// To float, from 32-bit numbers.
@compute @workgroup_size(WG)
fn to_float(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params.n { return; }
    let v = number_a[i];
    switch FROM {
        case 0u: { y[i] = T(bitcast<f32>(v)); }
        case 1u: { y[i] = T(f32(bitcast<i32>(v))); }
        default: { y[i] = T(f32(v)); }
    }
}

// Between integers, saturating.
@compute @workgroup_size(WG)
fn convert(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params.n { return; }
    var v = number_a[i];
    if FROM == 1u && TO == 2u { v = u32(max(bitcast<i32>(v), 0)); }
    if FROM == 2u && TO == 1u { v = min(v, 0x7fffffffu); }
    number_y[i] = v;
}

// Bits of OP: 1 NaN, 2 positive infinity, 4 negative infinity.
@compute @workgroup_size(WG)
fn classify(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params.n { return; }
    let v = bitcast<u32>(f32(x[i]));
    let nan = (OP & 1u) != 0u && (v & 0x7fffffffu) > 0x7f800000u;
    let positive = (OP & 2u) != 0u && v == 0x7f800000u;
    let negative = (OP & 4u) != 0u && v == 0xff800000u;
    let holds = nan || positive || negative;
    number_y[i] = u32(holds);
}

@compute @workgroup_size(WG)
fn add_assign(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i < params.n { y[i] = T(f32(y[i]) + f32(x[i])); }
}

// One pattern of bits, whatever its type.
@compute @workgroup_size(WG)
fn fill(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i < params1.n { words[i] = word_of(params1.bits); }
}
