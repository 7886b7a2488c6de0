//! Pictures (PNG, JPEG) as pixels of a given size.

use crate::error::{Error, Result};
use fast_image_resize as fir;
use image::{DynamicImage, ImageReader};
use std::path::Path;

/// Reads a picture as u8 `[C, H, W]` with 1 (grey) or 3 (RGB) channels, resized to `height` x `width` (bilinear, antialiased).
///
/// # Errors
/// [`Error::Data`] when the file is missing, no picture, corrupt, or of a kind that mappa does not read.
pub fn read(path: &Path, channels: usize, height: usize, width: usize) -> Result<Vec<u8>> {
    let bad = |message: String| Error::data(path, message);
    let picture = ImageReader::open(path)
        .map_err(|e| bad(format!("cannot be read: {e}")))?
        .with_guessed_format()
        .map_err(|e| bad(format!("cannot be read: {e}")))?
        .decode()
        .map_err(|e| bad(format!("this is no PNG or JPEG picture that can be decoded: {e}")))?;
    let picture = match channels {
        1 => DynamicImage::ImageLuma8(picture.into_luma8()),
        3 => DynamicImage::ImageRgb8(picture.into_rgb8()),
        n => return Err(Error::Shape(format!("pictures have 1 or 3 channels; this model takes {n}"))),
    };
    let resized = if (picture.width(), picture.height()) == (width as u32, height as u32) {
        picture
    } else {
        let mut target = DynamicImage::new(width as u32, height as u32, picture.color());
        let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear));
        fir::Resizer::new().resize(&picture, &mut target, &options).map_err(|e| bad(format!("cannot be resized: {e}")))?;
        target
    };
    // Interleaved [H, W, C] to planes [C, H, W].
    let pixels = resized.into_bytes();
    Ok((0..channels).flat_map(|c| pixels.iter().skip(c).step_by(channels).copied().collect::<Vec<u8>>()).collect())
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
        assert!(read(&path, 3, 1, 2).unwrap_err().to_string().contains("no PNG or JPEG"));
        assert!(read(&folder.path().join("b.png"), 3, 1, 2).unwrap_err().to_string().contains("b.png"));
    }
}
