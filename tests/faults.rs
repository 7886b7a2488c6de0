//! Seeded faults: one edit in a shader, as a tired hand might make it, must fail some case of the families that use the shader.
//!
//! `cargo test --test faults -- --nocapture` prints which case caught each fault. Drivers compile every faulty shader anew, which takes a
//! software GPU minutes for all; so the first two of each file are tried, and all with `MAPPA_FULL=1`.
#![cfg(feature = "gpu")]

mod common;

use mappa::Device;
use mappa::backend::cpu::Cpu;
use mappa::backend::gpu::GpuOptions;
use mappa::backend::gpu::shader::{SOURCES, Sources};
use mappa::backend::{Backend, Product};
use mappa::cases::{Case, all, half, run_case};
use mappa::verify::{Step, diff};
use std::collections::BTreeSet;

/// Larger cases only repeat what smaller ones find, slowly.
const MAX_ELEMENTS: usize = 4 << 20;

/// How f16 is stored: compiled for cases of f16 only.
const F16: &str = "shared/f16.wgsl";
/// How products are shared out among subgroups of eight lanes, in the place of [`TILE`].
const LANES: &str = "shared/lanes.wgsl";
const TILE: &str = "shared/tile.wgsl";
/// How cooperative matrices share them out, and how both stage them.
const MATRICES: &str = "shared/matrices.wgsl";
const STAGE: &str = "shared/stage.wgsl";

/// One edit: in `file`, the one place that reads `from` becomes `to`.
struct Fault {
    file: &'static str,
    from: &'static str,
    to: &'static str,
    /// The mistake.
    what: &'static str,
}

const fn fault(file: &'static str, from: &'static str, to: &'static str, what: &'static str) -> Fault {
    Fault { file, from, to, what }
}

