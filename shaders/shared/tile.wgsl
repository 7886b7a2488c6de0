// Register-tiled product of two matrices, which the including file describes by
//   column(n, col)      from now on slot n of this invocation is column `col`     at_column(n)    b at the present term and slot n's column
//   term(k)             from now on the sum is at term k                          at_row(row)     a at `row` and the present term
//   next_term()         on to the term after it
//   begin_row(row)      from now on results are of this row; whether it exists
//   result_at(col)      a column's place in each row, NOWHERE without such a column
//   put(place, value)   writes the present row's result
// Rows and columns outside their matrix are asked for, and may give any number: no result is made of it.
//
// A workgroup of WX x WY invocations makes a tile of WY*TM rows and WX*TN columns; each invocation keeps TM x TN sums in registers and
// reads every staged value once for TM or TN multiplications. Tile sizes: src/backend/gpu/kernels/tile.rs.
const NOWHERE: u32 = 0xffffffffu;
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
            if k0 + k < k_end {
                term(k0 + k);
                v = at_row(row0 + row);
            }
            tile_a[k * A_PITCH + row] = v;
        }
        for (var i = lane; i < COLS * TK; i += WX * WY) {
            let col = select(i % COLS, i / TK, B_ALONG_K);
            let k = select(i / COLS, i % TK, B_ALONG_K);
            var v = 0.0;
            if k0 + k < k_end {
                column(0u, col0 + col);
                term(k0 + k);
                v = at_column(0u);
            }
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
    var places: array<u32, TN>;
    for (var n = 0u; n < TN; n++) { places[n] = result_at(col0 + n * WX + lx); }
    for (var m = 0u; m < TM; m++) {
        if begin_row(row0 + m * WY + ly) {
            for (var n = 0u; n < TN; n++) {
                if places[n] != NOWHERE { put(places[n], sums[m][n]); }
            }
        }
    }
}
