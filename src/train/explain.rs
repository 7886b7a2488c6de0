//! Where in an image a network sees a class, and which images it does not believe the label of.

use std::sync::{Arc, Mutex, PoisonError};

use crate::autodiff::no_grad;
use crate::error::{Error, Result};
use crate::nn::{Context, Module};
use crate::tensor::Tensor;
#[cfg(feature = "image")]
use rayon::prelude::*;

/// Maps of images, each with its greatest value 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Heat {
    /// The layer whose output they are of.
    pub layer: String,
    /// Rows and columns of a map.
    pub size: [usize; 2],
    /// `[N, rows, columns]`, 0 to 1.
    pub values: Vec<f32>,
}

/// A side from which on a map says more than "somewhere".
const ENOUGH: usize = 4;

/// Grad-CAM (Selvaraju et al. 2016, arXiv:1610.02391): for images `[N, C, H, W]` and a class of each, `relu(sum_c a_c A_c)`, where A is the output of the last
/// layer that still has 4 x 4 pixels (or more than one, where none has), and `a_c` the mean over the pixels of the gradient of the class's logit with respect to
/// `A_c`. `None` for networks without such a layer.
///
/// Leaves gradients in the parameters behind that layer.
///
/// # Errors
/// [`Error::Shape`] unless there is a class for each image; errors of the device.
pub fn grad_cam(module: &dyn Module, x: &Tensor, classes: &[usize]) -> Result<Option<Heat>> {
    let Some(layer) = last_with_pixels(module, x)? else { return Ok(None) };
    let found: Arc<Mutex<Option<Tensor>>> = Arc::default();
    let (keep, wanted) = (Arc::clone(&found), layer.clone());
    let hook = Box::new(move |path: &str, _: &dyn Module, y: &Tensor| {
        if path != wanted {
            return None;
        }
        let leaf = y.requires_grad();
        *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(leaf.clone());
        Some(leaf)
    });
    let logits = module.forward(&mut Context::eval().observe(hook), x)?;
    let [n, outputs] = logits.shape()[..] else {
        return Err(Error::Shape(format!("grad_cam: the network's output is {}; expected logits [N, classes]", logits.shape())));
    };
    if n != classes.len() || classes.iter().any(|&class| class >= outputs) {
        return Err(Error::Shape(format!("grad_cam: {} classes for {n} images with {outputs} outputs", classes.len())));
    }
    let mut upstream = vec![0f32; n * outputs];
    classes.iter().enumerate().for_each(|(i, &class)| upstream[i * outputs + class] = 1.0);
    logits.backward_with(&Tensor::from_slice(x.device(), &[n, outputs], &upstream)?)?;
    let Some(output) = found.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(None) };
    let [_, channels, h, w] = output.shape()[..] else { return Ok(None) };
    let Some(gradient) = output.grad() else { return Ok(None) };
    let (values, gradients) = (output.to_vec_blocking::<f32>()?, gradient.to_vec_blocking::<f32>()?);
    let (area, mut maps) = (h * w, Vec::with_capacity(n * h * w));
    for (values, gradients) in values.chunks_exact(channels * area).zip(gradients.chunks_exact(channels * area)) {
        let mut map = vec![0f32; area];
        for (plane, gradient) in values.chunks_exact(area).zip(gradients.chunks_exact(area)) {
            let weight = gradient.iter().sum::<f32>() / area as f32;
            map.iter_mut().zip(plane).for_each(|(m, v)| *m += weight * v);
        }
        let most = map.iter().fold(0f32, |most, &m| most.max(m));
        // Where nothing speaks for the class, the map is empty.
        maps.extend(map.iter().map(|&m| if most > 0.0 { m.max(0.0) / most } else { 0.0 }));
    }
    Ok(Some(Heat { layer, size: [h, w], values: maps }))
}

/// The path of the last layer whose output has pixels.
fn last_with_pixels(module: &dyn Module, x: &Tensor) -> Result<Option<String>> {
    let _guard = no_grad();
    let found: Arc<Mutex<[Option<String>; 2]>> = Arc::default();
    let keep = Arc::clone(&found);
    let hook = Box::new(move |path: &str, _: &dyn Module, y: &Tensor| {
        if let [_, _, h, w] = y.shape()[..]
            && h * w > 1
        {
            let mut found = keep.lock().unwrap_or_else(PoisonError::into_inner);
            found[1] = Some(path.to_owned());
            if h.min(w) >= ENOUGH {
                found[0] = Some(path.to_owned());
            }
        }
        None
    });
    module.forward(&mut Context::eval().observe(hook), x)?;
    let [enough, any] = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(enough.or(any))
}

/// An item whose label a network does not believe.
#[cfg(feature = "image")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suspect {
    /// Its number in the check.
    pub item: usize,
    /// The class that it looks like.
    pub answer: usize,
    /// The probability of that class.
    pub probability: f64,
    /// The probability of the class that it is labelled as.
    pub of_class: f64,
}

