//! What is wrong with a data set before anything is trained on it: unreadable pictures, duplicates, leaks between its parts, classes of unequal size.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Cursor;
use std::path::Path;

use rayon::prelude::*;

use super::tree::Source;
use super::{Dataset, Part, folder, load, pictures_of};
use crate::error::{Error, Result};
use crate::io::picture;

/// The names of the parts.
pub const PARTS: [&str; 3] = ["train", "val", "test"];

/// Pictures are compared as small ones of this side.
const SIDE: usize = 32;
/// Of the 63 signs of a picture's coarse structure, so many may differ in a copy.
const MAX_SIGNS: u32 = 14;
/// Small pictures of copies correlate at least so much.
const MIN_CORRELATION: f32 = 0.97;

/// A picture, or a row of arrays.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its file, from the data set's folder or archive on, or `PART:ROW`.
    pub name: String,
    /// Its part, an index of [`PARTS`].
    pub part: usize,
    /// Its class.
    pub class: u32,
    /// Its height and width in pixels.
    pub size: [u32; 2],
    /// Where a picture is; none of arrays.
    source: Option<Source>,
}

impl Item {
    /// A picture's pixels `[C, H, W]`, resized; nothing where it is none.
    ///
    /// # Errors
    /// [`Error::Data`] when it cannot be read.
    pub fn read(&self, channels: usize, height: usize, width: usize) -> Result<Option<Vec<u8>>> {
        self.source.as_ref().map(|source| source.read(channels, height, width)).transpose()
    }
}

/// How two items are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Byte by byte.
    Exact,
    /// Resized, recompressed or a little changed.
    Near,
    /// The same, and mirrored or turned by 180 degrees.
    Mirrored,
}

/// Two items that show the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Duplicate {
    /// Numbers of the items, the lower first.
    pub items: [usize; 2],
    /// How they are the same.
    pub kind: Kind,
    /// Of their small pictures, at most 1.
    pub correlation: f32,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Check {
    /// The data set's name.
    pub name: String,
    /// Class names.
    pub classes: Vec<String>,
    /// All that could be read.
    pub items: Vec<Item>,
    /// What could not be read, each with its file and the reason.
    pub unreadable: Vec<String>,
    /// Pairs that show the same, leaks first, then the surest.
    pub duplicates: Vec<Duplicate>,
    /// Mean of each channel, 0 to 1.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel.
    pub std: Vec<f64>,
}

impl Check {
    /// Whether the two lie in different parts: what is learned would be tested on itself.
    pub fn is_leak(&self, duplicate: &Duplicate) -> bool {
        self.items[duplicate.items[0]].part != self.items[duplicate.items[1]].part
    }

    /// Items of each part and class.
    pub fn counts(&self) -> [Vec<usize>; 3] {
        let mut counts = [(); 3].map(|()| vec![0; self.classes.len()]);
        self.items.iter().for_each(|item| counts[item.part][item.class as usize] += 1);
        counts
    }

    /// What deserves a thought, in words.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let counts = self.counts();
        let of = |class: usize| -> usize { counts.iter().map(|part| part[class]).sum() };
        let (Some(most), Some(least)) = ((0..self.classes.len()).max_by_key(|&c| of(c)), (0..self.classes.len()).min_by_key(|&c| of(c)))
        else {
            return lines;
        };
        if of(most) > 3 * of(least) {
            lines.push(format!(
                "classes differ in size: {} of {}, {} of {}; consider --class-weights balanced and --best-by macro-f1",
                of(most),
                self.classes[most],
                of(least),
                self.classes[least]
            ));
        }
        for (part, counts) in PARTS.iter().zip(&counts).filter(|(_, counts)| counts.iter().any(|&n| n > 0)) {
            let few: Vec<&str> = (0..self.classes.len()).filter(|&c| counts[c] < 10).map(|c| self.classes[c].as_str()).take(5).collect();
            if !few.is_empty() {
                lines.push(format!("{part} has fewer than 10 of {}", few.join(", ")));
            }
        }
        let across = self.duplicates.iter().filter(|d| self.items[d.items[0]].class != self.items[d.items[1]].class).count();
        if across > 0 {
            lines.push(format!("{across} duplicates have two classes: one of each is labelled wrongly"));
        }
        lines
    }
}

