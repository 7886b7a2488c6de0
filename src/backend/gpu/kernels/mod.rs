//! From operations to dispatches, one file a family. Nothing here touches the GPU: a plan is data.

mod conv;
mod custom;
mod elementwise;
mod layout;
mod matmul;
mod norm;
mod optimizer;
mod pool;
mod random;
mod recurrent;
mod reduce;
mod scan;
mod softmax;
mod tile;

use super::pipeline::Kernel;
use super::shader::{Storage, Variant};
use crate::backend::{Buffer, KernelTable, Operand};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::Op;
use crate::shape::{MAX_RANK, Shape, Spec};

/// An operand as a binding.
#[derive(Clone)]
pub struct Bound {
    /// The range of memory.
    pub operand: Operand,
    /// Whether the kernel writes it.
    pub write: bool,
}

/// One dispatch: the storage bindings in order, then the uniform.
pub struct Dispatch {
    /// The specialisation.
    pub kernel: Kernel,
    /// Storage bindings.
    pub bindings: Vec<Bound>,
    /// The uniform's bytes.
    pub params: Vec<u8>,
    /// Workgroups.
    pub groups: [u32; 3],
}

/// The limits that shape a plan.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Workgroups in one dimension of a dispatch.
    pub workgroups: u32,
    /// Bytes of one binding.
    pub binding_bytes: u64,
    /// Bytes that the offset of a binding is a multiple of.
    pub alignment: usize,
    /// Which kernels compute.
    pub kernels: KernelTable,
}

/// Collects the dispatches of one operation.
pub(super) struct Plan<'a> {
    dispatches: Vec<Dispatch>,
    limits: &'a Limits,
    alloc: &'a dyn Fn(usize) -> Result<Buffer>,
}

/// Invocations of a workgroup in the kernels that take one element each.
const WG: u32 = 256;

impl Plan<'_> {
    /// Workgroups for `count` items, `per` each, folded to two dimensions.
    fn fold(&self, count: usize, per: u32) -> Result<[u32; 3]> {
        let groups = count.div_ceil(per as usize);
        let x = groups.min(self.limits.workgroups as usize);
        let y = groups.div_ceil(x.max(1));
        if y > self.limits.workgroups as usize {
            return Err(Error::Shape(format!(
                "{count} elements need more workgroups than the GPU takes in one dispatch; split the tensor"
            )));
        }
        Ok([x as u32, y as u32, 1])
    }

    /// A temporary f32 or u32 tensor that lives until the recorded work no longer needs it.
    fn scratch(&self, spec: Spec) -> Result<Operand> {
        Ok(Operand { buffer: (self.alloc)(spec.len_bytes())?, offset: 0, spec })
    }

    fn push(
        &mut self,
        kernel: Kernel,
        reads: &[&Operand],
        writes: &[&Operand],
        params: &impl bytemuck::NoUninit,
        groups: [u32; 3],
    ) -> Result<()> {
        let read = reads.iter().map(|o| Bound { operand: (*o).clone(), write: false });
        let write = writes.iter().map(|o| Bound { operand: (*o).clone(), write: true });
        self.push_bound(kernel, read.chain(write).collect(), bytemuck::bytes_of(params).to_vec(), groups)
    }

    fn push_bound(&mut self, mut kernel: Kernel, bindings: Vec<Bound>, params: Vec<u8>, groups: [u32; 3]) -> Result<()> {
        for b in &bindings {
            if b.operand.spec.len_bytes() as u64 > self.limits.binding_bytes {
                return Err(Error::Shape(format!(
                    "operand {} has {} bytes; this GPU binds at most {} at once: use a smaller --batch-size",
                    b.operand.spec,
                    b.operand.spec.len_bytes(),
                    self.limits.binding_bytes
                )));
            }
        }
        if kernel.variant.storage == Storage::F32 && bindings.iter().any(|b| b.operand.spec.dtype == DType::F16) {
            kernel.variant.storage = Storage::F16;
        }
        self.dispatches.push(Dispatch { kernel, bindings, params, groups });
        Ok(())
    }
}

/// A size as the kernels take it.
fn word(v: usize) -> Result<u32> {
    u32::try_from(v).map_err(|_| Error::Shape(format!("a size of {v} does not fit the GPU kernels' 32-bit indices")))
}

/// A list of up to eight numbers in front-padded uniform form.
fn eight(values: &[u32], pad: u32) -> [[u32; 4]; 2] {
    let mut flat = [pad; MAX_RANK];
    flat[MAX_RANK - values.len()..].copy_from_slice(values);
    [[flat[0], flat[1], flat[2], flat[3]], [flat[4], flat[5], flat[6], flat[7]]]
}

