//! Small scenes with digits in them, and the truth about each: what every pixel belongs to, and a box around every digit.

use mappa::data::Part;
use mappa::metrics::detection::Thing;
use mappa::rng::Stream;
use mappa::{Device, Error, Result, Tensor};

/// Rows and columns of a scene.
pub const SIDE: usize = 32;

pub struct Scene {
    /// Grey values `[SIDE, SIDE]`, 0 to about 1.
    pub image: Vec<f32>,
    #[allow(dead_code, reason = "each of the two programs asks for its own truth")]
    /// Of each pixel 0, background, or 1 more than its digit.
    pub labels: Vec<i32>,
    #[allow(dead_code, reason = "as above")]
    /// Boxes around the digits, in pixels.
    pub digits: Vec<Thing>,
}

/// The digits that scenes are made of, of 8 x 8 pixels each.
pub struct Digits {
    pixels: Vec<u8>,
    labels: Vec<u32>,
}

impl Digits {
    pub fn new(part: &Part) -> Result<Self> {
        Ok(Digits { pixels: part.pixels()?, labels: part.labels.clone() })
    }
}

/// One to three digits, 10 to 16 pixels wide, on a slope of grey with noise and strokes, the distractions.
pub fn compose(source: &Digits, seed: u64, number: u64) -> Scene {
    let stream = Stream::new(seed, "scene", number, 0);
    let mut drawn = 0;
    let mut uniform = |low: f32, high: f32| {
        drawn += 1;
        low + (high - low) * stream.uniform(drawn)
    };
    let (base, right, down) = (uniform(0.0, 0.25), uniform(-0.15, 0.15), uniform(-0.15, 0.15));
    let mut image: Vec<f32> = (0..SIDE * SIDE)
        .map(|i| base + right * (i % SIDE) as f32 / SIDE as f32 + down * (i / SIDE) as f32 / SIDE as f32 + uniform(-0.05, 0.05))
        .collect();
    for _ in 0..2 {
        let (mut x, mut y, angle, grey) = (uniform(0.0, 31.0), uniform(0.0, 31.0), uniform(0.0, 6.3), uniform(0.2, 0.45));
        for _ in 0..12 {
            (x, y) = ((x + angle.cos()).clamp(0.0, 31.0), (y + angle.sin()).clamp(0.0, 31.0));
            image[y as usize * SIDE + x as usize] += grey;
        }
    }
    let (mut labels, mut digits, mut places) = (vec![0; SIDE * SIDE], Vec::new(), Vec::<[usize; 3]>::new());
    let wanted = 1 + uniform(0.0, 3.0) as usize;
    for _ in 0..20 {
        let side = uniform(10.0, 16.99) as usize;
        let [x, y] = [uniform(0.0, 1.0), uniform(0.0, 1.0)].map(|at| (at * (SIDE - side) as f32) as usize);
        let (digit, light) =
            (source.labels.len().min((uniform(0.0, 1.0) * source.labels.len() as f32) as usize + 1) - 1, uniform(0.6, 1.0));
        let apart = |&[a, b, other]: &[usize; 3]| x >= a + other || a >= x + side || y >= b + other || b >= y + side;
        if digits.len() == wanted || !places.iter().all(apart) {
            continue;
        }
        places.push([x, y, side]);
        let class = source.labels[digit] as usize;
        let pixels = &source.pixels[64 * digit..][..64];
        let (mut least, mut most) = ([SIDE; 2], [0; 2]);
        for (row, column) in (0..side).flat_map(|row| (0..side).map(move |column| (row, column))) {
            let value = between(pixels, row, column, side);
            let at = (y + row) * SIDE + x + column;
            image[at] = image[at] * (1.0 - value) + light * value;
            if value > 0.35 {
                labels[at] = 1 + class as i32;
                least = [least[0].min(x + column), least[1].min(y + row)];
                most = [most[0].max(x + column + 1), most[1].max(y + row + 1)];
            }
        }
        let bounds = [least[0], least[1], most[0], most[1]].map(|edge| edge as f32);
        digits.push(Thing { bounds, class, score: 1.0 });
    }
    Scene { image, labels, digits }
}

/// The value of an 8 x 8 digit (0 to 16) at a pixel of its enlargement, between its four neighbours; 0 to 1.
fn between(pixels: &[u8], row: usize, column: usize, side: usize) -> f32 {
    let place = |i: usize| ((i as f32 + 0.5) * 8.0 / side as f32 - 0.5).clamp(0.0, 7.0);
    let (y, x) = (place(row), place(column));
    let at = |r: usize, c: usize| pixels[8 * r.min(7) + c.min(7)] as f32 / 16.0;
    let (r, c, dy, dx) = (y as usize, x as usize, y.fract(), x.fract());
    (1.0 - dy) * ((1.0 - dx) * at(r, c) + dx * at(r, c + 1)) + dy * ((1.0 - dx) * at(r + 1, c) + dx * at(r + 1, c + 1))
}

/// The images of scenes, `[N, 1, SIDE, SIDE]`.
pub fn images(device: &Device, scenes: &[Scene]) -> Result<Tensor> {
    let values: Vec<f32> = scenes.iter().flat_map(|scene| scene.image.iter().copied()).collect();
    Tensor::from_slice(device, &[scenes.len(), 1, SIDE, SIDE], &values)
}

/// A picture of rows of scenes, each enlarged four times; `colour` says what is drawn at (row, column, x, y), x and y in quarters of a pixel.
pub fn save(name: &str, rows: u32, columns: u32, colour: impl Fn(usize, usize, usize, usize) -> [u8; 3]) -> Result<String> {
    const CELL: u32 = 4 * SIDE as u32 + 4;
    let picture = image::RgbImage::from_fn(CELL * columns, CELL * rows, |x, y| {
        let (inner_x, inner_y) = (x % CELL, y % CELL);
        let inside = inner_x.max(inner_y) < CELL - 4;
        image::Rgb(if inside { colour((y / CELL) as usize, (x / CELL) as usize, inner_x as usize, inner_y as usize) } else { [255; 3] })
    });
    let path = format!("target/tour/{name}");
    std::fs::create_dir_all("target/tour").map_err(|e| Error::io("target/tour", e))?;
    picture.save(&path).map_err(|e| Error::data(&path, e.to_string()))?;
    Ok(path)
}

/// Ten colours for ten digits.
pub const COLOURS: [[u8; 3]; 10] = [
    [230, 60, 60],
    [60, 140, 240],
    [60, 190, 90],
    [245, 170, 40],
    [160, 90, 230],
    [40, 190, 190],
    [240, 110, 190],
    [150, 110, 70],
    [190, 200, 40],
    [120, 130, 150],
];