/// Looks at the data set `source`, as [`load`] takes it. Pictures are compared with each other, mirrored ones too; of arrays only equal ones are found.
///
/// # Errors
/// As [`load`]; unreadable pictures are no error.
pub fn check(source: &str) -> Result<Check> {
    if super::is_table(Path::new(source)) {
        return Err(Error::data(
            source,
            "is a table of numbers and words; pictures are checked here, and a table whenever it is trained on",
        ));
    }
    match pictures_of(Path::new(source)) {
        Some(tree) => pictures(Path::new(source), tree?),
        None => arrays(&load(source, super::DEFAULT_SIZE)?),
    }
}

/// What is kept of a picture for comparing.
struct Sketch {
    bytes: u64,
    signs: u64,
    /// The small picture with mean 0 and length 1.
    small: Vec<f32>,
}

fn pictures(path: &Path, tree: super::tree::Tree) -> Result<Check> {
    let layout = folder::layout(path, tree)?;
    let (mut items, mut sketches, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    let mut moments = Moments::new(3);
    for (part, files) in layout.parts.into_iter().enumerate() {
        let files = files.map_or_else(Vec::new, |(_, files)| files);
        for some in files.chunks(256) {
            type Looked = Result<(Vec<u8>, [u32; 2], u64)>;
            let looked: Vec<Looked> = some.par_iter().map(|(source, _)| look(source)).collect();
            for (looked, (source, class)) in looked.into_iter().zip(some) {
                match looked {
                    Ok((pixels, size, bytes)) => {
                        moments.add(&pixels);
                        let full = source.name();
                        let name = full.strip_prefix(path).unwrap_or(&full).display().to_string();
                        items.push(Item { name, part, class: *class, size, source: Some(source.clone()) });
                        sketches.push(sketch(&pixels, bytes));
                    }
                    Err(error) => unreadable.push(error.to_string()),
                }
            }
        }
    }
    let mut check =
        Check { name: layout.name, classes: layout.classes, items, unreadable, duplicates: duplicates(&sketches), ..moments.check() };
    sort(&mut check);
    Ok(check)
}

/// A small picture, the size of the picture itself, and a hash of the file.
fn look(source: &Source) -> Result<(Vec<u8>, [u32; 2], u64)> {
    let bytes = source.bytes()?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let (pixels, size) = picture::decode_sized(&source.name(), Cursor::new(bytes), 3, SIDE, SIDE)?;
    Ok((pixels, size, hasher.finish()))
}

/// Leaks first, then the surest.
fn sort(check: &mut Check) {
    let mut duplicates = std::mem::take(&mut check.duplicates);
    duplicates.sort_by(|a, b| check.is_leak(b).cmp(&check.is_leak(a)).then(b.correlation.total_cmp(&a.correlation)));
    check.duplicates = duplicates;
}

fn sketch(pixels: &[u8], bytes: u64) -> Sketch {
    let area = SIDE * SIDE;
    let mean = pixels.iter().map(|&v| v as f32).sum::<f32>() / pixels.len() as f32;
    let mut small: Vec<f32> = pixels.iter().map(|&v| v as f32 - mean).collect();
    let grey: Vec<f32> = (0..area).map(|i| (0..3).map(|c| small[c * area + i]).sum()).collect();
    let length = small.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-6);
    small.iter_mut().for_each(|v| *v /= length);
    Sketch { bytes, signs: signs(&grey), small }
}

/// The lowest 8 x 8 frequencies of the discrete cosine transform, of each whether it is positive; the mean has no sign.
///
/// Mirroring a picture left to right changes the sign of the odd horizontal frequencies, and of no others: see [`mirror`].
fn signs(grey: &[f32]) -> u64 {
    let wave =
        |frequency: usize, place: usize| ((2 * place + 1) as f32 * frequency as f32 * std::f32::consts::PI / (2 * SIDE) as f32).cos();
    let mut bits = 0;
    for down in 0..8 {
        // One line of the transform: rows summed, then columns.
        let line: Vec<f32> = (0..SIDE).map(|column| (0..SIDE).map(|row| grey[row * SIDE + column] * wave(down, row)).sum()).collect();
        for right in 0..8 {
            let value: f32 = (0..SIDE).map(|column| line[column] * wave(right, column)).sum();
            bits |= u64::from(value > 0.0 && down + right > 0) << (8 * down + right);
        }
    }
    bits
}

/// The signs that change when a picture is mirrored left to right, or top to bottom.
fn mirror(right: bool, down: bool) -> u64 {
    let odd = |bit: &u32| (right && bit % 2 == 1) != (down && bit / 8 % 2 == 1);
    (0..64).filter(odd).fold(0, |mask, bit| mask | 1 << bit)
}

