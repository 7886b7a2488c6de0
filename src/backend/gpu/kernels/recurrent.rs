//! Dispatches of steps of recurrent nets.

use super::{Kernel, Plan, WG, plan_op, reshaped, word};
use crate::backend::Operand;
use crate::error::Result;
use crate::op::{Binary, Elementwise, Layout, Matmul, Op, Recurrent};
use crate::shape::{Shape, Spec};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    all: u32,
    h: u32,
    pad: [u32; 2],
}

pub(super) fn lower(op: &Recurrent, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let (entry, state) = match op {
        Recurrent::LstmLayer { reverse } => return layer(*reverse, inputs, outputs, plan),
        Recurrent::LstmLayerBackward { reverse } => return layer_backward(*reverse, inputs, outputs, plan),
        Recurrent::Lstm => ("lstm", &inputs[2]),
        Recurrent::LstmBackward => ("lstm_backward", &inputs[1]),
        Recurrent::Gru => ("gru", &inputs[2]),
        Recurrent::GruBackward => ("gru_backward", &inputs[1]),
    };
    let shape = &state.spec.shape;
    let (n, h) = (shape[shape.rank() - 2], shape[shape.rank() - 1]);
    let params = Params { all: word(n * h)?, h: word(h)?, pad: [0; 2] };
    let kernel = Kernel::new("recurrent", entry).constant("WG", WG);
    plan.push(kernel, &inputs.iter().collect::<Vec<_>>(), &outputs.iter().collect::<Vec<_>>(), &params, plan.fold(n * h, WG)?)
}

/// Entry `t` of an operand's first dimension.
fn entry(operand: &Operand, t: usize) -> Result<Operand> {
    let shape = Shape::new(&operand.spec.shape[1..])?;
    Ok(Operand { offset: operand.offset + t * shape.len(), spec: Spec::new(shape, operand.spec.dtype), ..operand.clone() })
}

/// Whether all entries of an operand can be bound where they lie.
fn aligned(operand: &Operand, plan: &Plan) -> bool {
    let size = operand.spec.dtype.size();
    let entry = operand.spec.shape[1..].iter().product::<usize>() * size;
    (operand.offset * size).is_multiple_of(plan.limits.alignment) && entry.is_multiple_of(plan.limits.alignment)
}

/// Entry `t` for reading: where it lies, or a copy.
fn read(operand: &Operand, t: usize, plan: &mut Plan) -> Result<Operand> {
    let own = entry(operand, t)?;
    if aligned(operand, plan) {
        return Ok(own);
    }
    let shape = operand.spec.shape;
    let mut starts = vec![0; shape.rank()];
    starts[0] = t;
    let sizes = [&[1], &shape[1..]].concat();
    let copy = plan.scratch(own.spec)?;
    let slice = Layout::Slice { starts, steps: vec![1; shape.rank()], sizes: sizes.clone() };
    plan_op(&Op::Layout(slice), std::slice::from_ref(operand), &[reshaped(&copy, &sizes)?], plan)?;
    Ok(copy)
}

/// The entries of an operand for writing: where they lie, or elsewhere, from where [`gather`] brings them.
fn entries(operand: &Operand, plan: &Plan) -> Result<Vec<Operand>> {
    let own = |t: usize| entry(operand, t);
    (0..operand.spec.shape[0]).map(|t| if aligned(operand, plan) { own(t) } else { plan.scratch(own(t)?.spec) }).collect()
}

/// Brings entries that were written elsewhere to their operand.
fn gather(entries: &[Operand], operand: &Operand, plan: &mut Plan) -> Result<()> {
    let dims = [&[1], &operand.spec.shape[1..]].concat();
    let rows = entries.iter().map(|entry| reshaped(entry, &dims)).collect::<Result<Vec<_>>>()?;
    plan_op(&Op::Layout(Layout::Concat { dim: 0 }), &rows, std::slice::from_ref(operand), plan)
}

/// Each step a product and [`Recurrent::Lstm`]. No kernel may read and write one buffer, so states are gathered at the end.
fn layer(reverse: bool, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let ([gates_x, weight, first], [states, act]) = (inputs, outputs) else { return Ok(()) };
    let &[steps, n, wide] = &gates_x.spec.shape[..] else { return Ok(()) };
    let gates_h = plan.scratch(entry(gates_x, 0)?.spec)?;
    let product = Op::Matmul(Matmul { transpose_b: true, ..Default::default() });
    let next = (0..steps).map(|_| plan.scratch(first.spec)).collect::<Result<Vec<_>>>()?;
    let acts = entries(act, plan)?;
    for (t, before) in Recurrent::order(steps, reverse) {
        let state = before.map_or(first, |before| &next[before]);
        // h is the first half of a state.
        plan_op(
            &product,
            &[Operand { spec: Spec::new(Shape::new(&[n, wide / 4])?, state.spec.dtype), ..state.clone() }, weight.clone()],
            std::slice::from_ref(&gates_h),
            plan,
        )?;
        let gates_x = read(gates_x, t, plan)?;
        lower(&Recurrent::Lstm, &[gates_x, gates_h.clone(), state.clone()], &[next[t].clone(), acts[t].clone()], plan)?;
    }
    if !aligned(act, plan) {
        gather(&acts, act, plan)?;
    }
    gather(&next, states, plan)
}

/// Back through the steps: what reaches a step's state is what is asked of it and what the step after it passes on.
fn layer_backward(reverse: bool, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let ([act, weight, first, states, dstates], [dgates, dfirst]) = (inputs, outputs) else { return Ok(()) };
    let &[steps, n, wide] = &act.spec.shape[..] else { return Ok(()) };
    let product = Op::Matmul(Matmul::default());
    let sum = Op::Elementwise(Elementwise::Binary(Binary::Add));
    let d = entries(dgates, plan)?;
    let mut carry: Option<Operand> = None;
    for (t, before) in Recurrent::order(steps, reverse).rev() {
        let mut upstream = read(dstates, t, plan)?;
        if let Some(carry) = carry {
            let both = plan.scratch(first.spec)?;
            plan_op(&sum, &[upstream, carry], std::slice::from_ref(&both), plan)?;
            upstream = both;
        }
        let below = before.map_or(Ok(first.clone()), |before| read(states, before, plan))?;
        let passed = if before.is_some() { plan.scratch(first.spec)? } else { dfirst.clone() };
        let (act, state) = (read(act, t, plan)?, read(states, t, plan)?);
        lower(&Recurrent::LstmBackward, &[act, below, state, upstream], &[d[t].clone(), passed.clone()], plan)?;
        // The step itself passes nothing on to h, the first half, but through the weights.
        let h = Operand { spec: Spec::new(Shape::new(&[n, wide / 4])?, passed.spec.dtype), ..passed.clone() };
        plan_op(&product, &[d[t].clone(), weight.clone()], &[h], plan)?;
        carry = Some(passed);
    }
    if aligned(dgates, plan) { Ok(()) } else { gather(&d, dgates, plan) }
}
