// pool: maximum, average and global average pooling, forward and backward. Backward gathers: each input pixel asks the windows that cover it.
//
// Layout     images [N, C, H, W], f32 or f16: a plane is the H*W values of one (n, c). index [N, C, oH, oW] u32: h W + w of the maximum.
// Bindings   the operands in order (read), the results (read_write), params (uniform)
// Dispatch   one invocation a result, WG a workgroup, folded to 2-D; global_avg_pool2d: one workgroup a plane
// Overrides  WG: invocations per workgroup, a power of two; APART: windows do not overlap, so that a pixel has one at most
// Precision  maxima are exact; average sums run in order over the window; global_avg_pool2d is a tree of WG partial sums.
//#include shared/f32.wgsl
//#include shared/index.wgsl
//#include shared/sum.wgsl

override WG: u32 = 256u;
override APART: bool = false;

struct Params {
    planes: u32,
    h: u32,
    w: u32,
    oh: u32,
    ow: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride_h: u32,
    stride_w: u32,
    pad_h: u32,
    pad_w: u32,
    dil_h: u32,
    dil_w: u32,
    count_include_pad: u32,
    divisor: u32,
    total: u32,
}

@group(0) @binding(0) var<storage, read> x: array<T>;
@group(0) @binding(1) var<storage, read_write> y: array<T>;
@group(0) @binding(2) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> index: array<u32>;
@group(0) @binding(1) var<storage, read> winners: array<u32>;
@group(0) @binding(2) var<storage, read_write> dx: array<T>;
@group(0) @binding(3) var<uniform> params3: Params;

fn is_nan(v: f32) -> bool {
    return (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u;
}

@compute @workgroup_size(WG)
fn max_pool2d(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups) * WG + lane;
    if at >= params3.total { return; }
    let windows = params3.oh * params3.ow;
    let plane = at / windows * params3.h * params3.w;
    let top = at % windows / params3.ow * params3.stride_h;
    let left = at % params3.ow * params3.stride_w;
    // Starts from the first value inside the window: WGSL has no infinity, and padding never wins.
    var found = false;
    var best = 0.0;
    var where_best = 0u;
    for (var i = 0u; i < params3.kernel_h; i++) {
        let row = i32(top + i * params3.dil_h) - i32(params3.pad_h);
        if row < 0 || row >= i32(params3.h) { continue; }
        for (var j = 0u; j < params3.kernel_w; j++) {
            let col = i32(left + j * params3.dil_w) - i32(params3.pad_w);
            if col < 0 || col >= i32(params3.w) { continue; }
            let pixel = u32(row) * params3.w + u32(col);
            let v = f32(x[plane + pixel]);
            if !found || v > best || (is_nan(v) && !is_nan(best)) {
                found = true;
                best = v;
                where_best = pixel;
            }
        }
    }
    y[at] = T(best);
    index[at] = where_best;
}

// What a pixel gets from a window. No branch: on lavapipe it costs more than the load that it saves.
fn gradient_of(window: u32, pixel: u32) -> f32 {
    let won = winners[window] == pixel;
    return select(0.0, f32(x[window]), won);
}

@compute @workgroup_size(WG)
fn max_pool2d_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups) * WG + lane;
    if at >= params3.total { return; }
    let area = params3.h * params3.w;
    let image = at / area;
    let pixel = at - image * area;
    let plane = image * params3.oh * params3.ow;
    let pixel_row = pixel / params3.w;
    let pixel_col = pixel - pixel_row * params3.w;
    if APART {
        let row = divided(pixel_row + params3.pad_h, 1.0 / f32(params3.stride_h));
        let col = divided(pixel_col + params3.pad_w, 1.0 / f32(params3.stride_w));
        let covered = row < params3.oh && col < params3.ow;
        // A pixel that no window covers asks the first, which it did not win.
        dx[at] = T(gradient_of(plane + select(0u, row * params3.ow + col, covered), pixel));
        return;
    }
    var sum = 0.0;
    for (var i = 0u; i < params3.kernel_h; i++) {
        let top = i32(pixel_row + params3.pad_h) - i32(i * params3.dil_h);
        let row = divided(u32(top), 1.0 / f32(params3.stride_h));
        if top < 0 || row * params3.stride_h != u32(top) || row >= params3.oh { continue; }
        for (var j = 0u; j < params3.kernel_w; j++) {
            let left = i32(pixel_col + params3.pad_w) - i32(j * params3.dil_w);
            let col = divided(u32(left), 1.0 / f32(params3.stride_w));
            if left < 0 || col * params3.stride_w != u32(left) || col >= params3.ow { continue; }
            sum += gradient_of(plane + row * params3.ow + col, pixel);
        }
    }
    dx[at] = T(sum);
}

