//! Counter-based random numbers: Philox-4x32-10, the same in Rust and in `shaders/shared/philox.wgsl`.
//!
//! J. Salmon, M. Moraes, R. Dror, D. Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (SC'11). A value is a function of
//! a key and a counter alone, so every backend, thread count and order of evaluation sees the same numbers.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Rounds of a block.
pub(crate) const ROUNDS: usize = 10;

/// Four random words for a counter under a key: ten rounds.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        (counter, key) = (round(counter, key), next_key(key));
    }
    counter
}

/// One round of [`philox`].
#[inline(always)]
pub(crate) fn round(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let a = MULTIPLIERS[0] as u64 * counter[0] as u64;
    let b = MULTIPLIERS[1] as u64 * counter[2] as u64;
    [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32]
}

/// The key of the round after that of `key`.
#[inline(always)]
pub(crate) fn next_key(key: [u32; 2]) -> [u32; 2] {
    [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])]
}

/// The 24 high bits as a float in `[0, 1)`: exact in f32, so bit-equal on every backend.
#[inline]
pub fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A stream of random numbers, named by what it is for. Two streams with different names are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    /// The Philox key.
    pub key: [u32; 2],
    /// The two high words of the counter; the low words count values.
    pub high: [u32; 2],
}

impl Stream {
    /// The stream of `seed` for the purpose `name` (a layer's path, "shuffle" ...) at two positions (step and use, epoch and sample ...).
    pub fn new(seed: u64, name: &str, a: u64, b: u64) -> Self {
        // The name is folded into the key by a chain of Philox blocks, so that names cannot collide by simple arithmetic.
        let mut state = [seed as u32, (seed >> 32) as u32, a as u32, (a >> 32) as u32];
        state = philox(state, [b as u32, (b >> 32) as u32]);
        for chunk in name.as_bytes().chunks(4) {
            let mut word = [0u8; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            state = philox(state, [u32::from_le_bytes(word), chunk.len() as u32]);
        }
        Stream { key: [state[0], state[1]], high: [state[2], state[3]] }
    }

    /// Word number `index`.
    pub fn word(&self, index: u64) -> u32 {
        let block = index / 4;
        philox([block as u32, (block >> 32) as u32, self.high[0], self.high[1]], self.key)[(index % 4) as usize]
    }

    /// Uniform in `[0, 1)`, number `index`.
    pub fn uniform(&self, index: u64) -> f32 {
        unit(self.word(index))
    }

    /// Standard normal number `index`, by Box and Muller from the words `2 (index/2)` and `2 (index/2) + 1`.
    pub fn normal(&self, index: u64) -> f64 {
        let pair = index / 2 * 2;
        // 1 - u lies in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform(pair) as f64).ln()).sqrt();
        let angle = std::f64::consts::TAU * self.uniform(pair + 1) as f64;
        radius * if index.is_multiple_of(2) { angle.cos() } else { angle.sin() }
    }

    /// Uniform integer in `0..n`, by multiplication of 64 random bits: the bias is below `n / 2^64`.
    pub fn below(&self, index: u64, n: usize) -> usize {
        let bits = (self.word(2 * index) as u64) << 32 | self.word(2 * index + 1) as u64;
        ((bits as u128 * n as u128) >> 64) as usize
    }

    /// A permutation of `0..n` (Fisher and Yates).
    pub fn permutation(&self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64, i + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution (`kat_vectors`, philox4x32 10 rounds).
    #[test]
    fn philox_gives_the_published_words() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn permutations_hold_every_index_once_and_differ_by_stream() {
        let mut a = Stream::new(1, "shuffle", 0, 0).permutation(100);
        assert_ne!(a, Stream::new(1, "shuffle", 1, 0).permutation(100));
        a.sort();
        assert_eq!(a, (0..100).collect::<Vec<u32>>());
    }

    #[test]
    fn normals_have_mean_0_and_variance_1() {
        let stream = Stream::new(7, "normal", 0, 0);
        let n = 20_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for i in 0..n {
            let v = stream.normal(i);
            sum += v;
            squares += v * v;
        }
        // Four standard errors: 4/sqrt(n) for the mean, 4 sqrt(2/n) for the variance.
        assert!((sum / n as f64).abs() < 4.0 / (n as f64).sqrt());
        assert!((squares / n as f64 - 1.0).abs() < 4.0 * (2.0 / n as f64).sqrt());
    }
}
