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
// Overrides  PASS, BIAS; A_ALONG_K, B_ALONG_K and the tile sizes of shared/tile.wgsl, or shared/lanes.wgsl in its place
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
    // PASS 1 in shared/lanes.wgsl makes the input pixels first + n stride of one dispatch, which have their taps in common: taps_h x taps_w of them, from
    // tap_h, tap_w on. The first tap of pixel n sees output n + origin (modulo 2^32), each further one `reach` before it.
    first_h: u32,
    first_w: u32,
    size_h: u32,
    size_w: u32,
    origin_h: u32,
    origin_w: u32,
    tap_h: u32,
    tap_w: u32,
    tap_step_h: u32,
    tap_step_w: u32,
    taps_h: u32,
    taps_w: u32,
    reach_h: u32,
    reach_w: u32,
    pad0: u32,
    pad1: u32,
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

// As shared/lanes.wgsl asks for them: divisions once a column, terms by counting. Beyond the matrix its last row or column is read again.
struct Column {
    // What of the address does not depend on the term.
    base: u32,
    // PASS 0, 2: the input's row and column under tap 0 of output 0, plus stride or dilation. PASS 1: the output that tap 0 sees.
    h: u32,
    w: u32,
    // Where row 0 of the result has this column.
    result: u32,
}
const NOWHERE: u32 = 0xffffffffu;
var<private> columns: array<Column, 16>;
// A row of the result: from its column in row 0, and what is added.
var<private> row_at: u32;
var<private> row_bias: f32;
// The term: PASS 0 and 1 channel and tap, PASS 2 image and output pixel; `a_at` is its place in the second operand.
var<private> outer: u32;
var<private> down: u32;
var<private> right: u32;
var<private> a_at: u32;

fn column(n: u32, any_col: u32) {
    let col = min(any_col, params.cols - 1u);
    switch PASS {
        case 0u: {
            let pixels = params.oh * params.ow;
            let pixel = col % pixels;
            columns[n].base = (col / pixels * params.c + channel_group * params.cg) * params.h * params.w;
            // Padding wraps around: a row or column above the image is a huge number.
            columns[n].h = pixel / params.ow * params.stride_h - params.pad_h;
            columns[n].w = pixel % params.ow * params.stride_w - params.pad_w;
            columns[n].result = (col / pixels * params.k + channel_group * params.kg) * pixels + pixel;
        }
        case 1u: {
            let pixels = params.size_h * params.size_w;
            let image = col / pixels;
            let row = col % pixels / params.size_w;
            let right_by = col % params.size_w;
            columns[n].base = (image * params.k + channel_group * params.kg) * params.oh * params.ow;
            columns[n].h = row + params.origin_h;
            columns[n].w = right_by + params.origin_w;
            columns[n].result = ((image * params.c + channel_group * params.cg) * params.h + params.first_h + row * params.stride_h) * params.w
                + params.first_w + right_by * params.stride_w;
        }
        default: {
            let taps = params.kh * params.kw;
            let tap = col % taps;
            columns[n].base = (channel_group * params.cg + col / taps) * params.h * params.w;
            columns[n].h = tap / params.kw * params.dil_h - params.pad_h;
            columns[n].w = tap % params.kw * params.dil_w - params.pad_w;
            columns[n].result = (split * params.k + channel_group * params.kg) * params.cols + col;
        }
    }
    if any_col >= params.cols { columns[n].result = NOWHERE; }
}

fn begin_row(row: u32) -> bool {
    switch PASS {
        case 0u: {
            row_at = row * params.oh * params.ow;
            if BIAS { row_bias = f32(bias[channel_group * params.kg + min(row, params.rows - 1u)]); }
        }
        case 1u: { row_at = row * params.h * params.w; }
        default: { row_at = row * params.cols; }
    }
    return row < params.rows;
}

fn put(n: u32, value: f32) {
    let at = columns[n].result;
    if at == NOWHERE { return; }
    var v = value;
    if BIAS { v += row_bias; }
    result[row_at + at] = R(v);
}

fn term(k: u32) {
    if PASS == 2u {
        let pixels = params.oh * params.ow;
        outer = k / pixels;
        down = k % pixels / params.ow;
        right = k % params.ow;
        a_at = (outer * params.k + channel_group * params.kg) * pixels + k % pixels;
    } else if PASS == 1u {
        let taps = params.taps_h * params.taps_w;
        outer = k / taps;
        down = k % taps / params.taps_w;
        right = k % params.taps_w;
        place_tap();
    } else {
        let taps = params.kh * params.kw;
        outer = k / taps;
        down = k % taps / params.kw;
        right = k % params.kw;
        a_at = channel_group * params.kg * params.terms + k;
    }
}

fn place_tap() {
    let tap = (params.tap_h + down * params.tap_step_h) * params.kw + params.tap_w + right * params.tap_step_w;
    a_at = (channel_group * params.kg + outer) * params.cg * params.kh * params.kw + tap;
}

fn next_term() {
    a_at++;
    right++;
    let line = select(select(params.kw, params.ow, PASS == 2u), params.taps_w, PASS == 1u);
    if right == line {
        right = 0u;
        down++;
        if down == select(select(params.kh, params.oh, PASS == 2u), params.taps_h, PASS == 1u) {
            down = 0u;
            outer++;
            // On to the next image, past the other channels.
            if PASS == 2u { a_at += (params.k - 1u) * params.oh * params.ow; }
        }
    }
    if PASS == 1u { place_tap(); }
}

fn at_row(any_row: u32) -> f32 {
    let row = min(any_row, params.rows - 1u);
    switch PASS {
        case 0u: { return f32(second[a_at + row * params.terms]); }
        case 1u: { return f32(second[a_at + row * params.kh * params.kw]); }
        default: { return f32(second[a_at + row * params.oh * params.ow]); }
    }
}

fn at_column(n: u32) -> f32 {
    let column = columns[n];
    switch PASS {
        case 0u: {
            let h = column.h + down * params.dil_h;
            let w = column.w + right * params.dil_w;
            if h >= params.h || w >= params.w { return 0.0; }
            return f32(first[column.base + (outer * params.h + h) * params.w + w]);
        }
        case 1u: {
            let h = column.h - down * params.reach_h;
            let w = column.w - right * params.reach_w;
            if h >= params.oh || w >= params.ow { return 0.0; }
            return f32(first[column.base + (outer * params.oh + h) * params.ow + w]);
        }
        default: {
            let h = column.h + down * params.stride_h;
            let w = column.w + right * params.stride_w;
            if h >= params.h || w >= params.w { return 0.0; }
            return f32(first[column.base + (outer * params.c * params.h + h) * params.w + w]);
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
