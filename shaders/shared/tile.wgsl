// Register-tiled product of two matrices, which the including file describes by
//   column(n, col)      from now on slot n of this invocation is column `col`     at_column(n)    b at the present term and slot n's column
//   term(k)             from now on the sum is at term k                          at_row(row)     a at `row` and the present term
//   next_term()         on to the term after it
//   begin_row(row)      from now on results are of this row; whether it exists
//   result_at(col)      a column's place in each row, NOWHERE without such a column
//   put(place, value)   writes the present row's result
// Rows, columns and terms outside their matrix are asked for, and may give any number: no result is made of it.
//
// A workgroup of WX x WY invocations makes a tile of WY*TM rows and WX*TN columns; each invocation keeps TM x TN sums in registers. TK terms at a time are
// staged in workgroup memory, four terms of a row or column as one vector: 16 vectors read there serve 256 multiplications of an 8x8 invocation. While they are
// multiplied, the next ones are on their way from memory to registers. Tile sizes: src/backend/gpu/kernels/tile.rs.
//
// An invocation stages LINES rows, or columns, that are STEP apart, and RUN vectors of consecutive terms of each, so that what an address has of a line is
// computed once, and of a term once a stage.
const NOWHERE: u32 = 0xffffffffu;
const TM: u32 = 4u; //#spec
const TN: u32 = 4u; //#spec
const WX: u32 = 16u; //#spec
const WY: u32 = 16u; //#spec
const TK: u32 = 16u; //#spec
// Which index neighbouring invocations step through when they stage: the one that is contiguous in memory.
override A_ALONG_K: bool = true;
override B_ALONG_K: bool = false;

const THREADS: u32 = WX * WY;
const ROWS: u32 = WY * TM;
const COLS: u32 = WX * TN;
const QUADS: u32 = TK / 4u;
// Vectors that an invocation stages of each matrix.
const A_EACH: u32 = max(ROWS * QUADS / THREADS, 1u);
const B_EACH: u32 = max(COLS * QUADS / THREADS, 1u);
const SLOTS: u32 = B_EACH;
// What divides them into lines and runs where neighbours step through the lines.
const A_ACROSS: u32 = max(ROWS / THREADS, 1u);
const B_ACROSS: u32 = max(COLS / THREADS, 1u);
// Padded so that the vectors of a line that neighbours write do not lie in the same memory banks.
const A_PITCH: u32 = ROWS + 8u / QUADS;
const B_PITCH: u32 = COLS + 8u / QUADS;
var<workgroup> tile_a: array<vec4<f32>, QUADS * A_PITCH>;
var<workgroup> tile_b: array<vec4<f32>, QUADS * B_PITCH>;

// The tile at (row0, col0), summed over k in from..to. Called in uniform control flow.
fn tile_product(row0: u32, col0: u32, lane: u32, k_begin: u32, k_end: u32) {
    let lx = lane % WX;
    let ly = lane / WX;
    let a_lines = select(A_ACROSS, A_EACH, A_ALONG_K);
    let a_run = A_EACH / a_lines;
    let a_line = select(lane % ROWS, lane / QUADS, A_ALONG_K);
    let a_step = select(THREADS, THREADS / QUADS, A_ALONG_K);
    let a_quad = select(lane / ROWS * a_run, lane % QUADS, A_ALONG_K);
    let b_lines = select(B_ACROSS, B_EACH, B_ALONG_K);
    let b_run = B_EACH / b_lines;
    let b_line = select(lane % COLS, lane / QUADS, B_ALONG_K);
    let b_step = select(THREADS, THREADS / QUADS, B_ALONG_K);
    let b_quad = select(lane / COLS * b_run, lane % QUADS, B_ALONG_K);
    // A small matrix does not need all invocations.
    let stages_a = lane < ROWS * QUADS;
    let stages_b = lane < COLS * QUADS;
    for (var l = 0u; l < b_lines; l++) { column(l, col0 + b_line + l * b_step); }
    var a_next: array<vec4<f32>, A_EACH>;
    var b_next: array<vec4<f32>, B_EACH>;
    var sums: array<array<f32, TN>, TM>;
    // One round more than there are stages: the first only fetches.
    for (var k0 = k_begin; k0 < k_end + TK; k0 += TK) {
        if k0 > k_begin {
            if stages_a {
                for (var l = 0u; l < a_lines; l++) {
                    for (var r = 0u; r < a_run; r++) { tile_a[(a_quad + r) * A_PITCH + a_line + l * a_step] = a_next[l * a_run + r]; }
                }
            }
            if stages_b {
                for (var l = 0u; l < b_lines; l++) {
                    for (var r = 0u; r < b_run; r++) { tile_b[(b_quad + r) * B_PITCH + b_line + l * b_step] = b_next[l * b_run + r]; }
                }
            }
        }
        workgroupBarrier();
        if stages_a && k0 < k_end {
            var k = k0 + 4u * a_quad;
            term(k);
            for (var r = 0u; r < a_run; r++) {
                for (var j = 0u; j < 4u; j++) {
                    for (var l = 0u; l < a_lines; l++) { a_next[l * a_run + r][j] = select(0.0, at_row(row0 + a_line + l * a_step), k < k_end); }
                    next_term();
                    k++;
                }
            }
        }
        if stages_b && k0 < k_end {
            var k = k0 + 4u * b_quad;
            term(k);
            for (var r = 0u; r < b_run; r++) {
                for (var j = 0u; j < 4u; j++) {
                    for (var l = 0u; l < b_lines; l++) { b_next[l * b_run + r][j] = select(0.0, at_column(l), k < k_end); }
                    next_term();
                    k++;
                }
            }
        }
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
