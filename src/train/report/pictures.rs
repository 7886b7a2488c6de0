//! The parts of a report that are pictures: mistakes, where the network looks, its first filters, changed training images.

use std::fmt::Write;

use super::Judged;
use crate::chart::escape;
use crate::data::augment::Augment;
use crate::data::{Dataset, Loader, LoaderOptions, Part};
use crate::device::Device;
use crate::error::Result;
use crate::nn::{Module, named_parameters};
use crate::tensor::Tensor;
use crate::train::Config;
use crate::train::explain::grad_cam;

/// Pictures of mistakes.
const MISTAKES: usize = 12;
/// Pictures with what the network looked at.
const HEATS: usize = 8;
/// Training images that are shown changed, and how often each.
const CHANGED: (usize, usize) = (4, 8);
/// Filters of the first layer.
const FILTERS: usize = 64;
/// Larger pictures are shrunk to this many pixels, so that the file stays small.
#[cfg(feature = "image")]
const SHOWN: u32 = 128;

/// An image of the report: RGB, 0 to 255, `[height, width, 3]`.
struct Picture {
    size: [usize; 2],
    rgb: Vec<[u8; 3]>,
}

impl Picture {
    /// Of pixels as stored, `[C, H, W]`.
    fn of(pixels: &[u8], data: &Dataset) -> Self {
        let (area, white) = (data.height * data.width, data.preprocessing.white());
        let at = |c: usize, i: usize| (pixels[c.min(data.channels - 1) * area + i] as f32 * white).round().min(255.0) as u8;
        Picture { size: [data.height, data.width], rgb: (0..area).map(|i| [0, 1, 2].map(|c| at(c, i))).collect() }
    }

    /// Of RGB planes `[3, H, W]`.
    #[cfg(feature = "image")]
    fn planes(pixels: &[u8], size: [usize; 2]) -> Self {
        let area = size[0] * size[1];
        Picture { size, rgb: (0..area).map(|i| [0, 1, 2].map(|c| pixels[c * area + i])).collect() }
    }

    /// The picture with warmth where the map `[h, w]` of 0 to 1 is high; the map is enlarged by bilinear interpolation.
    fn heated(&self, map: &[f32], [h, w]: [usize; 2]) -> Self {
        let [height, width] = self.size;
        let at = |y: f32, x: f32| -> f32 {
            let (y, x) = (y.clamp(0.0, (h - 1) as f32), x.clamp(0.0, (w - 1) as f32));
            let (top, left) = (y.floor() as usize, x.floor() as usize);
            let (fy, fx) = (y - top as f32, x - left as f32);
            let cell = |r: usize, c: usize| map[r.min(h - 1) * w + c.min(w - 1)];
            (cell(top, left) * (1.0 - fx) + cell(top, left + 1) * fx) * (1.0 - fy)
                + (cell(top + 1, left) * (1.0 - fx) + cell(top + 1, left + 1) * fx) * fy
        };
        let mut rgb = Vec::with_capacity(self.rgb.len());
        for row in 0..height {
            for column in 0..width {
                let heat = at((row as f32 + 0.5) * h as f32 / height as f32 - 0.5, (column as f32 + 0.5) * w as f32 / width as f32 - 0.5);
                // From blue by way of yellow to red.
                let colour = [(2.0 * heat).min(1.0), (2.0 * heat.min(1.0 - heat)).min(1.0), (1.0 - 2.0 * heat).max(0.0)];
                let own = self.rgb[row * width + column];
                rgb.push([0, 1, 2].map(|c| (0.5 * own[c] as f32 + 127.5 * colour[c]).round().clamp(0.0, 255.0) as u8));
            }
        }
        Picture { size: self.size, rgb }
    }

