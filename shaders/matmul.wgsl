// matmul: c[batch, m, n] = sum_k a[batch, m, k] b[batch, k, n] (+ bias[n]), or max(c, 0)
//
// Layout     T is f32 or f16. a: element (m, k) at batch_a + m a_row + k a_col, b likewise; c [batch, m, n] row-major. Broadcast dimensions have stride 0.
// Bindings   0 a (read)   1 b (read)   2 bias (read; anything when BIAS is false)   3 c (read_write)   4 params (uniform)
// Dispatch   one workgroup a tile, tiles folded to 2-D; z is the batch
// Overrides  BIAS, RELU; A_ALONG_K, B_ALONG_K and the tile sizes of shared/tile.wgsl, or those of shared/lanes.wgsl or shared/matrices.wgsl in its place
// Precision  K products summed in f32, in order; by shared/matrices.wgsl each SIDE of them in the order of the hardware.
//#include shared/f32.wgsl
//#include shared/loads.wgsl

override BIAS: bool = false;
override RELU: bool = false;

struct Params {
    m: u32,
    n: u32,
    k: u32,
    row_tiles: u32,
    tiles: u32,
    a_row: u32,
    a_col: u32,
    b_row: u32,
    b_col: u32,
    first_batch: u32,
    pad0: u32,
    pad1: u32,
    sizes: array<vec4<u32>, 2>,
    stride_a: array<vec4<u32>, 2>,
    stride_b: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<storage, read> a: array<Left>;
@group(0) @binding(1) var<storage, read> b: array<Right>;
@group(0) @binding(2) var<storage, read> bias: array<T>;
@group(0) @binding(3) var<storage, read_write> c: array<T>;
@group(0) @binding(4) var<uniform> params: Params;

var<private> base_a: u32;
var<private> base_b: u32;
var<private> base_c: u32;

// What shared/tile.wgsl asks for.
var<private> columns: array<u32, SLOTS>;
var<private> k: u32;
var<private> row_at: u32;

fn column(n: u32, col: u32) {
    // The last vector of columns, or where it is one of terms, the last column.
    columns[n] = base_b + min(col, params.n - select(WIDTH, 1u, B_ALONG_K)) * params.b_col;
}
fn term(at: u32) { k = at; }
fn next_term() { k++; }
fn at_row(row: u32) -> vec4<f32> { return vec4<f32>(vec4<T>(a[(base_a + min(row, params.m - 1u) * params.a_row + k * params.a_col) / DEPTH])); }
fn at_column(n: u32) -> vec4<f32> { return vec4<f32>(vec4<T>(b[(columns[n] + k * params.b_row) / WIDTH])); }

fn begin_row(row: u32) -> bool {
    row_at = base_c + row * params.n;
    return row < params.m;
}
fn result_at(col: u32) -> u32 { return select(NOWHERE, col, col < params.n); }
fn put(col: u32, value: f32) {
    var v = value;
    if BIAS { v += f32(bias[col]); }
    if RELU { v = select(v, 0.0, v <= 0.0); }
    c[row_at + col] = T(v);
}

//#include shared/index.wgsl
//#include shared/tile.wgsl
//#include shared/stage.wgsl

@compute @workgroup_size(WX * WY)
fn matmul(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = flat_group(group, groups);
    // Uniform across the workgroup, so returning here cannot strand a barrier.
    if tile >= params.tiles { return; }
    let batch = params.first_batch + group.z;
    base_a = offset8(batch, params.sizes, params.stride_a);
    base_b = offset8(batch, params.sizes, params.stride_b);
    base_c = batch * params.m * params.n;
    tile_product(tile % params.row_tiles * ROWS, tile / params.row_tiles * COLS, lane, 0u, params.k);
}
