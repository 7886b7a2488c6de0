//! Samples in batches, prepared ahead by worker threads.
//!
//! A batch is a function of the options and its number alone, so it is the same whichever thread prepares it, and an epoch can be
//! resumed at any batch.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::augment::{Augment, Draw, Mix};
use super::pixels::Values;
use super::{Dataset, Part, Preprocessing};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::tensor::Tensor;

/// How a [`Loader`] orders, changes and prepares samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoaderOptions {
    /// Samples a batch; the last batch of an epoch may be shorter. Default 64.
    pub batch_size: usize,
    /// Whether samples come in an order drawn for each epoch, instead of their own. Default false.
    pub shuffle: bool,
    /// Random changes, drawn anew each epoch. Features are only mixed. Default none.
    pub augment: Augment,
    /// What random decisions depend on, with the epoch. Default 0.
    pub seed: u64,
    /// The number of the epoch. Default 0.
    pub epoch: u64,
    /// Threads that prepare batches ahead; 0 prepares each batch when it is asked for. Default 0.
    pub workers: usize,
    /// The first batch to deliver, for going on in the middle of an epoch. Default 0.
    pub first_batch: usize,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        LoaderOptions { batch_size: 64, shuffle: false, augment: Augment::default(), seed: 0, epoch: 0, workers: 0, first_batch: 0 }
    }
}

/// Some samples, ready for a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Preprocessed pixels, `[N, C, H, W]`.
    pub images: Vec<f32>,
    /// The class of each sample, `[N]`.
    pub targets: Vec<i32>,
    /// The standardised number of each sample, `[N]`, where numbers are predicted; else none.
    pub numbers: Vec<f32>,
    /// The place of each sample in its part, `[N]`.
    pub indices: Vec<u32>,
    /// The classes of the images that were mixed in, if any were.
    pub mix: Option<Mix>,
}

impl Batch {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// What a network is to answer: the classes, i32 `[N]`, or the numbers, f32 `[N, 1]`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn target(&self, device: &Device) -> Result<Tensor> {
        match self.numbers.is_empty() {
            true => Tensor::from_slice(device, &[self.len()], &self.targets),
            false => Tensor::from_slice(device, &[self.len(), 1], &self.numbers),
        }
    }

    /// True when there are none; a [`Loader`] delivers no such batch.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }
}

