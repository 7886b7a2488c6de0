//! A case: an operation with inputs, whose values follow from a description.

use super::list::half_cast;
use crate::backend::cpu::Cpu;
use crate::backend::{Backend, Operand};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::Op;
use crate::rng::Stream;
use crate::shape::{Shape, Spec};

/// Where an input's values come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Uniform floats in `[low, high)`.
    Uniform(Vec<usize>, f64, f64),
    /// Integers (i32) in `0..n`.
    Below(Vec<usize>, usize),
    /// Small whole numbers as floats, so that equal values occur.
    Ties(Vec<usize>),
    /// Floats among which NaN, infinities and zeros of both signs are common.
    Special(Vec<usize>),
    /// 0 or 1 (u32).
    Flags(Vec<usize>),
    /// Result number `.2` of an operation on inputs of its own, computed by the reference.
    Output(Op, Vec<Data>, usize),
}

/// One call to compare on two devices.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The operation.
    pub op: Op,
    /// Its inputs.
    pub inputs: Vec<Data>,
    /// Whether its gradient is checked too (small shapes, smooth inputs).
    pub differentiable: bool,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        fn input(d: &Data) -> String {
            match d {
                Data::Ties(shape) => format!("{shape:?} with ties"),
                Data::Special(shape) => format!("{shape:?} with NaN and infinities"),
                Data::Uniform(shape, low, high) if (*low, *high) != (-1.0, 1.0) => format!("{shape:?} from {low} to {high}"),
                Data::Below(shape, n) => format!("{shape:?} below {n}"),
                Data::Flags(shape) => format!("{shape:?} of 0 and 1"),
                Data::Output(op, from, _) if *op == half_cast() => format!("{} in f16", input(&from[0])),
                other => format!("{:?}", other.shape()),
            }
        }
        let inputs: Vec<String> = self.inputs.iter().map(input).collect();
        write!(f, "{:?} on {}", self.op, inputs.join(", "))
    }
}

impl Data {
    /// The shape.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Data::Uniform(shape, ..) | Data::Below(shape, _) | Data::Ties(shape) | Data::Special(shape) | Data::Flags(shape) => {
                shape.clone()
            }
            Data::Output(op, inputs, i) => {
                let specs: Vec<Spec> = inputs.iter().filter_map(|d| d.spec().ok()).collect();
                op.infer(&specs).ok().and_then(|s| s.get(*i).copied()).map(|s| s.shape.to_vec()).unwrap_or_default()
            }
        }
    }

    /// Shape and type; floats are f32 but where an operation made them others.
    ///
    /// # Errors
    /// [`Error::Shape`] for a row that is wrong in itself.
    pub fn spec(&self) -> Result<Spec> {
        Ok(match self {
            Data::Uniform(shape, ..) | Data::Ties(shape) | Data::Special(shape) => Spec::new(Shape::new(shape)?, DType::F32),
            Data::Flags(shape) => Spec::new(Shape::new(shape)?, DType::U32),
            Data::Below(shape, _) => Spec::new(Shape::new(shape)?, DType::I32),
            Data::Output(op, inputs, i) => {
                let specs = inputs.iter().map(Data::spec).collect::<Result<Vec<_>>>()?;
                *op.infer(&specs)?.get(*i).ok_or_else(|| Error::Shape(format!("{} has no result {i}", op.name())))?
            }
        })
    }

    /// The values as bytes of the spec's type; `salt` tells inputs of one case apart.
    ///
    /// # Errors
    /// As [`Data::spec`].
    pub fn bytes(&self, reference: &Cpu, salt: u64) -> Result<Vec<u8>> {
        let len = self.spec()?.shape.len() as u64;
        let stream = Stream::new(salt, "case", len, 0);
        let floats = |f: &dyn Fn(u64) -> f64| -> Vec<u8> {
            bytemuck::allocation::pod_collect_to_vec(&(0..len).map(|i| f(i) as f32).collect::<Vec<f32>>())
        };
        Ok(match self {
            Data::Uniform(_, low, high) => floats(&|i| low + (high - low) * stream.uniform(i) as f64),
            Data::Ties(_) => floats(&|i| stream.below(i, 4) as f64 - 2.0),
            Data::Special(_) => floats(&|i| {
                let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0, 3.4e38, -2.5, 2.5];
                values[stream.below(i, values.len())]
            }),
            Data::Flags(_) => bytemuck::allocation::pod_collect_to_vec(&(0..len).map(|i| stream.below(i, 2) as u32).collect::<Vec<u32>>()),
            Data::Below(_, n) => {
                bytemuck::allocation::pod_collect_to_vec(&(0..len).map(|i| stream.below(i, (*n).max(1)) as i32).collect::<Vec<i32>>())
            }
            Data::Output(op, inputs, i) => {
                let operands = inputs
                    .iter()
                    .enumerate()
                    .map(|(j, d)| operand(reference, d.spec()?, &d.bytes(reference, salt.wrapping_mul(31) + j as u64)?))
                    .collect::<Result<Vec<_>>>()?;
                let specs: Vec<Spec> = operands.iter().map(|o| o.spec).collect();
                let outputs =
                    op.infer(&specs)?.into_iter().map(|s| operand(reference, s, &vec![0; s.len_bytes()])).collect::<Result<Vec<_>>>()?;
                reference.run(op, &operands, &outputs)?;
                pollster::block_on(reference.read(&outputs[*i].buffer, outputs[*i].range()))?
            }
        })
    }
}

/// A new buffer on `backend` that holds `bytes`.
pub(crate) fn operand(backend: &dyn Backend, spec: Spec, bytes: &[u8]) -> Result<Operand> {
    let buffer = backend.alloc(bytes.len())?;
    if !bytes.is_empty() {
        backend.write(&buffer, 0, bytes)?;
    }
    Ok(Operand { buffer, offset: 0, spec })
}
