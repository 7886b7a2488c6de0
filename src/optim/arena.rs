//! Arenas: parameters, gradients and optimiser state of many parameters in one buffer each, all of the same layout.

use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nn::Parameter;
use crate::tensor::Tensor;

/// One parameter of a chunk.
pub(super) struct Member {
    pub named: (String, Parameter),
    /// First element in the chunk's arenas.
    offset: usize,
}

/// Arenas of one layout. Every slice starts at a multiple of the device's alignment; the elements between slices are 0 and stay 0,
/// as an update of weight 0 by gradient 0 and state 0 is 0.
pub(super) struct Chunk {
    pub members: Vec<Member>,
    pub weights: Tensor,
    pub gradients: Tensor,
    pub state: Vec<Tensor>,
}

/// Which parameters go into one chunk and where each starts.
#[derive(Debug, PartialEq)]
struct Plan {
    offsets: Vec<usize>,
    len: usize,
}

/// Lays out slices of `lengths` elements in order: none crosses the border of a chunk of at most `limit` elements.
fn plan(lengths: &[usize], alignment: usize, limit: usize) -> Vec<Plan> {
    let mut plans: Vec<Plan> = Vec::new();
    for &length in lengths {
        let padded = length.next_multiple_of(alignment);
        match plans.last_mut() {
            Some(plan) if plan.len.saturating_add(padded) <= limit => {
                plan.offsets.push(plan.len);
                plan.len += padded;
            }
            _ => plans.push(Plan { offsets: vec![0], len: padded }),
        }
    }
    plans
}

/// Moves the parameters of one group into arenas with `state_count` arenas of state.
pub(super) fn gather(parameters: Vec<(String, Parameter)>, state_count: usize) -> Result<Vec<Chunk>> {
    let Some(first) = parameters.first().map(|(_, parameter)| parameter.data()) else { return Ok(Vec::new()) };
    let (device, dtype) = (first.device(), first.dtype());
    let capabilities = device.capabilities();
    let (alignment, limit) = (capabilities.alignment.div_ceil(dtype.size()).max(1), capabilities.max_buffer_bytes / dtype.size());
    let lengths: Vec<usize> = parameters.iter().map(|(_, parameter)| parameter.shape().len()).collect();
    if let Some(i) = lengths.iter().position(|length| length.next_multiple_of(alignment) > limit) {
        return Err(Error::Device(format!(
            "optimizer: parameter {} has {} elements, but {} takes at most {limit} in one buffer",
            parameters[i].0,
            lengths[i],
            device.name()
        )));
    }
    let mut parameters = parameters.into_iter();
    let chunk = |plan: Plan| {
        let members = plan.offsets.iter().zip(&mut parameters).map(|(&offset, named)| Member { named, offset }).collect();
        Chunk::new(device, dtype, members, plan.len, state_count)
    };
    plan(&lengths, alignment, limit).into_iter().map(chunk).collect()
}

impl Chunk {
    fn new(device: &Device, dtype: DType, members: Vec<Member>, len: usize, state_count: usize) -> Result<Self> {
        let zeros = || Tensor::full(device, &[len], dtype, 0.0);
        let state = (0..state_count).map(|_| zeros()).collect::<Result<_>>()?;
        let chunk = Chunk { members, weights: zeros()?, gradients: zeros()?, state };
        let (weights, gradients) = (chunk.slices(&chunk.weights), chunk.slices(&chunk.gradients));
        for ((member, weight), gradient) in chunk.members.iter().zip(weights).zip(gradients) {
            member.named.1.gather(weight, gradient)?;
        }
        Ok(chunk)
    }

    /// Each member's part of one of the arenas.
    pub fn slices(&self, arena: &Tensor) -> Vec<Tensor> {
        self.members.iter().map(|member| arena.slice_of_arena(member.offset, member.named.1.shape())).collect()
    }

    /// Gradients that no backward pass reached become 0.
    pub fn fill_missing(&self) -> Result<()> {
        self.members.iter().try_for_each(|member| member.named.1.slot().fill_missing())
    }

    /// An optimiser made later may have moved a parameter away: this one would then train a forgotten copy.
    pub fn check(&self) -> Result<()> {
        match self.members.iter().find(|member| !member.named.1.data().operand().buffer.same(&self.weights.operand().buffer)) {
            Some(member) => Err(Error::Config(format!(
                "optimizer: parameter {} belongs to another optimizer now; make one optimizer for each set of parameters",
                member.named.0
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Init;

    #[test]
    fn slices_are_aligned_and_none_crosses_a_border() {
        let plans = plan(&[3, 64, 65, 200, 0, 1], 64, 256);
        let expected =
            [Plan { offsets: vec![0, 64, 128], len: 256 }, Plan { offsets: vec![0, 256], len: 256 }, Plan { offsets: vec![0], len: 64 }];
        assert_eq!(plans, expected);
        assert!(plan(&[], 64, 256).is_empty());
    }

    #[test]
    fn parameters_become_views_and_padding_is_zero() {
        let device = Device::cpu(1).unwrap();
        let parameters: Vec<(String, Parameter)> = [3, 4, 1]
            .iter()
            .map(|&n| {
                let parameter = Parameter::new(&device, &[n], Init::Default).unwrap();
                parameter.write(&vec![n as f32; n]).unwrap();
                (format!("p{n}"), parameter)
            })
            .collect();
        let chunks = gather(parameters.clone(), 2).unwrap();
        let [chunk] = &chunks[..] else { panic!("{} chunks", chunks.len()) };
        assert_eq!(chunk.state.len(), 2);
        // The CPU aligns to 8 bytes, two elements.
        assert_eq!(chunk.weights.to_vec_blocking::<f32>().unwrap(), [3., 3., 3., 0., 4., 4., 4., 4., 1., 0.]);
        for (_, parameter) in &parameters {
            assert!(parameter.data().operand().buffer.same(&chunk.weights.operand().buffer));
        }
        chunk.weights.write(&[0.0f32, 1., 2., 3., 4., 5., 6., 7., 8., 9.]).unwrap();
        assert_eq!(parameters[1].1.data().to_vec_blocking::<f32>().unwrap(), [4., 5., 6., 7.]);
    }
}
