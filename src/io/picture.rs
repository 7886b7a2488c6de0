//! Pictures (PNG, JPEG, WebP, GIF, BMP, TIFF) as pixels of a given size.

use crate::error::{Error, Result};
use fast_image_resize as fir;
use fir::images::{TypedImage, TypedImageRef};
use fir::pixels::U8x3;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

/// The endings of the files that [`read`] is for, in small letters.
pub const ENDINGS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"];

/// Reads a picture as u8 `[C, H, W]` with 1 (grey) or 3 (RGB) channels. It is turned upright as its EXIF data say; of an animation the first frame counts,
/// transparency is dropped, 16 bits become 8. The largest part in its middle that has the wanted proportions is resized to `height` x `width` (bilinear,
/// antialiased).
///
/// # Errors
/// [`Error::Data`] when the file is missing, no picture, corrupt, or of a kind that mappa does not read.
pub fn read(path: &Path, channels: usize, height: usize, width: usize) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::data(path, format!("cannot be read: {e}")))?;
    decode(path, BufReader::new(file), channels, height, width)
}

/// As [`read`], from the bytes of the file; `path` stands for it in errors.
///
/// # Errors
/// Those of [`read`].
pub fn decode(path: &Path, bytes: impl BufRead + Seek, channels: usize, height: usize, width: usize) -> Result<Vec<u8>> {
    decode_sized(path, bytes, channels, height, width).map(|(pixels, _)| pixels)
}

/// As [`decode`], with the picture's own height and width.
///
/// # Errors
/// Those of [`read`].
pub fn decode_sized(path: &Path, bytes: impl BufRead + Seek, channels: usize, height: usize, width: usize) -> Result<(Vec<u8>, [u32; 2])> {
    let bad = |message: String| Error::data(path, message);
    let undecodable = |e| bad(format!("this is no picture that can be decoded ({}): {e}", ENDINGS.join(", ")));
    let reader = ImageReader::new(bytes).with_guessed_format().map_err(|e| bad(format!("cannot be read: {e}")))?;
    let mut decoder = reader.into_decoder().map_err(undecodable)?;
    // The decoder's own limit is for what it needs beside the picture.
    Limits::default().reserve(decoder.total_bytes()).map_err(undecodable)?;
    // Broken EXIF data do not make a picture unreadable.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    picture.apply_orientation(orientation);
    let size = [picture.height(), picture.width()];
    let picture = match channels {
        1 => DynamicImage::ImageLuma8(picture.into_luma8()),
        3 => DynamicImage::ImageRgb8(picture.into_rgb8()),
        n => return Err(Error::Shape(format!("pictures have 1 or 3 channels; this model takes {n}"))),
    };
    let (from, to) = ([picture.width(), picture.height()], [width as u32, height as u32]);
    let (pixels, stride) = if from == to {
        (picture.into_bytes(), channels)
    } else {
        (resize(&picture.into_rgb8(), from, to).map_err(|e| bad(format!("cannot be resized: {e}")))?, 3)
    };
    // Interleaved [H, W, C] to planes [C, H, W].
    let planes = (0..channels).flat_map(|c| pixels.iter().skip(c).step_by(stride).copied().collect::<Vec<u8>>());
    Ok((planes.collect(), size))
}

