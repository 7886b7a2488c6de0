// The product of shared/tile.wgsl, of f16 matrices described there, by cooperative matrices: SIDE x SIDE numbers that a subgroup holds together, which tensor
// cores multiply. Takes that file's place where the adapter has such of f16 with sums in f32, and it is asked for.
//
// A workgroup of GX x GY subgroups of LANES lanes makes a tile of GY*TM*SIDE rows and GX*TN*SIDE columns; each subgroup keeps TM x TN matrices of sums. TK terms at
// a time are staged in workgroup memory, while the next are on their way (shared/stage.wgsl). A lane cannot tell which of a matrix's numbers it holds:
// so sums go through workgroup memory too, one matrix of each subgroup at a time.
const NOWHERE: u32 = 0xffffffffu;
const SIDE: u32 = 8u; //#spec
const LANES: u32 = 8u; //#spec
const TM: u32 = 2u; //#spec
const TN: u32 = 4u; //#spec
const GX: u32 = 2u; //#spec
const GY: u32 = 4u; //#spec
alias MatrixA = coop_mat8x8<f16, A>; //#side
alias MatrixB = coop_mat8x8<f16, B>; //#side
alias MatrixC = coop_mat8x8<f32, C>; //#side

const WX: u32 = GX * LANES;
const WY: u32 = GY;
const ROWS: u32 = GY * TM * SIDE;
const COLS: u32 = GX * TN * SIDE;
const TK: u32 = 2u * SIDE;
// Numbers from one line to the next; the padding keeps neighbouring lines in different memory banks.
const PITCH: u32 = TK + 8u;
var<workgroup> tile_a: array<f16, ROWS * PITCH>;
var<workgroup> tile_b: array<f16, COLS * PITCH>;
var<workgroup> tile_sums: array<f32, GX * GY * SIDE * SIDE>;

// The tile at (row0, col0), summed over k in from..to. Called in uniform control flow.
fn tile_product(row0: u32, col0: u32, lane: u32, k_begin: u32, k_end: u32) {
    let subgroup = lane / LANES;
    let first_row = subgroup / GX * TM * SIDE;
    let first_col = subgroup % GX * TN * SIDE;
    let of_a = stage_of(ROWS, A_EACH, A_ALONG_K, lane);
    let of_b = stage_of(COLS, B_EACH, B_ALONG_K, lane);
    for (var l = 0u; l < of_b.lines; l++) { column(l, col0 + of_b.line + l * of_b.step); }
    var a_next: array<vec4<f32>, A_EACH>;
    var b_next: array<vec4<f32>, B_EACH>;
    var sums: array<MatrixC, TM * TN>;
    if of_a.needed { fetch_rows(of_a, row0, k_begin, k_end, &a_next); }
    if of_b.needed { fetch_columns(of_b, k_begin, k_end, &b_next); }
    for (var k0 = k_begin; k0 < k_end; k0 += TK) {
        if of_a.needed {
            for (var l = 0u; l < of_a.lines; l++) {
                for (var r = 0u; r < of_a.run; r++) {
                    let at = (of_a.line + l * of_a.step) * PITCH + 4u * (of_a.quad + r);
                    let terms = vec4<f16>(a_next[l * of_a.run + r]);
                    for (var j = 0u; j < 4u; j++) { tile_a[at + j] = terms[j]; }
                }
            }
        }
        if of_b.needed {
            for (var l = 0u; l < of_b.lines; l++) {
                for (var r = 0u; r < of_b.run; r++) {
                    let at = (of_b.line + l * of_b.step) * PITCH + 4u * (of_b.quad + r);
                    let terms = vec4<f16>(b_next[l * of_b.run + r]);
                    for (var j = 0u; j < 4u; j++) { tile_b[at + j] = terms[j]; }
                }
            }
        }
        workgroupBarrier();
        let next = k0 + TK;
        if of_a.needed && next < k_end { fetch_rows(of_a, row0, next, k_end, &a_next); }
        if of_b.needed && next < k_end { fetch_columns(of_b, next, k_end, &b_next); }
        // In no branch: naga asks for uniform control flow here, and does not see that one is.
        for (var k = 0u; k < TK; k += SIDE) {
            var a: array<MatrixA, TM>;
            for (var m = 0u; m < TM; m++) { a[m] = coopLoadT<MatrixA>(&tile_a[(first_row + m * SIDE) * PITCH + k], PITCH); }
            for (var n = 0u; n < TN; n++) {
                // Lines of tile_b are columns.
                let b = coopLoad<MatrixB>(&tile_b[(first_col + n * SIDE) * PITCH + k], PITCH);
                for (var m = 0u; m < TM; m++) { sums[m * TN + n] = coopMultiplyAdd(a[m], b, sums[m * TN + n]); }
            }
        }
        workgroupBarrier();
    }
    // Lanes go down a matrix in whole rows: each keeps to one column.
    let col = lane % SIDE;
    var places: array<u32, TN>;
    for (var n = 0u; n < TN; n++) { places[n] = result_at(col0 + first_col + n * SIDE + col); }
    let mine = subgroup * SIDE * SIDE;
    for (var m = 0u; m < TM; m++) {
        for (var n = 0u; n < TN; n++) {
            coopStoreT(sums[m * TN + n], &tile_sums[mine], SIDE);
            workgroupBarrier();
            for (var row = lane % LANES / SIDE; row < SIDE; row += LANES / SIDE) {
                if begin_row(row0 + first_row + m * SIDE + row) && places[n] != NOWHERE { put(places[n], tile_sums[mine + row * SIDE + col]); }
            }
            workgroupBarrier();
        }
    }
}
