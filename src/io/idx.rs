//! IDX, the file format of MNIST: a big-endian header (magic number, then one u32 per dimension) and then bytes.
//!
//! Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section "File formats". The third byte of the magic
//! number is the element type (8 is u8), the fourth the number of dimensions. Files may be packed with gzip (RFC 1952), which is
//! told by the first bytes of the content and not by the file's name.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};

/// u8 in three dimensions.
const IMAGES: Kind = Kind { magic: 0x0000_0803, name: "images" };
/// u8 in one dimension.
const LABELS: Kind = Kind { magic: 0x0000_0801, name: "labels" };

struct Kind {
    magic: u32,
    name: &'static str,
}

/// The images of an IDX file.
#[derive(Clone, PartialEq, Eq)]
pub struct IdxImages {
    /// Number of images.
    pub count: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// `[count, height, width]`, row-major.
    pub pixels: Vec<u8>,
}

impl std::fmt::Debug for IdxImages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IdxImages({} of {} x {})", self.count, self.height, self.width)
    }
}

/// Reads a file of images, packed with gzip or not.
///
/// # Errors
/// [`Error::Data`] when the file is missing, truncated, corrupt, holds something else, or holds more than its header announces;
/// [`Error::Io`] when reading fails.
pub fn read_images(path: impl AsRef<Path>) -> Result<IdxImages> {
    let path = path.as_ref();
    decode_images(path, open(path, &IMAGES)?)
}

/// Reads a file of labels, packed with gzip or not.
///
/// # Errors
/// As [`read_images`].
pub fn read_labels(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    decode_labels(path, open(path, &LABELS)?)
}

/// Reads images from the bytes of a file; `name` stands for it in errors.
///
/// # Errors
/// As [`read_images`].
pub fn parse_images(name: impl AsRef<Path>, bytes: &[u8]) -> Result<IdxImages> {
    decode_images(name.as_ref(), bytes)
}

/// Reads labels from the bytes of a file; `name` stands for it in errors.
///
/// # Errors
/// As [`read_images`].
pub fn parse_labels(name: impl AsRef<Path>, bytes: &[u8]) -> Result<Vec<u8>> {
    decode_labels(name.as_ref(), bytes)
}

fn open(path: &Path, kind: &Kind) -> Result<BufReader<File>> {
    if path.is_dir() {
        return Err(Error::data(path, format!("is a folder; expected an IDX file of {}", kind.name)));
    }
    let file = File::open(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::data(path, format!("no such file; expected an IDX file of {}", kind.name)),
        // A named input that cannot be opened (no permission ...) is the caller's to mend, as a missing one is.
        _ => Error::data(path, format!("cannot be opened: {e}")),
    })?;
    Ok(BufReader::new(file))
}

fn decode_images(path: &Path, source: impl BufRead) -> Result<IdxImages> {
    let ([count, height, width], pixels) = decode(path, source, &IMAGES)?;
    Ok(IdxImages { count, height, width, pixels })
}

fn decode_labels(path: &Path, source: impl BufRead) -> Result<Vec<u8>> {
    let ([_count], labels) = decode(path, source, &LABELS)?;
    Ok(labels)
}

