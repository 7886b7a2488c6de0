//! Dispatches of reductions: as many passes as it takes to keep every sum short.

use super::{Kernel, Plan, elementwise, reshaped, word};
use crate::backend::Operand;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{Reduce, ReduceKind};
use crate::shape::{Shape, Spec, collapse};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    outputs: u32,
    terms: u32,
    terms_a_chunk: u32,
    chunks: u32,
    kept_sizes: [u32; 4],
    kept_strides: [u32; 4],
    reduced_sizes: [u32; 4],
    reduced_strides: [u32; 4],
    scale: f32,
    pad: [u32; 3],
}

/// Terms that one lane adds in order: bounds the error, and gives the lanes work.
const TERMS_A_LANE: usize = 16;

/// Sizes and strides of the kept and of the reduced dimensions, front-padded.
struct Spaces {
    kept: ([u32; 4], [u32; 4]),
    reduced: ([u32; 4], [u32; 4]),
    outputs: usize,
    terms: usize,
    /// Neighbouring outputs, not terms, are neighbours in memory.
    outputs_contiguous: bool,
}

impl Spaces {
    fn new(shape: &Shape, dims: &[usize]) -> Result<Self> {
        let strides = shape.strides();
        let part = |reduced: bool| -> Result<(([u32; 4], [u32; 4]), bool)> {
            let chosen: Vec<usize> = (0..<[usize]>::len(shape)).filter(|d| dims.contains(d) == reduced).collect();
            let sizes: Vec<usize> = chosen.iter().map(|&d| shape[d]).collect();
            let steps: Vec<i64> = chosen.iter().map(|&d| strides[d] as i64).collect();
            // At most four remain: after merging, kept and reduced dimensions alternate.
            let (sizes, lists) = collapse(&sizes, &[&steps]);
            let (mut own, mut at) = ([1; 4], [0; 4]);
            for (i, (&size, &stride)) in sizes.iter().rev().zip(lists[0].iter().rev()).enumerate() {
                own[3 - i] = word(size)?;
                at[3 - i] = word(stride as usize)?;
            }
            Ok(((own, at), lists[0].last() == Some(&1)))
        };
        let ((kept, outputs_contiguous), (reduced, _)) = (part(false)?, part(true)?);
        let terms = dims.iter().map(|&d| shape[d]).product();
        let outputs = (0..<[usize]>::len(shape)).filter(|d| !dims.contains(d)).map(|d| shape[d]).product();
        Ok(Spaces { kept, reduced, outputs, terms, outputs_contiguous })
    }

    /// Outputs and lanes an output of a workgroup.
    fn block(&self) -> (u32, u32) {
        match (self.terms, self.outputs_contiguous && self.outputs > 8) {
            (0..=16, _) => (256, 1),
            (_, true) => (32, 8),
            (17..=64, false) => (32, 8),
            _ => (1, 256),
        }
    }

    /// In vectors of four neighbouring terms, where each output has many and they come in such.
    fn in_fours(&self) -> Option<Spaces> {
        let (mut sizes, mut steps) = self.reduced;
        if self.block() != (1, 256) || steps[3] != 1 || !sizes[3].is_multiple_of(4) {
            return None;
        }
        (sizes[3], steps[3]) = (sizes[3] / 4, 4);
        Some(Spaces { reduced: (sizes, steps), terms: self.terms / 4, ..*self })
    }

    /// One pass: scratch or final result `[outputs, chunks]`.
    fn params(&self, terms: usize, chunks: usize, terms_a_chunk: usize, scale: f64) -> Result<Params> {
        Ok(Params {
            outputs: word(self.outputs)?,
            terms: word(terms)?,
            terms_a_chunk: word(terms_a_chunk)?,
            chunks: word(chunks)?,
            kept_sizes: self.kept.0,
            kept_strides: self.kept.1,
            reduced_sizes: self.reduced.0,
            reduced_strides: self.reduced.1,
            scale: scale as f32,
            pad: [0; 3],
        })
    }
}

pub(super) fn lower(op: &Reduce, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    over(op.kind, &inputs[0], &op.dims, &outputs[0], plan)
}

