// Functions whose WGSL builtins are looser than mappa promises: exp is allowed 3 + 2|x| ulp, log 2^-21 absolute near 1, tanh 2^-11 and worse.
// These stay within about 4 ulp. Series are Taylor's, cut where the next term is below half an ulp of the range they serve.

fn is_nan(x: f32) -> bool {
    // By bits: WGSL lets a compiler assume that NaN does not occur.
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// Both through a variable: constants that are no finite numbers are errors in WGSL.
fn nan() -> f32 {
    var bits = 0x7fc00000u;
    return bitcast<f32>(bits);
}

fn infinity() -> f32 {
    var bits = 0x7f800000u;
    return bitcast<f32>(bits);
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

// e^x - 1, by its series where the difference would cancel: terms to x^8, the next is below 2e-9 of the result.
fn accurate_expm1(x: f32) -> f32 {
    if abs(x) > 0.35 || is_nan(x) { return accurate_exp(x) - 1.0; }
    return x * (1.0 + x * (0.5 + x * (0.16666667 + x * (0.041666668 + x * (0.008333334 + x * (0.0013888889 + x * (0.0001984127 + x * 0.0000248015873)))))));
}

// log(1 + x) for x >= -1: near 0 as 2 atanh(x / (2 + x)) to s^9, whose argument is at most 0.18 there.
fn accurate_log1p(x: f32) -> f32 {
    if x < -0.29 || x > 0.41 || is_nan(x) { return accurate_log(1.0 + x); }
    let s = x / (2.0 + x);
    let s2 = s * s;
    return 2.0 * s * (1.0 + s2 * (0.33333334 + s2 * (0.2 + s2 * (0.14285715 + s2 * 0.11111111))));
}

// log(1 + e^x) without overflow.
fn softplus(x: f32) -> f32 {
    if is_nan(x) { return x; }
    return max(x, 0.0) + accurate_log1p(accurate_exp(-abs(x)));
}

// (cos, sin) of `quadrant` quarters of a turn and r radians, |r| <= pi/4.
fn quarter_turns(quadrant: f32, r: f32) -> vec2<f32> {
    let r2 = r * r;
    let s = r * (1.0 - r2 * (0.16666667 - r2 * (0.008333334 - r2 * (0.0001984127 - r2 * 0.0000027557319))));
    let c = 1.0 - r2 * (0.5 - r2 * (0.041666668 - r2 * (0.0013888889 - r2 * (0.0000248015873 - r2 * 0.00000027557319))));
    switch u32(i32(quadrant) & 3) {
        case 0u: { return vec2(c, s); }
        case 1u: { return vec2(-s, c); }
        case 2u: { return vec2(-c, -s); }
        default: { return vec2(s, -c); }
    }
}

// (cos, sin) of x radians. x less its multiple of pi / 2, which is subtracted in three parts: the first two have 8 and 11 bits, so that their
// products are exact for |x| below 8,000; beyond, the error grows by |x| 2^-42.
fn cos_sin(x: f32) -> vec2<f32> {
    let quadrant = round(x * 0.63661975);
    let r = ((x - quadrant * 1.5703125) - quadrant * 0.00048375129699707) - quadrant * 0.0000000754978995;
    return quarter_turns(quadrant, r);
}

// The angle is brought below pi / 8 by atan(x) = pi/4 + atan((x - 1) / (x + 1)) and atan(x) = pi/2 - atan(1 / x); then a polynomial in x^2 (Chebyshev
// fit, 2e-8 relative).
fn accurate_atan(x: f32) -> f32 {
    if is_nan(x) { return x; }
    let a = abs(x);
    var base = 0.0;
    var t = a;
    if a > 2.4142135 {
        base = 1.5707964;
        t = -1.0 / a;
    } else if a > 0.41421357 {
        base = 0.78539819;
        t = (a - 1.0) / (a + 1.0);
    }
    let t2 = t * t;
    let y = base + t * (1.0 + t2 * (-0.33332786 + t2 * (0.19974083 + t2 * (-0.1384849 + t2 * 0.079762913))));
    return select(y, -y, x < 0.0);
}

fn accurate_asin(x: f32) -> f32 {
    if abs(x) >= 1.0 { return select(nan(), x * 1.5707964, abs(x) == 1.0); }
    return accurate_atan(x / sqrt((1.0 - x) * (1.0 + x)));
}

fn accurate_acos(x: f32) -> f32 {
    if abs(x) >= 1.0 { return select(nan(), select(0.0, 3.1415927, x < 0.0), abs(x) == 1.0); }
    return 2.0 * accurate_atan(sqrt((1.0 - x) / (1.0 + x)));
}

fn accurate_sinh(x: f32) -> f32 {
    if is_nan(x) { return x; }
    let a = abs(x);
    var y = 0.0;
    if a < 1.0 {
        // (e^x - e^-x) / 2 with e^x = 1 + m: m (2 + m) / (2 (1 + m)).
        let m = accurate_expm1(a);
        y = 0.5 * m * (2.0 + m) / (1.0 + m);
    } else {
        // In halves, because e^a may overflow where sinh does not.
        let h = accurate_exp(0.5 * a);
        y = 0.5 * h * h - 0.5 / h / h;
    }
    return select(y, -y, x < 0.0);
}

fn accurate_cosh(x: f32) -> f32 {
    if is_nan(x) { return x; }
    let h = accurate_exp(0.5 * abs(x));
    return 0.5 * h * h + 0.5 / h / h;
}

fn accurate_asinh(x: f32) -> f32 {
    if is_nan(x) { return x; }
    let a = abs(x);
    var y = 0.0;
    if a > 1e9 {
        // a^2 would overflow; 1 is nothing beside it.
        y = accurate_log(a) + 0.69314718;
    } else {
        y = accurate_log1p(a + a * a / (1.0 + sqrt(a * a + 1.0)));
    }
    return select(y, -y, x < 0.0);
}

fn accurate_acosh(x: f32) -> f32 {
    if !(x >= 1.0) { return nan(); }
    if x > 1e9 { return accurate_log(x) + 0.69314718; }
    let t = x - 1.0;
    return accurate_log1p(t + sqrt(t * (2.0 + t)));
}

fn accurate_atanh(x: f32) -> f32 {
    if !(abs(x) <= 1.0) { return nan(); }
    let a = abs(x);
    let y = 0.5 * accurate_log1p(2.0 * a / (1.0 - a));
    return select(y, -y, x < 0.0);
}

// Chebyshev fits: erf(x) / x in x^2 below 1 (1e-9), -log(erfc(x)) from 1 to 4 (2e-8 of erfc); within 2.2 2^-24 of erf.
fn accurate_erf(x: f32) -> f32 {
    if is_nan(x) { return x; }
    let a = min(abs(x), 4.0);
    if a < 1.0 {
        let z = x * x;
        return x * (1.1283791 + z * (-0.37612626 + z * (0.11283594 + z * (-0.026854211 + z * (0.0051890872 + z * (-0.00080168643 + z * 0.000078758749))))));
    }
    let r = -0.00032013806 + a * (1.1302334 + a * (0.63182604 + a * (0.11008009 + a * (-0.026421135 + a * (0.0047595962 + a * (-0.00059680566 + a * (0.000046058041 + a * -0.0000016371514)))))));
    let y = 1.0 - accurate_exp(-r);
    return select(y, -y, x < 0.0);
}

// |a|^b by b log2 |a|, the logarithm's whole part apart so that it costs no digits; whole powers of negative numbers.
fn accurate_pow(a: f32, b: f32) -> f32 {
    if b == 0.0 || a == 1.0 { return 1.0; }
    if is_nan(a) || is_nan(b) { return nan(); }
    let whole = round(b) == b;
    // The power of -infinity is that of infinity.
    if a < 0.0 && !whole && a >= -3.4028234e38 { return nan(); }
    // Odd: half of it is no whole number. Above 2^24 every f32 is even.
    let negative = a < 0.0 && whole && abs(b) < 16777216.0 && floor(0.5 * b) != 0.5 * b;
    let size = abs(a);
    if size == 0.0 {
        let at_zero = select(0.0, infinity(), b < 0.0);
        return select(at_zero, -at_zero, negative);
    }
    let y = accurate_exp(clamp(b * accurate_log(size), -200.0, 200.0));
    return select(y, -y, negative);
}

// a - b trunc(a / b), exactly: the largest b 2^k not above what is left is subtracted until less than b is. Each difference is exact, because the
// subtrahend is at least half of the minuend.
fn exact_fmod(a: f32, b: f32) -> f32 {
    let d = abs(b);
    var rest = abs(a);
    let finite = (bitcast<u32>(rest) & 0x7f800000u) != 0x7f800000u;
    if d == 0.0 || !finite || is_nan(b) { return nan(); }
    // An f32 quotient has at most 277 bits; the bound keeps denormal divisors, which a GPU may take for 0, from a loop without end.
    for (var k = 0; k < 280 && rest >= d; k++) {
        var bits = (bitcast<u32>(d) & 0x007fffffu) | (bitcast<u32>(rest) & 0x7f800000u);
        if bitcast<f32>(bits) > rest { bits -= 0x00800000u; }
        rest -= bitcast<f32>(bits);
    }
    return select(rest, -rest, a < 0.0);
}

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + accurate_exp(-x));
}

// (cos, sin) of 2 pi u for u in [0, 1): the quadrant is exact, the rest within pi/4.
fn cos_sin_turns(u: f32) -> vec2<f32> {
    let quadrant = floor(4.0 * u + 0.5);
    let r = (4.0 * u - quadrant) * 1.5707964;
    return quarter_turns(quadrant, r);
}
