//! A validation part for data sets that come without one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Dataset;
use crate::error::{Error, Result};
use crate::rng::Stream;

impl Dataset {
    /// The share of the training part that is held back unless another is asked for: a tenth; of tables with less than 30 rows nothing, as they need each.
    pub fn val_fraction(&self) -> f64 {
        // The same before the split and after it.
        let rows = self.train.len() + self.val.as_ref().map_or(0, |val| val.len());
        if self.table.is_some() && rows < 30 { 0.0 } else { 0.1 }
    }

    /// Moves a share of the train part into a validation part, unless there is one or `fraction` is 0.
    ///
    /// The share is stratified: of a class with n >= 2 samples, round(`fraction` n) are taken, but at least one and not all; a class
    /// with one sample keeps it for training. Which ones depends on `seed` alone; both parts keep the order of the samples.
    ///
    /// # Errors
    /// [`Error::Config`] unless `fraction` lies in 0..1, or where no class has two samples.
    pub fn with_validation(self, fraction: f64, seed: u64) -> Result<Dataset> {
        if !(0.0..1.0).contains(&fraction) {
            return Err(Error::Config(format!("--val-fraction must be at least 0 and below 1, got {fraction}")));
        }
        self.sample_len(&self.train)?;
        if self.val.is_some() || fraction == 0.0 {
            return Ok(self);
        }
        let mut classes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (sample, &label) in self.train.labels.iter().enumerate() {
            classes.entry(label).or_default().push(sample);
        }
        let mut taken = vec![false; self.train.len()];
        for (&class, samples) in classes.iter().filter(|(_, samples)| samples.len() >= 2) {
            let share = ((fraction * samples.len() as f64).round() as usize).clamp(1, samples.len() - 1);
            let order = Stream::new(seed, "validation-split", class.into(), 0).permutation(samples.len());
            for &i in &order[..share] {
                taken[samples[i as usize]] = true;
            }
        }
        if !taken.contains(&true) {
            return Err(Error::Config(format!(
                "data set {}: no class has two samples to split into train and validation; add samples, or give --val-fraction 0",
                self.name
            )));
        }
        let part = |wanted: bool| {
            let rows: Vec<usize> = (0..taken.len()).filter(|&sample| taken[sample] == wanted).collect();
            Arc::new(self.train.select(&rows))
        };
        let (train, val) = (part(false), Some(part(true)));
        Ok(Dataset { train, val, ..self })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::data::tests::dataset;
    use crate::data::{Dataset, Part, digits};

    fn counts(part: &Part, classes: u32) -> Vec<usize> {
        (0..classes).map(|class| part.labels.iter().filter(|&&label| label == class).count()).collect()
    }

    fn samples(set: &Dataset, part: &Part) -> Vec<(Vec<u8>, u32)> {
        let len = set.sample_len(part).unwrap();
        part.pixels().unwrap().chunks(len).map(<[u8]>::to_vec).zip(part.labels.iter().copied()).collect()
    }

    #[test]
    fn every_class_gives_its_share() {
        // 20 samples of class 0, 5 of class 1, 2 of class 2, one of class 3, mixed.
        let labels = [vec![0; 10], vec![1; 3], vec![3], vec![2; 2], vec![0; 10], vec![1; 2]].concat();
        for (fraction, expected) in [(0.1, [2, 1, 1, 0]), (0.5, [10, 3, 1, 0]), (1e-9, [1, 1, 1, 0]), (0.999, [19, 4, 1, 0])] {
            let set = dataset(&labels, 4, 2, 2).with_validation(fraction, 1).unwrap();
            let val = set.val.clone().unwrap();
            assert_eq!(counts(&val, 4), expected, "{fraction}");
            let rest: Vec<usize> = [20, 5, 2, 1].iter().zip(expected).map(|(all, taken)| all - taken).collect();
            assert_eq!(counts(&set.train, 4), rest, "{fraction}");
        }
    }

    #[test]
    fn the_digits_give_a_tenth_of_each_class() {
        let set = digits().unwrap().with_validation(0.1, 0).unwrap();
        let val = set.val.unwrap();
        assert_eq!(counts(&val, 10), [14, 15, 14, 15, 14, 15, 14, 14, 14, 14]);
        assert_eq!((set.train.len() + val.len(), set.test.unwrap().len()), (1437, 360));
    }

    #[test]
    fn parts_are_disjoint_and_keep_the_order() {
        let whole = dataset(&(0..60).map(|i| i % 3).collect::<Vec<u32>>(), 3, 1, 1);
        let all = samples(&whole, &whole.train);
        let set = whole.with_validation(0.3, 5).unwrap();
        let (train, val) = (samples(&set, &set.train), samples(&set, set.val.as_ref().unwrap()));
        // Pixels count up, so sorted samples are samples in their first order.
        assert!(train.is_sorted() && val.is_sorted());
        let mut merged = [train, val].concat();
        merged.sort();
        assert_eq!(merged, all);
    }

    #[test]
    fn the_seed_decides_which_samples() {
        let val = |seed| digits().unwrap().with_validation(0.1, seed).unwrap().val.unwrap();
        let pixels = |seed| val(seed).pixels().unwrap();
        assert_eq!(pixels(3), pixels(3));
        assert_ne!(pixels(3), pixels(4));
    }

    #[test]
    fn no_share_is_taken_for_0_or_where_there_is_a_validation_part() {
        let set = dataset(&[0, 0, 1, 1], 2, 2, 2);
        let none = set.clone().with_validation(0.0, 0).unwrap();
        assert!(none.val.is_none() && Arc::ptr_eq(&none.train, &set.train));
        let own = Dataset { val: Some(set.train.clone()), ..set.clone() }.with_validation(0.5, 0).unwrap();
        assert!(Arc::ptr_eq(&own.train, &set.train) && Arc::ptr_eq(own.val.as_ref().unwrap(), &set.train));
    }

    #[test]
    fn shares_that_cannot_be_taken_are_refused() {
        for fraction in [-0.1, 1.0, 2.0, f64::NAN] {
            let error = dataset(&[0, 0], 1, 1, 1).with_validation(fraction, 0).unwrap_err().to_string();
            assert_eq!(error, format!("--val-fraction must be at least 0 and below 1, got {fraction}"));
        }
        assert_eq!(
            dataset(&[0, 1], 2, 1, 1).with_validation(0.1, 0).unwrap_err().to_string(),
            "data set test: no class has two samples to split into train and validation; add samples, or give --val-fraction 0"
        );
        assert!(dataset(&[0, 9], 2, 1, 1).with_validation(0.1, 0).is_err());
    }
}
