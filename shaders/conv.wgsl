// conv2d as an implicit matrix product, in three passes that share one loop:
//   PASS 0  y[n,k,oh,ow] = sum_{c,i,j} w[k,c,i,j] x[n,c,oh s + i d - p, ow s + j d - p] (+ bias[k]), or max(y, 0), or min(max(y, 0), 6)    rows k, columns (n,oh,ow), sum over (c,i,j)
//   PASS 1  dx[n,c,h,w] = sum_{k,i,j} w[k,c,i,j] dy[n,k,(h + p - i d)/s, (w + p - j d)/s]              rows c, columns (n,h,w), sum over (k,i,j),
//           for the pixels (h,w) of one remainder by the strides and the taps whose quotients are whole there
//   PASS 2  dw[k,c,i,j] = sum_{n,oh,ow} dy[n,k,oh,ow] x[n,c,oh s + i d - p, ow s + j d - p]            rows k, columns (c,i,j), sum over (n,oh,ow)
//
// Or, for 3x3 kernels with stride 1, as minimal filtering: the entries input_tiles, kernel_tiles, output_tiles, gradient_tiles and kernel_gradients are the
// transforms around products of the matmul kernel. Bindings: 0 what is transformed (read), of output_tiles 1 the bias (read), then the result (read_write) and
// params; one invocation a tile or kernel and a channel, TILE_WG a workgroup, folded to 2-D.
//
// Or, where each channel is convolved with its own kernel (groups = channels), directly: depthwise makes a result an invocation (PASS 0 and 1), depthwise_weight a tap's
// gradient a workgroup; bindings as below, params.rows results, WG invocations a workgroup, folded to 2-D.
//
// Layout     x, dx [N, C, H, W]   w, dw [K, C/groups, kH, kW]   y, dy [N, K, oH, oW], f32 or f16, row-major
// Bindings   0, 1 the operands in the order of the formulas (read)   2 bias (read; anything when BIAS is false)
//            3 the result (read_write)   4 params (uniform)
// Dispatch   one workgroup a tile, tiles folded to 2-D; z is group * splits + split. PASS 2 with splits > 1 writes partial sums
//            [splits, K, C/groups, kH, kW], which the reduce kernel then adds in a fixed order: no atomics, the same bits every time;
//            of f16 operands they are f32 (R).
// Overrides  PASS, BIAS, RELU, CEILING; A_ALONG_K, B_ALONG_K and the tile sizes of shared/tile.wgsl, or those of shared/lanes.wgsl or shared/matrices.wgsl in its place
// Precision  the terms of one split summed in f32, in order; by shared/matrices.wgsl each SIDE of them in the order of the hardware. Tiles: errors are relative to the largest number of a tile.
//#include shared/f32.wgsl
//#include shared/loads.wgsl

override PASS: u32 = 0u;
override BIAS: bool = false;
override RELU: bool = false;
// With RELU: the greatest result; 0 for none.
override CEILING: u32 = 0u;

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
    // PASS 1: one dispatch makes the input pixels first + n stride, size of them, which have their taps in common: taps_h x taps_w of them, from tap_h,
    // tap_w on. The first tap of pixel n sees output n + origin (modulo 2^32), each further one `reach` outputs before it.
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
    // Tiles of 2x2 results: size_h x size_w of them an image. A dispatch makes `tiles` in each of `splits` parts, from number first_tile on.
    first_tile: u32,
    pad0: u32,
}

@group(0) @binding(0) var<storage, read> first: array<T>;
@group(0) @binding(1) var<storage, read> second: array<T>;
// The same two, of conv2d.
@group(0) @binding(0) var<storage, read> right_matrix: array<Right>;
@group(0) @binding(1) var<storage, read> left_matrix: array<Left>;
@group(0) @binding(2) var<storage, read> bias: array<T>;
@group(0) @binding(3) var<storage, read_write> result: array<R>;
@group(0) @binding(4) var<uniform> params: Params;
// The entries for tiles.
@group(0) @binding(1) var<storage, read_write> places: array<f32>;
@group(0) @binding(2) var<uniform> params2: Params;
@group(0) @binding(1) var<storage, read> tile_bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> planes: array<f32>;
@group(0) @binding(3) var<uniform> params3: Params;

var<private> channel_group: u32;
var<private> split: u32;

