// Register-tiled product of two matrices, which the including file describes by
//   column(n, col)      from now on slot n of this invocation is column `col`
//   at_column(n)        b at the present term and slot n's column, first of a vector of the WIDTH numbers that shared/loads.wgsl speaks of
//   at_row(row)         a at `row` and the present term, first of a vector of DEPTH numbers
//   term(k)             from now on the sum is at term k
//   next_term()         on to the term after it
//   begin_row(row)      from now on results are of this row; whether it exists
//   result_at(col)      a column's place in each row, NOWHERE without such a column
//   put(place, value)   writes the present row's result
// Slots are SLOTS at most. Rows, columns and terms outside their matrix are asked for, and may give any number: no result is made of it.
//
// A workgroup of WX x WY invocations makes a tile of WY*TM rows and WX*TN columns; each invocation keeps TM x TN sums in registers. TK terms at a time are
// staged in workgroup memory, four terms of a row or column as one vector: 16 vectors read there serve 256 multiplications of an 8x8 invocation. While they are
// multiplied, the next ones are on their way from memory to registers. Tile sizes: src/backend/gpu/kernels/tile.rs.
const NOWHERE: u32 = 0xffffffffu;
const TM: u32 = 4u; //#spec
const TN: u32 = 4u; //#spec
const WX: u32 = 16u; //#spec
const WY: u32 = 16u; //#spec
const TK: u32 = 16u; //#spec
const ROWS: u32 = WY * TM;
const COLS: u32 = WX * TN;
// Padded so that the vectors of a line that neighbours write do not lie in the same memory banks.
const A_PITCH: u32 = ROWS + 8u / QUADS;
const B_PITCH: u32 = COLS + 8u / QUADS;
var<workgroup> tile_a: array<vec4<f32>, QUADS * A_PITCH>;
var<workgroup> tile_b: array<vec4<f32>, QUADS * B_PITCH>;

// The tile at (row0, col0), summed over k in from..to. Called in uniform control flow.
fn tile_product(row0: u32, col0: u32, lane: u32, k_begin: u32, k_end: u32) {
    let lx = lane % WX;
    let ly = lane / WX;
    let of_a = stage_of(ROWS, A_EACH, A_ALONG_K, lane);
    let of_b = stage_of(COLS, B_EACH, B_ALONG_K, lane);
    for (var l = 0u; l < of_b.lines; l++) { column(l, col0 + of_b.line + l * of_b.step); }
    var a_next: array<vec4<f32>, A_EACH>;
    var b_next: array<vec4<f32>, B_EACH>;
    var sums: array<array<f32, TN>, TM>;
    // One round more than there are stages: the first only fetches.
    for (var k0 = k_begin; k0 < k_end + TK; k0 += TK) {
        if k0 > k_begin {
            if of_a.needed {
                for (var l = 0u; l < of_a.lines; l++) {
                    for (var r = 0u; r < of_a.run; r++) { tile_a[(of_a.quad + r) * A_PITCH + of_a.line + l * of_a.step] = a_next[l * of_a.run + r]; }
                }
            }
            if of_b.needed {
                for (var l = 0u; l < of_b.lines; l++) {
                    for (var r = 0u; r < of_b.run; r++) { tile_b[(of_b.quad + r) * B_PITCH + of_b.line + l * of_b.step] = b_next[l * of_b.run + r]; }
                }
            }
        }
        workgroupBarrier();
        if of_a.needed && k0 < k_end { fetch_rows(of_a, row0, k0, k_end, &a_next); }
        if of_b.needed && k0 < k_end { fetch_columns(of_b, k0, k_end, &b_next); }
        if k0 > k_begin {
            for (var q = 0u; q < QUADS; q++) {
                var b: array<vec4<f32>, TN>;
                for (var n = 0u; n < TN; n++) { b[n] = tile_b[q * B_PITCH + n * WX + lx]; }
                for (var m = 0u; m < TM; m++) {
                    let a = tile_a[q * A_PITCH + m * WY + ly];
                    for (var n = 0u; n < TN; n++) {
                        var sum = sums[m][n];
                        sum += a.x * b[n].x;
                        sum += a.y * b[n].y;
                        sum += a.z * b[n].z;
                        sum += a.w * b[n].w;
                        sums[m][n] = sum;
                    }
                }
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
