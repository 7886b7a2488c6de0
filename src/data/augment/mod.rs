//! Random changes to training images: what a model must not depend on.
//!
//! What happens to a sample is a function of seed, epoch and sample alone, whichever thread prepares it. All changes of place (crop, turn, shift,
//! mirror) are one affine map, so that each pixel is interpolated once.

mod policy;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::rng::Stream;

/// How strongly training images are changed. The default changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Augment {
    /// Moved by up to so many pixels along both axes; pixels of value 0 come in.
    pub shift: usize,
    /// Every second image is mirrored left to right.
    pub flip: bool,
    /// Turned about its middle by up to so many degrees either way.
    pub rotate: f64,
    /// A part of at least this share of the area, with sides in 3:4 to 4:3 of the image's, is enlarged to the whole; 1 keeps the whole.
    pub crop: f64,
    /// Brightness, contrast and, of three channels, saturation are multiplied by 1 - jitter to 1 + jitter.
    pub jitter: f64,
    /// The share of images in which a rectangle of 2 % to 33 % of the area becomes the mean colour (Zhong et al. 2017, arXiv:1708.04896).
    pub erase: f64,
    /// Images of a batch, and the loss of their classes, are blended in pairs with weights from Beta(mixup, mixup) (Zhang et al. 2017,
    /// arXiv:1710.09412); 0 blends none.
    pub mixup: f64,
    /// A rectangle with an area from Beta(cutmix, cutmix) comes from another image of the batch (Yun et al. 2019, arXiv:1905.04899). With
    /// mixup, each batch has one of the two.
    pub cutmix: f64,
    /// So many changes to each image, drawn from the fourteen of RandAugment (Cubuk et al. 2019, arXiv:1909.13719).
    pub randaugment: usize,
    /// The strength of these, 0 to 30.
    pub magnitude: f64,
}

/// The names of [`Augment::preset`].
pub const PRESETS: [&str; 4] = ["none", "light", "standard", "strong"];

impl Default for Augment {
    fn default() -> Self {
        Augment::NONE
    }
}

impl Augment {
    /// Changes nothing.
    pub const NONE: Augment = Augment {
        shift: 0,
        flip: false,
        rotate: 0.0,
        crop: 1.0,
        jitter: 0.0,
        erase: 0.0,
        mixup: 0.0,
        cutmix: 0.0,
        randaugment: 0,
        magnitude: 9.0,
    };

    /// The settings called `name` for images of a height and width: `none`; `light`, shifts by one pixel; `standard`, mirrored, and shifts by an
    /// eighth; `strong`, mirrored, crops of at least 40 % of the area, turns by 10 degrees, jitter 0.3, a quarter erased, cutmix.
    pub fn preset(name: &str, [height, width]: [usize; 2]) -> Option<Self> {
        let none = Augment::default();
        match name {
            "none" => Some(none),
            "light" => Some(Augment { shift: 1.min(height.min(width).saturating_sub(1)), ..none }),
            "standard" => Some(Augment { shift: height.min(width) / 8, flip: true, ..none }),
            "strong" => Some(Augment { flip: true, rotate: 10.0, crop: 0.4, jitter: 0.3, erase: 0.25, cutmix: 1.0, ..none }),
            _ => None,
        }
    }

    /// Whether nothing is changed.
    pub fn is_none(&self) -> bool {
        *self == Augment { magnitude: self.magnitude, ..Augment::default() }
    }

    /// Whether values other than those of the image's pixels come out, by other changes than those of place.
    pub(super) fn recolours(&self) -> bool {
        self.jitter != 0.0 || self.randaugment > 0
    }