// What shared/tile.wgsl asks for.
struct Column {
    // What of the address does not depend on the term.
    base: u32,
    // PASS 0, 2: the input's row and column under tap 0 of output 0, plus stride or dilation. PASS 1: the output under the first tap.
    // Above or left of the image they wrap around to huge numbers, which are outside like any other.
    h: u32,
    w: u32,
}
var<private> columns: array<Column, SLOTS>;
// The term: PASS 0 and 1 channel and tap, PASS 2 image and output pixel; `a_at` is its place in row 0 of the second operand.
var<private> outer: u32;
var<private> down: u32;
var<private> right: u32;
var<private> a_at: u32;
// A row of the result: its place, and what is added to it.
var<private> row_at: u32;
var<private> row_bias: f32;

fn column(n: u32, any_col: u32) {
    let col = min(any_col, params.cols - select(WIDTH, 1u, B_ALONG_K));
    switch PASS {
        case 0u: {
            let pixels = params.oh * params.ow;
            let pixel = col % pixels;
            columns[n].base = (col / pixels * params.c + channel_group * params.cg) * params.h * params.w;
            columns[n].h = pixel / params.ow * params.stride_h - params.pad_h;
            columns[n].w = pixel % params.ow * params.stride_w - params.pad_w;
        }
        case 1u: {
            let pixels = params.size_h * params.size_w;
            let pixel = col % pixels;
            columns[n].base = (col / pixels * params.k + channel_group * params.kg) * params.oh * params.ow;
            columns[n].h = pixel / params.size_w + params.origin_h;
            columns[n].w = pixel % params.size_w + params.origin_w;
        }
        default: {
            let taps = params.kh * params.kw;
            let tap = col % taps;
            columns[n].base = (channel_group * params.cg + col / taps) * params.h * params.w;
            columns[n].h = tap / params.kw * params.dil_h - params.pad_h;
            columns[n].w = tap % params.kw * params.dil_w - params.pad_w;
        }
    }
}

// Terms run over `outer`, and within it over this many lines of `line` each.
fn lines() -> u32 { return select(select(params.kh, params.taps_h, PASS == 1u), params.oh, PASS == 2u); }
fn line() -> u32 { return select(select(params.kw, params.taps_w, PASS == 1u), params.ow, PASS == 2u); }

fn term(k: u32) {
    let inner = k % (lines() * line());
    outer = k / (lines() * line());
    down = inner / line();
    right = inner % line();
    place_term();
}

fn next_term() {
    right++;
    if right == line() {
        right = 0u;
        down++;
        if down == lines() {
            down = 0u;
            outer++;
        }
    }
    place_term();
}

fn place_term() {
    switch PASS {
        case 0u: { a_at = channel_group * params.kg * params.terms + (outer * params.kh + down) * params.kw + right; }
        case 1u: {
            let tap = (params.tap_h + down * params.tap_step_h) * params.kw + params.tap_w + right * params.tap_step_w;
            a_at = (channel_group * params.kg + outer) * params.cg * params.kh * params.kw + tap;
        }
        default: { a_at = ((outer * params.k + channel_group * params.kg) * params.oh + down) * params.ow + right; }
    }
}

fn at_row(any_row: u32) -> vec4<f32> {
    let row = min(any_row, params.rows - 1u);
    switch PASS {
        case 0u: { return vec4<f32>(vec4<T>(left_matrix[(a_at + row * params.terms) / DEPTH])); }
        case 1u: { return vec4<f32>(vec4<T>(left_matrix[(a_at + row * params.kh * params.kw) / DEPTH])); }
        default: { return vec4<f32>(vec4<T>(left_matrix[(a_at + row * params.oh * params.ow) / DEPTH])); }
    }
}

// Neighbouring pixels, columns or terms, lie side by side where the kernel is one pixel large and sees all: vectors are asked for there alone.
fn at_column(n: u32) -> vec4<f32> {
    let column = columns[n];
    switch PASS {
        case 0u: {
            let h = column.h + down * params.dil_h;
            let w = column.w + right * params.dil_w;
            if h >= params.h || w >= params.w { return vec4(0.0); }
            return pixels_from(column.base + (outer * params.h + h) * params.w + w);
        }
        case 1u: {
            let h = column.h - down * params.reach_h;
            let w = column.w - right * params.reach_w;
            if h >= params.oh || w >= params.ow { return vec4(0.0); }
            return pixels_from(column.base + (outer * params.oh + h) * params.ow + w);
        }
        default: {
            let h = column.h + down * params.stride_h;
            let w = column.w + right * params.stride_w;
            if h >= params.h || w >= params.w { return vec4(0.0); }
            return pixels_from(column.base + (outer * params.c * params.h + h) * params.w + w);
        }
    }
}