/// The batches of one epoch, in order.
pub struct Loader {
    recipe: Arc<Recipe>,
    /// The next batch to deliver.
    next: usize,
    /// Worker w of W prepares the batches `first_batch + w`, `first_batch + w + W` ... and delivers them through its own channel.
    batches: Vec<Receiver<Result<Batch>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Loader {
    /// One epoch over `part` of `dataset`.
    ///
    /// # Errors
    /// [`Error::Config`] for a batch size of 0, augmentation out of range, wrong preprocessing, or threads that the
    /// system refuses; [`Error::Shape`] or [`Error::Data`] where `part` does not fit `dataset`.
    pub fn new(dataset: &Dataset, part: &Arc<Part>, options: LoaderOptions) -> Result<Loader> {
        if options.batch_size == 0 {
            return Err(Error::Config("--batch-size must be at least 1, got 0".into()));
        }
        options.augment.check([dataset.height, dataset.width])?;
        let sample_len = dataset.sample_len(part)?;
        let order = match options.shuffle {
            true => Stream::new(options.seed, "shuffle", options.epoch, 0).permutation(part.len()),
            false => (0..part.len() as u32).collect(),
        };
        let recipe = Arc::new(Recipe {
            part: part.clone(),
            order,
            tables: dataset.preprocessing.tables(dataset.channels)?,
            preprocessing: dataset.preprocessing.clone(),
            sample_len,
            height: dataset.height,
            width: dataset.width,
            options,
        });

        let first = options.first_batch;
        let workers = options.workers.min(recipe.batches().saturating_sub(first));
        let mut loader = Loader { recipe, next: first, batches: Vec::new(), threads: Vec::new() };
        for worker in 0..workers {
            // One batch waits in the channel and one in the worker's hands: two ahead a worker.
            let (sender, receiver) = sync_channel(1);
            let recipe = loader.recipe.clone();
            let work = move || {
                for index in (first + worker..recipe.batches()).step_by(workers) {
                    if sender.send(recipe.batch(index)).is_err() {
                        // The loader was dropped.
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("data-{worker}")).spawn(work);
            let thread = thread.map_err(|e| {
                Error::Config(format!("cannot start data worker {} of {workers}: {e}; give a smaller --workers", worker + 1))
            })?;
            loader.batches.push(receiver);
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// Batches of the whole epoch, those before `first_batch` included.
    pub fn batches(&self) -> usize {
        self.recipe.batches()
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.next >= self.batches() {
            return None;
        }
        let index = self.next;
        self.next += 1;
        if self.batches.is_empty() {
            return Some(self.recipe.batch(index));
        }
        let worker = (index - self.recipe.options.first_batch) % self.batches.len();
        // Should a worker be gone, the epoch must not end early: the same batch is made here.
        Some(self.batches[worker].recv().unwrap_or_else(|_| self.recipe.batch(index)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.batches().saturating_sub(self.next);
        (left, Some(left))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Without receivers, every worker ends at its next send.
        self.batches.clear();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a data worker panicked; its batches were prepared on the calling thread");
            }
        }
    }
}

/// All that a batch depends on, besides its number.
struct Recipe {
    part: Arc<Part>,
    order: Vec<u32>,
    /// The input for each pixel value, a table a channel.
    tables: Vec<[f32; 256]>,
    /// The same for values between those.
    preprocessing: Preprocessing,
    /// C H W.
    sample_len: usize,
    height: usize,
    width: usize,
    options: LoaderOptions,
}

impl Recipe {
    fn batches(&self) -> usize {
        self.order.len().div_ceil(self.options.batch_size)
    }

    /// Batch number `index`, which must be below `batches()`.
    fn batch(&self, index: usize) -> Result<Batch> {
        let start = index * self.options.batch_size;
        let end = self.order.len().min(start.saturating_add(self.options.batch_size));
        let indices = self.order[start..end].to_vec();
        let mut images = vec![0.0; indices.len() * self.sample_len];
        let mut scratch = Vec::new();
        for (&sample, image) in indices.iter().zip(images.chunks_exact_mut(self.sample_len)) {
            match self.part.read(sample as usize, self.sample_len, &mut scratch)? {
                Values::Features(values) => image.copy_from_slice(values),
                Values::Pixels(pixels) => self.prepare(self.draw(sample as u64), pixels, image),
            }
        }
        let targets: Vec<i32> = indices.iter().map(|&sample| self.part.labels[sample as usize] as i32).collect();
        let mix = self.options.augment.mix(self.draw(index as u64), &mut images, &targets, [self.height, self.width]);
        let numbers = match self.part.numbers.is_empty() {
            true => Vec::new(),
            false => indices.iter().map(|&sample| self.part.numbers[sample as usize]).collect(),
        };
        Ok(Batch { images, targets, numbers, indices, mix })
    }

    fn draw(&self, sample: u64) -> Draw {
        Draw { seed: self.options.seed, epoch: self.options.epoch, sample }
    }

    /// Writes the changed and preprocessed sample.
    fn prepare(&self, draw: Draw, pixels: &[u8], image: &mut [f32]) {
        let (augment, size) = (&self.options.augment, [self.height, self.width]);
        let area = self.height * self.width;
        let map = augment.map(draw, size);
        if let Some(map) = map {
            pixels.chunks_exact(area).zip(image.chunks_exact_mut(area)).for_each(|(source, target)| map.apply(source, target, size));
        } else {
            // Where no value lies between two pixels', a table has it.
            let raw: [f32; 256] = std::array::from_fn(|pixel| pixel as f32);
            let tables = if !augment.recolours() { &self.tables } else { &vec![raw; self.tables.len()] };
            self.shift_and_mirror(draw, pixels, image, tables);
        }
        if augment.recolours() {
            // Colours are changed on the scale of 0 to 255, whatever the data's own.
            let white = self.preprocessing.white();
            image.iter_mut().for_each(|x| *x *= white);
            augment.recolour(draw, image, self.tables.len(), size);
            image.iter_mut().for_each(|x| *x /= white);
        }
        if map.is_some() || augment.recolours() {
            let Preprocessing { scale, mean, std } = &self.preprocessing;
            for ((plane, mean), std) in image.chunks_exact_mut(area).zip(mean).zip(std) {
                plane.iter_mut().for_each(|x| *x = (*x / scale - mean) / std);
            }
        }
        if let Some([rows, columns]) = augment.erased(draw, size) {
            for plane in image.chunks_exact_mut(area) {
                plane.chunks_exact_mut(self.width).skip(rows.start).take(rows.len()).for_each(|line| line[columns.clone()].fill(0.0));
            }
        }
    }

    /// Writes a sample through tables, moved by its shift, then perhaps mirrored.
    fn shift_and_mirror(&self, draw: Draw, pixels: &[u8], image: &mut [f32], tables: &[[f32; 256]]) {
        let (down, right) = self.options.augment.shift_of(draw);
        let (from_row, to_row, rows) = overlap(self.height, down);
        let (from_column, to_column, columns) = overlap(self.width, right);
        let area = self.height * self.width;
        for ((source, target), table) in pixels.chunks_exact(area).zip(image.chunks_exact_mut(area)).zip(tables) {
            target.fill(table[0]);
            let source = source.chunks_exact(self.width).skip(from_row);
            let target = target.chunks_exact_mut(self.width).skip(to_row);
            for (source, target) in source.zip(target).take(rows) {
                for (&pixel, x) in source[from_column..][..columns].iter().zip(&mut target[to_column..][..columns]) {
                    *x = table[pixel as usize];
                }
            }
        }
        if self.options.augment.mirrors(draw) {
            image.chunks_exact_mut(self.width).for_each(<[f32]>::reverse);
        }
    }
}

/// For a line of `size` pixels moved by `shift`: the first pixel read, where it is written, and how many remain in sight.
fn overlap(size: usize, shift: isize) -> (usize, usize, usize) {
    ((-shift).max(0) as usize, shift.max(0) as usize, size.saturating_sub(shift.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::dataset;
    use crate::data::{Preprocessing, digits};

    const NONE: Augment = Augment::NONE;
    const ALL: LoaderOptions = LoaderOptions {
        batch_size: 7,
        shuffle: true,
        augment: Augment { shift: 2, ..NONE },
        seed: 11,
        epoch: 3,
        workers: 0,
        first_batch: 0,
    };

    fn set() -> Dataset {
        dataset(&(0..60).map(|i| i % 4).collect::<Vec<u32>>(), 4, 5, 3)
    }

    fn batches(set: &Dataset, options: LoaderOptions) -> Vec<Batch> {
        Loader::new(set, &set.train, options).unwrap().map(Result::unwrap).collect()
    }

    fn indices(batches: &[Batch]) -> Vec<u32> {
        batches.iter().flat_map(|batch| batch.indices.clone()).collect()
    }

    #[test]
    fn every_sample_comes_exactly_once_an_epoch() {
        let set = set();
        let loader = Loader::new(&set, &set.train, ALL).unwrap();
        assert_eq!((loader.batches(), loader.size_hint()), (9, (9, Some(9))));
        let batches: Vec<Batch> = loader.map(Result::unwrap).collect();
        assert_eq!(batches.iter().map(Batch::len).collect::<Vec<_>>(), [7, 7, 7, 7, 7, 7, 7, 7, 4]);
        let mut order = indices(&batches);
        assert_ne!(order, (0..60).collect::<Vec<u32>>());
        order.sort();
        assert_eq!(order, (0..60).collect::<Vec<u32>>());
        for batch in &batches {
            assert_eq!(batch.images.len(), batch.len() * 15);
            assert!(batch.indices.iter().zip(&batch.targets).all(|(index, &target)| index % 4 == target as u32));
        }
    }

    #[test]
    fn the_order_depends_on_seed_and_epoch_alone() {
        let set = set();
        let order = |options| indices(&batches(&set, options));
        let own = order(ALL);
        assert_eq!(own, order(LoaderOptions { batch_size: 60, augment: NONE, ..ALL }));
        assert_eq!(own, Stream::new(11, "shuffle", 3, 0).permutation(60));
        assert_ne!(own, order(LoaderOptions { epoch: 4, ..ALL }));
        assert_ne!(own, order(LoaderOptions { seed: 12, ..ALL }));
        assert_eq!(order(LoaderOptions { shuffle: false, ..ALL }), (0..60).collect::<Vec<u32>>());
    }

    #[test]
    fn any_number_of_workers_gives_the_same_batches() {
        let set = set();
        let own = batches(&set, ALL);
        for workers in [1, 2, 3, 9, 1_000_000] {
            assert_eq!(batches(&set, LoaderOptions { workers, ..ALL }), own, "{workers} workers");
        }
    }

    #[test]
    fn resuming_gives_the_tail_of_the_epoch() {
        let set = set();
        let own = batches(&set, ALL);
        for workers in [0, 1, 3] {
            for first_batch in [0, 1, 5, 8, 9, 10, usize::MAX] {
                let tail = batches(&set, LoaderOptions { workers, first_batch, ..ALL });
                assert_eq!(tail, own[first_batch.min(9)..], "{workers} workers from {first_batch}");
            }
        }
    }

    #[test]
    fn dropping_a_loader_early_ends_its_workers() {
        let set = set();
        for taken in [0, 1, 4, 9] {
            let mut loader = Loader::new(&set, &set.train, LoaderOptions { workers: 3, batch_size: 1, ..ALL }).unwrap();
            assert_eq!(loader.by_ref().take(taken).count(), taken);
            let recipe = Arc::downgrade(&loader.recipe);
            drop(loader);
            // Each worker holds the recipe as long as it lives.
            assert!(recipe.upgrade().is_none());
        }
    }

    #[test]
    fn an_epoch_outlives_its_workers() {
        let set = set();
        let mut loader = Loader::new(&set, &set.train, LoaderOptions { workers: 3, ..ALL }).unwrap();
        loader.batches[1] = sync_channel(1).1;
        assert_eq!(loader.map(Result::unwrap).collect::<Vec<_>>(), batches(&set, ALL));
    }

    #[test]
    fn pixels_are_preprocessed_by_channel() {
        let mut set = dataset(&[1, 0], 2, 2, 2);
        set.channels = 2;
        set.preprocessing = Preprocessing { scale: 2.0, mean: vec![0.5, 1.0], std: vec![1.0, 4.0] };
        set.train = Arc::new(Part::new(vec![1, 2, 3, 4, 10, 20, 30, 40, 0, 0, 0, 0, 2, 2, 2, 2], vec![1, 0]));
        let batch = &batches(&set, LoaderOptions::default())[0];
        assert_eq!(batch.images, [0.0, 0.5, 1.0, 1.5, 1.0, 2.25, 3.5, 4.75, -0.5, -0.5, -0.5, -0.5, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!((&batch.targets[..], &batch.indices[..]), (&[1, 0][..], &[0, 1][..]));
    }

    #[test]
    fn about_half_of_the_samples_are_mirrored_and_others_each_epoch() {
        let set = set();
        let plain = batches(&set, LoaderOptions { augment: NONE, shuffle: false, ..ALL });
        let mirrored = |epoch| -> Vec<bool> {
            let flipped = batches(&set, LoaderOptions { augment: Augment { flip: true, ..NONE }, shuffle: false, epoch, ..ALL });
            let images = |batches: &[Batch]| batches.iter().flat_map(|b| b.images.clone()).collect::<Vec<f32>>();
            let (a, b) = (images(&plain), images(&flipped));
            let of = |(a, b): (&[f32], &[f32])| {
                let reversed: Vec<f32> = a.chunks_exact(3).flat_map(|row| row.iter().rev().copied()).collect();
                assert!(b == a || b == reversed, "neither the image nor its mirror image");
                b != a
            };
            a.chunks_exact(15).zip(b.chunks_exact(15)).map(of).collect()
        };
        let (first, second) = (mirrored(1), mirrored(2));
        let count = first.iter().filter(|&&m| m).count();
        // 60 fair coins: 30 +- 4 standard deviations of 3.9.
        assert!((15..=45).contains(&count), "{count} of 60");
        assert!(first != second && first == mirrored(1));
    }

    #[test]
    fn a_shift_moves_every_pixel_alike_and_never_wraps() {
        let mut set = set();
        // A pixel of value 0 is not an input of 0 here.
        set.preprocessing = Preprocessing { scale: 1.0, mean: vec![7.0], std: vec![1.0] };
        let loader = Loader::new(&set, &set.train, ALL).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        let pixels = set.train.pixels().unwrap();
        for sample in 0..60 {
            let (mut image, draw) = (vec![f32::NAN; 15], loader.recipe.draw(sample as u64));
            loader.recipe.prepare(draw, &pixels[sample * 15..][..15], &mut image);
            let (down, right) = ALL.augment.shift_of(draw);
            seen.insert((down, right));
            for (row, column) in (0..5).flat_map(|row| (0..3).map(move |column| (row, column))) {
                let (from_row, from_column) = (row - down, column - right);
                let inside = (0..5).contains(&from_row) && (0..3).contains(&from_column);
                let pixel = if inside { pixels[sample * 15 + (from_row * 3 + from_column) as usize] } else { 0 };
                assert_eq!(image[(row * 3 + column) as usize], pixel as f32 - 7.0, "sample {sample} moved by {down}, {right}");
            }
        }
        // Of the 25 shifts in -2..=2, 60 samples show most.
        assert!(seen.len() > 15 && seen.iter().all(|(down, right)| down.abs() <= 2 && right.abs() <= 2), "{seen:?}");
    }

    #[test]
    fn any_augmentation_is_the_same_for_any_number_of_workers() {
        let mut set = set();
        set.preprocessing = Preprocessing { scale: 255.0, mean: vec![0.5], std: vec![0.25] };
        let strong = Augment { shift: 1, mixup: 0.2, randaugment: 2, ..Augment::preset("strong", [5, 3]).unwrap() };
        let options = LoaderOptions { augment: strong, ..ALL };
        let own = batches(&set, options);
        assert!(own.iter().all(|batch| batch.mix.is_some()));
        assert_eq!(batches(&set, LoaderOptions { workers: 2, first_batch: 3, ..options }), own[3..]);
        assert_ne!(batches(&set, LoaderOptions { epoch: 4, ..options }), own);
    }

    #[test]
    fn changed_colours_stay_in_the_datas_own_range() {
        let mut set = digits().unwrap();
        set.train = Arc::new(set.train.select(&(0..40).collect::<Vec<_>>()));
        let augment = Augment { randaugment: 3, magnitude: 20.0, jitter: 0.5, ..NONE };
        for batch in batches(&set, LoaderOptions { augment, ..ALL }) {
            // Digits are 0 to 16, divided by 16.
            assert!(batch.images.iter().all(|x| (0.0..=1.0 + 1e-5).contains(x)), "{:?}", batch.images.iter().copied().fold(0.0, f32::max));
            assert!(batch.images.iter().copied().fold(0.0, f32::max) > 0.5);
        }
    }

    #[test]
    fn colours_of_0_change_and_a_whole_crop_is_the_plain_image() {
        let set = set();
        let plain = batches(&set, LoaderOptions { augment: NONE, ..ALL });
        // Not exactly 1, so that the affine map is taken, which is the identity up to rounding then.
        let mapped = batches(&set, LoaderOptions { augment: Augment { rotate: 1e-9, ..NONE }, ..ALL });
        for (a, b) in plain.iter().zip(&mapped).flat_map(|(a, b)| a.images.iter().zip(&b.images)) {
            assert!((a - b).abs() < 1e-5, "{a} and {b}");
        }
        let recoloured = batches(&set, LoaderOptions { augment: Augment { jitter: 1e-9, ..NONE }, ..ALL });
        for (a, b) in plain.iter().zip(&recoloured).flat_map(|(a, b)| a.images.iter().zip(&b.images)) {
            assert!((a - b).abs() < 1e-5, "{a} and {b}");
        }
    }

    #[test]
    fn features_come_as_they_are() {
        let mut set = dataset(&[1, 0, 1], 2, 1, 1);
        (set.channels, set.height, set.width) = (4, 1, 1);
        set.preprocessing = Preprocessing::new(4);
        set.train = Arc::new(Part::features((0..12).map(|i| i as f32 - 6.5).collect(), vec![1, 0, 1]));
        let batch = &batches(&set, LoaderOptions { augment: Augment { jitter: 0.5, ..NONE }, ..Default::default() })[0];
        assert_eq!(batch.images, (0..12).map(|i| i as f32 - 6.5).collect::<Vec<f32>>());
        assert_eq!(batch.targets, [1, 0, 1]);
    }

    #[test]
    fn the_shift_of_a_sample_depends_on_seed_epoch_and_sample_alone() {
        let set = set();
        let image = |options: LoaderOptions| {
            let batch = batches(&set, options).into_iter().find(|batch| batch.indices.contains(&42)).unwrap();
            let place = batch.indices.iter().position(|&index| index == 42).unwrap();
            batch.images[place * 15..][..15].to_vec()
        };
        let own = image(ALL);
        assert_eq!(own, image(LoaderOptions { batch_size: 1, workers: 2, ..ALL }));
        assert_eq!(own, image(LoaderOptions { batch_size: 13, shuffle: false, ..ALL }));
        assert!((4..10).any(|epoch| image(LoaderOptions { epoch, ..ALL }) != own));
    }

    #[test]
    fn a_part_without_samples_gives_no_batches() {
        let set = dataset(&[], 1, 2, 2);
        assert!(batches(&set, LoaderOptions { workers: 2, ..LoaderOptions::default() }).is_empty());
    }

    #[test]
    fn one_batch_can_hold_everything() {
        let set = digits().unwrap();
        let all = batches(&set, LoaderOptions { batch_size: usize::MAX, augment: Augment { shift: 7, ..NONE }, ..ALL });
        assert_eq!(all.iter().map(Batch::len).collect::<Vec<_>>(), [1437]);
        assert!(all[0].images.iter().all(|x| (0.0..=1.0).contains(x)));
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let set = set();
        let error = |set: &Dataset, options| Loader::new(set, &set.train, options).err().unwrap().to_string();
        assert_eq!(error(&set, LoaderOptions { batch_size: 0, ..ALL }), "--batch-size must be at least 1, got 0");
        assert_eq!(
            error(&set, LoaderOptions { augment: Augment { shift: 3, ..NONE }, ..ALL }),
            "shift = 3 moves images of 5 x 3 pixels out of sight; give at most 2"
        );
        let wrong = Dataset { classes: vec!["a".into()], ..set.clone() };
        assert_eq!(error(&wrong, ALL), "test: sample 1 has label 1, but there are 1 classes");
        let wrong = Dataset { channels: 3, ..set.clone() };
        assert_eq!(error(&wrong, ALL), "data set test: 900 pixels are not 60 images of shape [3, 5, 3]");
        let wrong = Dataset { preprocessing: Preprocessing::new(3), ..set };
        assert!(error(&wrong, ALL).starts_with("mean has 3 values, but images have 1 channels"));
    }
}
