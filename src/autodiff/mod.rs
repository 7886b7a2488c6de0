//! The tape: what was computed from what, and the walk back along it.
//!
//! A node keeps its operation as data with the operands that its rule asks for; each rule (vjp) stands beside its forward in `tensor/ops`
//! and is itself built from operations, so that every backend shares it. The walk and the drop are loops: a chain of any length fits the stack.

mod check;

pub use check::{GradCheck, check_gradient};

use crate::backend::Operand;
use crate::error::{Error, Result};
use crate::op::{Elementwise, Layout, Op};
use crate::shape::Spec;
use crate::tensor::{Tensor, ops};
use std::cell::Cell;
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

thread_local! {
    static NO_GRAD: Cell<u32> = const { Cell::new(0) };
}

/// While it lives, this thread records no operations.
pub struct NoGrad(std::marker::PhantomData<*const ()>);

/// Stops recording on this thread until the guard is dropped: inference keeps no tape.
pub fn no_grad() -> NoGrad {
    NO_GRAD.set(NO_GRAD.get() + 1);
    NoGrad(std::marker::PhantomData)
}

impl Drop for NoGrad {
    fn drop(&mut self) {
        NO_GRAD.set(NO_GRAD.get() - 1);
    }
}

/// Whether operations of this thread are recorded.
pub fn is_recording() -> bool {
    NO_GRAD.get() == 0
}

/// Where a leaf's gradient is summed: a tensor of its own, or a slice of an optimiser's arena.
#[derive(Default)]
pub struct GradSlot {
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    /// The arena's slice, where an optimiser has gathered the parameter.
    arena: Option<Tensor>,
    /// The gradient so far. In an arena it is a view of `arena`.
    grad: Option<Tensor>,
}

impl GradSlot {
    fn lock(&self) -> std::sync::MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gradient summed since the last [`GradSlot::clear`].
    pub fn grad(&self) -> Option<Tensor> {
        self.lock().grad.clone()
    }

    /// Forgets the gradient; the next contribution overwrites it, so that nothing needs to be zeroed.
    pub fn clear(&self) {
        self.lock().grad = None;
    }

    /// From now on gradients are written into `slice`.
    pub fn set_arena(&self, slice: Tensor) {
        *self.lock() = SlotState { arena: Some(slice), grad: None };
    }

    /// Makes an arena's slice hold the gradient: zeros where backward never reached the parameter.
    pub(crate) fn fill_missing(&self) -> Result<()> {
        let mut state = self.lock();
        if let (Some(arena), None) = (&state.arena, &state.grad) {
            let op = Op::Elementwise(Elementwise::Fill { value: 0.0, spec: arena.spec() });
            arena.device().run(&op, &[], &[arena.operand().clone()])?;
            state.grad = state.arena.clone();
        }
        Ok(())
    }
}

/// A tensor kept for the backward pass, or only its shape and type.
pub struct Saved {
    tensor: Option<Tensor>,
    spec: Spec,
}

/// What was done: an operation, or a change of shape that moves no data.
pub enum Step {
    /// An operation.
    Op(Op),
    /// A view of another shape.
    Reshape,
    /// A view of a part that begins at this element.
    Narrow(usize),
}

/// One recorded step.
pub struct Recorded {
    pub(crate) step: Step,
    inputs: Vec<Saved>,
    outputs: Vec<Saved>,
}

impl Recorded {
    /// Input `i`, if its rule saved it.
    pub(crate) fn input(&self, i: usize) -> Result<&Tensor> {
        self.inputs[i].tensor.as_ref().ok_or_else(|| Error::Autodiff(format!("input {i} was not saved for the backward pass")))
    }

    /// Output `i`, if its rule saved it.
    pub(crate) fn output(&self, i: usize) -> Result<&Tensor> {
        self.outputs[i].tensor.as_ref().ok_or_else(|| Error::Autodiff(format!("output {i} was not saved for the backward pass")))
    }

    /// The number of inputs.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Shape and type of input `i`.
    pub(crate) fn input_spec(&self, i: usize) -> Spec {
        self.inputs[i].spec
    }
}

/// A tensor's place on the tape.
pub struct Node {
    /// Grows with creation, so a node's inputs have smaller numbers: descending order is a valid backward order.
    id: u64,
    kind: Kind,
}

