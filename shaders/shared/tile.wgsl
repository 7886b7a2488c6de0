// Register-tiled product of two matrices that the including file describes by three functions:
//   load_a(row, k) -> f32    load_b(k, col) -> f32    both 0 outside their matrix
//   store(row, col, value)   ignores what is outside the result
//
// A workgroup of WX x WY invocations makes a tile of WY*TM rows and WX*TN columns; each invocation keeps TM x TN sums in registers and
// reads every staged value once for TM or TN multiplications. Tile sizes: src/backend/gpu/kernels/tile.rs.
const TM: u32 = 4u; //#spec
const TN: u32 = 4u; //#spec
const WX: u32 = 16u; //#spec
const WY: u32 = 16u; //#spec
const TK: u32 = 16u; //#spec
// Which index neighbouring invocations step through when they stage: the one that is contiguous in memory.
override A_ALONG_K: bool = true;
override B_ALONG_K: bool = false;

const ROWS: u32 = WY * TM;
const COLS: u32 = WX * TN;
// One more column than there are, so that a column of the tile does not lie in one memory bank.
const A_PITCH: u32 = ROWS + 1u;
const B_PITCH: u32 = COLS + 1u;
var<workgroup> tile_a: array<f32, TK * A_PITCH>;
var<workgroup> tile_b: array<f32, TK * B_PITCH>;

// The tile at (row0, col0), summed over k in from..to. Called in uniform control flow.
fn tile_product(row0: u32, col0: u32, lane: u32, k_begin: u32, k_end: u32) {
    let lx = lane % WX;
    let ly = lane / WX;
    var sums: array<array<f32, TN>, TM>;
    for (var k0 = k_begin; k0 < k_end; k0 += TK) {
        for (var i = lane; i < ROWS * TK; i += WX * WY) {
            let row = select(i % ROWS, i / TK, A_ALONG_K);
            let k = select(i / ROWS, i % TK, A_ALONG_K);
            var v = 0.0;
            if k0 + k < k_end { v = load_a(row0 + row, k0 + k); }
            tile_a[k * A_PITCH + row] = v;
        }
        for (var i = lane; i < COLS * TK; i += WX * WY) {
            let col = select(i % COLS, i / TK, B_ALONG_K);
            let k = select(i / COLS, i % TK, B_ALONG_K);
            var v = 0.0;
            if k0 + k < k_end { v = load_b(k0 + k, col0 + col); }
            tile_b[k * B_PITCH + col] = v;
        }
        workgroupBarrier();
        for (var k = 0u; k < TK; k++) {
            var b: array<f32, TN>;
            for (var n = 0u; n < TN; n++) { b[n] = tile_b[k * B_PITCH + n * WX + lx]; }
            for (var m = 0u; m < TM; m++) {
                let a = tile_a[k * A_PITCH + m * WY + ly];
                for (var n = 0u; n < TN; n++) { sums[m][n] += a * b[n]; }
            }
        }
        workgroupBarrier();
    }
    for (var m = 0u; m < TM; m++) {
        for (var n = 0u; n < TN; n++) {
            store(row0 + m * WY + ly, col0 + n * WX + lx, sums[m][n]);
        }
    }
}
