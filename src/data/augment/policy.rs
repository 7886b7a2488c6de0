//! RandAugment (Cubuk et al. 2019, arXiv:1909.13719): a few changes to each image, drawn evenly from fourteen, all of one strength.

use super::{Draw, LUMA, Map};

/// Strengths go from 0 to this; the ranges of the changes at full strength are torchvision's.
pub(super) const MAX_MAGNITUDE: f64 = 30.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Saturation,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

const CHANGES: [Change; 14] = [
    Change::Identity,
    Change::ShearX,
    Change::ShearY,
    Change::TranslateX,
    Change::TranslateY,
    Change::Rotate,
    Change::Brightness,
    Change::Saturation,
    Change::Contrast,
    Change::Sharpness,
    Change::Posterize,
    Change::Solarize,
    Change::AutoContrast,
    Change::Equalize,
];

/// Changes pixels `[C, H, W]` of 0 to 255, `count` times.
pub(super) fn apply(draw: Draw, count: usize, magnitude: f64, pixels: &mut [f32], size: [usize; 2]) {
    let stream = draw.stream("randaugment");
    for i in 0..count as u64 {
        let change = CHANGES[stream.below(2 * i, CHANGES.len())];
        let sign = if stream.below(2 * i + 1, 2) == 0 { 1.0 } else { -1.0 };
        one(change, magnitude / MAX_MAGNITUDE, sign, pixels, size);
    }
}

/// One change with a strength of 0 to 1, either way where there are two.
fn one(change: Change, strength: f64, sign: f64, pixels: &mut [f32], [height, width]: [usize; 2]) {
    let area = height * width;
    let signed = strength * sign;
    let turn = (30.0 * signed).to_radians();
    // torchvision moves by up to 150 of 331 pixels.
    let far = 150.0 / 331.0 * signed;
    let factor = (1.0 + 0.9 * signed) as f32;
    let matrix = match change {
        Change::ShearX => Some(([[1.0, 0.0], [0.3 * signed, 1.0]], [0.0; 2])),
        Change::ShearY => Some(([[1.0, 0.3 * signed], [0.0, 1.0]], [0.0; 2])),
        Change::TranslateX => Some(([[1.0, 0.0], [0.0, 1.0]], [0.0, far * width as f64])),
        Change::TranslateY => Some(([[1.0, 0.0], [0.0, 1.0]], [far * height as f64, 0.0])),
        Change::Rotate => Some(([[turn.cos(), turn.sin()], [-turn.sin(), turn.cos()]], [0.0; 2])),
        _ => None,
    };
    if let Some((matrix, shift)) = matrix {
        let map = Map::about_middle(matrix, [height as f64 / 2.0 + shift[0], width as f64 / 2.0 + shift[1]], [height, width]);
        let before = pixels.to_vec();
        before
            .chunks_exact(area)
            .zip(pixels.chunks_exact_mut(area))
            .for_each(|(source, target)| map.apply(source, target, [height, width]));
        return;
    }
    match change {
        Change::Brightness => pixels.iter_mut().for_each(|v| *v = (*v * factor).min(255.0)),
        Change::Saturation => blend(pixels, &grey(pixels, area), factor, area),
        Change::Contrast => {
            let grey = grey(pixels, area);
            let mean = grey.iter().sum::<f32>() / area.max(1) as f32;
            blend(pixels, &vec![mean; area], factor, area);
        }
        Change::Sharpness => pixels.chunks_exact_mut(area).for_each(|plane| {
            let smooth = smoothed(plane, [height, width]);
            blend(plane, &smooth, factor, area);
        }),
        Change::Posterize => {
            // Eight bits less up to four.
            let step = 2f32.powi((4.0 * strength).round() as i32);
            pixels.iter_mut().for_each(|v| *v = (v.round() / step).floor() * step);
        }
        Change::Solarize => {
            let threshold = (255.0 * (1.0 - strength)) as f32;
            pixels.iter_mut().filter(|v| **v >= threshold).for_each(|v| *v = 255.0 - *v);
        }
        Change::AutoContrast => pixels.chunks_exact_mut(area).for_each(|plane| {
            let (low, high) = plane.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
            if high > low {
                plane.iter_mut().for_each(|v| *v = (*v - low) * (255.0 / (high - low)));
            }
        }),
        Change::Equalize => pixels.chunks_exact_mut(area).for_each(equalize),
        _ => {}
    }
}

/// The lightness of each pixel; of one channel, its value.
fn grey(pixels: &[f32], area: usize) -> Vec<f32> {
    match pixels.len() / area.max(1) {
        3 => (0..area).map(|i| (0..3).map(|c| LUMA[c] * pixels[c * area + i]).sum()).collect(),
        _ => pixels[..area].to_vec(),
    }
}