/// The `RANK` sizes of the header, and as many bytes as they announce.
fn decode<const RANK: usize>(path: &Path, mut source: impl BufRead, kind: &Kind) -> Result<([usize; RANK], Vec<u8>)> {
    let packed = source.fill_buf().map_err(|e| Error::io(path, e))?.starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn Read + '_> = if packed { Box::new(MultiGzDecoder::new(source)) } else { Box::new(source) };

    let header_len = 4 + 4 * RANK;
    let header = read_at_most(path, &mut reader, header_len as u64, header_len as u64)?;
    let words: Vec<u32> = header.as_chunks::<4>().0.iter().map(|&bytes| u32::from_be_bytes(bytes)).collect();
    if let Some(&magic) = words.first().filter(|&&magic| magic != kind.magic) {
        let found = [IMAGES, LABELS].iter().find(|k| k.magic == magic).map(|k| format!(", which is IDX {}", k.name)).unwrap_or_default();
        return Err(Error::data(path, format!("expected IDX {} (magic 0x{:08x}), got magic 0x{magic:08x}{found}", kind.name, kind.magic)));
    }
    if header.len() < header_len {
        return Err(Error::data(path, format!("truncated: got {} bytes of the {header_len} of an IDX header", header.len())));
    }

    let sizes: [u32; RANK] = std::array::from_fn(|i| words[i + 1]);
    let announced = sizes.map(|size| size.to_string()).join(" x ");
    if sizes.iter().skip(1).any(|&size| size == 0) {
        return Err(Error::data(path, format!("the header announces {announced} {}: an image needs at least one pixel", kind.name)));
    }
    let product = sizes.iter().try_fold(1u64, |n, &size| n.checked_mul(size.into()));
    let Some(expected) = product.filter(|&n| n < isize::MAX as u64) else {
        return Err(Error::data(path, format!("the header announces {announced} bytes, more than memory can address: it is corrupt")));
    };

    // The buffer grows with what is really there: a header can lie about the length, and a gzip stream can unpack to anything.
    let bytes = read_at_most(path, &mut reader, expected + 1, expected)?;
    let got = bytes.len() as u64;
    if got < expected {
        return Err(Error::data(path, format!("truncated: got {got} of the {expected} bytes that the header announces ({announced})")));
    }
    if got > expected {
        return Err(Error::data(
            path,
            format!("bytes follow the {expected} that the header announces ({announced}): the header or the file is corrupt"),
        ));
    }
    Ok((sizes.map(|size| size as usize), bytes))
}