fn words(values: impl IntoIterator<Item = usize>) -> Result<Vec<u32>> {
    values.into_iter().map(word).collect()
}

/// Strides as the kernels take them: a negative one is added modulo 2^32.
fn strides(values: &[i64]) -> Result<Vec<u32>> {
    values
        .iter()
        .map(|&v| {
            i32::try_from(v)
                .map(|v| v as u32)
                .map_err(|_| Error::Shape(format!("a stride of {v} does not fit the GPU kernels' 32-bit indices")))
        })
        .collect()
}

/// `operand` as another shape.
fn reshaped(operand: &Operand, dims: &[usize]) -> Result<Operand> {
    Ok(Operand { spec: Spec::new(Shape::new(dims)?, operand.spec.dtype), ..operand.clone() })
}

/// The dispatches of an operation. `alloc` gives temporary memory. Empty results dispatch nothing.
///
/// # Errors
/// [`Error::Shape`] when a size exceeds what the GPU can address.
pub fn lower(
    op: &Op,
    inputs: &[Operand],
    outputs: &[Operand],
    limits: &Limits,
    alloc: &dyn Fn(usize) -> Result<Buffer>,
) -> Result<Vec<Dispatch>> {
    let written = if outputs.is_empty() { &inputs[..1.min(inputs.len())] } else { outputs };
    if written.iter().all(|o| o.spec.shape.is_empty()) {
        return Ok(Vec::new());
    }
    for operand in inputs.iter().chain(outputs) {
        word(operand.spec.shape.len())?;
    }
    let mut plan = Plan { dispatches: Vec::new(), limits, alloc };
    if inputs.iter().chain(outputs).any(|o| o.spec.dtype == DType::F16) && !has_f16_kernels(op) {
        widen(op, inputs, outputs, &mut plan)?;
    } else {
        plan_op(op, inputs, outputs, &mut plan)?;
    }
    Ok(plan.dispatches)
}

/// Whether the family's kernels read and write f16 themselves: those that the activations of a CNN pass through.
fn has_f16_kernels(op: &Op) -> bool {
    matches!(op, Op::Elementwise(_) | Op::Matmul(_) | Op::Conv(_) | Op::Pool(_) | Op::Layout(_) | Op::Random(_) | Op::Norm(_))
}

/// An operation on f16 operands by its f32 kernels, on widened copies.
fn widen(op: &Op, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let wide = |o: &Operand, plan: &Plan| match o.spec.dtype {
        DType::F16 => plan.scratch(Spec::new(o.spec.shape, DType::F32)),
        _ => Ok(o.clone()),
    };
    let wide_inputs = inputs.iter().map(|o| wide(o, plan)).collect::<Result<Vec<_>>>()?;
    let wide_outputs = outputs.iter().map(|o| wide(o, plan)).collect::<Result<Vec<_>>>()?;
    for (from, to) in inputs.iter().zip(&wide_inputs).filter(|(from, _)| from.spec.dtype == DType::F16) {
        elementwise::cast(from, to, plan)?;
    }
    plan_op(op, &wide_inputs, &wide_outputs, plan)?;
    let updated = op.in_place().iter().map(|&i| (&wide_inputs[i], &inputs[i]));
    for (from, to) in wide_outputs.iter().zip(outputs).chain(updated).filter(|(_, to)| to.spec.dtype == DType::F16) {
        elementwise::cast(from, to, plan)?;
    }
    Ok(())
}

fn plan_op(op: &Op, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    match op {
        Op::Elementwise(op) => elementwise::lower(op, inputs, outputs, plan),
        Op::Matmul(op) => matmul::lower(op, inputs, outputs, plan),
        Op::Conv(op) => conv::lower(op, inputs, outputs, plan),
        Op::Pool(op) => pool::lower(op, inputs, outputs, plan),
        Op::Recurrent(op) => recurrent::lower(op, inputs, outputs, plan),
        Op::Reduce(op) => reduce::lower(op, inputs, outputs, plan),
        Op::Scan(op) => scan::lower(op, inputs, outputs, plan),
        Op::Softmax(op) => softmax::lower(op, inputs, outputs, plan),
        Op::Layout(op) => layout::lower(op, inputs, outputs, plan),
        Op::Random(op) => random::lower(op, inputs, outputs, plan),
        Op::Norm(op) => norm::lower(op, inputs, outputs, plan),
        Op::Optimizer(op) => optimizer::lower(op, inputs, outputs, plan),
        Op::Custom(op) => custom::lower(op, inputs, outputs, plan),
    }
}