    /// Refuses what is out of range, by name.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting.
    pub fn check(&self, [height, width]: [usize; 2]) -> Result<()> {
        let smaller = height.min(width);
        if self.shift > 0 && self.shift >= smaller {
            return Err(Error::Config(format!(
                "shift = {} moves images of {height} x {width} pixels out of sight; give at most {}",
                self.shift,
                smaller.saturating_sub(1)
            )));
        }
        let ranges = [
            ("rotate", self.rotate, 0.0, 180.0),
            ("crop", self.crop, 0.01, 1.0),
            ("jitter", self.jitter, 0.0, 1.0),
            ("erase", self.erase, 0.0, 1.0),
            ("mixup", self.mixup, 0.0, 4.0),
            ("cutmix", self.cutmix, 0.0, 4.0),
            ("randaugment", self.randaugment as f64, 0.0, 14.0),
            ("magnitude", self.magnitude, 0.0, policy::MAX_MAGNITUDE),
        ];
        match ranges.iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
            Some((name, value, low, high)) => Err(Error::Config(format!("{name} = {value}: give a number from {low} to {high}"))),
            None => Ok(()),
        }
    }
}

/// What the random numbers of a sample's changes depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    pub(super) seed: u64,
    pub(super) epoch: u64,
    pub(super) sample: u64,
}

impl Draw {
    fn stream(&self, name: &str) -> Stream {
        Stream::new(self.seed, name, self.epoch, self.sample)
    }

    /// Uniform in `low..high`.
    fn between(stream: &Stream, index: u64, low: f64, high: f64) -> f64 {
        low + (high - low) * stream.uniform(index) as f64
    }
}

/// Where the pixels of a changed image come from: output pixel (row, column) shows the source at `[a b; c d] (row, column) + (row0, column0)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Map {
    matrix: [[f32; 2]; 2],
    origin: [f32; 2],
}

impl Augment {
    /// Pixels by which a sample moves down and right.
    pub(super) fn shift_of(&self, draw: Draw) -> (isize, isize) {
        if self.shift == 0 {
            return (0, 0);
        }
        let stream = draw.stream("shift");
        let one = |index| stream.below(index, 2 * self.shift + 1) as isize - self.shift as isize;
        (one(0), one(1))
    }

    pub(super) fn mirrors(&self, draw: Draw) -> bool {
        self.flip && draw.stream("flip").below(0, 2) == 1
    }

    /// The affine map of a sample, unless it only shifts and mirrors, which needs no interpolation.
    pub(super) fn map(&self, draw: Draw, size: [usize; 2]) -> Option<Map> {
        let [height, width] = size;
        if self.rotate == 0.0 && self.crop >= 1.0 {
            return None;
        }
        let (height, width) = (height as f64, width as f64);
        // The part that is seen: its sides as shares of the image's, and its middle.
        let crop = draw.stream("crop");
        let area = Draw::between(&crop, 0, self.crop, 1.0);
        let aspect = Draw::between(&crop, 1, (0.75f64).ln(), (4.0f64 / 3.0).ln()).exp();
        let whole = self.crop >= 1.0;
        let [tall, wide] = if whole { [1.0, 1.0] } else { [(area / aspect).sqrt().min(1.0), (area * aspect).sqrt().min(1.0)] };
        let (down, right) = self.shift_of(draw);
        let middle = [
            height * (tall / 2.0 + (1.0 - tall) * crop.uniform(2) as f64) - down as f64,
            width * (wide / 2.0 + (1.0 - wide) * crop.uniform(3) as f64) - right as f64,
        ];
        let angle = Draw::between(&draw.stream("rotate"), 0, -self.rotate, self.rotate).to_radians();
        let (sin, cos) = angle.sin_cos();
        let mirror = if self.mirrors(draw) { -1.0 } else { 1.0 };
        let matrix = [[tall * cos, tall * sin * mirror], [-wide * sin, wide * cos * mirror]];
        Some(Map::about_middle(matrix, middle, size))
    }

