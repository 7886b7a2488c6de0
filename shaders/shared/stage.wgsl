// How a workgroup of WX x WY invocations brings TK terms of ROWS rows and COLS columns from memory, for the files that tile a product in workgroup memory:
// shared/tile.wgsl, which says how the matrices are described, and shared/matrices.wgsl.
//
// An invocation takes consecutive terms of a few lines, so that what an address has of a line is computed once, and of a term once a stage.
// Which index neighbouring invocations step through: the one that is contiguous in memory.
override A_ALONG_K: bool = true;
override B_ALONG_K: bool = false;

const THREADS: u32 = WX * WY;
const QUADS: u32 = TK / 4u;
// Vectors of four terms that an invocation takes of each matrix.
const A_EACH: u32 = max(ROWS * QUADS / THREADS, 1u);
const B_EACH: u32 = max(COLS * QUADS / THREADS, 1u);
const SLOTS: u32 = B_EACH;

// What an invocation stages of a matrix: `lines` of its lines from `line` on, `step` apart, and of each `run` vectors from `quad` on. A small matrix does not need
// all invocations.
struct Stage {
    lines: u32,
    run: u32,
    line: u32,
    step: u32,
    quad: u32,
    needed: bool,
}

// Of a matrix with so many lines in a tile, `each` vectors of it an invocation.
fn stage_of(size: u32, each: u32, along_k: bool, lane: u32) -> Stage {
    let lines = select(max(size / THREADS, 1u), each, along_k);
    let run = each / lines;
    let needed = lane < size * QUADS;
    if along_k { return Stage(lines, run, lane / QUADS, THREADS / QUADS, lane % QUADS, needed); }
    return Stage(lines, run, lane % size, THREADS, lane / size * run, needed);
}

// Its share of the rows from row0 on, for the terms from k0 on; 0 from k_end on.
fn fetch_rows(of_a: Stage, row0: u32, k0: u32, k_end: u32, next: ptr<function, array<vec4<f32>, A_EACH>>) {
    var k = k0 + 4u * of_a.quad;
    term(k);
    for (var r = 0u; r < of_a.run; r++) {
        if DEPTH == 4u {
            for (var l = 0u; l < of_a.lines; l++) { (*next)[l * of_a.run + r] = select(vec4(0.0), at_row(row0 + of_a.line + l * of_a.step), k < k_end); }
            k += 4u;
            if r + 1u < of_a.run { term(k); }
        } else {
            for (var j = 0u; j < 4u; j++) {
                for (var l = 0u; l < of_a.lines; l++) { (*next)[l * of_a.run + r][j] = select(0.0, at_row(row0 + of_a.line + l * of_a.step).x, k < k_end); }
                next_term();
                k++;
            }
        }
    }
}

// The same of the columns in its slots.
fn fetch_columns(of_b: Stage, k0: u32, k_end: u32, next: ptr<function, array<vec4<f32>, B_EACH>>) {
    var k = k0 + 4u * of_b.quad;
    term(k);
    for (var r = 0u; r < of_b.run; r++) {
        if WIDTH == 4u {
            for (var l = 0u; l < of_b.lines; l++) { (*next)[l * of_b.run + r] = select(vec4(0.0), at_column(l), k < k_end); }
            k += 4u;
            if r + 1u < of_b.run { term(k); }
        } else {
            for (var j = 0u; j < 4u; j++) {
                for (var l = 0u; l < of_b.lines; l++) { (*next)[l * of_b.run + r][j] = select(0.0, at_column(l).x, k < k_end); }
                next_term();
                k++;
            }
        }
    }
}
