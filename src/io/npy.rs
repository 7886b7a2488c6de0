//! NumPy's `.npy` files (format versions 1 to 3), read value by value: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// The type of an array's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unsigned,
    Signed,
    Float,
}

/// An array whose header has been read; the values follow.
pub struct Npy<R> {
    reader: R,
    /// Sizes, slowest first.
    pub shape: Vec<usize>,
    kind: Kind,
    width: usize,
    big_endian: bool,
}

/// The longest header that is read; numpy writes 128 bytes for an array of plain numbers.
const MAX_HEADER: u32 = 1 << 16;

impl<R: Read> Npy<R> {
    /// Reads the header of a file that has `len` bytes in all. `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Data`] for what is no such file, for values other than integers and floats, for Fortran's order, or where the values are not as many as
    /// the header says.
    pub fn new(mut reader: R, len: u64, path: &Path) -> Result<Self> {
        let bad = |what: String| Error::data(path, what);
        let mut start = [0; 8];
        let complete = reader.read_exact(&mut start).is_ok() && start[..6] == *b"\x93NUMPY";
        if !complete {
            return Err(bad("this is no .npy array".into()));
        }
        let mut size = [0; 4];
        let bytes = if start[6] == 1 { 2 } else { 4 };
        reader.read_exact(&mut size[..bytes]).map_err(|e| bad(format!("this array is truncated: {e}")))?;
        let size = u32::from_le_bytes(size);
        if !(1..=3).contains(&start[6]) || size > MAX_HEADER {
            return Err(bad(format!("this array has format version {} and a header of {size} bytes; versions 1 to 3 are read", start[6])));
        }
        let mut header = vec![0; size as usize];
        reader.read_exact(&mut header).map_err(|e| bad(format!("this array is truncated: {e}")))?;
        let header = String::from_utf8_lossy(&header).into_owned();
        let wrong = || bad(format!("this array's header is not understood: {}", header.trim()));
        // A dictionary of Python with these three keys.
        let value = |key: &str| {
            let (_, rest) = header.split_once(&format!("'{key}':"))?;
            Some(rest.trim_start())
        };
        let descr = value("descr").ok_or_else(wrong)?;
        let descr = descr
            .strip_prefix('\'')
            .and_then(|rest| rest.split_once('\''))
            .map(|(descr, _)| descr)
            .ok_or_else(|| bad("this array holds records; save an array of plain numbers".into()))?;
        let mut letters = descr.chars();
        let (order, kind) = (letters.next().unwrap_or(' '), letters.next().unwrap_or(' '));
        let width = letters.as_str().parse().unwrap_or(0);
        let kind = match (kind, width) {
            ('u' | 'b', 1) | ('u', 2 | 4 | 8) => Kind::Unsigned,
            ('i', 1 | 2 | 4 | 8) => Kind::Signed,
            ('f', 2 | 4 | 8) => Kind::Float,
            _ => return Err(bad(format!("this array holds values of type {descr:?}; integers and floats of up to 64 bits are read"))),
        };
        match value("fortran_order") {
            Some(rest) if rest.starts_with("False") => {}
            Some(rest) if rest.starts_with("True") => {
                return Err(bad("this array is in Fortran's order; save numpy.ascontiguousarray(it)".into()));
            }
            _ => return Err(wrong()),
        }
        let sizes = value("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')')).ok_or_else(wrong)?.0;
        let mut shape = Vec::new();
        for size in sizes.split(',').map(str::trim).filter(|size| !size.is_empty()) {
            shape.push(size.parse::<usize>().map_err(|_| wrong())?);
        }
        let values = shape.iter().try_fold(width as u64, |n, &size| n.checked_mul(size as u64));
        let found = len.saturating_sub((8 + bytes) as u64 + u64::from(size));
        if values != Some(found) {
            return Err(bad(format!("holds {found} bytes of values, but its header says {shape:?} of {width} bytes each")));
        }
        Ok(Npy { reader, shape, kind, width, big_endian: order == '>' })
    }

    /// Reads the next `values.len()` values.
    ///
    /// # Errors
    /// The reader's, also where fewer are left.
    pub fn read(&mut self, values: &mut [f64]) -> std::io::Result<()> {
        let mut bytes = [0; 4096];
        for some in values.chunks_mut(bytes.len() / self.width) {
            let bytes = &mut bytes[..some.len() * self.width];
            self.reader.read_exact(bytes)?;
            for (raw, value) in bytes.chunks_exact_mut(self.width).zip(some) {
                if self.big_endian {
                    raw.reverse();
                }
                let mut word = [0; 8];
                word[..self.width].copy_from_slice(raw);
                let word = u64::from_le_bytes(word);
                // Shifting up and down again extends the sign.
                let spare = 64 - 8 * self.width as u32;
                *value = match (self.kind, self.width) {
                    (Kind::Unsigned, _) => word as f64,
                    (Kind::Signed, _) => (((word << spare) as i64) >> spare) as f64,
                    (Kind::Float, 2) => half::f16::from_bits(word as u16).to_f64(),
                    (Kind::Float, 4) => f32::from_bits(word as u32) as f64,
                    (Kind::Float, _) => f64::from_bits(word),
                };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let mut header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}");
        header += &" ".repeat(117 - header.len());
        header.push('\n');
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
    }

    fn read(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f64>)> {
        let mut npy = Npy::new(bytes, bytes.len() as u64, Path::new("a.npy"))?;
        let mut values = vec![0.0; npy.shape.iter().product()];
        npy.read(&mut values).map_err(|e| Error::io("a.npy", e))?;
        Ok((npy.shape, values))
    }

    #[test]
    fn values_of_every_type_are_read() {
        for (descr, bytes, want) in [
            ("'|u1'", vec![200], 200.0),
            ("'|b1'", vec![1], 1.0),
            ("'|i1'", vec![0xff], -1.0),
            ("'<u2'", 60_000u16.to_le_bytes().to_vec(), 60_000.0),
            ("'>i4'", (-7i32).to_be_bytes().to_vec(), -7.0),
            ("'<i8'", (-7i64).to_le_bytes().to_vec(), -7.0),
            ("'<f4'", 0.5f32.to_le_bytes().to_vec(), 0.5),
            ("'>f8'", 2.25f64.to_be_bytes().to_vec(), 2.25),
            ("'<f2'", half::f16::from_f32(-1.5).to_le_bytes().to_vec(), -1.5),
        ] {
            assert_eq!(read(&file(descr, "(1,)", &bytes)).unwrap(), (vec![1], vec![want]), "{descr}");
        }
        let many: Vec<u8> = (0..6000).map(|i| i as u8).collect();
        assert_eq!(read(&file("'|u1'", "(2, 3000)", &many)).unwrap().1, many.iter().map(|&v| v as f64).collect::<Vec<_>>());
        assert_eq!(read(&file("'|u1'", "()", &[3])).unwrap(), (vec![], vec![3.0]));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let error = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert_eq!(error(b"PK"), "a.npy: this is no .npy array");
        assert!(error(&file("'<c8'", "(1,)", &[0; 8])).contains("values of type \"<c8\""));
        assert!(error(&file("[('a', '<f4')]", "(1,)", &[0; 4])).contains("holds records"));
        assert!(error(&file("'|u1'", "(4,)", &[0; 3])).contains("holds 3 bytes of values, but its header says [4] of 1 bytes each"));
        assert!(error(&file("'<f8'", "(9223372036854775807, 9)", &[0; 3])).contains("holds 3 bytes"));
        assert!(error(&file("'|u1'", "(-1,)", &[0; 3])).contains("header is not understood"));
        let fortran = String::from_utf8_lossy(&file("'|u1'", "(1,)", b"a")[8..]).replace("False", "True ");
        assert!(error(&[b"\x93NUMPY\x01\x00", fortran.as_bytes()].concat()).contains("ascontiguousarray"));
        assert!(error(&[b"\x93NUMPY\x02\x00", &[255; 4][..]].concat()).contains("a header of 4294967295 bytes"));
        assert!(error(&file("'|u1'", "(1,)", &[0])[..40]).contains("truncated"));
    }
}