    /// Changes pixels `[C, H, W]` of 0 to 255, in place: RandAugment, then the colours.
    pub(super) fn recolour(&self, draw: Draw, pixels: &mut [f32], channels: usize, size: [usize; 2]) {
        if self.randaugment > 0 {
            policy::apply(draw, self.randaugment, self.magnitude, pixels, size);
        }
        if self.jitter == 0.0 {
            return;
        }
        let stream = draw.stream("jitter");
        let factor = |index| Draw::between(&stream, index, 1.0 - self.jitter, 1.0 + self.jitter) as f32;
        let (brightness, contrast, saturation) = (factor(0), factor(1), factor(2));
        let area = pixels.len() / channels.max(1);
        if channels == 3 {
            let (red, rest) = pixels.split_at_mut(area);
            let (green, blue) = rest.split_at_mut(area);
            for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
                let grey = LUMA[0] * *r + LUMA[1] * *g + LUMA[2] * *b;
                for v in [r, g, b] {
                    *v = brightness * (grey + saturation * (*v - grey));
                }
            }
        } else {
            pixels.iter_mut().for_each(|v| *v *= brightness);
        }
        let mean = (pixels.iter().map(|&v| v as f64).sum::<f64>() / pixels.len().max(1) as f64) as f32;
        pixels.iter_mut().for_each(|v| *v = (mean + contrast * (*v - mean)).clamp(0.0, 255.0));
    }

    /// The rows and columns that are erased.
    pub(super) fn erased(&self, draw: Draw, [height, width]: [usize; 2]) -> Option<[std::ops::Range<usize>; 2]> {
        let stream = draw.stream("erase");
        // Less than 1 always; at least 0 always.
        if stream.uniform(0) as f64 >= self.erase {
            return None;
        }
        let area = Draw::between(&stream, 1, 0.02, 0.33);
        let aspect = Draw::between(&stream, 2, (0.3f64).ln(), (1.0f64 / 0.3).ln()).exp();
        let side = |share: f64, size: usize| ((share.min(1.0) * size as f64).round() as usize).clamp(1, size.max(1));
        let (tall, wide) = (side((area / aspect).sqrt(), height), side((area * aspect).sqrt(), width));
        let (top, left) = (stream.below(3, height - tall + 1), stream.below(4, width - wide + 1));
        Some([top..top + tall, left..left + wide])
    }
}

/// ITU-R BT.601's weights of red, green and blue.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

impl Map {
    /// The map by a matrix about the middle of the image, which shows the source's point `middle`.
    fn about_middle(matrix: [[f64; 2]; 2], middle: [f64; 2], [height, width]: [usize; 2]) -> Self {
        // Pixel centres lie at halves.
        let (y, x) = (0.5 - height as f64 / 2.0, 0.5 - width as f64 / 2.0);
        let origin = [0, 1].map(|i| (matrix[i][0] * y + matrix[i][1] * x + middle[i] - 0.5) as f32);
        Map { matrix: matrix.map(|row| row.map(|v| v as f32)), origin }
    }

    /// Samples a plane of pixels by bilinear interpolation; outside it is 0.
    pub(super) fn apply<T: Copy + Into<f32>>(&self, source: &[T], target: &mut [f32], [height, width]: [usize; 2]) {
        let at = |row: isize, column: isize| -> f32 {
            let inside = row >= 0 && column >= 0 && (row as usize) < height && (column as usize) < width;
            if inside { source[row as usize * width + column as usize].into() } else { 0.0 }
        };
        for (row, line) in target.chunks_exact_mut(width).enumerate() {
            for (column, v) in line.iter_mut().enumerate() {
                let of = |i: usize| self.matrix[i][0] * row as f32 + self.matrix[i][1] * column as f32 + self.origin[i];
                let (y, x) = (of(0), of(1));
                let (top, left) = (y.floor(), x.floor());
                let (fy, fx) = (y - top, x - left);
                let (top, left) = (top as isize, left as isize);
                let upper = at(top, left) * (1.0 - fx) + at(top, left + 1) * fx;
                let lower = at(top + 1, left) * (1.0 - fx) + at(top + 1, left + 1) * fx;
                *v = upper * (1.0 - fy) + lower * fy;
            }
        }
    }
}

