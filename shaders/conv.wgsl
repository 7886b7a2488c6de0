// conv2d as an implicit matrix product, in three passes that share one loop:
//   PASS 0  y[n,k,oh,ow] = sum_{c,i,j} w[k,c,i,j] x[n,c,oh s + i d - p, ow s + j d - p] (+ bias[k])    rows k, columns (n,oh,ow), sum over (c,i,j)
//   PASS 1  dx[n,c,h,w] = sum_{k,i,j} w[k,c,i,j] dy[n,k,(h + p - i d)/s, (w + p - j d)/s]              rows c, columns (n,h,w), sum over (k,i,j)
//   PASS 2  dw[k,c,i,j] = sum_{n,oh,ow} dy[n,k,oh,ow] x[n,c,oh s + i d - p, ow s + j d - p]            rows k, columns (c,i,j), sum over (n,oh,ow)
//
// Layout     x, dx [N, C, H, W]   w, dw [K, C/groups, kH, kW]   y, dy [N, K, oH, oW], f32 or f16, row-major
// Bindings   0, 1 the operands in the order of the formulas (read)   2 bias (read; anything when BIAS is false)
//            3 the result (read_write)   4 params (uniform)
// Dispatch   one workgroup a tile, tiles folded to 2-D; z is group * splits + split. PASS 2 with splits > 1 writes partial sums
//            [splits, K, C/groups, kH, kW], which the reduce kernel then adds in a fixed order: no atomics, the same bits every time;
//            of f16 operands they are f32 (R).
// Overrides  PASS, BIAS; A_ALONG_K, B_ALONG_K and the tile sizes of shared/tile.wgsl
// Precision  the terms of one split summed in f32, in order.
//#include shared/f32.wgsl

override PASS: u32 = 0u;
override BIAS: bool = false;

struct Params {
    n: u32,
    c: u32,
    h: u32,
    w: u32,
    k: u32,
    kh: u32,
    kw: u32,
    oh: u32,
    ow: u32,
    stride_h: u32,
    stride_w: u32,
    pad_h: u32,
    pad_w: u32,
    dil_h: u32,
    dil_w: u32,
    // Channels of one group: input and output.
    cg: u32,
    kg: u32,
    splits: u32,
    terms_a_split: u32,
    terms: u32,
    rows: u32,
    cols: u32,
    row_tiles: u32,
    tiles: u32,
}

@group(0) @binding(0) var<storage, read> first: array<T>;
@group(0) @binding(1) var<storage, read> second: array<T>;
@group(0) @binding(2) var<storage, read> bias: array<T>;
@group(0) @binding(3) var<storage, read_write> result: array<R>;
@group(0) @binding(4) var<uniform> params: Params;

var<private> channel_group: u32;
var<private> split: u32;

// Index into x under tap (i, j) of output pixel (n, oh, ow), or -1 in the padding.
fn input_index(n: u32, c: u32, oh: u32, ow: u32, i: u32, j: u32) -> i32 {
    let h = i32(oh * params.stride_h + i * params.dil_h) - i32(params.pad_h);
    let w = i32(ow * params.stride_w + j * params.dil_w) - i32(params.pad_w);
    if h < 0 || w < 0 || h >= i32(params.h) || w >= i32(params.w) { return -1; }
    return i32(((n * params.c + channel_group * params.cg + c) * params.h + u32(h)) * params.w + u32(w));
}

fn load_a(row: u32, k: u32) -> f32 {
    if row >= params.rows { return 0.0; }
    let taps = params.kh * params.kw;
    switch PASS {
        case 0u: { return f32(second[(channel_group * params.kg + row) * params.terms + k]); }
        case 1u: { return f32(second[((channel_group * params.kg + k / taps) * params.cg + row) * taps + k % taps]); }
        default: {
            let pixels = params.oh * params.ow;
            return f32(second[(k / pixels * params.k + channel_group * params.kg + row) * pixels + k % pixels]);
        }
    }
}

fn load_b(k: u32, col: u32) -> f32 {
    if col >= params.cols { return 0.0; }
    let taps = params.kh * params.kw;
    switch PASS {
        case 0u: {
            let pixels = params.oh * params.ow;
            let pixel = col % pixels;
            let tap = k % taps;
            let at = input_index(col / pixels, k / taps, pixel / params.ow, pixel % params.ow, tap / params.kw, tap % params.kw);
            if at < 0 { return 0.0; }
            return f32(first[at]);
        }
        case 1u: {
            let pixels = params.h * params.w;
            let pixel = col % pixels;
            let tap = k % taps;
            // The output pixel that saw this input pixel through the tap: there is one if the strides divide.
            let h = i32(pixel / params.w + params.pad_h) - i32(tap / params.kw * params.dil_h);
            let w = i32(pixel % params.w + params.pad_w) - i32(tap % params.kw * params.dil_w);
            if h < 0 || w < 0 || u32(h) % params.stride_h != 0u || u32(w) % params.stride_w != 0u { return 0.0; }
            let oh = u32(h) / params.stride_h;
            let ow = u32(w) / params.stride_w;
            if oh >= params.oh || ow >= params.ow { return 0.0; }
            return f32(first[((col / pixels * params.k + channel_group * params.kg + k / taps) * params.oh + oh) * params.ow + ow]);
        }
        default: {
            let pixels = params.oh * params.ow;
            let pixel = k % pixels;
            let tap = col % taps;
            let at = input_index(k / pixels, col / taps, pixel / params.ow, pixel % params.ow, tap / params.kw, tap % params.kw);
            if at < 0 { return 0.0; }
            return f32(first[at]);
        }
    }
}

fn store(row: u32, col: u32, value: f32) {
    if row >= params.rows || col >= params.cols { return; }
    switch PASS {
        case 0u: {
            let pixels = params.oh * params.ow;
            let k = channel_group * params.kg + row;
            var v = value;
            if BIAS { v += f32(bias[k]); }
            result[(col / pixels * params.k + k) * pixels + col % pixels] = R(v);
        }
        case 1u: {
            let pixels = params.h * params.w;
            result[(col / pixels * params.c + channel_group * params.cg + row) * pixels + col % pixels] = R(value);
        }
        default: {
            result[(split * params.k + channel_group * params.kg + row) * params.cols + col] = R(value);
        }
    }
}

//#include shared/index.wgsl
//#include shared/tile.wgsl

@compute @workgroup_size(WX * WY)
fn conv2d(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = flat_group(group, groups);
    // Uniform across the workgroup, so returning here cannot strand a barrier.
    if tile >= params.tiles { return; }
    channel_group = group.z / params.splits;
    // By the built-in value: a compiler that proves uniformity takes private variables for different in each invocation.
    let part = group.z % params.splits;
    split = part;
    let from_term = part * params.terms_a_split;
    let to_term = min(from_term + params.terms_a_split, params.terms);
    tile_product(tile % params.row_tiles * ROWS, tile / params.row_tiles * COLS, lane, from_term, to_term);
}
