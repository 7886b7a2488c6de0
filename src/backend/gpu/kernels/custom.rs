//! The dispatch of an operation from outside the crate.

use super::{Bound, Kernel, Plan};
use crate::backend::Operand;
use crate::error::{Error, Result};
use crate::op::Custom;
use crate::shape::Spec;

pub(super) fn lower(op: &Custom, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let specs = |operands: &[Operand]| operands.iter().map(|o| o.spec).collect::<Vec<Spec>>();
    let (ins, outs) = (specs(inputs), specs(outputs));
    let (params, groups) = (op.params(&ins, &outs), op.workgroups(&ins, &outs));
    if params.is_empty() || !params.len().is_multiple_of(16) {
        return Err(Error::Shape(format!("{}: params has {} bytes; give a multiple of 16, at least 16", op.name(), params.len())));
    }
    if groups.iter().any(|&g| g == 0 || g > plan.limits.workgroups) {
        return Err(Error::Shape(format!(
            "{}: {groups:?} workgroups; the GPU takes 1 to {} in each direction",
            op.name(),
            plan.limits.workgroups
        )));
    }
    let bound = |write: bool| move |o: &Operand| Bound { operand: o.clone(), write };
    let bindings = inputs.iter().map(bound(false)).chain(outputs.iter().map(bound(true))).collect();
    let kernel = Kernel { text: Some(op.shader()), ..Kernel::new(op.name(), "main") };
    plan.push_bound(kernel, bindings, params, groups)
}
