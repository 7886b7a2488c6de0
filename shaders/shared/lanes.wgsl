// The product of shared/tile.wgsl, of the matrices described there, where a subgroup has 8 lanes: without workgroup memory. Takes that file's place where
// the adapter has such subgroups.
//
// A workgroup is one subgroup, which makes TM rows and 8*TN columns. A lane keeps TM x TN sums: all the rows, and of every 8 * WIDTH columns WIDTH neighbouring
// ones, which at_columns(n) gives at once: those from the column of slot n on. Each value is loaded once for the subgroup: a column's by the lane that owns it,
// 8 rows' at once, one by each lane, and then broadcast. Why: on lavapipe a load for 8 lanes takes 15 ns, a broadcast from a constant lane 0.6 ns; and
// four columns a load make matmul_512 a fifth faster.
const NOWHERE: u32 = 0xffffffffu;
const TM: u32 = 16u; //#spec
const TN: u32 = 8u; //#spec
const WX: u32 = 8u;
const WY: u32 = 1u;
const ROWS: u32 = TM;
const COLS: u32 = 8u * TN;
const SLOTS: u32 = TN;

// Column n of a lane's.
fn lane_column(n: u32, lane: u32) -> u32 { return 8u * WIDTH * (n / WIDTH) + WIDTH * lane + n % WIDTH; }


fn tile_product(row0: u32, col0: u32, lane: u32, k_begin: u32, k_end: u32) {
    for (var n = 0u; n < TN / WIDTH; n++) { column(n, col0 + lane_column(WIDTH * n, lane)); }
    term(k_begin);
    var sums: array<array<f32, TN>, TM>;
    for (var k = k_begin; k < k_end; k++) {
        var b: array<f32, TN>;
        for (var n = 0u; n < TN / WIDTH; n++) {
            let some = at_columns(n);
            for (var w = 0u; w < WIDTH; w++) { b[WIDTH * n + w] = some[w]; }
        }
        if TM % 8u == 0u {
            for (var m = 0u; m < TM; m += 8u) {
                let a = at_row(row0 + m + lane);
                let a0 = subgroupBroadcast(a, 0u);
                let a1 = subgroupBroadcast(a, 1u);
                let a2 = subgroupBroadcast(a, 2u);
                let a3 = subgroupBroadcast(a, 3u);
                let a4 = subgroupBroadcast(a, 4u);
                let a5 = subgroupBroadcast(a, 5u);
                let a6 = subgroupBroadcast(a, 6u);
                let a7 = subgroupBroadcast(a, 7u);
                for (var n = 0u; n < TN; n++) {
                    sums[m][n] += a0 * b[n];
                    sums[m + 1u][n] += a1 * b[n];
                    sums[m + 2u][n] += a2 * b[n];
                    sums[m + 3u][n] += a3 * b[n];
                    sums[m + 4u][n] += a4 * b[n];
                    sums[m + 5u][n] += a5 * b[n];
                    sums[m + 6u][n] += a6 * b[n];
                    sums[m + 7u][n] += a7 * b[n];
                }
            }
        } else {
            // Few rows: each is one number for all lanes.
            for (var m = 0u; m < TM; m++) {
                let a = at_row(row0 + m);
                for (var n = 0u; n < TN; n++) { sums[m][n] += a * b[n]; }
            }
        }
        next_term();
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
