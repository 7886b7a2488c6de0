// Functions whose WGSL builtins are looser than mappa promises: exp is allowed 3 + 2|x| ulp, log 2^-21 absolute near 1, tanh 2^-11 and worse.
// These stay within about 4 ulp. Series are Taylor's, cut where the next term is below half an ulp of the range they serve.

fn is_nan(x: f32) -> bool {
    // By bits: WGSL lets a compiler assume that NaN does not occur.
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

fn power_of_two(k: i32) -> f32 {
    return bitcast<f32>(u32(k + 127) << 23u);
}

// e^r for |r| <= ln(2)/2: terms to r^7, the next is below 5e-9.
fn exp_small(r: f32) -> f32 {
    return 1.0 + r * (1.0 + r * (0.5 + r * (0.16666667 + r * (0.041666668 + r * (0.008333334 + r * (0.0013888889 + r * 0.0001984127))))));
}

fn accurate_exp(x: f32) -> f32 {
    if is_nan(x) { return x; }
    let clamped = clamp(x, -104.0, 90.0);
    let k = round(clamped * 1.4426950);
    // ln 2 in two parts, the first with 9 bits so that k times it is exact.
    let r = (clamped - k * 0.69335938) + k * 0.00021219444;
    let half = i32(k) / 2;
    // Two factors, so that neither leaves the exponent's range before the result does.
    return exp_small(r) * power_of_two(half) * power_of_two(i32(k) - half);
}

fn accurate_log(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    // Zero, negative, denormal, infinite and NaN go to the builtin.
    if bits < 0x00800000u || bits >= 0x7f800000u { return log(x); }
    var exponent = i32(bits >> 23u) - 127;
    var m = bitcast<f32>((bits & 0x007fffffu) | 0x3f800000u);
    if m > 1.4142135 {
        m *= 0.5;
        exponent += 1;
    }
    // log m = 2 atanh(s), |s| <= 0.1716: terms to s^9, the next is below 1e-9.
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let series = 2.0 * s * (1.0 + s2 * (0.33333334 + s2 * (0.2 + s2 * (0.14285715 + s2 * 0.11111111))));
    let e = f32(exponent);
    return e * 0.69335938 + (series - e * 0.00021219444);
}

fn accurate_tanh(x: f32) -> f32 {
    if is_nan(x) { return x; }
    let t = min(2.0 * abs(x), 30.0);
    // tanh = (e^t - 1) / (e^t + 1), with the difference as a series where it would cancel.
    var d = t * (1.0 + t * (0.5 + t * (0.16666667 + t * (0.041666668 + t * (0.008333334 + t * (0.0013888889 + t * (0.0001984127 + t * (0.0000248015873 + t * 0.0000027557319))))))));
    if t > 0.7 { d = accurate_exp(t) - 1.0; }
    return sign(x) * (d / (d + 2.0));
}

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + accurate_exp(-x));
}

// (cos, sin) of 2 pi u for u in [0, 1): the quadrant is exact, the rest within pi/4.
fn cos_sin_turns(u: f32) -> vec2<f32> {
    let quadrant = floor(4.0 * u + 0.5);
    let r = (4.0 * u - quadrant) * 1.5707964;
    let r2 = r * r;
    let s = r * (1.0 - r2 * (0.16666667 - r2 * (0.008333334 - r2 * (0.0001984127 - r2 * 0.0000027557319))));
    let c = 1.0 - r2 * (0.5 - r2 * (0.041666668 - r2 * (0.0013888889 - r2 * (0.0000248015873 - r2 * 0.00000027557319))));
    switch u32(quadrant) % 4u {
        case 0u: { return vec2(c, s); }
        case 1u: { return vec2(-s, c); }
        case 2u: { return vec2(-c, -s); }
        default: { return vec2(s, -c); }
    }
}