// First and last-but-one input index under window `i` of one axis, and the axis' share of the divisor.
fn extent(i: u32, size: u32, kernel: u32, stride: u32, pad: u32) -> vec3<u32> {
    let padded_end = min(i * stride + kernel, size + 2u * pad);
    let begin = max(i * stride, pad) - pad;
    let end = clamp(padded_end, pad, size + pad) - pad;
    return vec3(begin, end, select(end - begin, padded_end - i * stride, params.count_include_pad == 1u));
}

fn divisor_of(rows: vec3<u32>, cols: vec3<u32>) -> f32 {
    return f32(select(rows.z * cols.z, params.divisor, params.divisor > 0u));
}

@compute @workgroup_size(WG)
fn avg_pool2d(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups) * WG + lane;
    if at >= params.total { return; }
    let windows = params.oh * params.ow;
    let plane = at / windows * params.h * params.w;
    let rows = extent(at % windows / params.ow, params.h, params.kernel_h, params.stride_h, params.pad_h);
    let cols = extent(at % params.ow, params.w, params.kernel_w, params.stride_w, params.pad_w);
    var sum = 0.0;
    for (var r = rows.x; r < rows.y; r++) {
        for (var c = cols.x; c < cols.y; c++) { sum += f32(x[plane + r * params.w + c]); }
    }
    y[at] = T(sum / divisor_of(rows, cols));
}

@compute @workgroup_size(WG)
fn avg_pool2d_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups) * WG + lane;
    if at >= params.total { return; }
    let area = params.h * params.w;
    let row = at % area / params.w;
    let col = at % params.w;
    let plane = at / area * params.oh * params.ow;
    var sum = 0.0;
    // The windows that begin at most `kernel` before the pixel.
    let last_i = min((row + params.pad_h) / params.stride_h + 1u, params.oh);
    let last_j = min((col + params.pad_w) / params.stride_w + 1u, params.ow);
    let first_i = (max(row + params.pad_h + 1u, params.kernel_h) - params.kernel_h + params.stride_h - 1u) / params.stride_h;
    let first_j = (max(col + params.pad_w + 1u, params.kernel_w) - params.kernel_w + params.stride_w - 1u) / params.stride_w;
    for (var i = first_i; i < last_i; i++) {
        let rows = extent(i, params.h, params.kernel_h, params.stride_h, params.pad_h);
        for (var j = first_j; j < last_j; j++) {
            let cols = extent(j, params.w, params.kernel_w, params.stride_w, params.pad_w);
            sum += f32(x[plane + i * params.ow + j]) / divisor_of(rows, cols);
        }
    }
    y[at] = T(sum);
}

@compute @workgroup_size(WG)
fn global_avg_pool2d(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let plane = flat_group(group, groups);
    // Uniform across the workgroup, so returning here cannot strand a barrier below.
    if plane >= params.planes { return; }
    let area = params.h * params.w;
    var sum = 0.0;
    for (var i = lane; i < area; i += WG) { sum += f32(x[plane * area + i]); }
    let all = group_sum(lane, sum);
    if lane == 0u { y[plane] = T(all / f32(area)); }
}

@compute @workgroup_size(WG)
fn global_avg_pool2d_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups) * WG + lane;
    if at >= params.total { return; }
    let area = params.h * params.w;
    y[at] = T(f32(x[at / area]) / f32(area));
}