    /// A `data:` address: PNG of small ones, which show their pixels, JPEG of photos.
    #[cfg(feature = "image")]
    fn url(&self) -> Option<String> {
        use base64::Engine;
        let [height, width] = self.size.map(|side| side as u32);
        let image = image::RgbImage::from_fn(width, height, |x, y| image::Rgb(self.rgb[(y * width + x) as usize]));
        let small = width.max(height) < 48;
        let image = if width.max(height) > SHOWN {
            let shrink = |side: u32| (side * SHOWN / width.max(height)).max(1);
            image::imageops::resize(&image, shrink(width), shrink(height), image::imageops::FilterType::Triangle)
        } else {
            image
        };
        let mut bytes = std::io::Cursor::new(Vec::new());
        match small {
            true => image.write_to(&mut bytes, image::ImageFormat::Png).ok()?,
            false => image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 85).encode_image(&image).ok()?,
        }
        let kind = if small { "png" } else { "jpeg" };
        Some(format!("data:image/{kind};base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes.into_inner())))
    }

    #[cfg(not(feature = "image"))]
    fn url(&self) -> Option<String> {
        None
    }

    fn img(&self, alt: &str, width: usize) -> String {
        let width = if width == 0 { String::new() } else { format!(" width={width}") };
        self.url().map_or(String::new(), |url| format!("<img alt=\"{}\"{width} src=\"{url}\">", escape(alt)))
    }
}

/// The pictures that were answered wrongly with the most confidence.
pub(super) fn mistakes(body: &mut String, config: &Config, judged: &Judged) -> Result<()> {
    let predictions = judged.answers;
    let answers = predictions.probabilities.chunks_exact(predictions.classes.max(1)).zip(predictions.classes_predicted());
    let mut wrong: Vec<(f64, usize, usize)> = Vec::new();
    for (sample, ((p, best), &target)) in answers.zip(&predictions.targets).enumerate() {
        if best != target {
            wrong.push((p[best], sample, best));
        }
    }
    wrong.sort_by(|a, b| b.0.total_cmp(&a.0));
    wrong.truncate(MISTAKES);
    if wrong.is_empty() {
        return Ok(());
    }
    body.push_str("<section><h2>The most confident mistakes</h2><div class=pictures>");
    let samples: Vec<usize> = wrong.iter().map(|w| w.1).collect();
    let pixels = judged.images.select(&samples).pixels()?;
    let len = (pixels.len() / samples.len()).max(1);
    for ((p, sample, best), image) in wrong.iter().zip(pixels.chunks_exact(len)) {
        let (truth, answer) = (&config.classes[predictions.targets[*sample]], &config.classes[*best]);
        let _ = write!(
            body,
            "<figure>{}<figcaption><b>{}</b> taken for <b>{}</b>, {:.0} %</figcaption></figure>",
            Picture::of(image, judged.data).img(truth, 0),
            escape(truth),
            escape(answer),
            100.0 * p
        );
    }
    body.push_str("</div></section>");
    Ok(())
}

/// Where in pictures the network sees the class that it answers: one picture a class, as far as there is room.
pub(super) fn heats(body: &mut String, config: &Config, judged: &Judged, module: &dyn Module, device: &Device) -> Result<()> {
    let predictions = judged.answers;
    let answers: Vec<&[f64]> = predictions.probabilities.chunks_exact(predictions.classes.max(1)).collect();
    let samples: Vec<usize> = (0..predictions.classes)
        .filter_map(|class| (0..answers.len()).find(|&sample| predictions.targets[sample] == class))
        .take(HEATS)
        .collect();
    if samples.is_empty() {
        return Ok(());
    }
    let part = std::sync::Arc::new(judged.images.select(&samples));
    let options = LoaderOptions { batch_size: samples.len(), ..LoaderOptions::default() };
    let Some(batch) = Loader::new(judged.data, &part, options)?.next().transpose()? else { return Ok(()) };
    let x = Tensor::from_slice(device, &[&[samples.len()], &config.input[..]].concat(), &batch.images)?;
    let predicted = predictions.classes_predicted();
    let classes: Vec<usize> = samples.iter().map(|&sample| predicted[sample]).collect();
    let Some(heat) = grad_cam(module, &x, &classes)? else { return Ok(()) };
    let [h, w] = heat.size;
    let _ = write!(
        body,
        "<section><h2>What it looks at</h2><p class=note>Where the class that it answers was seen (Grad-CAM of the layer {}, {h} x {w}): red counts most, blue not at all.</p><div class=\"pictures heats\">",
        escape(&heat.layer)
    );
    let pixels = part.pixels()?;
    let len = (pixels.len() / samples.len()).max(1);
    for (i, image) in pixels.chunks_exact(len).enumerate() {
        let picture = Picture::of(image, judged.data);
        let (class, truth) = (&config.classes[classes[i]], &config.classes[predictions.targets[samples[i]]]);
        let wrong = if class == truth { String::new() } else { format!(", truly <b>{}</b>", escape(truth)) };
        let _ = write!(
            body,
            "<figure><div class=heat>{}{}</div><figcaption><b>{}</b>, {:.0} %{wrong}</figcaption></figure>",
            picture.img(truth, 0),
            picture.heated(&heat.values[i * h * w..][..h * w], heat.size).img("what it looks at", 0),
            escape(class),
            100.0 * answers[samples[i]][classes[i]]
        );
    }
    body.push_str("</div></section>");
    Ok(())
}

/// A page of what was found in a data set.
#[cfg(feature = "image")]
pub fn audit(check: &crate::data::check::Check, suspects: &[crate::train::Suspect]) -> String {
    use crate::data::check::PARTS;
    const PAIRS: usize = 100;
    let mut body = format!("<h1>{}</h1><div class=tiles>", escape(&check.name));
    let leaks = check.duplicates.iter().filter(|d| check.is_leak(d)).count();
    for (value, what) in [
        (check.items.len(), "images"),
        (check.unreadable.len(), "cannot be read"),
        (leaks, "duplicates across parts"),
        (check.duplicates.len() - leaks, "duplicates within a part"),
        (suspects.len(), "perhaps labelled wrongly"),
    ] {
        let _ = write!(body, "<div><b>{value}</b><span>{what}</span></div>");
    }
    body.push_str("</div>");
    if check.duplicates.len().max(suspects.len()).max(check.unreadable.len()) > PAIRS {
        let _ = write!(body, "<p class=note>The first {PAIRS} of each kind are shown; mappa data check --json names all.</p>");
    }
    let warnings = check.warnings();
    if !warnings.is_empty() {
        let lines: String = warnings.iter().map(|line| format!("<li>{}</li>", escape(line))).collect();
        let _ = write!(body, "<ul class=verdict>{lines}</ul>");
    }
    let counts = check.counts();
    body.push_str("<section><h2>Classes</h2><table><tr><th>class");
    PARTS.iter().for_each(|part| {
        let _ = write!(body, "<th>{part}");
    });
    body.push_str("</tr>");
    let most = counts.iter().flatten().copied().max().unwrap_or(1).max(1) as f64;
    for (c, class) in check.classes.iter().enumerate() {
        let _ = write!(body, "<tr><td>{}", escape(class));
        for part in &counts {
            let _ = write!(body, "<td class=n><i class=bar style=\"--share:{:.3}\"></i>{}", part[c] as f64 / most, part[c]);
        }
        body.push_str("</tr>");
    }
    body.push_str("</table></section>");
    let shown = |item: usize, caption: &str| {
        let own = &check.items[item];
        let pixels = own.read(3, 96, 96).ok().flatten();
        let picture = pixels.map_or(String::new(), |pixels| Picture::planes(&pixels, [96, 96]).img(&own.name, 0));
        let name = own.name.rsplit('/').next().unwrap_or(&own.name);
        format!(
            "<figure>{picture}<figcaption><b>{}</b>, {}{caption}<br>{}</figcaption></figure>",
            escape(&check.classes[own.class as usize]),
            PARTS[own.part],
            escape(name)
        )
    };
    if !check.duplicates.is_empty() {
        body.push_str("<section><h2>Duplicates</h2><p class=note>Those across parts first: what is learned would be tested on itself.</p><div class=\"pictures heats\">");
        for d in check.duplicates.iter().take(PAIRS) {
            let leak = if check.is_leak(d) { " <b>leak</b>" } else { "" };
            let _ = write!(
                body,
                "<div><div class=pair>{}{}</div><p class=note>{:?}, correlation {:.3}{leak}</p></div>",
                shown(d.items[0], ""),
                shown(d.items[1], ""),
                d.kind,
                d.correlation
            );
        }
        body.push_str("</div></section>");
    }
    if !suspects.is_empty() {
        body.push_str("<section><h2>Perhaps labelled wrongly</h2><div class=pictures>");
        for s in suspects.iter().take(PAIRS) {
            let caption = format!(", looks like <b>{}</b> ({:.0} %)", escape(&check.classes[s.answer]), 100.0 * s.probability);
            body.push_str(&shown(s.item, &caption));
        }
        body.push_str("</div></section>");
    }
    if !check.unreadable.is_empty() {
        let lines: String = check.unreadable.iter().take(PAIRS).map(|line| format!("<li>{}</li>", escape(line))).collect();
        let _ = write!(body, "<section><h2>Cannot be read</h2><ul>{lines}</ul></section>");
    }
    super::page(&check.name, &body)
}

/// The first convolution's filters: in colour where it takes three channels, else the first channel's.
pub(super) fn filters(body: &mut String, module: &dyn Module) -> Result<()> {
    let first = named_parameters(module).into_iter().find(|(_, parameter)| matches!(parameter.shape()[..], [_, _, h, w] if h * w > 1));
    let Some((name, parameter)) = first else { return Ok(()) };
    let [count, channels, h, w] = parameter.shape()[..] else { return Ok(()) };
    let values = parameter.data().to_vec_blocking::<f32>()?;
    let _ = write!(
        body,
        "<section><h2>The first layer's filters</h2><p class=note>{count} filters of {h} x {w} ({}), each from its least weight to its greatest.</p><div class=strip>",
        escape(&name)
    );
    for filter in values.chunks_exact((channels * h * w).max(1)).take(FILTERS) {
        let (low, high) = filter.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
        let grey = |v: f32| (255.0 * (v - low) / (high - low).max(1e-12)).round().clamp(0.0, 255.0) as u8;
        let colour = |i: usize, c: usize| grey(filter[if channels == 3 { c * h * w + i } else { i }]);
        let picture = Picture { size: [h, w], rgb: (0..h * w).map(|i| [0, 1, 2].map(|c| colour(i, c))).collect() };
        body.push_str(&picture.img("filter", 48));
    }
    body.push_str("</div></section>");
    Ok(())
}

/// Training images as they are and as they were changed.
pub(super) fn changed(body: &mut String, config: &Config, data: &Dataset) -> Result<()> {
    if config.augmentation.is_none() || data.train.is_empty() {
        return Ok(());
    }
    let count = CHANGED.0.min(data.train.len());
    let samples: Vec<usize> = (0..count).map(|i| i * data.train.len() / count).collect();
    let part = std::sync::Arc::new(data.train.select(&samples));
    let mut columns = vec![shown(data, &part, Augment::default(), config.seed, 0)?];
    for epoch in 1..CHANGED.1 as u64 {
        columns.push(shown(data, &part, config.augmentation, config.seed, epoch)?);
    }
    let _ = write!(
        body,
        "<section><h2>Training images</h2><p class=note>First as they are, then changed at random ({}).</p>",
        escape(&config.augment)
    );
    for row in 0..count {
        body.push_str("<div class=strip>");
        columns.iter().for_each(|column| body.push_str(&column[row].img("training image", 96)));
        body.push_str("</div>");
    }
    body.push_str("</section>");
    Ok(())
}

/// Images as a network gets them, less its preprocessing.
fn shown(data: &Dataset, part: &std::sync::Arc<Part>, augment: Augment, seed: u64, epoch: u64) -> Result<Vec<Picture>> {
    let options = LoaderOptions { batch_size: part.len(), augment, seed, epoch, ..LoaderOptions::default() };
    let mut all = Vec::new();
    for batch in Loader::new(data, part, options)? {
        for image in batch?.images.chunks_exact(data.channels * data.height * data.width) {
            all.push(Picture::of(&data.preprocessing.pixels(image), data));
        }
    }
    Ok(all)
}