/// How the images of a batch are combined in pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// The classes of the second images, `[N]`.
    pub targets: Vec<i32>,
    /// The weight of the first images' classes; the second ones' is the rest.
    pub share: f32,
}

impl Augment {
    /// Combines prepared images `[N, C, H, W]` with others of the batch, in place. `draw.sample` is the batch's number.
    pub(super) fn mix(&self, draw: Draw, images: &mut [f32], targets: &[i32], [height, width]: [usize; 2]) -> Option<Mix> {
        let n = targets.len();
        if n < 2 || (self.mixup == 0.0 && self.cutmix == 0.0) {
            return None;
        }
        let stream = draw.stream("mix");
        let cuts = self.mixup == 0.0 || (self.cutmix > 0.0 && stream.below(0, 2) == 1);
        let share = beta(&stream, 1, if cuts { self.cutmix } else { self.mixup });
        let partner = draw.stream("partner").permutation(n);
        let mixed_targets = partner.iter().map(|&i| targets[i as usize]).collect();
        let (len, before) = (images.len() / n, images.to_vec());
        let pairs = images.chunks_exact_mut(len).zip(&partner);
        if !cuts {
            let share = share as f32;
            for (image, &other) in pairs {
                let other = &before[other as usize * len..][..len];
                image.iter_mut().zip(other).for_each(|(a, &b)| *a = share * *a + (1.0 - share) * b);
            }
            return Some(Mix { targets: mixed_targets, share });
        }
        // A rectangle with the image's proportions about any point, as far as it lies inside.
        let boxed = draw.stream("cut");
        let range = |index: u64, size: usize| {
            let half = (1.0 - share).sqrt() * size as f64 / 2.0;
            let middle = Draw::between(&boxed, index, 0.0, size as f64);
            (middle - half).round().max(0.0) as usize..((middle + half).round() as usize).min(size)
        };
        let (rows, columns) = (range(0, height), range(1, width));
        for (image, &other) in pairs {
            let other = &before[other as usize * len..][..len];
            for (a, b) in image.chunks_exact_mut(height * width).zip(other.chunks_exact(height * width)) {
                for row in rows.clone() {
                    let line = row * width + columns.start..row * width + columns.end;
                    a[line.clone()].copy_from_slice(&b[line]);
                }
            }
        }
        let cut = (rows.len() * columns.len()) as f32 / (height * width) as f32;
        Some(Mix { targets: mixed_targets, share: 1.0 - cut })
    }
}