#[allow(clippy::large_enum_variant)] // a leaf is rare beside the steps; a box would cost every step an allocation
enum Kind {
    Leaf(Arc<GradSlot>),
    Inner { parents: Mutex<Vec<Option<Arc<Node>>>>, recorded: Mutex<Option<Recorded>> },
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Node {
    pub(crate) fn leaf(slot: Arc<GradSlot>) -> Arc<Node> {
        Arc::new(Node { id: next_id(), kind: Kind::Leaf(slot) })
    }

    pub(crate) fn slot(&self) -> Option<&Arc<GradSlot>> {
        match &self.kind {
            Kind::Leaf(slot) => Some(slot),
            Kind::Inner { .. } => None,
        }
    }

    /// Records a step when one of its inputs is on the tape.
    pub(crate) fn record(step: Step, inputs: &[&Tensor], outputs: &[Tensor]) -> Option<Arc<Node>> {
        if !is_recording() || inputs.iter().all(|t| t.node().is_none()) {
            return None;
        }
        let (keep_in, keep_out) = match &step {
            Step::Op(op) => ops::saves(op),
            Step::Reshape | Step::Narrow(_) => (&[][..], &[][..]),
        };
        // Saved tensors are detached: the graph hangs together by `parents` alone, so that dropping it can be a loop.
        let save = |(i, t): (usize, &Tensor), keep: &[usize]| Saved { tensor: keep.contains(&i).then(|| t.detach()), spec: t.spec() };
        let recorded = Recorded {
            inputs: inputs.iter().enumerate().map(|(i, t)| save((i, t), keep_in)).collect(),
            outputs: outputs.iter().enumerate().map(|x| save(x, keep_out)).collect(),
            step,
        };
        let parents = inputs.iter().map(|t| t.node().cloned()).collect();
        Some(Arc::new(Node { id: next_id(), kind: Kind::Inner { parents: Mutex::new(parents), recorded: Mutex::new(Some(recorded)) } }))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let take = |node: &mut Node| match &mut node.kind {
            Kind::Inner { parents, .. } => std::mem::take(parents.get_mut().unwrap_or_else(PoisonError::into_inner)),
            Kind::Leaf(_) => Vec::new(),
        };
        let mut stack = take(self);
        while let Some(parent) = stack.pop() {
            if let Some(mut node) = parent.and_then(Arc::into_inner) {
                stack.extend(take(&mut node));
            }
        }
    }
}

/// The sum of the gradients that have reached a step so far.
struct Pending {
    sum: Tensor,
    /// Nobody else holds this tensor: it may be added to in place.
    owned: bool,
}

/// Receives the gradients of one step's inputs, and decides where each is computed.
pub struct Grads<'a> {
    parents: &'a [Option<Arc<Node>>],
    pending: &'a mut HashMap<u64, Pending>,
    heap: &'a mut BinaryHeap<ByAge>,
}

impl Grads<'_> {
    /// Whether anyone asks for the gradient of input `i`.
    pub(crate) fn needs(&self, i: usize) -> bool {
        self.parents.get(i).is_some_and(Option::is_some)
    }

    /// The outputs of `op` are the gradients of the inputs `targets`. A leaf's first gradient is computed right in its arena.
    pub(crate) fn op(&mut self, targets: &[usize], op: impl Into<Op>, inputs: &[&Tensor]) -> Result<()> {
        if !targets.iter().any(|&t| self.needs(t)) {
            return Ok(());
        }
        let op = op.into();
        let device = inputs[0].device();
        let specs: Vec<Spec> = inputs.iter().map(|t| t.spec()).collect();
        let mut outputs = Vec::new();
        for (&target, spec) in targets.iter().zip(op.infer(&specs)?) {
            let place = match self.parents[target].as_ref().and_then(|n| n.slot()) {
                Some(slot) => {
                    let state = slot.lock();
                    state.arena.clone().filter(|a| state.grad.is_none() && a.spec().shape.len() == spec.shape.len())
                }
                None => None,
            };
            outputs.push(match place {
                Some(arena) => arena.view(spec.shape)?,
                None => Tensor::empty(device, spec)?,
            });
        }
        let operands: Vec<_> = inputs.iter().map(|t| t.operand().clone()).collect();
        let results: Vec<_> = outputs.iter().map(|t| t.operand().clone()).collect();
        device.run(&op, &operands, &results)?;
        targets.iter().zip(outputs).try_for_each(|(&target, grad)| self.add(target, grad))
    }

    /// `grad` is (a part of) the gradient of input `target`.
    pub(crate) fn add(&mut self, target: usize, grad: Tensor) -> Result<()> {
        let Some(node) = &self.parents[target] else { return Ok(()) };
        let Kind::Leaf(slot) = &node.kind else {
            let pending = match self.pending.remove(&node.id) {
                Some(Pending { sum, .. }) => Pending { sum: sum.add(&grad)?, owned: true },
                None => {
                    self.heap.push(ByAge(Arc::clone(node)));
                    Pending { sum: grad, owned: false }
                }
            };
            self.pending.insert(node.id, pending);
            return Ok(());
        };
        let mut state = slot.lock();
        let SlotState { arena, grad: sum } = &mut *state;
        *sum = Some(match (arena, sum.take()) {
            (Some(arena), None) => {
                let in_place = arena.operand().buffer.same(&grad.operand().buffer) && arena.operand().offset == grad.operand().offset;
                if !in_place {
                    let copy = Op::Layout(Layout::Expand { shape: arena.spec().shape });
                    let grad = grad.reshape(&arena.spec().shape)?;
                    arena.device().run(&copy, &[grad.operand().clone()], &[arena.operand().clone()])?;
                }
                arena.clone()
            }
            (Some(_), Some(sum)) => {
                let grad = grad.reshape(&sum.spec().shape)?;
                sum.device().run(&Op::Elementwise(Elementwise::AddAssign), &[sum.operand().clone(), grad.operand().clone()], &[])?;
                sum
            }
            // Without an arena the sum is a new tensor: `grad` may also be somebody else's gradient.
            (None, Some(sum)) => sum.add(&grad.reshape(&sum.spec().shape)?)?,
            (None, None) => grad,
        });
        Ok(())
    }
}