fn duplicates(sketches: &[Sketch]) -> Vec<Duplicate> {
    let turns = [(false, false), (true, false), (false, true), (true, true)].map(|(right, down)| (right, down, mirror(right, down)));
    let mut first: std::collections::HashMap<u64, usize> = Default::default();
    sketches.iter().enumerate().for_each(|(i, sketch)| {
        first.entry(sketch.bytes).or_insert(i);
    });
    let of = |i: usize| -> Vec<Duplicate> {
        let own = &sketches[i];
        let pair = |j: usize| {
            let other = &sketches[j];
            if own.bytes == other.bytes {
                // Of many copies each is named once, beside the first: pairs of them would be without number.
                return (first[&own.bytes] == i).then_some(Duplicate { items: [i, j], kind: Kind::Exact, correlation: 1.0 });
            }
            let near = turns.iter().filter(|(_, _, mask)| (own.signs ^ other.signs ^ mask).count_ones() <= MAX_SIGNS);
            let best = near
                .map(|&(right, down, _)| (correlation(own, other, right, down), right || down))
                .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))?;
            let kind = if best.1 { Kind::Mirrored } else { Kind::Near };
            (best.0 >= MIN_CORRELATION).then_some(Duplicate { items: [i, j], kind, correlation: best.0 })
        };
        (i + 1..sketches.len()).filter_map(pair).collect()
    };
    (0..sketches.len()).into_par_iter().flat_map_iter(of).collect()
}

/// Of two small pictures, the second one mirrored.
fn correlation(a: &Sketch, b: &Sketch, right: bool, down: bool) -> f32 {
    let place = |i: usize, mirrored: bool| if mirrored { SIDE - 1 - i } else { i };
    let mut sum = 0.0;
    for c in 0..3 {
        for row in 0..SIDE {
            let (from, to) = ((c * SIDE + row) * SIDE, (c * SIDE + place(row, down)) * SIDE);
            sum += (0..SIDE).map(|column| a.small[from + column] * b.small[to + place(column, right)]).sum::<f32>();
        }
    }
    sum
}

/// Sums of each channel's values and their squares.
struct Moments(Vec<[f64; 3]>);

impl Moments {
    fn new(channels: usize) -> Self {
        Moments(vec![[0.0; 3]; channels])
    }

    /// Adds an image `[C, H, W]`.
    fn add(&mut self, pixels: &[u8]) {
        let area = (pixels.len() / self.0.len()).max(1);
        for (sums, plane) in self.0.iter_mut().zip(pixels.chunks_exact(area)) {
            for &pixel in plane {
                let v = pixel as f64 / 255.0;
                (sums[0], sums[1], sums[2]) = (sums[0] + 1.0, sums[1] + v, sums[2] + v * v);
            }
        }
    }

    /// A check that knows nothing else yet.
    fn check(&self) -> Check {
        let mean: Vec<f64> = self.0.iter().map(|[n, sum, _]| sum / n.max(1.0)).collect();
        let std = self.0.iter().zip(&mean).map(|([n, _, squares], mean)| (squares / n.max(1.0) - mean * mean).max(0.0).sqrt()).collect();
        Check { name: String::new(), classes: Vec::new(), items: Vec::new(), unreadable: Vec::new(), duplicates: Vec::new(), mean, std }
    }
}