/// A draw from Beta(alpha, alpha) by Jöhnk's method (1964): `x / (x + y)` of the first `x = u^(1/alpha)`, `y = v^(1/alpha)` with a sum of at most 1.
fn beta(stream: &Stream, first: u64, alpha: f64) -> f64 {
    // Of 10,000 pairs none is accepted with a probability below 1e-80 for alpha up to 4, where one in 70 is.
    for i in 0..10_000 {
        let one = |index| (stream.uniform(first + index) as f64).powf(1.0 / alpha);
        let (x, y) = (one(2 * i), one(2 * i + 1));
        if x + y <= 1.0 && x + y > 0.0 {
            return x / (x + y);
        }
    }
    0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sample: u64) -> Draw {
        Draw { seed: 3, epoch: 1, sample }
    }

    const SIDE: usize = 16;

    fn ramp() -> Vec<u8> {
        (0..SIDE * SIDE).map(|i| (8 * (i % SIDE) + 2 * (i / SIDE)) as u8).collect()
    }

    fn mapped(augment: Augment, sample: u64) -> Vec<f32> {
        let mut out = vec![f32::NAN; SIDE * SIDE];
        augment.map(draw(sample), [SIDE; 2]).unwrap().apply(&ramp(), &mut out, [SIDE; 2]);
        out
    }

    #[test]
    fn presets_are_in_range_and_others_are_named() {
        for name in PRESETS {
            for size in [[8, 12], [1, 100]] {
                Augment::preset(name, size).unwrap().check(size).unwrap();
            }
        }
        assert_eq!(Augment::preset("wild", [8, 8]), None);
        let none = Augment::default();
        for (bad, text) in [
            (Augment { crop: 0.0, ..none }, "crop = 0: give a number from 0.01 to 1"),
            (Augment { rotate: f64::NAN, ..none }, "rotate = NaN"),
            (Augment { mixup: -1.0, ..none }, "mixup = -1"),
            (Augment { magnitude: 31.0, ..none }, "magnitude = 31: give a number from 0 to 30"),
            (Augment { shift: 8, ..none }, "shift = 8 moves images of 8 x 12 pixels out of sight; give at most 7"),
        ] {
            assert!(bad.check([8, 12]).unwrap_err().to_string().contains(text));
        }
    }

    #[test]
    fn a_crop_is_an_enlarged_part_of_the_image() {
        let augment = Augment { crop: 0.25, ..Default::default() };
        for sample in 0..50 {
            let out = mapped(augment, sample);
            let steps = [out[SIDE * 5 + 8] - out[SIDE * 5 + 7], out[SIDE * 8 + 5] - out[SIDE * 7 + 5]];
            // A ramp of 8 a column and 2 a row is one still, flatter by the sides' shares.
            let (wide, tall) = (steps[0] / 8.0, steps[1] / 2.0);
            assert!((0.25 - 1e-3..=1.0 + 1e-3).contains(&(wide * tall)) && wide <= 1.001 && tall <= 1.001, "{wide} x {tall}");
            let aspect = wide / tall;
            assert!((0.74..=1.34).contains(&aspect), "{aspect}");
        }
    }

    #[test]
    fn a_turn_keeps_the_middle_and_a_mirrored_map_mirrors() {
        let turn = Augment { rotate: 90.0, ..Default::default() };
        let map = turn.map(draw(1), [SIDE; 2]).unwrap();
        let [[a, b], [c, d]] = map.matrix;
        assert!((a * d - b * c - 1.0).abs() < 1e-5 && (a - d).abs() < 1e-6 && (b + c).abs() < 1e-6, "{map:?} is a rotation");
        let middle = (SIDE as f32 - 1.0) / 2.0;
        assert!((a * middle + b * middle + map.origin[0] - middle).abs() < 1e-4);
        // Almost no crop: interpolation gives the image, or its mirror image, but for the rim.
        let nearly = Augment { crop: 0.999_999, flip: true, ..Default::default() };
        let mut seen = [0, 0];
        for sample in 0..20 {
            let (out, mirrors) = (mapped(nearly, sample), nearly.mirrors(draw(sample)));
            seen[mirrors as usize] += 1;
            let crop = Augment { flip: false, ..nearly };
            let plain = mapped(crop, sample);
            for (row, column) in (2..SIDE - 2).flat_map(|r| (2..SIDE - 2).map(move |c| (r, c))) {
                let from = if mirrors { SIDE - 1 - column } else { column };
                let (got, want) = (out[row * SIDE + column], plain[row * SIDE + from]);
                assert!((got - want).abs() < 1e-2, "sample {sample}, {row}, {column}: {got}, not {want}");
            }
        }
        assert!(seen[0] > 3 && seen[1] > 3, "{seen:?}");
    }

    #[test]
    fn colours_change_and_stay_pixels() {
        let augment = Augment { jitter: 0.5, ..Default::default() };
        let image: Vec<f32> = (0..48).map(|i| (i * 5) as f32).collect();
        let mut means = Vec::new();
        for sample in 0..200 {
            let mut own = image.clone();
            augment.recolour(draw(sample), &mut own, 3, [1, 2]);
            assert!(own.iter().all(|v| (0.0..=255.0).contains(v)) && own != image);
            means.push(own.iter().sum::<f32>() / image.iter().sum::<f32>());
        }
        let (low, high) = means.iter().fold((9.0f32, 0.0f32), |(l, h), &m| (l.min(m), h.max(m)));
        assert!(low > 0.45 && low < 0.7 && high > 1.2 && high < 1.55, "{low} to {high}");
        // Without saturation a pixel keeps its ratios but for contrast, so grey stays grey.
        let mut grey = [100.0; 12];
        augment.recolour(draw(3), &mut grey, 3, [1, 2]);
        assert!(grey.iter().all(|v| (v - grey[0]).abs() < 1e-3));
    }

    #[test]
    fn as_many_images_are_erased_as_asked_for() {
        let augment = Augment { erase: 0.25, ..Default::default() };
        let areas: Vec<usize> = (0..1000)
            .filter_map(|sample| augment.erased(draw(sample), [20, 30]))
            .map(|[rows, columns]| {
                assert!(rows.end <= 20 && columns.end <= 30 && !rows.is_empty() && !columns.is_empty());
                rows.len() * columns.len()
            })
            .collect();
        // 1,000 draws: 250 +- 4 standard deviations of 13.7.
        assert!((195..=305).contains(&areas.len()), "{}", areas.len());
        assert!(areas.iter().all(|&area| area <= 220), "a third of 600, and a row and column of rounding");
        assert!(Augment::default().erased(draw(1), [4, 4]).is_none());
    }

    #[test]
    fn mixed_images_and_targets_have_the_same_shares() {
        for (augment, cuts) in
            [(Augment { mixup: 0.4, ..Default::default() }, false), (Augment { cutmix: 1.0, ..Default::default() }, true)]
        {
            let mut shares = Vec::new();
            for batch in 0..100 {
                // Image i is all i, so that its mean says what it is made of.
                let targets: Vec<i32> = (0..6).collect();
                let mut images: Vec<f32> = targets.iter().flat_map(|&t| vec![t as f32; 2 * 64]).collect();
                let mix = augment.mix(draw(batch), &mut images, &targets, [8; 2]).unwrap();
                for (i, image) in images.chunks_exact(128).enumerate() {
                    let mean = image.iter().sum::<f32>() / 128.0;
                    let want = mix.share * i as f32 + (1.0 - mix.share) * mix.targets[i] as f32;
                    assert!((mean - want).abs() < 1e-4, "image {i} of batch {batch}: {mean}, not {want}");
                    let whole = image.iter().all(|&v| v == i as f32 || v == mix.targets[i] as f32);
                    let blended = !cuts && (0.01..0.99).contains(&mix.share) && mix.targets[i] != i as i32;
                    assert!(if cuts { whole } else { !(blended && whole) }, "image {i} of batch {batch}");
                }
                shares.push(mix.share as f64);
            }
            let mean = shares.iter().sum::<f64>() / 100.0;
            // Both have mean 1/2, but a cut rectangle may hang over the rim.
            assert!((0.4..if cuts { 0.75 } else { 0.6 }).contains(&mean), "{mean}");
        }
        assert_eq!(Augment::default().mix(draw(0), &mut [0.0; 8], &[0, 1], [2; 2]), None);
    }

    #[test]
    fn beta_has_its_moments() {
        for alpha in [0.2, 1.0, 4.0] {
            let draws: Vec<f64> = (0..4000).map(|i| beta(&Stream::new(1, "beta", i, 0), 0, alpha)).collect();
            let mean = draws.iter().sum::<f64>() / 4000.0;
            let variance = draws.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 4000.0;
            let want = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 0.03 && (variance / want - 1.0).abs() < 0.1, "alpha {alpha}: mean {mean}, variance {variance}");
        }
    }
}
