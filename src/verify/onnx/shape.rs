//! What moves elements, and shapes themselves.

use super::math::plain;
use super::node::{Node, Operator, Outcome, Output, axis, malformed, one, sizes, unsupported};
use crate::dtype::DType;
use crate::nn::resize::{Coordinates, Filter, Nearest, Resize, resize};
use crate::op::Binary;
use crate::shape::Shape;
use crate::tensor::Tensor;
use crate::tensor::ops::PadMode;

pub(super) const OPERATORS: &[Operator] = &[
    plain("Identity", |n| one(n.input(0)?)),
    plain("Constant", constant),
    Operator { name: "Concat", attributes: &["axis"], run: concat },
    Operator { name: "Split", attributes: &["axis", "num_outputs"], run: split },
    Operator { name: "Transpose", attributes: &["perm"], run: transpose },
    Operator { name: "Reshape", attributes: &["allowzero"], run: reshape },
    Operator { name: "Flatten", attributes: &["axis"], run: flatten },
    plain("Squeeze", squeeze),
    plain("Unsqueeze", unsqueeze),
    plain("Expand", expand),
    plain("Tile", |n| one(n.input(0)?.tile(&sizes(&n.list(1)?)?)?)),
    Operator { name: "Shape", attributes: &["start", "end"], run: shape },
    plain("Size", |n| Ok(vec![Output::Integers(vec![], vec![n.input(0)?.shape().len() as i64])])),
    Operator { name: "ConstantOfShape", attributes: &["value"], run: constant_of_shape },
    Operator { name: "EyeLike", attributes: &["dtype", "k"], run: eye_like },
    plain("Range", range),
    plain("Slice", slice),
    Operator { name: "Pad", attributes: &["mode"], run: pad },
    Operator { name: "CenterCropPad", attributes: &["axes"], run: center_crop_pad },
    Operator { name: "Gather", attributes: &["axis"], run: gather },
    Operator { name: "GatherElements", attributes: &["axis"], run: gather_elements },
    Operator { name: "GatherND", attributes: &["batch_dims"], run: gather_nd },
    Operator { name: "Scatter", attributes: &["axis"], run: scatter_elements },
    Operator { name: "ScatterElements", attributes: &["axis", "reduction"], run: scatter_elements },
    Operator { name: "ScatterND", attributes: &["reduction"], run: scatter_nd },
    Operator { name: "OneHot", attributes: &["axis"], run: one_hot },
    Operator { name: "Compress", attributes: &["axis"], run: compress },
    Operator { name: "ReverseSequence", attributes: &["batch_axis", "time_axis"], run: reverse_sequence },
    Operator { name: "DepthToSpace", attributes: &["blocksize", "mode"], run: depth_to_space },
    Operator { name: "SpaceToDepth", attributes: &["blocksize", "mode"], run: space_to_depth },
    Operator {
        name: "Resize",
        attributes: &[
            "mode",
            "cubic_coeff_a",
            "exclude_outside",
            "coordinate_transformation_mode",
            "antialias",
            "axes",
            "keep_aspect_ratio_policy",
            "extrapolation_value",
            "nearest_mode",
        ],
        run: resize_node,
    },
    Operator { name: "Upsample", attributes: &["mode"], run: upsample },
];

fn constant(_: &Node) -> Outcome<Vec<Output>> {
    unsupported("a constant computes nothing")
}

fn concat(n: &Node) -> Outcome<Vec<Output>> {
    let inputs = n.all()?;
    one(Tensor::concat(&inputs.iter().collect::<Vec<_>>(), n.attribute("axis", 0)?)?)
}

fn split(n: &Node) -> Outcome<Vec<Output>> {
    let (x, dim) = (n.input(0)?, n.attribute("axis", 0)?);
    let size = x.shape()[axis(dim, x.shape().rank())?];
    let parts = match n.integers(1) {
        Some(parts) => sizes(&parts)?,
        None => {
            // Equal parts, the last one smaller.
            let count: usize = n.attribute("num_outputs", n.outputs)?;
            let part = size.div_ceil(count.max(1));
            (0..count).map(|i| part.min(size.saturating_sub(i * part))).collect()
        }
    };
    Ok(x.split(&parts, dim)?.into_iter().map(Output::Tensor).collect())
}