impl Grads<'_> {
    /// `grad` is (a part of) the gradient of the only input, whose elements from `start` on it belongs to. The parts of one tensor, such as the
    /// steps of a sequence, are added to one sum in place, so that all of them together cost what the tensor does.
    fn add_part(&mut self, start: usize, grad: &Tensor, input: Spec) -> Result<()> {
        let Some(node) = &self.parents[0] else { return Ok(()) };
        let device = grad.device();
        let part = |sum: &Tensor| Operand { offset: sum.operand().offset + start, spec: grad.spec(), ..sum.operand().clone() };
        let zeros = || -> Result<Tensor> {
            let sum = Tensor::empty(device, input)?;
            device.run(&Op::Elementwise(Elementwise::Fill { value: 0.0, spec: input }), &[], &[sum.operand().clone()])?;
            Ok(sum)
        };
        let sum = match self.pending.remove(&node.id) {
            Some(Pending { sum, owned: true }) => sum,
            Some(Pending { sum, owned: false }) => {
                let own = Tensor::empty(device, input)?;
                device.run(&Op::Layout(Layout::Expand { shape: input.shape }), &[sum.operand().clone()], &[own.operand().clone()])?;
                own
            }
            None => {
                if node.slot().is_none() {
                    self.heap.push(ByAge(Arc::clone(node)));
                }
                zeros()?
            }
        };
        device.run(&Op::Elementwise(Elementwise::AddAssign), &[part(&sum), grad.operand().clone()], &[])?;
        if node.slot().is_some() {
            return self.add(0, sum);
        }
        self.pending.insert(node.id, Pending { sum, owned: true });
        Ok(())
    }
}

/// Orders nodes by age, the youngest first.
struct ByAge(Arc<Node>);
impl PartialEq for ByAge {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}
impl Eq for ByAge {}
impl PartialOrd for ByAge {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ByAge {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

/// Walks back from `root`, whose gradient is `seed`, and adds into every leaf's slot. The tape is used up.
///
/// # Errors
/// [`Error::Autodiff`] when `root` is not on the tape, was walked already, or passes an operation without a gradient.
pub fn backward(root: &Tensor, seed: Tensor) -> Result<()> {
    let Some(node) = root.node() else {
        return Err(Error::Autodiff("backward: this tensor does not depend on any tensor that requires a gradient".into()));
    };
    let _guard = no_grad();
    let (mut pending, mut heap) =
        (HashMap::from([(node.id, Pending { sum: seed, owned: false })]), BinaryHeap::from([ByAge(Arc::clone(node))]));
    while let Some(ByAge(node)) = heap.pop() {
        let Some(Pending { sum: dy, .. }) = pending.remove(&node.id) else { continue };
        let Kind::Inner { parents, recorded } = &node.kind else {
            // Only the root itself can be a leaf here: all others are served by `Grads::add`.
            let parents = [Some(Arc::clone(&node))];
            Grads { parents: &parents, pending: &mut pending, heap: &mut heap }.add(0, dy)?;
            continue;
        };
        let Some(recorded) = recorded.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Err(Error::Autodiff("backward: the tape was used up by an earlier backward; run the forward pass again".into()));
        };
        // Taken out: the step's part of the graph is freed as soon as it has been walked.
        let parents = std::mem::take(&mut *parents.lock().unwrap_or_else(PoisonError::into_inner));
        let mut grads = Grads { parents: &parents, pending: &mut pending, heap: &mut heap };
        match &recorded.step {
            Step::Op(op) => ops::vjp(op, &recorded, &dy, &mut grads)?,
            Step::Reshape => grads.add(0, dy.reshape(&recorded.input_spec(0).shape)?)?,
            Step::Narrow(start) => grads.add_part(*start, &dy, recorded.input_spec(0))?,
        }
    }
    Ok(())
}