#[rustfmt::skip]
const FAULTS: &[Fault] = &[
    fault("elementwise", "select(0.0, dy, s > 0.0)", "select(0.0, dy, s >= 0.0)", "relu's gradient passes at 0"),
    fault("elementwise", "f32(b[offset8(i, params3.sizes, params3.stride_b)])", "f32(b[offset8(i, params3.sizes, params3.stride_a)])", "second operand read with the first one's strides"),
    fault("elementwise", "if i < params.n { y[i] = T(unary_of", "if i + 1u < params.n { y[i] = T(unary_of", "last element left out"),
    fault("elementwise", "T(f32(y[i]) + f32(x[i]))", "x[i]", "gradients overwritten instead of accumulated"),
    fault("elementwise", "derivative_of(s.w, d.w, p, q)", "derivative_of(s.w, d.z, p, q)", "two components of a vector swapped"),
    fault("elementwise", "binary_of(p.w, q.w)", "binary_of(q.w, p.w)", "operands of a difference swapped in one component"),
    fault("elementwise", "select(low, q, low > q)", "low", "upper bound of clamp left out"),
    fault("elementwise", "params4.stride_c)];", "params4.stride_b)];", "third operand read with the second one's strides"),
    fault("elementwise", "return int_of(a) < int_of(b);", "return uint_of(a) < uint_of(b);", "signed integers compared as unsigned"),
    fault("elementwise", "if f >= 2147483648.0 { out = 0x7fffffffu; }", "", "a cast past the largest integer"),
    fault("elementwise", "v == 0xff800000u", "v == 0x7f800000u", "the sign of infinity ignored"),
    fault("elementwise", "select(SELU_ALPHA * accurate_exp(s), 1.0, s > 0.0)", "select(accurate_exp(s), 1.0, s > 0.0)", "a constant left out of a gradient"),
    fault("recurrent", "let c = f * state[params.all + e] + i * g;", "let c = f * state[e] + i * g;", "h taken for c"),
    fault("recurrent", "dafter[params6.all + e] + d * o", "d * o", "the cell's own gradient left out"),
    fault("recurrent", "dgates_h[at + 2u * h] = dn * r;", "dgates_h[at + 2u * h] = dn;", "reset gate left out of a gradient"),
    fault("recurrent", "r * hidden)", "hidden)", "reset gate left out"),
    fault("scan", "if lane >= distance", "if lane > distance", "one term of the tree lost"),
    fault("scan", "before += sums[WG - 1u];", "before = sums[WG - 1u];", "only the last tile carried over"),
    fault("scan", "params2.len - 1u - step, FLAG", "params2.len - step, FLAG", "reverse order off by one"),
    fault("scan", "if a == b { return i < j; }", "if a == b { return i > j; }", "equal elements in reverse order"),
    fault("scan", "if place < params3.k", "if place + 1u < params3.k", "the last of the k left out"),
    fault("matmul", "v += f32(bias[col])", "v += f32(bias[0])", "one bias for all columns"),
    fault("matmul", "base_b = offset8(batch, params.sizes, params.stride_b)", "base_b = offset8(batch, params.sizes, params.stride_a)", "broadcast batch of b read with the strides of a"),
    fault("matmul", "* params.a_row + k * params.a_col", "* params.a_col + k * params.a_row", "transposition flag inverted"),
    fault("conv", "let h = column.h + down * params.dil_h;", "let h = column.h + down;", "dilation ignored in one axis"),
    fault("conv", "bias[channel_group * params.kg + min(row", "bias[min(row", "bias counted within the group"),
    fault("conv", "col % params.size_w * params.stride_w", "col % params.size_w * params.stride_h", "strides of the two axes mixed up in the input gradient"),
    fault("conv", "return (split * params.k", "return (0u * params.k", "partial sums of the weight gradient overwrite each other"),
    fault("conv", "if h >= params.h || w >= params.w { return vec4(0.0); }\n            return pixels_from(column.base + (outer * params.h", "if h > params.h || w >= params.w { return vec4(0.0); }\n            return pixels_from(column.base + (outer * params.h", "one row of padding read as data"),
    fault("pool", "v > best ||", "v >= best ||", "a tie goes to the last index"),
    fault("pool", "var found = false;", "var found = true;", "a maximum starts from 0"),
    fault("pool", "select(end - begin, padded_end - i * stride,", "select(padded_end - i * stride, end - begin,", "count_include_pad inverted"),
    fault("pool", "i32(left + j * params3.dil_w)", "i32(left + j)", "dilation ignored in one axis"),
    fault("pool", "divided(pixel_col + params3.pad_w,", "divided(pixel_col,", "padding ignored where windows do not overlap"),
    fault("pool", "for (var i = lane; i < area; i += WG)", "for (var i = lane; i + 1u < area; i += WG)", "last pixel of a plane left out"),
    fault("pool", "winners[window] == pixel", "winners[window] >= pixel", "gradient given to pixels that did not win"),
    fault("reduce", "let d = v - helper[o];", "let d = v;", "variance around 0 instead of the mean"),
    fault("reduce", "(v == best && at < best_at)", "(v == best && at > best_at)", "a tie goes to the last index"),
    fault("reduce", "if KIND == 3u || KIND == 4u { sum = term(base, o, begin); }", "", "a maximum starts from 0"),
    fault("reduce", "return min(begin + params.terms_a_chunk, params.terms);", "return begin + params.terms_a_chunk;", "the last chunk runs past the end"),
    fault("reduce", "select(0.0, 1.0, KIND == 5u)", "0.0", "a product starts from 0"),
    fault("reduce", "join(join(value(v.x, o), value(v.y, o)), join(value(v.z, o), value(v.w, o)))", "join(join(value(v.x, o), value(v.y, o)), join(value(v.z, o), value(v.y, o)))", "one of four terms taken twice"),
    fault("reduce", "select(v > best, v < best, KIND == 4u)", "v > best", "the minimum's index is the maximum's"),
    fault("softmax", "y[i] = (x[i] - lse.x) - lse.y;", "y[i] = x[i] - lse.x;", "normalisation left out"),
    fault("softmax", "row_weight[row] = w;", "row_weight[row] = 1.0;", "class weights left out of the mean"),
    fault("softmax", "(p * total - class_weight(c))", "(p - class_weight(c))", "label smoothing with class weights normalised wrongly"),
    fault("softmax", "return params5.ignores == 1u && t == params5.ignore;", "return false;", "ignored targets counted"),
    fault("softmax", "return r / inner * classes * inner + r % inner;", "return r * classes;", "rows taken for contiguous"),
    fault("layout", "params2.to_offset + offset8(", "offset8(", "destination's offset left out"),
    fault("layout", "if index[j] == row", "if index[j] <= row", "wrong rows accumulated"),
    fault("layout", "index[i / params3.inner % params3.to_len]", "index[i % params3.to_len]", "inner dimensions ignored"),
    fault("layout", "reached = reached && at <", "reached = reached || at <", "places that the index does not reach read"),
    fault("layout", "if d - 1u == params3.to_len", "if d == params3.to_len", "the neighbouring dimension scattered along"),
    fault("random", "unit(words[e]) < params2.a", "unit(words[e]) > params2.a", "dropout mask inverted"),
    fault("random", "params1.a + params1.b * values[e]", "params1.b * values[e]", "lower bound left out"),
    fault("random", "sqrt(-2.0 * accurate_log", "sqrt(-1.0 * accurate_log", "normals with half the variance"),
    fault("norm", " * (n / (n - 1.0))", "", "running variance biased"),
    fault("norm", " - (value - k.mean) * k.slope", "", "the variance's part of the gradient left out"),
    fault("norm", "(!CEILING || p < ceiling - bias)", "true", "the gradient passes above ReLU6's ceiling"),
    fault("norm", "dresidual[i] = T(gradient);", "dresidual[i] = dy2[i];", "the residual's gradient not stopped by the ReLU"),
    fault("norm", "if ADD { v += f32(residual[i]); }", "", "a block without its shortcut"),
    fault("norm", "variance[c] + params2.eps", "variance[c]", "eps left out in evaluation"),
    fault("norm", "(place.x * p.channels + channel) * p.inner", "place.x * p.channels * p.inner", "channel 0 for all"),
    fault("norm", "+ f32(size_of(i, p)) * d * d", "", "parts joined as if their means were equal"),
    fault("norm", "select(rest, rest - p.inner, over)", "rest", "elements of the next image taken from behind the plane"),
    fault("optimizer", "(sqrt(v) * root + params5.eps)", "(sqrt(v) + params5.eps)", "Adam's second bias correction left out"),
    fault("optimizer", "params5.direction * (gradient", "(gradient", "maximize ignored"),
    fault("optimizer", "v = g + params4.a * v;", "v = params4.a * v;", "Nesterov's look-ahead without the gradient"),
    fault("optimizer", "if steps(params4.number) != 1.0 { v =", "{ v =", "momentum's first step uses an empty buffer"),
    fault("optimizer", "f32(number) - scale[3]", "f32(number)", "skipped steps counted in the bias corrections"),
    fault("optimizer", "return scale[2] != 0.0;", "return false;", "a step taken in spite of overflow"),
    fault("optimizer", "(bitcast<u32>(squares) & 0x7f800000u) == 0x7f800000u", "squares < 0.0", "overflow not seen"),
    fault("optimizer", "sqrt(squares) / s", "sqrt(squares)", "the norm of scaled gradients clipped"),
    fault("optimizer", "select(streak, 0.0, grows)", "streak", "the loss scale grows in every step"),
    fault("optimizer", "min(1.0, params2.step_size / (norm + 1e-6))", "params2.step_size / (norm + 1e-6)", "small gradients scaled up"),
    fault("shared/f32.wgsl", "return bitcast<f32>(word);", "return f32(word);", "the bits of a number taken for an integer"),
    fault("shared/f32.wgsl", "{ return bits; }", "{ return bits & 0xffff0000u; }", "half of the bits of a constant lost"),
    fault("shared/f16.wgsl", "unpack2x16float(bits).x", "unpack2x16float(bits).y", "a constant read from the wrong half of a word"),
    fault("shared/f16.wgsl", "return f32(word);", "return abs(f32(word));", "the sign of an f16 lost"),
    fault("shared/index.wgsl", "for (var d = 8u; d > 0u; d--)", "for (var d = 8u; d > 1u; d--)", "outermost of eight dimensions ignored"),
    fault("shared/index.wgsl", "let size = sizes[d - 1u];", "let size = sizes[4u - d];", "sizes read from the wrong end"),
    fault("shared/index.wgsl", "return group.y * groups.x + group.x;", "return group.x;", "second dimension of the dispatch ignored"),
    fault("shared/math.wgsl", "+ k * 0.00021219444;", "+ 0.0;", "low part of ln 2 left out of exp"),
    fault("shared/math.wgsl", "exponent += 1;", "", "logarithm off by ln 2 above sqrt 2"),
    fault("shared/math.wgsl", "if t > 0.7 {", "if t > 70.0 {", "tanh's series used outside its range"),
    fault("shared/math.wgsl", "case 1u: { return vec2(-s, c); }", "case 1u: { return vec2(s, c); }", "sign wrong in one quadrant"),
    fault("shared/math.wgsl", "quadrant * 0.00048375129699707", "0.0", "middle part of pi / 2 left out"),
    fault("shared/math.wgsl", "base = 0.78539819;", "base = 1.5707964;", "arctangent off by pi / 4 around 1"),
    fault("shared/math.wgsl", "if x < -0.29 || x > 0.41", "if x < -2.9 || x > 4.1", "log(1 + x)'s series used outside its range"),
    fault("shared/math.wgsl", "if abs(x) > 0.35 ||", "if abs(x) > 3.5 ||", "e^x - 1's series used outside its range"),
    fault("shared/math.wgsl", "if bitcast<f32>(bits) > rest { bits -= 0x00800000u; }", "", "a remainder subtracts too much"),
    fault("shared/math.wgsl", "floor(0.5 * b) != 0.5 * b", "true", "even powers of negative numbers are negative"),
    fault("shared/lanes.wgsl", "[m + 5u][n] += a5 *", "[m + 5u][n] += a4 *", "a row read from its neighbour's lane"),
    fault("shared/lanes.wgsl", "column(n, col0 + lane_column(n, lane))", "column(n, col0 + lane_column(n, 0u))", "one column for all lanes"),
    fault("shared/lanes.wgsl", "add_columns(&a, 3u, &sums);", "add_columns(&a, 2u, &sums);", "a row's third term multiplied with the fourth of the columns"),
    fault("shared/lanes.wgsl", "add_term(&a, 2u, &b, 2u", "add_term(&a, 2u, &b, 1u", "a term of the columns taken twice"),
    fault("shared/lanes.wgsl", "for (var m = 8u; m < TM; m++)", "for (var m = 9u; m < TM; m++)", "a row in the middle left out"),
    fault("shared/loads.wgsl", "const WIDTH: u32 = 1u; //#right", "const WIDTH: u32 = 1u; //#left", "numbers of the right matrix counted as vectors where the left one's are"),
    fault("shared/loads.wgsl", "const DEPTH: u32 = 1u; //#left", "const DEPTH: u32 = 1u;", "vectors of the left matrix counted as numbers"),
    fault("matmul", "select(NOWHERE, col, col < params.n)", "col", "columns behind the last one written"),
    fault("conv", "vec2(clipped(v.x), clipped(v.y))", "vec2(clipped(v.x), v.y)", "the second of a tile's results left negative"),
    fault("matmul", "if RELU { v = select(v, 0.0, v <= 0.0); }", "", "the ReLU left out"),
    fault("conv", "padded < 0x80000000u && output * stride == padded", "padded < 0x80000000u", "outputs seen between two strides"),
    fault("conv", "v >= f32(CEILING)", "v >= 2.0 * f32(CEILING)", "results up to twice the ceiling kept"),
    fault("conv", "right_matrix[place / WIDTH]", "right_matrix[place]", "vectors of pixels counted as pixels"),
    fault("conv", "e += WG) {", "e += WG + 1u) {", "pixels between two rounds left out"),
    fault("shared/sum.wgsl", "lanes[lane] += lanes[lane + width]", "lanes[lane] = lanes[lane + width]", "half of the lanes forgotten"),
    fault("conv", "right * params.tap_step_w;", "right;", "taps between those of a phase taken"),
    fault("conv", "let h = column.h - down * params.reach_h;", "let h = column.h - down;", "taps that see outputs further apart taken for neighbours"),
    fault("conv", "v.y - v.z - v.w);", "v.y - v.z + v.w);", "a sign of minimal filtering's results turned"),
    fault("conv", "select(tap, 8u - tap, PASS == 1u)", "tap", "kernels of the input's gradient not turned around"),
    fault("conv", "if w + 1u < params3.ow { planes[at + 1u] = results.y; }", "planes[at + 1u] = results.y;", "a tile's second column written behind the row"),
    fault("conv", "params2.first_tile + part * params2.tiles + t;", "params2.first_tile + t;", "every split summed over the tiles of the first one"),
    fault("conv", "((outer * params.k + channel_group", "((channel_group", "the second image read from the first one's channels"),
    fault("shared/philox.wgsl", "round < 10u", "round < 9u", "one round of Philox missing"),
    fault("shared/philox.wgsl", " + (mid2 >> 16u)", "", "carry of a wide product lost"),
    fault("shared/tile.wgsl", "sum += a.x * b[n].x", "sum = a.x * b[n].x", "only the last four terms kept"),
    fault("shared/tile.wgsl", "begin_row(row0 + m * WY + ly)", "begin_row(row0 + m * WX + ly)", "rows stored with the columns' stride"),
    fault("shared/tile.wgsl", "k0 += TK) {", "k0 += TK + 1u) {", "terms between two stages skipped"),
    fault("shared/tile.wgsl", "tile_a[(of_a.quad + r) * A_PITCH", "tile_a[of_a.quad * A_PITCH", "only the last vector of a run staged"),
    fault(STAGE, "k0 + 4u * of_b.quad", "k0 + of_b.quad", "terms of the columns staged in the place of others"),
    fault(STAGE, "select(vec4(0.0), at_row(row0 + of_a.line + l * of_a.step)", "select(vec4(0.0), at_row(row0 + of_a.line + l)", "neighbouring rows staged in the place of distant ones"),
    fault(STAGE, "select(vec4(0.0), at_column(l), k < k_end)", "select(vec4(0.0), at_column(l), k + 4u < k_end)", "the last vector of columns left out"),
    fault(MATRICES, "coopLoadT<MatrixA>", "coopLoad<MatrixA>", "rows of a matrix loaded as its columns"),
    fault(MATRICES, "tile_sums[mine + row * SIDE + col]", "tile_sums[mine + col * SIDE + row]", "sums stored across"),
    fault(MATRICES, "subgroup % GX * TN * SIDE", "subgroup % GX * TM * SIDE", "a subgroup's columns begun with the rows' size"),
    fault(MATRICES, "coopMultiplyAdd(a[m], b, sums[m * TN + n])", "coopMultiplyAdd(a[m], b, sums[n])", "sums of another row of matrices"),
    fault(MATRICES, "if of_b.needed && next < k_end", "if of_b.needed && next + TK < k_end", "the last stage multiplied with the columns before it"),
    fault("shared/tile.wgsl", "col0 + of_b.line + l * of_b.step", "col0 + of_b.line + l", "neighbouring columns staged in the place of distant ones"),
];