/// `other + factor (pixels - other)`, within the range of pixels.
fn blend(pixels: &mut [f32], other: &[f32], factor: f32, area: usize) {
    for plane in pixels.chunks_exact_mut(area) {
        plane.iter_mut().zip(other).for_each(|(v, &o)| *v = (o + factor * (*v - o)).clamp(0.0, 255.0));
    }
}

/// The mean of 3 x 3 pixels, the middle one counting five times; those at the edge stay.
fn smoothed(plane: &[f32], [height, width]: [usize; 2]) -> Vec<f32> {
    let mut out = plane.to_vec();
    for row in 1..height.saturating_sub(1) {
        for column in 1..width.saturating_sub(1) {
            let at = row * width + column;
            let lines = [at - width, at, at + width];
            let sum: f32 = lines.iter().map(|&line| plane[line - 1] + plane[line] + plane[line + 1]).sum();
            out[at] = (sum + 4.0 * plane[at]) / 13.0;
        }
    }
    out
}

/// Spreads the values of a plane so that all are about as frequent.
fn equalize(plane: &mut [f32]) {
    let bin = |v: f32| v.round().clamp(0.0, 255.0) as usize;
    let mut counts = [0usize; 256];
    plane.iter().for_each(|&v| counts[bin(v)] += 1);
    let mut below = [0usize; 256];
    for value in 1..256 {
        below[value] = below[value - 1] + counts[value - 1];
    }
    // Ranks count from the least value, which becomes 0; the greatest becomes 255.
    let Some(top) = (0..256).rev().find(|&value| counts[value] > 0) else { return };
    if below[top] > 0 {
        plane.iter_mut().for_each(|v| *v = 255.0 * below[bin(*v)] as f32 / below[top] as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: [usize; 2] = [6, 8];

    fn image() -> Vec<f32> {
        (0..3 * 48).map(|i| ((i * 37) % 200) as f32 + 20.0).collect()
    }

    fn changed(change: Change, strength: f64) -> Vec<f32> {
        let mut pixels = image();
        one(change, strength, 1.0, &mut pixels, SIZE);
        pixels
    }

    #[test]
    fn strength_0_changes_nothing_that_has_a_strength() {
        for change in CHANGES {
            let own = changed(change, 0.0);
            let worst = own.iter().zip(image()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert_eq!(worst < 1e-3, !matches!(change, Change::AutoContrast | Change::Equalize), "{change:?}: {worst}");
        }
    }

    #[test]
    fn every_change_stays_in_range_and_does_something() {
        for change in CHANGES {
            let own = changed(change, 1.0);
            assert!(own.iter().all(|v| (0.0..=255.0).contains(v)), "{change:?}");
            assert_eq!(own == image(), change == Change::Identity, "{change:?}");
        }
    }

    #[test]
    fn values_are_as_defined() {
        let plane = |values: [f32; 4], change: Change, strength: f64| {
            let mut own = values.to_vec();
            one(change, strength, 1.0, &mut own, [2, 2]);
            own
        };
        assert_eq!(plane([10.0, 20.0, 30.0, 30.0], Change::Equalize, 1.0), [0.0, 127.5, 255.0, 255.0]);
        assert_eq!(plane([10.0, 20.0, 30.0, 35.0], Change::AutoContrast, 1.0), [0.0, 102.0, 204.0, 255.0]);
        assert_eq!(plane([0.0, 100.0, 200.0, 255.0], Change::Solarize, 0.5), [0.0, 100.0, 55.0, 0.0]);
        assert_eq!(plane([15.0, 16.0, 47.0, 255.0], Change::Posterize, 1.0), [0.0, 16.0, 32.0, 240.0]);
        assert_eq!(plane([7.0; 4], Change::Equalize, 1.0), [7.0; 4]);
        // Half the width: 150/331 of 2 pixels, and 0 comes in.
        let moved = plane([10.0, 20.0, 30.0, 40.0], Change::TranslateX, 1.0);
        assert!(moved[1] < 20.0 && moved[0] > 10.0, "{moved:?}");
    }

    #[test]
    fn the_draw_decides() {
        let of = |sample| {
            let mut pixels = image();
            apply(Draw { seed: 1, epoch: 2, sample }, 2, 9.0, &mut pixels, SIZE);
            pixels
        };
        assert_eq!(of(5), of(5));
        assert!((0..20).filter(|&sample| of(sample) == of(sample + 20)).count() < 5);
    }
}
