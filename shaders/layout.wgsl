// layout: strided copies (permute, slice, pad, concatenate, expand), index selection, gather and its gradient.
//
// Layout     words of 32 bits, or f16, whatever they mean: to[to_offset + offset(i, to)] = from[from_offset + offset(i, from)] for i in 0..n.
//            index_select: rows [outer, len, inner]; an index outside the dimension gives zeros.
//            gather, scatter_add: sizes are the result's, from_strides those of the operand with 0 along the dimension, whose stride is inner and
//            whose place among the eight is to_len; to_strides are the index's sizes.
// Bindings   the operands in order (read), the result (read_write), params (uniform)
// Dispatch   one invocation an element, WG a workgroup, folded to 2-D
// Overrides  WG: invocations per workgroup
// Precision  exact; index_add and scatter_add sum the terms of equal index in the order of the indices, without atomics.
//#include shared/f32.wgsl
//#include shared/index.wgsl

override WG: u32 = 256u;

struct Params {
    n: u32,
    from_offset: u32,
    to_offset: u32,
    inner: u32,
    from_len: u32,
    to_len: u32,
    pad0: u32,
    pad1: u32,
    sizes: array<vec4<u32>, 2>,
    from_strides: array<vec4<u32>, 2>,
    to_strides: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<storage, read> source: array<Word>;
@group(0) @binding(1) var<storage, read_write> target_words: array<Word>;
@group(0) @binding(2) var<uniform> params2: Params;
@group(0) @binding(1) var<storage, read> index: array<i32>;
@group(0) @binding(2) var<storage, read_write> selected: array<Word>;
@group(0) @binding(0) var<storage, read> dy: array<T>;
@group(0) @binding(2) var<storage, read_write> dx: array<T>;
@group(0) @binding(3) var<uniform> params3: Params;

@compute @workgroup_size(WG)
fn copy(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params2.n { return; }
    let to_at = params2.to_offset + offset8(i, params2.sizes, params2.to_strides);
    target_words[to_at] = source[params2.from_offset + offset8(i, params2.sizes, params2.from_strides)];
}

@compute @workgroup_size(WG)
fn index_select(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params3.n { return; }
    let outer = i / (params3.to_len * params3.inner);
    let row = index[i / params3.inner % params3.to_len];
    var word = word_of(0u);
    if row >= 0 && row < i32(params3.from_len) {
        word = source[(outer * params3.from_len + u32(row)) * params3.inner + i % params3.inner];
    }
    selected[i] = word;
}

@compute @workgroup_size(WG)
fn index_add(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params3.n { return; }
    let outer = i / (params3.to_len * params3.inner);
    let row = i32(i / params3.inner % params3.to_len);
    var sum = 0.0;
    for (var j = 0u; j < params3.from_len; j++) {
        if index[j] == row { sum += f32(dy[(outer * params3.from_len + j) * params3.inner + i % params3.inner]); }
    }
    dx[i] = T(sum);
}

@compute @workgroup_size(WG)
fn gather(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params3.n { return; }
    let row = index[i];
    var word = word_of(0u);
    if row >= 0 && row < i32(params3.from_len) {
        word = source[offset8(i, params3.sizes, params3.from_strides) + u32(row) * params3.inner];
    }
    selected[i] = word;
}

@compute @workgroup_size(WG)
fn scatter_add(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * WG + lane;
    if i >= params3.n { return; }
    // The place along the dimension, and whether the index reaches this far in the others.
    var rest = i;
    var row = 0;
    var reached = true;
    for (var d = 8u; d > 0u; d--) {
        let size = params3.sizes[(d - 1u) / 4u][(d - 1u) % 4u];
        let at = rest % size;
        rest /= size;
        if d - 1u == params3.to_len { row = i32(at); }
        reached = reached && at < params3.to_strides[(d - 1u) / 4u][(d - 1u) % 4u];
    }
    var sum = 0.0;
    if reached {
        let base = offset8(i, params3.sizes, params3.from_strides);
        for (var j = 0u; j < params3.from_len; j++) {
            let at = base + j * params3.inner;
            if index[at] == row { sum += f32(dy[at]); }
        }
    }
    dx[i] = T(sum);
}