/// The families whose source is, or includes, `file`.
fn families(file: &str) -> BTreeSet<&'static str> {
    // The file whose place a variant's takes.
    let place = match file {
        F16 => "shared/f32.wgsl",
        LANES | MATRICES => TILE,
        file => file,
    };
    let include = format!("//#include {place}");
    let uses = |name: &str, text: &str| name == file || text.lines().any(|line| line == include);
    SOURCES.iter().filter(|(name, text)| uses(name, text)).map(|(name, _)| *name).collect()
}

/// The cases that are not too large. Small ones first: most faults show there.
fn sorted(mut cases: Vec<Case>) -> Vec<Case> {
    cases.retain(|case| common::elements(case) <= MAX_ELEMENTS);
    cases.sort_by_key(common::elements);
    cases
}

/// The first case that a fault fails, and how, with these kernels.
fn caught(&Fault { file, from, to, what }: &Fault, kernels: &str, cases: &[Case]) -> Option<String> {
    let mut sources = Sources::default();
    let text = sources.get(file).unwrap().replacen(from, to, 1);
    sources.replace(file, text).unwrap();
    let gpu = common::gpu(GpuOptions { kernels: vec![kernels.into()], sources, ..Default::default() }).unwrap();
    let (reference, families) = (Cpu::reference().unwrap(), families(file));
    cases.iter().filter(|case| families.contains(case.op.family())).find_map(|case| {
        let outcome = run_case(case, &reference, &gpu)
            .unwrap_or_else(|e| panic!("{what}: the fault breaks {file} instead of its numbers: {case}: {e}"));
        outcome.failure.map(|failure| format!("{case}: {failure}"))
    })
}

