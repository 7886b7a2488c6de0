//! Boxes around things in pictures, and how well they are found.

use crate::error::{Error, Result};

/// A box around a thing, with what it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thing {
    /// Left, top, right and bottom edge, in any unit.
    pub bounds: [f32; 4],
    /// What it is.
    pub class: usize,
    /// How sure a network is of it; of what is true it does not matter.
    pub score: f32,
}

/// The area that two boxes share over the area of both together; 0 where both are empty.
pub fn iou(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |b: &[f32; 4]| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
    let shared = area(&[a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let union = area(a) + area(b) - shared;
    if union > 0.0 { shared / union } else { 0.0 }
}

/// Of things of one class that overlap by more than `threshold` (intersection over union) only the surest; the surest first.
pub fn non_maximum_suppression(mut things: Vec<Thing>, threshold: f32) -> Vec<Thing> {
    things.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Thing> = Vec::new();
    for thing in things {
        if kept.iter().all(|other| other.class != thing.class || iou(&other.bounds, &thing.bounds) <= threshold) {
            kept.push(thing);
        }
    }
    kept
}

/// The mean over the classes of the area under the curve of precision over recall, each picture's things being found where a box of the right class
/// overlaps by at least `threshold`, each at most once (Everingham et al. 2010, PASCAL VOC). Precision is made to fall only: of each recall the highest from
/// there on. Classes that no picture has do not count.
///
/// # Errors
/// [`Error::Shape`] unless there are as many pictures in both lists.
pub fn mean_average_precision(found: &[Vec<Thing>], truth: &[Vec<Thing>], threshold: f32) -> Result<f64> {
    if found.len() != truth.len() {
        return Err(Error::Shape(format!("mean_average_precision: answers to {} pictures and the truth of {}", found.len(), truth.len())));
    }
    let classes = truth.iter().flatten().map(|thing| thing.class + 1).max().unwrap_or(0);
    let (mut sum, mut present) = (0.0, 0);
    for class in 0..classes {
        let of = |things: &[Thing]| things.iter().filter(|thing| thing.class == class).copied().collect::<Vec<_>>();
        let truth: Vec<Vec<Thing>> = truth.iter().map(|things| of(things)).collect();
        let total = truth.iter().map(Vec::len).sum::<usize>();
        if total == 0 {
            continue;
        }
        present += 1;
        let mut answers: Vec<(usize, Thing)> =
            found.iter().enumerate().flat_map(|(picture, things)| of(things).into_iter().map(move |thing| (picture, thing))).collect();
        answers.sort_by(|a, b| b.1.score.total_cmp(&a.1.score));
        let mut taken: Vec<Vec<bool>> = truth.iter().map(|things| vec![false; things.len()]).collect();
        let (mut hits, mut curve) = (0, Vec::new());
        for (i, (picture, answer)) in answers.iter().enumerate() {
            let overlaps = truth[*picture].iter().map(|thing| iou(&thing.bounds, &answer.bounds)).enumerate();
            let best = overlaps.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, overlap)| *overlap >= threshold);
            if let Some((thing, _)) = best
                && !std::mem::replace(&mut taken[*picture][thing], true)
            {
                hits += 1;
            }
            curve.push((hits as f64 / total as f64, hits as f64 / (i + 1) as f64));
        }
        let mut highest = 0.0f64;
        let mut last = curve.last().map_or(0.0, |point| point.0);
        // From the end, so that the highest precision so far is that of all higher recalls.
        for (recall, precision) in curve.into_iter().rev() {
            sum += (last - recall) * highest;
            highest = highest.max(precision);
            last = recall;
        }
        sum += last * highest;
    }
    Ok(if present == 0 { 0.0 } else { sum / present as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(bounds: [f32; 4], class: usize, score: f32) -> Thing {
        Thing { bounds, class, score }
    }

    #[test]
    fn overlap_is_intersection_over_union() {
        assert_eq!(iou(&[0., 0., 2., 2.], &[1., 0., 3., 2.]), 2.0 / 6.0);
        assert_eq!(iou(&[0., 0., 2., 2.], &[0., 0., 2., 2.]), 1.0);
        assert_eq!(iou(&[0., 0., 1., 1.], &[2., 2., 3., 3.]), 0.0);
        // An edge that is left of the other makes an empty box.
        assert_eq!(iou(&[1., 0., 0., 1.], &[1., 0., 0., 1.]), 0.0);
    }

    #[test]
    fn the_surest_of_overlapping_boxes_stays() {
        let things = vec![thing([0., 0., 4., 4.], 0, 0.5), thing([0., 0., 4., 5.], 0, 0.9), thing([0., 0., 4., 4.], 1, 0.1)];
        assert_eq!(non_maximum_suppression(things.clone(), 0.5), [things[1], things[2]]);
        assert_eq!(non_maximum_suppression(things.clone(), 0.9).len(), 3);
    }

    /// Worked by hand: class 0 has three things and the answers hit, miss, hit, hit twice the same; class 2 is not found; class 1 is not there.
    #[test]
    fn average_precision_is_the_area_under_the_falling_curve() {
        let [a, b, c] = [[0., 0., 2., 2.], [4., 4., 6., 6.], [8., 8., 9., 9.]];
        let truth = vec![vec![thing(a, 0, 0.0), thing(b, 0, 0.0)], vec![thing(a, 0, 0.0), thing(c, 2, 0.0)]];
        let found = vec![
            vec![thing(a, 0, 0.9), thing(c, 0, 0.8), thing([4., 4., 6., 5.5], 0, 0.7), thing(b, 0, 0.6), thing(c, 1, 0.99)],
            vec![thing(c, 0, 0.1)],
        ];
        // Recall and precision of class 0: (1/3, 1), (1/3, 1/2), (2/3, 2/3), (2/3, 1/2), (2/3, 2/5): area 1/3 + 1/3 2/3.
        let got = mean_average_precision(&found, &truth, 0.5).unwrap();
        assert!((got - (1.0 / 3.0 + 2.0 / 9.0) / 2.0).abs() < 1e-12, "{got}");
        assert_eq!(mean_average_precision(&truth, &truth, 0.5).unwrap(), 1.0);
        assert_eq!(mean_average_precision(&[vec![]], &[vec![]], 0.5).unwrap(), 0.0);
        assert!(mean_average_precision(&[], &truth, 0.5).is_err());
    }
}
