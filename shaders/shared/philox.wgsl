// Philox-4x32-10 (Salmon et al. 2011), word for word what src/rng.rs computes.

fn mul_high(a: u32, b: u32) -> u32 {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let low = a0 * b0;
    let mid = a1 * b0 + (low >> 16u);
    let mid2 = a0 * b1 + (mid & 0xffffu);
    return a1 * b1 + (mid >> 16u) + (mid2 >> 16u);
}

fn philox(start: vec4<u32>, start_key: vec2<u32>) -> vec4<u32> {
    var counter = start;
    var key = start_key;
    for (var round = 0u; round < 10u; round++) {
        let a = 0xD2511F53u;
        let b = 0xCD9E8D57u;
        counter = vec4(mul_high(b, counter.z) ^ counter.y ^ key.x, b * counter.z, mul_high(a, counter.x) ^ counter.w ^ key.y, a * counter.x);
        key += vec2(0x9E3779B9u, 0xBB67AE85u);
    }
    return counter;
}

// The 24 high bits in [0, 1): exact in f32.
fn unit(word: u32) -> f32 {
    return f32(word >> 8u) * (1.0 / 16777216.0);
}