#[test]
fn every_seeded_fault_of_cooperative_matrices_is_caught() {
    let Some(kernels) = common::matrices() else { return };
    let cases = sorted(half());
    for fault in FAULTS.iter().filter(|fault| fault.file == MATRICES) {
        let by = caught(fault, &kernels, &cases).unwrap_or_else(|| panic!("caught by no case: {}", fault.what));
        println!("{MATRICES}: {}: caught by {by}", fault.what);
    }
}

#[test]
fn every_seeded_fault_is_caught_by_a_case_of_its_family() {
    // Without a GPU at all there is nothing to test.
    let Some(plain) = common::gpu(GpuOptions::default()) else { return };
    let (single, half) = (sorted(all()), sorted(half()));
    let (mut tried, mut missed) = (Vec::new(), Vec::new());
    for fault in FAULTS.iter().filter(|fault| fault.file != MATRICES) {
        let Fault { file, what, .. } = fault;
        if !common::full() && tried.iter().filter(|f| *f == file).count() == 2 {
            continue;
        }
        let started = std::time::Instant::now();
        if *file == F16 && !plain.capabilities().f16 || *file == LANES && plain.capabilities().kernels.product != Product::Lanes {
            println!("{file}: {what}: not tried, the adapter has no such variant");
            continue;
        }
        tried.push(*file);
        let cases = if *file == F16 { &half } else { &single };
        // Some kernels run only where there are no lanes.
        let caught = if [TILE, STAGE].contains(file) { None } else { caught(fault, "", cases) };
        let caught = caught.or_else(|| self::caught(fault, "product=tile", cases));
        match caught {
            Some(by) => println!("{:.1} s {file}: {what}: caught by {by}", started.elapsed().as_secs_f64()),
            None => missed.push(format!("{file}: {what}")),
        }
    }
    println!("{} of {} seeded faults tried", tried.len(), FAULTS.len());
    assert!(missed.is_empty(), "{} of {} faults were caught by no case:\n{}", missed.len(), tried.len(), missed.join("\n"));
}