/// Pixels `[H, W, 3]` of another size. Of this type alone, grey ones too: the compiler needs several seconds for each type that the library may meet.
fn resize(
    pixels: &[u8],
    [width, height]: [u32; 2],
    [to_width, to_height]: [u32; 2],
) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut resized = vec![0; 3 * to_width as usize * to_height as usize];
    let source = TypedImageRef::<U8x3>::from_buffer(width, height, pixels)?;
    let mut target = TypedImage::<U8x3>::from_buffer(to_width, to_height, &mut resized)?;
    let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear)).fit_into_destination(None);
    fir::Resizer::new().resize_typed(&source, &mut target, &options)?;
    Ok(resized)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_become_planes_and_others_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        image::RgbImage::from_fn(2, 1, |x, _| image::Rgb([10 + x as u8, 20, 30])).save(&path).unwrap();
        assert_eq!(read(&path, 3, 1, 2).unwrap(), [10, 11, 20, 20, 30, 30]);
        assert_eq!(read(&path, 1, 4, 4).unwrap().len(), 16);
        std::fs::write(&path, "no picture").unwrap();
        assert!(read(&path, 3, 1, 2).unwrap_err().to_string().contains("no picture that can be decoded"));
        assert!(read(&folder.path().join("b.png"), 3, 1, 2).unwrap_err().to_string().contains("b.png"));
    }

    #[test]
    fn every_format_and_depth_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let grey = |x: u32, y: u32| 40 * (1 + x as u8) + 10 * y as u8;
        let plain = DynamicImage::from(image::GrayImage::from_fn(3, 2, |x, y| image::Luma([grey(x, y)])));
        let want: Vec<u8> = (0..2).flat_map(|y| (0..3).map(move |x| grey(x, y))).collect();
        for ending in ENDINGS {
            let path = folder.path().join(format!("a.{ending}"));
            // Each encoder takes what it can write.
            let picture = if ending == "gif" { plain.to_rgba8().into() } else { DynamicImage::from(plain.to_rgb8()) };
            picture.save(&path).unwrap();
            let near = |(a, b): (&u8, &u8)| a.abs_diff(*b) <= if ending.starts_with('j') { 8 } else { 0 };
            let got = read(&path, 1, 2, 3).unwrap();
            assert!(got.iter().zip(&want).all(near), "{ending}: {got:?}, not {want:?}");
        }
        let deep = folder.path().join("deep.png");
        plain.to_luma16().save(&deep).unwrap();
        assert_eq!(read(&deep, 1, 2, 3).unwrap(), want);
        let clear = folder.path().join("clear.png");
        image::RgbaImage::from_pixel(2, 2, image::Rgba([1, 2, 3, 0])).save(&clear).unwrap();
        assert_eq!(read(&clear, 3, 1, 1).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_picture_that_claims_to_be_huge_is_refused_before_its_memory_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bmp");
        image::RgbImage::new(2, 2).save(&path).unwrap();
        // A BMP's width and height are at bytes 18 and 22.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[18..22].copy_from_slice(&60_000i32.to_le_bytes());
        bytes[22..26].copy_from_slice(&60_000i32.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let error = read(&path, 3, 8, 8).unwrap_err().to_string();
        assert!(error.contains("a.bmp") && error.to_lowercase().contains("limit"), "{error}");
    }

    #[test]
    fn the_middle_is_kept_and_not_squashed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wide.png");
        image::GrayImage::from_fn(12, 4, |x, _| image::Luma([if (4..8).contains(&x) { 200 } else { 0 }])).save(&path).unwrap();
        assert_eq!(read(&path, 1, 4, 4).unwrap(), [200; 16]);
    }

    #[test]
    fn a_photo_taken_sideways_is_turned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jpg");
        // Bright on the left as stored.
        image::RgbImage::from_fn(16, 16, |x, _| image::Rgb([if x < 8 { 250 } else { 5 }; 3])).save(&path).unwrap();
        let jpeg = std::fs::read(&path).unwrap();
        let half = |pixels: &[u8], rows: std::ops::Range<usize>| {
            pixels[rows.start * 16..rows.end * 16].iter().map(|&v| v as u32).sum::<u32>() / 128
        };
        let stored = read(&path, 1, 16, 16).unwrap();
        assert!(stored[0] > 200 && stored[15] < 50);
        // EXIF (TIFF, big endian): one directory of one entry, orientation 6: turn clockwise by 90 degrees.
        let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let mut turned = jpeg[..2].to_vec();
        turned.extend([0xff, 0xe1]);
        turned.extend((exif.len() as u16 + 2).to_be_bytes());
        turned.extend(exif);
        turned.extend(&jpeg[2..]);
        std::fs::write(&path, turned).unwrap();
        let upright = read(&path, 1, 16, 16).unwrap();
        assert!(half(&upright, 0..8) > 200 && half(&upright, 8..16) < 50, "{upright:?}");
    }
}