/// The pictures of a data set whose label a trained classifier believes least: those that it answers otherwise, by how much more probable its answer is than the
/// label. At most `count`.
///
/// # Errors
/// [`Error::Config`] where the classifier knows other classes, or for data that are no pictures; errors of the device.
#[cfg(feature = "image")]
pub fn suspects(classifier: &super::Classifier, check: &crate::data::check::Check, count: usize) -> Result<Vec<Suspect>> {
    if classifier.classes() != check.classes {
        let [own, theirs] = [classifier.classes(), &check.classes].map(|classes| classes.join(", "));
        return Err(Error::Config(format!("the run's classes ({own}) are not those of {} ({theirs})", check.name)));
    }
    let [c, h, w] = classifier.input();
    let mut found = Vec::new();
    let all: Vec<usize> = (0..check.items.len()).collect();
    for some in all.chunks(64) {
        let read = |&item: &usize| check.items[item].read(c, h, w);
        let pixels: Vec<Option<Vec<u8>>> = some.par_iter().map(read).collect::<Result<_>>()?;
        let Some(pixels) = pixels.into_iter().collect::<Option<Vec<_>>>() else {
            return Err(Error::Config(format!("{}: suspects are looked for among pictures only", check.name)));
        };
        for (&item, ranked) in some.iter().zip(classifier.classify_pixels(&pixels.concat())?) {
            let (class, (best, probability)) = (&check.classes[check.items[item].class as usize], ranked[0]);
            let of_class = ranked.iter().find(|(name, _)| name == class).map_or(0.0, |(_, p)| *p);
            if let Some(answer) = check.classes.iter().position(|name| name == best && name != class) {
                found.push(Suspect { item, answer, probability, of_class });
            }
        }
    }
    found.sort_by(|a, b| (b.probability - b.of_class).total_cmp(&(a.probability - a.of_class)));
    found.truncate(count);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::models;
    use crate::nn::{Activation, Conv2d, Flatten, GlobalAvgPool2d, Linear, Sequential, named_parameters};
    use crate::op::Conv2dOptions;

    /// A network worked by hand: two channels, one the image and one its negative shifted up; class 0 counts the first, class 1 the second.
    #[test]
    fn maps_follow_their_definition() {
        let device = Device::cpu(1).unwrap();
        let conv = Conv2d::new(&device, 1, 2, [1, 1], Conv2dOptions::default(), true).unwrap();
        let net = Sequential::new()
            .named("conv", conv)
            .named("relu", Activation::Relu)
            .named("pool", GlobalAvgPool2d)
            .named("flatten", Flatten)
            .named("fc", Linear::new(&device, 2, 2, false).unwrap());
        for (name, parameter) in named_parameters(&net) {
            let values: &[f32] = match name.as_str() {
                "conv.weight" => &[1.0, -1.0],
                "conv.bias" => &[0.0, 1.0],
                _ => &[2.0, -1.0, 0.0, 3.0],
            };
            parameter.write(values).unwrap();
        }
        let image: Vec<f32> = (0..16).map(|i| if i < 4 { 1.0 } else { 0.25 }).collect();
        let x = Tensor::from_slice(&device, &[2, 1, 4, 4], &[image.clone(), image.clone()].concat()).unwrap();
        let heat = grad_cam(&net, &x, &[0, 1]).unwrap().unwrap();
        assert_eq!((heat.layer.as_str(), heat.size), ("relu", [4, 4]));
        // Class 0: 2/16 of the image less 1/16 of 1 - image, of which 1 gives 2 and 0.25 gives -0.25: nothing. Class 1: the negative alone.
        let want: Vec<f32> = image
            .iter()
            .map(|&v| if v == 1.0 { 1.0 } else { 0.0 })
            .chain(image.iter().map(|&v| if v == 1.0 { 0.0 } else { 1.0 }))
            .collect();
        assert!(heat.values.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6), "{heat:?}");
        assert!(grad_cam(&net, &x, &[0]).is_err() && grad_cam(&net, &x, &[0, 2]).is_err());
    }

    #[test]
    fn every_network_with_pixels_has_a_map() {
        let device = Device::cpu(1).unwrap();
        for (name, side) in [("cnn", 8), ("lenet5", 28), ("resnet8", 32), ("vgg11_bn", 32), ("mobilenet_v2", 32), ("squeezenet1_1", 33)] {
            let net = models::build(name, [3, side, side], 5, &device, 1).unwrap();
            let x = Tensor::ones(&device, &[1, 3, side, side]).unwrap();
            let heat = grad_cam(&net, &x, &[3]).unwrap().unwrap();
            assert!(heat.size.iter().all(|&s| s >= 2) && heat.values.len() == heat.size[0] * heat.size[1], "{name}: {heat:?}");
        }
        let mlp = models::build("mlp", [1, 8, 8], 5, &device, 1).unwrap();
        assert_eq!(grad_cam(&mlp, &Tensor::ones(&device, &[1, 1, 8, 8]).unwrap(), &[3]).unwrap(), None);
    }
}