fn pixels_from(place: u32) -> vec4<f32> { return vec4<f32>(vec4<T>(right_matrix[place / WIDTH])); }

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

fn result_at(col: u32) -> u32 {
    if col >= params.cols { return NOWHERE; }
    switch PASS {
        case 0u: {
            let pixels = params.oh * params.ow;
            return (col / pixels * params.k + channel_group * params.kg) * pixels + col % pixels;
        }
        case 1u: {
            let pixels = params.size_h * params.size_w;
            let h = params.first_h + col % pixels / params.size_w * params.stride_h;
            let w = params.first_w + col % params.size_w * params.stride_w;
            return ((col / pixels * params.c + channel_group * params.cg) * params.h + h) * params.w + w;
        }
        default: { return (split * params.k + channel_group * params.kg) * params.cols + col; }
    }
}

// What a result becomes.
fn clipped(value: f32) -> f32 {
    var v = value;
    if RELU { v = select(v, 0.0, v <= 0.0); }
    if CEILING > 0u { v = select(v, f32(CEILING), v >= f32(CEILING)); }
    return v;
}

fn put(at: u32, value: f32) {
    var v = value;
    if BIAS { v += row_bias; }
    result[row_at + at] = R(clipped(v));
}

//#include shared/index.wgsl
//#include shared/tile.wgsl
//#include shared/stage.wgsl
//#include shared/sum.wgsl

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

// Of the direct kernels.
const WG: u32 = 256u;

// The output that sees a padded coordinate through tap 0 there; outside, like any other, where the strides step over it.
fn seen_by(padded: u32, stride: u32) -> u32 {
    let output = divided(padded, 1.0 / f32(stride));
    return select(0xffffffffu, output, padded < 0x80000000u && output * stride == padded);
}

@compute @workgroup_size(WG)
fn depthwise(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups) * WG + lane;
    if at >= params.rows { return; }
    let width = select(params.ow, params.w, PASS == 1u);
    let pixels = select(params.oh * params.ow, params.h * params.w, PASS == 1u);
    let plane = at / pixels;
    let channel = plane % params.c;
    let h = at % pixels / width;
    let w = at % pixels % width;
    var sum = 0.0;
    for (var i = 0u; i < params.kh; i++) {
        for (var j = 0u; j < params.kw; j++) {
            let weight = f32(second[(channel * params.kh + i) * params.kw + j]);
            // Above or left of the image they wrap around to huge numbers, which are outside like any other.
            if PASS == 0u {
                let row = h * params.stride_h + i * params.dil_h - params.pad_h;
                let col = w * params.stride_w + j * params.dil_w - params.pad_w;
                if row < params.h && col < params.w { sum += weight * f32(first[(plane * params.h + row) * params.w + col]); }
            } else {
                let row = seen_by(h + params.pad_h - i * params.dil_h, params.stride_h);
                let col = seen_by(w + params.pad_w - j * params.dil_w, params.stride_w);
                if row < params.oh && col < params.ow { sum += weight * f32(first[(plane * params.oh + row) * params.ow + col]); }
            }
        }
    }
    if BIAS { sum += f32(bias[channel]); }
    result[at] = R(clipped(sum));
}

@compute @workgroup_size(WG)
fn depthwise_weight(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups);
    // Uniform across the workgroup, so returning here cannot strand a barrier.
    if at >= params.rows { return; }
    let taps = params.kh * params.kw;
    let channel = at / taps;
    let down_to = at % taps / params.kw * params.dil_h - params.pad_h;
    let right_to = at % params.kw * params.dil_w - params.pad_w;
    let pixels = params.oh * params.ow;
    var sum = 0.0;
    for (var e = lane; e < params.n * pixels; e += WG) {
        let plane = e / pixels * params.c + channel;
        let pixel = e % pixels;
        let row = pixel / params.ow * params.stride_h + down_to;
        let col = pixel % params.ow * params.stride_w + right_to;
        if row < params.h && col < params.w {
            sum += f32(second[plane * pixels + pixel]) * f32(first[(plane * params.h + row) * params.w + col]);
        }
    }
    let all = group_sum(lane, sum);
    if lane == 0u { result[at] = R(all); }
}

