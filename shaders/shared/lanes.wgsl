// The product of shared/tile.wgsl, of the matrices described there, where a subgroup has 8 lanes: without workgroup memory. Takes that file's place where
// the adapter has such subgroups.
//
// A workgroup is one subgroup, which makes TM rows and 8*TN columns. A lane keeps TM x TN sums: all the rows, and of every 8 * WIDTH columns WIDTH neighbouring
// ones, which at_column(n) gives at once: those from the column of slot n on. Each value is loaded once for the subgroup: a column's by the lane that owns it,
// DEPTH terms of 8 rows at once, one row by each lane, and then broadcast. Why: on lavapipe a load for 8 lanes takes 15 ns, a broadcast from a constant lane
// 0.6 ns; four columns a load make matmul_512 a fifth faster, four terms of a row another two fifths.
const NOWHERE: u32 = 0xffffffffu;
const TM: u32 = 16u; //#spec
const TN: u32 = 8u; //#spec
const WX: u32 = 8u;
const WY: u32 = 1u;
const ROWS: u32 = TM;
const COLS: u32 = 8u * TN;
const SLOTS: u32 = TN;
// Rows that a lane loads; of few rows all lanes the same, one number for all.
const EACH: u32 = select(TM, TM / 8u, TM % 8u == 0u);

// Whether a vector of the right matrix is four terms of one column, not four columns.
override B_ALONG_K: bool = false;

// Columns that a load gives, and column n of a lane's.
fn step() -> u32 { return select(WIDTH, 1u, B_ALONG_K); }
fn lane_column(n: u32, lane: u32) -> u32 { return 8u * step() * (n / step()) + step() * lane + n % step(); }

// Adds the present term of 8 rows from m on, of which each lane has one.
fn add_rows(m: u32, a: f32, b: ptr<function, array<vec4<f32>, TN>>, of_b: u32, sums: ptr<function, array<array<f32, TN>, TM>>) {
    let a0 = subgroupBroadcast(a, 0u);
    let a1 = subgroupBroadcast(a, 1u);
    let a2 = subgroupBroadcast(a, 2u);
    let a3 = subgroupBroadcast(a, 3u);
    let a4 = subgroupBroadcast(a, 4u);
    let a5 = subgroupBroadcast(a, 5u);
    let a6 = subgroupBroadcast(a, 6u);
    let a7 = subgroupBroadcast(a, 7u);
    for (var n = 0u; n < TN; n++) {
        (*sums)[m][n] += a0 * (*b)[n][of_b];
        (*sums)[m + 1u][n] += a1 * (*b)[n][of_b];
        (*sums)[m + 2u][n] += a2 * (*b)[n][of_b];
        (*sums)[m + 3u][n] += a3 * (*b)[n][of_b];
        (*sums)[m + 4u][n] += a4 * (*b)[n][of_b];
        (*sums)[m + 5u][n] += a5 * (*b)[n][of_b];
        (*sums)[m + 6u][n] += a6 * (*b)[n][of_b];
        (*sums)[m + 7u][n] += a7 * (*b)[n][of_b];
    }
}

// Adds the present term: number of_a of each vector of rows, number of_b of each of columns.
fn add_term(a: ptr<function, array<vec4<f32>, EACH>>, of_a: u32, b: ptr<function, array<vec4<f32>, TN>>, of_b: u32, sums: ptr<function, array<array<f32, TN>, TM>>) {
    if TM % 8u == 0u {
        for (var m = 0u; m < EACH; m++) { add_rows(8u * m, (*a)[m][of_a], b, of_b, sums); }
    } else {
        for (var m = 0u; m < TM; m++) {
            for (var n = 0u; n < TN; n++) { (*sums)[m][n] += (*a)[m][of_a] * (*b)[n][of_b]; }
        }
    }
}

// The same of the present term's columns, and on to the next term.
fn add_columns(a: ptr<function, array<vec4<f32>, EACH>>, of_a: u32, sums: ptr<function, array<array<f32, TN>, TM>>) {
    var b: array<vec4<f32>, TN>;
    for (var n = 0u; n < TN; n += WIDTH) {
        let some = at_column(n);
        for (var w = 0u; w < WIDTH; w++) { b[n + w].x = some[w]; }
    }
    add_term(a, of_a, &b, 0u, sums);
    next_term();
}

fn tile_product(row0: u32, col0: u32, lane: u32, k_begin: u32, k_end: u32) {
    for (var n = 0u; n < TN; n += step()) { column(n, col0 + lane_column(n, lane)); }
    term(k_begin);
    var sums: array<array<f32, TN>, TM>;
    for (var k = k_begin; k < k_end; k += DEPTH) {
        var a: array<vec4<f32>, EACH>;
        for (var m = 0u; m < EACH; m++) { a[m] = at_row(row0 + select(m, 8u * m + lane, TM % 8u == 0u)); }
        // No loops over a vector's terms: lavapipe would not unroll them, and then picks each number out of its vector (matmul_512: 27 instead of 40 GFLOP/s).
        if B_ALONG_K {
            var b: array<vec4<f32>, TN>;
            for (var n = 0u; n < TN; n++) { b[n] = at_column(n); }
            add_term(&a, 0u, &b, 0u, &sums);
            if DEPTH == 4u {
                add_term(&a, 1u, &b, 1u, &sums);
                add_term(&a, 2u, &b, 2u, &sums);
                add_term(&a, 3u, &b, 3u, &sums);
            }
            for (var j = 0u; j < DEPTH; j++) { next_term(); }
        } else {
            add_columns(&a, 0u, &sums);
            if DEPTH == 4u {
                add_columns(&a, 1u, &sums);
                add_columns(&a, 2u, &sums);
                add_columns(&a, 3u, &sums);
            }
        }
    }
    var places: array<u32, TN>;
    for (var n = 0u; n < TN; n++) { places[n] = result_at(col0 + lane_column(n, lane)); }
    // Two short loops: a compiler that does not unroll one of them keeps all sums in memory. lavapipe unrolls 8 rows, not 16.
    for (var m = 0u; m < min(TM, 8u); m++) {
        if begin_row(row0 + m) {
            for (var n = 0u; n < TN; n++) {
                if places[n] != NOWHERE { put(places[n], sums[m][n]); }
            }
        }
    }
    for (var m = 8u; m < TM; m++) {
        if begin_row(row0 + m) {
            for (var n = 0u; n < TN; n++) {
                if places[n] != NOWHERE { put(places[n], sums[m][n]); }
            }
        }
    }
}