fn arrays(data: &Dataset) -> Result<Check> {
    let (mut items, mut moments) = (Vec::new(), Moments::new(data.channels));
    let mut seen: std::collections::HashMap<Vec<u8>, usize> = Default::default();
    let mut duplicates = Vec::new();
    let parts: [Option<&Part>; 3] = [Some(&data.train), data.val.as_deref(), data.test.as_deref()];
    for (part, own) in parts.into_iter().enumerate().filter_map(|(part, own)| Some((part, own?))) {
        for row in 0..own.len() {
            let pixels = own.select(&[row]).pixels()?;
            moments.add(&pixels);
            let size = [data.height as u32, data.width as u32];
            items.push(Item { name: format!("{}:{row}", PARTS[part]), part, class: own.labels[row], size, source: None });
            let number = items.len() - 1;
            match seen.entry(pixels) {
                std::collections::hash_map::Entry::Occupied(first) => {
                    duplicates.push(Duplicate { items: [*first.get(), number], kind: Kind::Exact, correlation: 1.0 });
                }
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(number);
                }
            }
        }
    }
    let (name, classes) = (data.name.clone(), data.classes.clone());
    let mut check = Check { name, classes, items, duplicates, ..moments.check() };
    sort(&mut check);
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;
    use image::imageops;
    use std::path::PathBuf;

    /// A scene of some soft blobs, different for each number.
    fn scene(number: u64) -> image::RgbImage {
        let stream = Stream::new(3, "scene", number, 0);
        let blob = |k: u64| [0, 1, 2, 3, 4, 5].map(|i| stream.uniform(6 * k + i));
        let blobs: Vec<[f32; 6]> = (0..12).map(blob).collect();
        image::RgbImage::from_fn(96, 72, |x, y| {
            let mut rgb = [60.0f32; 3];
            for [cx, cy, r, red, green, blue] in &blobs {
                let d = ((x as f32 / 96.0 - cx).powi(2) + (y as f32 / 72.0 - cy).powi(2)) / (0.02 + 0.05 * r);
                let weight = (-d).exp() * 180.0;
                rgb = [rgb[0] + weight * (red - 0.3), rgb[1] + weight * (green - 0.3), rgb[2] + weight * (blue - 0.3)];
            }
            image::Rgb(rgb.map(|v| v.clamp(0.0, 255.0) as u8))
        })
    }

    fn save(image: &image::RgbImage, path: PathBuf, quality: u8) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(image).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn planted_duplicates_are_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: String| dir.path().join(name);
        for i in 0..120 {
            let class = ["a", "b"][i as usize % 2];
            save(&scene(i), at(format!("train/{class}/{i}.jpg")), 92);
        }
        for i in 0..30u64 {
            let own = scene(1000 + i);
            save(&own, at(format!("test/{}/{i}.jpg", ["a", "b"][i as usize % 2])), 92);
        }
        // 25 within train, 25 in test: copied, recompressed, resized, mirrored each way.
        for i in 0..50u64 {
            let own = scene(i);
            let folder = if i < 25 { "train" } else { "test" };
            let to = at(format!("{folder}/{}/copy-{i}.jpg", ["a", "b"][i as usize % 2]));
            match i % 5 {
                0 => drop(std::fs::copy(at(format!("train/{}/{i}.jpg", ["a", "b"][i as usize % 2])), to).unwrap()),
                1 => save(&own, to, 30),
                2 => save(&imageops::resize(&own, 48, 36, imageops::FilterType::Triangle), to, 80),
                3 => save(&imageops::flip_horizontal(&own), to, 85),
                _ => save(&imageops::flip_vertical(&own), to, 85),
            }
        }
        for i in 0..20 {
            std::fs::write(at(format!("train/a/broken-{i}.jpg")), vec![i as u8; 100 * i]).unwrap();
        }
        let found = check(dir.path().to_str().unwrap()).unwrap();
        assert_eq!((found.unreadable.len(), found.items.len(), found.duplicates.len()), (20, 200, 50));
        assert!(found.unreadable.iter().all(|line| line.contains("broken-")));
        assert!(found.duplicates[..25].iter().all(|d| found.is_leak(d)) && !found.is_leak(&found.duplicates[25]));
        let count = |kind: Kind| found.duplicates.iter().filter(|d| d.kind == kind).count();
        assert_eq!([Kind::Exact, Kind::Near, Kind::Mirrored].map(count), [10, 20, 20]);
        for d in &found.duplicates {
            let stem =
                |i: usize| Path::new(&found.items[i].name).file_stem().unwrap().to_str().unwrap().trim_start_matches("copy-").to_owned();
            assert_eq!(stem(d.items[0]), stem(d.items[1]));
        }
        assert_eq!(found.counts()[0], [73, 72]);
        assert_eq!(found.items[0].size, [72, 96]);
    }

    #[test]
    fn arrays_are_checked_for_equal_images() {
        let mut data = super::super::tests::dataset(&[0, 1, 1, 0], 2, 2, 2);
        data.test = Some(std::sync::Arc::new(data.train.select(&[2])));
        let found = arrays(&data).unwrap();
        assert_eq!(found.duplicates, [Duplicate { items: [2, 4], kind: Kind::Exact, correlation: 1.0 }]);
        assert!(found.is_leak(&found.duplicates[0]) && found.items[4].name == "test:0");
        assert!(found.warnings().iter().any(|line| line.contains("fewer than 10 of 0, 1")));
        let digits = check("digits").unwrap();
        assert_eq!((digits.items.len(), digits.unreadable.len()), (1797, 0));
    }
}