// Minimal filtering, F(2x2, 3x3): src/backend/cpu/conv/winograd.rs has the formulas. Between the transforms everything is [part][place of 16][channel][tile]
// or [place][row][column], so that a part of a pass is 16 products.
const TILE_WG: u32 = 64u;
const PLACES: u32 = 16u;

fn pixel(plane: u32, h: u32, w: u32, inside: bool) -> f32 {
    // Above or left of the image they wrapped around to huge numbers, which are outside like any other.
    if !inside || h >= params2.h || w >= params2.w { return 0.0; }
    return f32(first[plane + h * params2.w + w]);
}

fn pixels(plane: u32, h: u32, w: u32, inside: bool) -> vec4<f32> {
    return vec4(pixel(plane, h, w, inside), pixel(plane, h, w + 1u, inside), pixel(plane, h, w + 2u, inside), pixel(plane, h, w + 3u, inside));
}

// A row of places, `step` apart.
fn put_row(at: u32, step: u32, row: vec4<f32>) {
    places[at] = row.x;
    places[at + step] = row.y;
    places[at + 2u * step] = row.z;
    places[at + 3u * step] = row.w;
}

fn pixel_pair(plane: u32, h: u32, w: u32, inside: bool) -> vec2<f32> {
    return vec2(pixel(plane, h, w, inside), pixel(plane, h, w + 1u, inside));
}

// v B, and v A^T.
fn along_input(v: vec4<f32>) -> vec4<f32> { return vec4(v.x - v.z, v.y + v.z, v.z - v.y, v.y - v.w); }
fn along_gradient(v: vec2<f32>) -> vec4<f32> { return vec4(v.x, v.x + v.y, v.x - v.y, -v.y); }

// Tile t of a part and a channel, the i-th of all: its plane, the row and column it begins at (modulo 2^32), and where its places go.
struct Tile {
    plane: u32,
    h: u32,
    w: u32,
    inside: bool,
    at: u32,
    step: u32,
}

fn tile_of(i: u32, pad_h: u32, pad_w: u32) -> Tile {
    let t = i % params2.tiles;
    let channel = i / params2.tiles % params2.c;
    let part = i / params2.tiles / params2.c;
    let number = params2.first_tile + part * params2.tiles + t;
    let image = number / (params2.size_h * params2.size_w);
    let step = params2.c * params2.tiles;
    return Tile(
        (image * params2.c + channel) * params2.h * params2.w,
        2u * (number / params2.size_w % params2.size_h) - pad_h,
        2u * (number % params2.size_w) - pad_w,
        image < params2.n,
        part * PLACES * step + channel * params2.tiles + t,
        step,
    );
}

// B^T d B of a tile.
@compute @workgroup_size(TILE_WG)
fn input_tiles(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * TILE_WG + lane;
    if i >= params2.splits * params2.c * params2.tiles { return; }
    let tile = tile_of(i, params2.pad_h, params2.pad_w);
    let a = pixels(tile.plane, tile.h, tile.w, tile.inside);
    let b = pixels(tile.plane, tile.h + 1u, tile.w, tile.inside);
    let c = pixels(tile.plane, tile.h + 2u, tile.w, tile.inside);
    let d = pixels(tile.plane, tile.h + 3u, tile.w, tile.inside);
    put_row(tile.at, tile.step, along_input(a - c));
    put_row(tile.at + 4u * tile.step, tile.step, along_input(b + c));
    put_row(tile.at + 8u * tile.step, tile.step, along_input(c - b));
    put_row(tile.at + 12u * tile.step, tile.step, along_input(b - d));
}

// A dy A^T of a tile of dy, whose sizes are here n, c, h and w.
@compute @workgroup_size(TILE_WG)
fn gradient_tiles(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * TILE_WG + lane;
    if i >= params2.splits * params2.c * params2.tiles { return; }
    let tile = tile_of(i, 0u, 0u);
    let a = pixel_pair(tile.plane, tile.h, tile.w, tile.inside);
    let b = pixel_pair(tile.plane, tile.h + 1u, tile.w, tile.inside);
    put_row(tile.at, tile.step, along_gradient(a));
    put_row(tile.at + 4u * tile.step, tile.step, along_gradient(a + b));
    put_row(tile.at + 8u * tile.step, tile.step, along_gradient(a - b));
    put_row(tile.at + 12u * tile.step, tile.step, along_gradient(-b));
}