/// Up to `limit` bytes; `expected` stands in errors of the gzip stream.
fn read_at_most(path: &Path, reader: &mut dyn Read, limit: u64, expected: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let outcome = reader.take(limit).read_to_end(&mut bytes);
    let got = bytes.len();
    match outcome.map_err(|e| (e.kind(), e)) {
        Ok(_) => Ok(bytes),
        Err((ErrorKind::UnexpectedEof, _)) => {
            Err(Error::data(path, format!("truncated: the gzip stream breaks off after {got} of {expected} unpacked bytes")))
        }
        Err((ErrorKind::InvalidInput | ErrorKind::InvalidData, e)) => {
            Err(Error::data(path, format!("corrupt: the gzip stream fails after {got} of {expected} unpacked bytes ({e})")))
        }
        Err((_, e)) => Err(Error::io(path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn idx(magic: u32, sizes: &[u32], body: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = [magic].iter().chain(sizes).flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend(body);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn images_error(bytes: &[u8]) -> String {
        let error = parse_images("f", bytes).unwrap_err();
        assert!(error.is_bad_input(), "{error:?}");
        error.to_string()
    }

    #[test]
    fn plain_and_packed_files_read_the_same_whatever_their_name() {
        let images = IdxImages { count: 2, height: 1, width: 3, pixels: vec![1, 2, 3, 4, 5, 255] };
        let bytes = idx(0x803, &[2, 1, 3], &images.pixels);
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [("plain", &bytes), ("plain.gz", &bytes), ("packed", &gzip(&bytes)), ("packed.gz", &gzip(&bytes))] {
            std::fs::write(dir.path().join(name), content).unwrap();
            assert_eq!(read_images(dir.path().join(name)).unwrap(), images, "{name}");
        }
        // A gzip file may consist of several members, one after the other (RFC 1952, section 2.2).
        let (a, b) = bytes.split_at(7);
        assert_eq!(parse_images("f", &[gzip(a), gzip(b)].concat()).unwrap(), images);
        assert_eq!(parse_labels("f", &gzip(&idx(0x801, &[3], &[7, 0, 9]))).unwrap(), [7, 0, 9]);
        assert_eq!(parse_images("f", &idx(0x803, &[0, 28, 28], &[])).unwrap().count, 0);
    }

    #[test]
    fn a_missing_file_and_a_folder_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train-images-idx3-ubyte");
        let missing = read_images(&path).unwrap_err();
        assert!(missing.is_bad_input());
        assert_eq!(missing.to_string(), format!("{}: no such file; expected an IDX file of images", path.display()));
        let folder = read_labels(dir.path()).unwrap_err().to_string();
        assert_eq!(folder, format!("{}: is a folder; expected an IDX file of labels", dir.path().display()));
    }

    #[test]
    fn the_wrong_magic_is_shown_with_the_right_one() {
        assert_eq!(
            images_error(&idx(0x801, &[1], &[5])),
            "f: expected IDX images (magic 0x00000803), got magic 0x00000801, which is IDX labels"
        );
        assert_eq!(images_error(b"<html>"), "f: expected IDX images (magic 0x00000803), got magic 0x3c68746d");
        let labels = parse_labels("f", &gzip(&idx(0x803, &[1, 1, 1], &[5]))).unwrap_err().to_string();
        assert_eq!(labels, "f: expected IDX labels (magic 0x00000801), got magic 0x00000803, which is IDX images");
    }

    #[test]
    fn truncated_files_say_how_much_is_there() {
        assert_eq!(images_error(b""), "f: truncated: got 0 bytes of the 16 of an IDX header");
        assert_eq!(images_error(&idx(0x803, &[2, 3], &[])), "f: truncated: got 12 bytes of the 16 of an IDX header");
        let short = "f: truncated: got 5 of the 6 bytes that the header announces (2 x 1 x 3)";
        assert_eq!(images_error(&idx(0x803, &[2, 1, 3], &[0; 5])), short);
        assert_eq!(images_error(&gzip(&idx(0x803, &[2, 1, 3], &[0; 5]))), short);
        assert_eq!(
            parse_labels("f", &idx(0x801, &[4], &[1])).unwrap_err().to_string(),
            "f: truncated: got 1 of the 4 bytes that the header announces (4)"
        );
    }

    #[test]
    fn a_broken_gzip_stream_is_an_error_at_every_length() {
        let whole = gzip(&idx(0x803, &[2, 2, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]));
        for len in 2..whole.len() {
            let message = images_error(&whole[..len]);
            assert!(message.starts_with("f: truncated: the gzip stream breaks off after "), "{len}: {message}");
        }
        // The last eight bytes are the checksum and the length.
        let mut damaged = whole.clone();
        damaged[whole.len() - 6] ^= 1;
        assert!(images_error(&damaged).starts_with("f: corrupt: the gzip stream fails after 12 of 12 unpacked bytes ("));
        assert!(
            images_error(&[whole, b"junk after the stream".to_vec()].concat())
                .starts_with("f: corrupt: the gzip stream fails after 12 of 12")
        );
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let expected = "f: bytes follow the 3 that the header announces (1 x 1 x 3): the header or the file is corrupt";
        let bytes = idx(0x803, &[1, 1, 3], &[0; 4]);
        assert_eq!(images_error(&bytes), expected);
        assert_eq!(images_error(&gzip(&bytes)), expected);
    }

    #[test]
    fn hostile_headers_cost_no_memory() {
        let corrupt = "f: the header announces 4294967295 x 4294967295 x 4294967295 bytes, more than memory can address: it is corrupt";
        assert_eq!(images_error(&idx(0x803, &[u32::MAX; 3], &[0; 9])), corrupt);
        // 2^62 bytes: addressable, so refused for what is missing and without allocating it.
        let missing = "f: truncated: got 9 of the 4611686018427387904 bytes that the header announces (1073741824 x 65536 x 65536)";
        assert_eq!(images_error(&idx(0x803, &[1 << 30, 1 << 16, 1 << 16], &[0; 9])), missing);
        assert_eq!(
            images_error(&idx(0x803, &[5, 0, 28], &[])),
            "f: the header announces 5 x 0 x 28 images: an image needs at least one pixel"
        );
        // 64 MiB that pack to 64 KiB, announced as 4 bytes: unpacking stops at the fifth.
        let bomb = gzip(&idx(0x801, &[4], &vec![0; 64 << 20]));
        assert!(parse_labels("f", &bomb).unwrap_err().to_string().starts_with("f: bytes follow the 4 that"));
    }
}
