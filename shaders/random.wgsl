// random: uniform and normal tensors and dropout from Philox streams.
//
// Layout     element i takes word i of its stream; a normal pair (2p, 2p + 1) takes words 2p and 2p + 1 (Box and Muller 1958).
// Bindings   the operand (read; dropout only), the result (read_write), params (uniform)
// Dispatch   one invocation a block of four elements, WG a workgroup, folded to 2-D
// Overrides  WG: invocations per workgroup; NORMAL: normal instead of uniform
// Precision  words, uniforms and masks equal src/rng.rs bit for bit; normals within shared/math.wgsl.
//#include shared/f32.wgsl
//#include shared/index.wgsl
//#include shared/math.wgsl
//#include shared/philox.wgsl

override WG: u32 = 256u;
override NORMAL: bool = false;

struct Params {
    key: vec2<u32>,
    high: vec2<u32>,
    n: u32,
    // Uniform: low and width. Normal: mean and standard deviation. Dropout: p and 1 / (1 - p).
    a: f32,
    b: f32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<T>;
@group(0) @binding(1) var<uniform> params1: Params;
@group(0) @binding(0) var<storage, read> x: array<T>;
@group(0) @binding(1) var<storage, read_write> dropped: array<T>;
@group(0) @binding(2) var<uniform> params2: Params;

// Two normals from two words; 1 - u lies in (0, 1].
fn normal_pair(words: vec2<u32>) -> vec2<f32> {
    return sqrt(-2.0 * accurate_log(1.0 - unit(words.x))) * cos_sin_turns(unit(words.y));
}

@compute @workgroup_size(WG)
fn generate(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = flat_group(group, groups) * WG + lane;
    if block * 4u >= params1.n { return; }
    let words = philox(vec4(block, 0u, params1.high), params1.key);
    var values = vec4(unit(words.x), unit(words.y), unit(words.z), unit(words.w));
    if NORMAL { values = vec4(normal_pair(words.xy), normal_pair(words.zw)); }
    for (var e = 0u; e < 4u && block * 4u + e < params1.n; e++) {
        y[block * 4u + e] = T(params1.a + params1.b * values[e]);
    }
}

@compute @workgroup_size(WG)
fn dropout(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = flat_group(group, groups) * WG + lane;
    if block * 4u >= params2.n { return; }
    let words = philox(vec4(block, 0u, params2.high), params2.key);
    for (var e = 0u; e < 4u && block * 4u + e < params2.n; e++) {
        let i = block * 4u + e;
        dropped[i] = T(select(f32(x[i]) * params2.b, 0.0, unit(words[e]) < params2.a));
    }
}