fn transpose(n: &Node) -> Outcome<Vec<Output>> {
    let x = n.input(0)?;
    let perm = n.get("perm")?.unwrap_or_else(|| (0..x.shape().rank() as i64).rev().collect::<Vec<_>>());
    one(x.permute(&perm)?)
}

fn reshape(n: &Node) -> Outcome<Vec<Output>> {
    let (x, asked, allow_zero) = (n.input(0)?, n.list(1)?, n.flag("allowzero", false)?);
    let mut shape = Vec::new();
    for (d, &size) in asked.iter().enumerate() {
        shape.push(if size == 0 && !allow_zero { x.shape().get(d).copied().unwrap_or(0) as i64 } else { size });
    }
    let known: i64 = shape.iter().filter(|&&s| s != -1).product();
    let rest = if known > 0 { x.shape().len() as i64 / known } else { 0 };
    let shape: Vec<i64> = shape.into_iter().map(|s| if s == -1 { rest } else { s }).collect();
    one(x.reshape(&sizes(&shape)?)?)
}

fn flatten(n: &Node) -> Outcome<Vec<Output>> {
    let x = n.input(0)?;
    let rank = x.shape().rank() as i64;
    let at: i64 = n.attribute("axis", 1)?;
    let at = (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize;
    one(x.reshape(&[x.shape()[..at].iter().product(), x.shape()[at..].iter().product()])?)
}

fn squeeze(n: &Node) -> Outcome<Vec<Output>> {
    let x = n.input(0)?;
    let rank = x.shape().rank();
    let dims = match n.integers(1) {
        Some(axes) => axes.iter().map(|&a| axis(a, rank)).collect::<Outcome<Vec<_>>>()?,
        None => (0..rank).filter(|&d| x.shape()[d] == 1).collect(),
    };
    let shape: Vec<usize> = (0..rank).filter(|d| !dims.contains(d)).map(|d| x.shape()[d]).collect();
    one(x.reshape(&shape)?)
}

fn unsqueeze(n: &Node) -> Outcome<Vec<Output>> {
    let (x, axes) = (n.input(0)?, n.list(1)?);
    let rank = x.shape().rank() + axes.len();
    let axes = axes.iter().map(|&a| axis(a, rank)).collect::<Outcome<Vec<_>>>()?;
    let mut own = x.shape().iter();
    let shape: Vec<usize> = (0..rank).map(|d| if axes.contains(&d) { 1 } else { own.next().copied().unwrap_or(1) }).collect();
    one(x.reshape(&shape)?)
}

/// Broadcasting in both directions.
fn expand(n: &Node) -> Outcome<Vec<Output>> {
    let (x, shape) = (n.input(0)?, sizes(&n.list(1)?)?);
    let both = Shape::broadcast(x.shape(), &Shape::new(&shape)?, "expand")?;
    one(x.expand(&both)?)
}

fn shape(n: &Node) -> Outcome<Vec<Output>> {
    let Some(x) = n.host(0) else { return malformed("there is no input 0") };
    let rank = x.shape.len() as i64;
    let bound = |v: i64| (if v < 0 { v + rank } else { v }).clamp(0, rank) as usize;
    let (start, end) = (bound(n.attribute("start", 0)?), bound(n.attribute("end", rank)?));
    let part: Vec<i64> = x.shape.get(start..end).unwrap_or_default().iter().map(|&s| s as i64).collect();
    Ok(vec![Output::Integers(vec![part.len()], part)])
}

fn constant_of_shape(n: &Node) -> Outcome<Vec<Output>> {
    let value: serde_json::Value = n.attribute("value", serde_json::Value::Null)?;
    let value = value.pointer("/tensor/values/0").and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    one(Tensor::full(n.device, &sizes(&n.list(0)?)?, DType::F32, value)?)
}

fn eye_like(n: &Node) -> Outcome<Vec<Output>> {
    let Some(&[rows, columns]) = n.host(0).map(|x| &x.shape[..]) else { return malformed("EyeLike takes a matrix") };
    let k: i64 = n.attribute("k", 0)?;
    let values: Vec<f32> = (0..rows * columns).map(|i| ((i % columns) as i64 - (i / columns) as i64 == k) as u32 as f32).collect();
    one(Tensor::from_slice(n.device, &[rows, columns], &values)?)
}

fn range(n: &Node) -> Outcome<Vec<Output>> {
    let (Some(start), Some(limit), Some(delta)) = (n.number(0), n.number(1), n.number(2)) else {
        return malformed("Range takes three numbers");
    };
    let count = ((limit - start) / delta).ceil().max(0.0) as usize;
    let values: Vec<f32> = (0..count).map(|i| (start + i as f64 * delta) as f32).collect();
    one(Tensor::from_slice(n.device, &[count], &values)?)
}

fn slice(n: &Node) -> Outcome<Vec<Output>> {
    let (x, from, to) = (n.input(0)?, n.list(1)?, n.list(2)?);
    let rank = x.shape().rank();
    let axes = n.integers(3).unwrap_or_else(|| (0..from.len() as i64).collect());
    let by = n.integers(4).unwrap_or_else(|| vec![1; from.len()]);
    let (mut starts, mut ends, mut steps) = (vec![0; rank], x.shape().iter().map(|&s| s as i64).collect::<Vec<_>>(), vec![1; rank]);
    for (i, &a) in axes.iter().enumerate() {
        let d = axis(a, rank)?;
        (starts[d], ends[d], steps[d]) = (from[i], to[i], by[i]);
    }
    one(x.slice(&starts, &ends, &steps)?)
}

fn pad(n: &Node) -> Outcome<Vec<Output>> {
    let (x, amounts) = (n.input(0)?, n.list(1)?);
    let rank = x.shape().rank();
    let axes = match n.integers(3) {
        Some(axes) => axes.iter().map(|&a| axis(a, rank)).collect::<Outcome<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    // ONNX lists all beginnings, then all ends; PyTorch pairs, from the last dimension on.
    let mut pairs = vec![0; 2 * rank];
    for (i, &d) in axes.iter().enumerate() {
        pairs[2 * (rank - 1 - d)] = amounts[i];
        pairs[2 * (rank - 1 - d) + 1] = amounts[i + axes.len()];
    }
    one(match n.attribute("mode", "constant".to_owned())?.as_str() {
        "constant" => x.pad(&pairs, n.number(2).unwrap_or(0.0))?,
        "reflect" => x.pad_with(&pairs, PadMode::Reflect)?,
        "edge" => x.pad_with(&pairs, PadMode::Replicate)?,
        "wrap" => x.pad_with(&pairs, PadMode::Wrap)?,
        other => return malformed(format!("mode {other}")),
    })
}

fn center_crop_pad(n: &Node) -> Outcome<Vec<Output>> {
    let (x, target) = (n.input(0)?, n.list(1)?);
    let rank = x.shape().rank();
    let axes = n.get::<Vec<i64>>("axes")?.unwrap_or_else(|| (0..rank as i64).collect());
    let mut pairs = vec![0; 2 * rank];
    for (&a, &want) in axes.iter().zip(&target) {
        let d = axis(a, rank)?;
        let missing = want - x.shape()[d] as i64;
        // An odd row more is padded at the end, and cropped at the end.
        let before = if missing >= 0 { missing / 2 } else { -((-missing) / 2) };
        (pairs[2 * (rank - 1 - d)], pairs[2 * (rank - 1 - d) + 1]) = (before, missing - before);
    }
    one(x.pad(&pairs, 0.0)?)
}

/// Indices from the end as indices from the start.
fn from_start(index: &[i64], size: usize) -> Vec<i32> {
    index.iter().map(|&i| (if i < 0 { i + size as i64 } else { i }) as i32).collect()
}

fn gather(n: &Node) -> Outcome<Vec<Output>> {
    let (x, index) = (n.input(0)?, n.list(1)?);
    let d = axis(n.attribute("axis", 0)?, x.shape().rank())?;
    let index = Tensor::from_slice(n.device, &[index.len()], &from_start(&index, x.shape()[d]))?;
    let inner = n.host(1).map(|h| h.shape.clone()).unwrap_or_default();
    let shape = [&x.shape()[..d], &inner, &x.shape()[d + 1..]].concat();
    one(x.index_select(d as i64, &index)?.reshape(&shape)?)
}

fn gather_elements(n: &Node) -> Outcome<Vec<Output>> {
    let (x, index) = (n.input(0)?, n.list(1)?);
    let d = axis(n.attribute("axis", 0)?, x.shape().rank())?;
    let shape = n.host(1).map(|h| h.shape.clone()).unwrap_or_default();
    one(x.gather(d as i64, &Tensor::from_slice(n.device, &shape, &from_start(&index, x.shape()[d]))?)?)
}

/// For each tuple of `index [.., k]` the number of the row that it names among `shape[0] .. shape[k - 1]`; and the sizes of the index without k.
fn rows_of(index: &super::node::Host, shape: &[usize]) -> Outcome<(Vec<usize>, Vec<usize>, usize)> {
    let Some((&k, lead)) = index.shape.split_last() else { return malformed("the index is a scalar") };
    if k == 0 || k > shape.len() {
        return malformed(format!("tuples of {k} indices into {} dimensions", shape.len()));
    }
    let row = |tuple: &[f64]| {
        tuple.iter().zip(shape).fold(0, |row, (&i, &size)| row * size + (if i < 0.0 { i + size as f64 } else { i }) as usize)
    };
    Ok((index.values.chunks(k).map(row).collect(), lead.to_vec(), k))
}

fn gather_nd(n: &Node) -> Outcome<Vec<Output>> {
    if n.attribute::<i64>("batch_dims", 0)? != 0 {
        return unsupported("batch_dims above 0");
    }
    let (x, Some(index)) = (n.input(0)?, n.host(1)) else { return malformed("there is no index") };
    let (rows, lead, k) = rows_of(index, x.shape())?;
    let rows: Vec<u32> = rows.into_iter().map(|r| r as u32).collect();
    let flat = x.reshape(&[x.shape()[..k].iter().product(), x.shape()[k..].iter().product()])?;
    let picked = flat.index_select(0, &Tensor::from_slice(n.device, &[rows.len()], &rows)?)?;
    one(picked.reshape(&[&lead[..], &x.shape()[k..]].concat())?)
}

/// `x [R, D]` with `updates [U, D]` put, or joined by `reduction`, at `rows`, in their order.
fn scatter_rows(n: &Node, x: Tensor, rows: &[usize], updates: &Tensor) -> Outcome<Tensor> {
    let f = match n.attribute("reduction", "none".to_owned())?.as_str() {
        "none" => None,
        "add" => Some(Binary::Add),
        "mul" => Some(Binary::Mul),
        "max" => Some(Binary::Maximum),
        "min" => Some(Binary::Minimum),
        other => return malformed(format!("reduction {other}")),
    };
    let (count, mut x, mut left) = (x.shape()[0], x, (0..rows.len()).collect::<Vec<_>>());
    // A pass takes at most one update for each row; what shares its row waits for the next.
    while !left.is_empty() {
        let (mut taken, mut later) = (vec![None; count], Vec::new());
        for &update in &left {
            match taken.get_mut(rows[update]) {
                Some(slot @ None) => *slot = Some(update),
                Some(_) => later.push(update),
                None => return malformed(format!("row {} of {count}", rows[update])),
            }
        }
        let pick = |index: Vec<usize>, from: &Tensor| -> Outcome<Tensor> {
            let index: Vec<u32> = index.into_iter().map(|i| i as u32).collect();
            Ok(from.index_select(0, &Tensor::from_slice(n.device, &[index.len()], &index)?)?)
        };
        // Rows without an update get their own row, and keep it in the end.
        let own_or =
            |offset: &dyn Fn(usize, usize) -> usize| taken.iter().enumerate().map(|(r, t)| t.map_or(r, |u| offset(r, u))).collect();
        let update = pick(own_or(&|_, u| count + u), &Tensor::concat(&[&x, updates], 0)?)?;
        x = match f {
            None => update,
            Some(f) => pick(own_or(&|r, _| count + r), &Tensor::concat(&[&x, &x.binary(f, &update)?], 0)?)?,
        };
        left = later;
    }
    Ok(x)
}

fn scatter_nd(n: &Node) -> Outcome<Vec<Output>> {
    let (x, Some(index), updates) = (n.input(0)?, n.host(1), n.input(2)?) else { return malformed("there is no index") };
    let (rows, _, k) = rows_of(index, x.shape())?;
    let inner = x.shape()[k..].iter().product();
    let flat = x.reshape(&[x.shape()[..k].iter().product(), inner])?;
    one(scatter_rows(n, flat, &rows, &updates.reshape(&[rows.len(), inner])?)?.reshape(x.shape())?)
}

fn scatter_elements(n: &Node) -> Outcome<Vec<Output>> {
    let (x, Some(index), updates) = (n.input(0)?, n.host(1), n.input(2)?) else { return malformed("there is no index") };
    let rank = x.shape().rank();
    let d = axis(n.attribute("axis", 0)?, rank)?;
    let strides = x.shape().strides();
    let place = |i: usize| {
        let (mut rest, mut at) = (i, 0);
        for dim in (0..rank).rev() {
            let own = rest % index.shape[dim];
            rest /= index.shape[dim];
            let value = index.values[i];
            at += strides[dim] * if dim == d { (if value < 0.0 { value + x.shape()[d] as f64 } else { value }) as usize } else { own };
        }
        at
    };
    let rows: Vec<usize> = (0..index.values.len()).map(place).collect();
    let flat = x.reshape(&[x.shape().len(), 1])?;
    one(scatter_rows(n, flat, &rows, &updates.reshape(&[rows.len(), 1])?)?.reshape(x.shape())?)
}

fn one_hot(n: &Node) -> Outcome<Vec<Output>> {
    let (Some(index), Some(depth)) = (n.host(0), n.number(1)) else { return malformed("OneHot takes indices and a depth") };
    let depth = depth as usize;
    let indices: Vec<i64> = index.values.iter().map(|&v| v as i64).collect();
    let hot = Tensor::from_slice(n.device, &index.shape, &from_start(&indices, depth))?.one_hot(depth)?;
    let values = n.input(2)?.cast(DType::F32)?;
    let y = values.narrow(0, 1, 1)?.where_(&hot, &values.narrow(0, 0, 1)?)?;
    // The new dimension is the last one; it moves to its place.
    let rank = y.shape().rank();
    let to = axis(n.attribute("axis", -1)?, rank)?;
    let mut order: Vec<i64> = (0..rank as i64 - 1).collect();
    order.insert(to, rank as i64 - 1);
    one(y.permute(&order)?)
}

fn compress(n: &Node) -> Outcome<Vec<Output>> {
    let (x, keep) = (n.input(0)?, n.list(1)?);
    let index: Vec<u32> = keep.iter().enumerate().filter(|(_, k)| **k != 0).map(|(i, _)| i as u32).collect();
    let index = Tensor::from_slice(n.device, &[index.len()], &index)?;
    match n.get::<i64>("axis")? {
        Some(dim) => one(x.index_select(dim, &index)?),
        None => one(x.reshape(&[x.shape().len()])?.index_select(0, &index)?),
    }
}

fn reverse_sequence(n: &Node) -> Outcome<Vec<Output>> {
    let (x, lengths) = (n.input(0)?, sizes(&n.list(1)?)?);
    let rank = x.shape().rank();
    let (batch, time) = (axis(n.attribute("batch_axis", 1)?, rank)?, axis(n.attribute("time_axis", 0)?, rank)?);
    let turned = |(i, &len): (usize, &usize)| -> crate::Result<Tensor> {
        let one = x.narrow(batch as i64, i, 1)?;
        let rest = one.shape()[time] - len;
        let front = one.narrow(time as i64, 0, len)?.flip(&[time as i64])?;
        Tensor::concat(&[&front, &one.narrow(time as i64, len, rest)?], time as i64)
    };
    let parts = lengths.iter().enumerate().map(turned).collect::<crate::Result<Vec<_>>>()?;
    one(Tensor::concat(&parts.iter().collect::<Vec<_>>(), batch as i64)?)
}

fn depth_to_space(n: &Node) -> Outcome<Vec<Output>> {
    let (x, b) = (n.input(0)?, n.attribute::<usize>("blocksize", 1)?);
    if n.attribute("mode", "DCR".to_owned())? == "CRD" {
        return one(x.pixel_shuffle(b)?);
    }
    let [batch, c, h, w] = x.shape().nchw("DepthToSpace")?;
    let k = c / (b * b);
    one(x.reshape(&[batch, b, b, k, h, w])?.permute(&[0, 3, 4, 1, 5, 2])?.reshape(&[batch, k, h * b, w * b])?)
}

fn space_to_depth(n: &Node) -> Outcome<Vec<Output>> {
    let (x, b) = (n.input(0)?, n.attribute::<usize>("blocksize", 1)?);
    let [batch, c, h, w] = x.shape().nchw("SpaceToDepth")?;
    let order = if n.attribute("mode", "DCR".to_owned())? == "CRD" { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
    one(x.reshape(&[batch, c, h / b, b, w / b, b])?.permute(&order)?.reshape(&[batch, c * b * b, h / b, w / b])?)
}

fn resize_node(n: &Node) -> Outcome<Vec<Output>> {
    let mut x = n.input(0)?;
    let rank = x.shape().rank();
    let axes = match n.get::<Vec<i64>>("axes")? {
        Some(axes) => axes.iter().map(|&a| axis(a, rank)).collect::<Outcome<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    let filter = match n.attribute("mode", "nearest".to_owned())?.as_str() {
        "nearest" => Filter::Nearest(match n.attribute("nearest_mode", "round_prefer_floor".to_owned())?.as_str() {
            "round_prefer_floor" => Nearest::PreferFloor,
            "round_prefer_ceil" => Nearest::PreferCeil,
            "floor" => Nearest::Floor,
            "ceil" => Nearest::Ceil,
            other => return malformed(format!("nearest_mode {other}")),
        }),
        "linear" => Filter::Linear,
        "cubic" => Filter::Cubic { a: n.attribute("cubic_coeff_a", -0.75)? },
        other => return malformed(format!("mode {other}")),
    };
    let (scales, wanted) = (n.host(2).filter(|s| !s.values.is_empty()), n.integers(3));
    // One scale for all axes, so that the image keeps its shape.
    let ratios: Vec<f64> = match (scales, &wanted) {
        (Some(scales), _) => scales.values.clone(),
        (None, Some(wanted)) => axes.iter().zip(wanted).map(|(&d, &s)| s as f64 / x.shape()[d] as f64).collect(),
        (None, None) => return malformed("there are neither scales nor sizes"),
    };
    let policy: String = n.attribute("keep_aspect_ratio_policy", "stretch".to_owned())?;
    let common = match policy.as_str() {
        "stretch" => None,
        "not_larger" => ratios.iter().copied().reduce(f64::min),
        "not_smaller" => ratios.iter().copied().reduce(f64::max),
        other => return malformed(format!("keep_aspect_ratio_policy {other}")),
    };
    let roi = n.host(1).map(|r| r.values.clone()).unwrap_or_default();
    for (i, &d) in axes.iter().enumerate() {
        let old = x.shape()[d];
        let (scale, size) = match (scales, common, &wanted) {
            (Some(_), ..) => (ratios[i], (old as f64 * ratios[i]).floor() as usize),
            (None, Some(scale), _) => (scale, (old as f64 * scale + 0.5).floor() as usize),
            (None, None, Some(wanted)) => (ratios[i], wanted[i] as usize),
            (None, None, None) => return malformed("there are neither scales nor sizes"),
        };
        let coordinates = match n.attribute("coordinate_transformation_mode", "half_pixel".to_owned())?.as_str() {
            "half_pixel" => Coordinates::HalfPixel,
            "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
            "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            "align_corners" => Coordinates::AlignCorners,
            "asymmetric" => Coordinates::Asymmetric,
            "tf_crop_and_resize" => match (roi.get(i), roi.get(i + axes.len())) {
                (Some(&start), Some(&end)) => Coordinates::CropAndResize { start, end },
                _ => return malformed("there is no roi"),
            },
            other => return malformed(format!("coordinate_transformation_mode {other}")),
        };
        let crop = matches!(coordinates, Coordinates::CropAndResize { start, end } if (start, end) != (0.0, 1.0));
        // An untouched axis is no product with the identity.
        if size == old && scale == 1.0 && !crop {
            continue;
        }
        let how = Resize {
            size,
            scale,
            filter,
            coordinates,
            antialias: n.flag("antialias", false)?,
            exclude_outside: n.flag("exclude_outside", false)?,
            extrapolation: n.attribute("extrapolation_value", 0.0)?,
        };
        x = resize(&x, d as i64, &how)?;
    }
    one(x)
}

fn upsample(n: &Node) -> Outcome<Vec<Output>> {
    let (mut x, Some(scales)) = (n.input(0)?, n.host(1)) else { return malformed("there are no scales") };
    let filter = match n.attribute("mode", "nearest".to_owned())?.as_str() {
        "nearest" => Filter::Nearest(Nearest::Floor),
        _ => Filter::Linear,
    };
    for (d, &scale) in scales.values.iter().enumerate() {
        let old = x.shape()[d];
        let how = Resize { scale, ..Resize::new(old, (old as f64 * scale).floor() as usize, filter, Coordinates::Asymmetric) };
        if scale != 1.0 {
            x = resize(&x, d as i64, &how)?;
        }
    }
    one(x)
}