/// Reduces `x` over `dims` into `y`, whose shape does not matter beyond its length.
pub(super) fn over(kind: ReduceKind, x: &Operand, dims: &[usize], y: &Operand, plan: &mut Plan) -> Result<()> {
    let spaces = Spaces::new(&x.spec.shape, dims)?;
    let n = spaces.terms as f64;
    match kind {
        _ if spaces.terms == 0 => elementwise::fill(y, if kind == ReduceKind::Prod { 1.0 } else { 0.0 }, plan),
        ReduceKind::Sum => pass(&spaces, 0, x, x, 1.0, y, plan),
        ReduceKind::SumSquares => pass(&spaces, 1, x, x, 1.0, y, plan),
        ReduceKind::Mean => pass(&spaces, 0, x, x, 1.0 / n, y, plan),
        ReduceKind::Max => pass(&spaces, 3, x, x, 1.0, y, plan),
        ReduceKind::Min => pass(&spaces, 4, x, x, 1.0, y, plan),
        ReduceKind::Prod => pass(&spaces, 5, x, x, 1.0, y, plan),
        ReduceKind::Var { correction } => {
            let mean = plan.scratch(Spec::new(Shape::new(&[spaces.outputs])?, DType::F32))?;
            pass(&spaces, 0, x, x, 1.0 / n, &mean, plan)?;
            pass(&spaces, 2, x, &mean, 1.0 / (n - correction as f64).max(0.0), y, plan)
        }
        ReduceKind::ArgMax => argmax(&spaces, 3, x, y, plan),
        ReduceKind::ArgMin => argmax(&spaces, 4, x, y, plan),
    }
}

/// Chunks of `terms` terms, `each` of them but for a `limit` of chunks, and the terms of each.
fn chunks(terms: usize, each: usize, limit: u32) -> (usize, usize) {
    let per = each.max(terms.div_ceil(limit as usize));
    (terms.div_ceil(per), per)
}

fn pass(spaces: &Spaces, kind: u32, x: &Operand, helper: &Operand, scale: f64, y: &Operand, plan: &mut Plan) -> Result<()> {
    let (rx, ry) = spaces.block();
    let fours = spaces.in_fours();
    let (entry, spaces, most) = match &fours {
        Some(fours) => ("reduce_four", fours, TERMS_A_LANE / 4),
        None => ("reduce", spaces, TERMS_A_LANE),
    };
    let (count, per) = chunks(spaces.terms, ry as usize * most, plan.limits.workgroups);
    let kernel = Kernel::new("reduce", entry).spec("RX", rx).spec("RY", ry).constant("KIND", kind);
    let [gx, gy, _] = plan.fold(spaces.outputs, rx)?;
    if count == 1 {
        let params = spaces.params(spaces.terms, 1, per, scale)?;
        return plan.push(kernel, &[x, helper], &[y], &params, [gx, gy, 1]);
    }
    let partial = plan.scratch(Spec::new(Shape::new(&[spaces.outputs, count])?, DType::F32))?;
    let params = spaces.params(spaces.terms, count, per, 1.0)?;
    plan.push(kernel, &[x, helper], &[&partial], &params, [gx, gy, word(count)?])?;
    // Partial sums (of squares too) are added, the others joined as their terms were.
    let again = Spaces::new(&partial.spec.shape, &[1])?;
    pass(&again, if kind >= 3 { kind } else { 0 }, &partial, &partial, scale, y, plan)
}

/// `kind` is 3 for the largest value, 4 for the smallest.
fn argmax(spaces: &Spaces, kind: u32, x: &Operand, y: &Operand, plan: &mut Plan) -> Result<()> {
    let (rx, ry) = spaces.block();
    let kernel = |entry| Kernel::new("reduce", entry).spec("RX", rx).spec("RY", ry).constant("KIND", kind);
    let [gx, gy, _] = plan.fold(spaces.outputs, rx)?;
    // The first pass reads terms, the further ones candidates [outputs, terms].
    let (mut terms, mut candidates): (usize, Option<Operand>) = (spaces.terms, None);
    loop {
        let (count, per) = chunks(terms, ry as usize * TERMS_A_LANE, plan.limits.workgroups);
        let params = spaces.params(terms, count, per, 1.0)?;
        let target = if count == 1 {
            reshaped(y, &[spaces.outputs, 1])?
        } else {
            plan.scratch(Spec::new(Shape::new(&[spaces.outputs, count])?, DType::U32))?
        };
        let (entry, helper) = match &candidates {
            None => ("argmax", x),
            Some(found) => ("argmax_again", found),
        };
        // `argmax` has no use for binding 1; it is bound so that both entries share a layout.
        plan.push(kernel(entry), &[x, helper], &[&target], &params, [gx, gy, word(count)?])?;
        if count == 1 {
            return Ok(());
        }
        (terms, candidates) = (count, Some(target));
    }
}