#[test]
fn diff_names_layer_and_operation_of_a_fault() {
    let mut sources = Sources::default();
    let text = sources.get("conv").unwrap().replacen("v += row_bias", "v -= row_bias", 1);
    sources.replace("conv", text).unwrap();
    let Some(gpu) = common::gpu(GpuOptions { sources, ..Default::default() }) else { return };
    let step = Step { model: "lenet5", input: [1, 28, 28], batch_size: 2, classes: 10, seed: 1 };
    let report = diff(&step, &Device::new(gpu)).unwrap();
    let mismatch = report.mismatch.expect("the fault was not found");
    assert!(mismatch.starts_with("conv1: Conv(Forward"), "{mismatch}");
    let first = report.rows.iter().find(|row| row.error > 1e-3).unwrap();
    assert_eq!((first.part, first.name.as_str()), ("layer", "conv1"));
}

#[test]
fn every_shader_file_has_faults_and_each_names_one_place() {
    for (name, _) in SOURCES {
        assert!(FAULTS.iter().any(|fault| fault.file == *name), "{name} has no seeded fault");
    }
    for Fault { file, from, what, .. } in FAULTS {
        let found = Sources::default().get(file).unwrap().matches(from).count();
        assert_eq!(found, 1, "{what}: '{from}' must occur once in {file}; adapt the fault to the shader");
    }
}
