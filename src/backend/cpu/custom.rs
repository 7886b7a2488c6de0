//! Operations from outside the crate, by their own reference in f64.

use super::Args;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::op::Custom;
use crate::shape::Spec;

pub(super) fn run(op: &Custom, args: &mut Args) -> Result<()> {
    let wide: Vec<Vec<f64>> = args.specs.iter().zip(&args.ins).map(|(spec, bytes)| widen(spec, bytes)).collect();
    let inputs: Vec<(Spec, &[f64])> = args.specs.iter().copied().zip(wide.iter().map(Vec::as_slice)).collect();
    let results = op.reference(&inputs);
    let lengths = |lens: &mut dyn Iterator<Item = usize>| lens.map(|l| l.to_string()).collect::<Vec<_>>().join(", ");
    let got = lengths(&mut results.iter().map(Vec::len));
    let want = lengths(&mut args.out_specs.iter().map(|s| s.shape.len()));
    if got != want {
        return Err(Error::Shape(format!("{}: its reference gave [{got}] elements, its shape rule says [{want}]", op.name())));
    }
    for ((values, spec), bytes) in results.iter().zip(args.out_specs).zip(&mut args.outs) {
        match spec.dtype {
            DType::F32 | DType::F16 => narrow(values, bytes, f32::from_f64),
            DType::F64 => narrow(values, bytes, |v| v),
            DType::U32 => narrow(values, bytes, |v| v as u32),
            DType::I32 => narrow(values, bytes, |v| v as i32),
        }
    }
    Ok(())
}

fn widen(spec: &Spec, bytes: &[u8]) -> Vec<f64> {
    match spec.dtype {
        DType::F32 | DType::F16 => bytemuck::cast_slice(bytes).iter().map(|&v: &f32| v as f64).collect(),
        DType::F64 => bytemuck::cast_slice(bytes).to_vec(),
        DType::U32 => bytemuck::cast_slice(bytes).iter().map(|&v: &u32| v as f64).collect(),
        DType::I32 => bytemuck::cast_slice(bytes).iter().map(|&v: &i32| v as f64).collect(),
    }
}

fn narrow<T: bytemuck::Pod>(values: &[f64], bytes: &mut [u8], convert: impl Fn(f64) -> T) {
    bytemuck::cast_slice_mut(bytes).iter_mut().zip(values).for_each(|(to, &v)| *to = convert(v));
}