fn along_kernel(v: vec3<f32>) -> vec4<f32> {
    let sum = v.x + v.z;
    return vec4(v.x, 0.5 * (sum + v.y), 0.5 * (sum - v.y), v.z);
}

// G g G^T of the kernel of result channel `row` and source channel `col`; for the input's gradient (PASS 1) of the kernel turned around.
@compute @workgroup_size(TILE_WG)
fn kernel_tiles(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * TILE_WG + lane;
    if i >= params2.k * params2.c { return; }
    let row = i / params2.c;
    let col = i % params2.c;
    let at = select(i, col * params2.k + row, PASS == 1u) * 9u;
    var taps: array<f32, 9>;
    for (var tap = 0u; tap < 9u; tap++) { taps[tap] = f32(first[at + select(tap, 8u - tap, PASS == 1u)]); }
    let a = vec3(taps[0], taps[1], taps[2]);
    let b = vec3(taps[3], taps[4], taps[5]);
    let c = vec3(taps[6], taps[7], taps[8]);
    let step = params2.k * params2.c;
    put_row(i, step, along_kernel(a));
    put_row(i + 4u * step, step, along_kernel(0.5 * (a + c + b)));
    put_row(i + 8u * step, step, along_kernel(0.5 * (a + c - b)));
    put_row(i + 12u * step, step, along_kernel(c));
}

fn place_row(at: u32, step: u32) -> vec4<f32> {
    return vec4(f32(first[at]), f32(first[at + step]), f32(first[at + 2u * step]), f32(first[at + 3u * step]));
}

fn along_output(v: vec4<f32>) -> vec2<f32> { return vec2(v.x + v.y + v.z, v.y - v.z - v.w); }

fn ended(v: vec2<f32>) -> vec2<f32> { return vec2(clipped(v.x), clipped(v.y)); }

fn put_results(at: u32, w: u32, results: vec2<f32>) {
    planes[at] = results.x;
    if w + 1u < params3.ow { planes[at + 1u] = results.y; }
}

// A^T m A + bias of tile t and a result channel: two rows of two results, less what is behind the image.
@compute @workgroup_size(TILE_WG)
fn output_tiles(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * TILE_WG + lane;
    if i >= params3.k * params3.tiles { return; }
    let channel = i / params3.tiles;
    let tile = params3.first_tile + i % params3.tiles;
    let image = tile / (params3.size_h * params3.size_w);
    let h = 2u * (tile / params3.size_w % params3.size_h);
    let w = 2u * (tile % params3.size_w);
    let step = params3.k * params3.tiles;
    let a = place_row(i, step);
    let b = place_row(i + 4u * step, step);
    let c = place_row(i + 8u * step, step);
    let d = place_row(i + 12u * step, step);
    var add = 0.0;
    if BIAS { add = f32(tile_bias[channel]); }
    let at = ((image * params3.k + channel) * params3.oh + h) * params3.ow + w;
    put_results(at, w, ended(along_output(a + b + c) + add));
    if h + 1u < params3.oh { put_results(at + params3.ow, w, ended(along_output(b - c - d) + add)); }
}

fn kernel_row(v: vec4<f32>) -> vec3<f32> {
    let sum = 0.5 * (v.y + v.z);
    return vec3(v.x + sum, 0.5 * (v.y - v.z), sum + v.w);
}

// G^T m G of the kernel of result channel i / c and source channel i % c; m summed over the splits, in order.
@compute @workgroup_size(TILE_WG)
fn kernel_gradients(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * TILE_WG + lane;
    let step = params2.k * params2.c;
    if i >= step { return; }
    var a = vec4(0.0);
    var b = vec4(0.0);
    var c = vec4(0.0);
    var d = vec4(0.0);
    for (var part = 0u; part < params2.splits; part++) {
        let at = part * PLACES * step + i;
        a += place_row(at, step);
        b += place_row(at + 4u * step, step);
        c += place_row(at + 8u * step, step);
        d += place_row(at + 12u * step, step);
    }
    let rows = array(kernel_row(a + 0.5 * (b + c)), kernel_row(0.5 * (b - c)), kernel_row(0.5 * (b + c) + d));
    for (var row = 0u; row < 3u; row++) {
        places[9u * i + 3u * row] = rows[row].x;
        places[9u * i + 3u * row + 1u] = rows[row].y;
        places[9u * i + 3u * row + 2u] = rows[row].z;
    }
}
