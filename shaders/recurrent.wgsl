// recurrent: the elementwise part of one step of LSTM and GRU, and its gradient; formulas in src/op/recurrent.rs.
//
// Layout     gates [N, count H] in PyTorch's order, h [N, H], the LSTM's state [2, N, H] (h, then c); all = N H
// Bindings   the operands in order (read), the results (read_write), params (uniform)
// Dispatch   one invocation a hidden value, WG a workgroup, folded to 2-D
// Overrides  WG: invocations per workgroup
// Precision  sigmoid and tanh of shared/math.wgsl
//#include shared/index.wgsl
//#include shared/math.wgsl

override WG: u32 = 256u;

struct Params {
    all: u32,
    h: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read> gates_x: array<f32>;
@group(0) @binding(1) var<storage, read> gates_h: array<f32>;
@group(0) @binding(2) var<storage, read> state: array<f32>;
@group(0) @binding(3) var<storage, read_write> next: array<f32>;
@group(0) @binding(4) var<storage, read_write> kept: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;
@group(0) @binding(0) var<storage, read> act: array<f32>;
@group(0) @binding(1) var<storage, read> before: array<f32>;
@group(0) @binding(2) var<storage, read> after: array<f32>;
@group(0) @binding(3) var<storage, read> dafter: array<f32>;
@group(0) @binding(4) var<storage, read_write> dgates: array<f32>;
@group(0) @binding(5) var<storage, read_write> dbefore: array<f32>;
@group(0) @binding(6) var<uniform> params6: Params;
@group(0) @binding(2) var<storage, read> dh_after: array<f32>;
@group(0) @binding(3) var<storage, read_write> dgates_x: array<f32>;
@group(0) @binding(4) var<storage, read_write> dgates_h: array<f32>;
@group(0) @binding(5) var<storage, read_write> dh: array<f32>;

@compute @workgroup_size(WG)
fn lstm(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = flat_group(group, groups) * WG + lane;
    if e >= params.all { return; }
    let h = params.h;
    let at = e / h * 4u * h + e % h;
    let i = sigmoid(gates_x[at] + gates_h[at]);
    let f = sigmoid(gates_x[at + h] + gates_h[at + h]);
    let g = accurate_tanh(gates_x[at + 2u * h] + gates_h[at + 2u * h]);
    let o = sigmoid(gates_x[at + 3u * h] + gates_h[at + 3u * h]);
    let c = f * state[params.all + e] + i * g;
    next[e] = o * accurate_tanh(c);
    next[params.all + e] = c;
    kept[at] = i;
    kept[at + h] = f;
    kept[at + 2u * h] = g;
    kept[at + 3u * h] = o;
}

@compute @workgroup_size(WG)
fn lstm_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = flat_group(group, groups) * WG + lane;
    if e >= params6.all { return; }
    let h = params6.h;
    let at = e / h * 4u * h + e % h;
    let i = act[at];
    let f = act[at + h];
    let g = act[at + 2u * h];
    let o = act[at + 3u * h];
    let t = accurate_tanh(after[params6.all + e]);
    let d = dafter[e];
    let dc = dafter[params6.all + e] + d * o * (1.0 - t * t);
    dgates[at] = dc * g * i * (1.0 - i);
    dgates[at + h] = dc * before[params6.all + e] * f * (1.0 - f);
    dgates[at + 2u * h] = dc * i * (1.0 - g * g);
    dgates[at + 3u * h] = d * t * o * (1.0 - o);
    // h reaches the step only through the gates.
    dbefore[e] = 0.0;
    dbefore[params6.all + e] = dc * f;
}

@compute @workgroup_size(WG)
fn gru(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = flat_group(group, groups) * WG + lane;
    if e >= params.all { return; }
    let h = params.h;
    let at = e / h * 3u * h + e % h;
    let r = sigmoid(gates_x[at] + gates_h[at]);
    let z = sigmoid(gates_x[at + h] + gates_h[at + h]);
    let hidden = gates_h[at + 2u * h];
    let n = accurate_tanh(gates_x[at + 2u * h] + r * hidden);
    next[e] = (1.0 - z) * n + z * state[e];
    let to = e / h * 4u * h + e % h;
    kept[to] = r;
    kept[to + h] = z;
    kept[to + 2u * h] = n;
    kept[to + 3u * h] = hidden;
}

@compute @workgroup_size(WG)
fn gru_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = flat_group(group, groups) * WG + lane;
    if e >= params6.all { return; }
    let h = params6.h;
    let from_at = e / h * 4u * h + e % h;
    let r = act[from_at];
    let z = act[from_at + h];
    let n = act[from_at + 2u * h];
    let d = dh_after[e];
    let dn = d * (1.0 - z) * (1.0 - n * n);
    let dr = dn * act[from_at + 3u * h] * r * (1.0 - r);
    let dz = d * (before[e] - n) * z * (1.0 - z);
    let at = e / h * 3u * h + e % h;
    dgates_x[at] = dr;
    dgates_x[at + h] = dz;
    dgates_x[at + 2u * h] = dn;
    dgates_h[at] = dr;
    dgates_h[at + h] = dz;
    dgates_h[at + 2u * h] = dn * r;
    dh[e] = d * z;
}
