//! PyTorch's checkpoints: a zip archive with a pickle and the bytes of each tensor.
//!
//! Of pickle only what state dicts need is understood: data, and calls of the few functions that rebuild tensors, which are done here and not by Python.
//! Anything else (a pickle can name any function) ends the reading with an error; nothing is ever run.

use crate::error::{Error, Result};
use crate::nn::NamedArray;
use crate::shape::Shape;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

/// The largest pickle of a state dict that is read; a tensor takes about 200 bytes of it.
const MAX_PICKLE: u64 = 1 << 26;

/// The most values of a state dict: 4 GB of f32.
const MAX_VALUES: u64 = 1 << 30;

/// The most bytes that copies of names and sizes within a pickle may take.
const MAX_COPIES: usize = 1 << 28;

/// The number of a value in [`Machine::values`]; values name each other by number, so that deep nesting costs no stack.
type Id = usize;

#[derive(Debug, Clone)]
enum Value {
    None,
    Int(i64),
    /// What a state dict has no use for.
    Other,
    Text(String),
    Sequence(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage {
        kind: Element,
        key: String,
        len: usize,
    },
    Array {
        storage: Id,
        offset: usize,
        shape: Vec<usize>,
        stride: Vec<usize>,
    },
}

/// The functions and types that a state dict may name.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Element),
}

/// Types of elements.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Element {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Element::F64 | Element::I64 => 8,
            Element::F32 | Element::I32 => 4,
            Element::F16 | Element::Bf16 | Element::I16 => 2,
            Element::I8 | Element::U8 => 1,
        }
    }

    fn value(self, b: &[u8]) -> f32 {
        let word = |n: usize| b.iter().take(n).rev().fold(0u64, |word, &byte| word << 8 | byte as u64);
        match self {
            Element::F64 => f64::from_bits(word(8)) as f32,
            Element::F32 => f32::from_bits(word(4) as u32),
            Element::F16 => half::f16::from_bits(word(2) as u16).to_f32(),
            Element::Bf16 => f32::from_bits((word(2) as u32) << 16),
            Element::I64 => word(8) as i64 as f32,
            Element::I32 => word(4) as i32 as f32,
            Element::I16 => word(2) as i16 as f32,
            Element::I8 => word(1) as i8 as f32,
            Element::U8 => word(1) as f32,
        }
    }
}

fn global(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch", "DoubleStorage") => Global::Storage(Element::F64),
        ("torch", "FloatStorage") => Global::Storage(Element::F32),
        ("torch", "HalfStorage") => Global::Storage(Element::F16),
        ("torch", "BFloat16Storage") => Global::Storage(Element::Bf16),
        ("torch", "LongStorage") => Global::Storage(Element::I64),
        ("torch", "IntStorage") => Global::Storage(Element::I32),
        ("torch", "ShortStorage") => Global::Storage(Element::I16),
        ("torch", "CharStorage") => Global::Storage(Element::I8),
        ("torch", "ByteStorage" | "BoolStorage") => Global::Storage(Element::U8),
        _ => return None,
    })
}

/// The arrays of the state dict in a checkpoint, as f32: the pickle's own dictionary, or its entry `state_dict`, `model_state_dict` or `model`. A prefix
/// `module.` of all names is dropped, and so are the counters `num_batches_tracked`.
///
/// # Errors
/// [`Error::Data`] for what is no such file, naming the opcode that is not understood or not allowed.
pub fn read(path: &Path) -> Result<Vec<NamedArray>> {
    let file = File::open(path).map_err(|e| Error::data(path, format!("cannot be read: {e}")))?;
    read_from(BufReader::new(file), path)
}

/// As [`read`], from the bytes of the file; `path` stands for it in errors.
///
/// # Errors
/// As [`read`].
pub fn read_from(file: impl Read + std::io::Seek, path: &Path) -> Result<Vec<NamedArray>> {
    let bad = |what: String| Error::data(path, what);
    let mut archive = zip::ZipArchive::new(file)
        .map_err(|e| bad(format!("this is no PyTorch checkpoint as torch.save has written them since version 1.6, a zip archive: {e}")))?;
    let name = archive.file_names().flatten().find(|name| name.ends_with("data.pkl")).map(|name| name.into_owned());
    let name = name.ok_or_else(|| bad("this archive holds no data.pkl: it is no PyTorch checkpoint".into()))?;
    let root = name.trim_end_matches("data.pkl").to_owned();
    let entry = |archive: &mut zip::ZipArchive<_>, name: &str, most: u64| -> Result<Vec<u8>> {
        let file = archive.by_name(name).map_err(|e| bad(format!("{name}: {e}")))?;
        if file.size() > most {
            return Err(bad(format!("{name} has {} bytes, more than the {most} that are needed", file.size())));
        }
        // What is there counts, not what is claimed.
        let (mut bytes, size) = (Vec::new(), file.size());
        file.take(most).read_to_end(&mut bytes).map_err(|e| bad(format!("{name}: {e}")))?;
        match bytes.len() as u64 == size {
            true => Ok(bytes),
            false => Err(bad(format!("{name} is truncated"))),
        }
    };
    let pickle = entry(&mut archive, &name, MAX_PICKLE)?;
    if let Ok(order) = entry(&mut archive, &format!("{root}byteorder"), 16)
        && order != b"little"
    {
        return Err(bad("this checkpoint was written on a big-endian machine; save it again on a little-endian one".into()));
    }
    let mut machine = Machine::new(&pickle);
    let top = machine.run().map_err(|what| bad(format!("data.pkl, byte {}: {what}", machine.at)))?;
    let arrays = machine.state_dict(top).ok_or_else(|| bad("this checkpoint holds no state dict: save model.state_dict()".into()))?;
    let mut storages: HashMap<String, Vec<u8>> = HashMap::new();
    let (mut out, mut total) = (Vec::new(), 0u64);
    for (name, id) in arrays {
        let Value::Array { storage, offset, shape, stride } = &machine.values[id] else { continue };
        let Value::Storage { kind, key, len } = &machine.values[*storage] else { continue };
        let wrong =
            || bad(format!("{name}: shape {shape:?} with stride {stride:?} from {offset} does not fit its storage of {len} values"));
        let count =
            shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).filter(|_| shape.len() == stride.len()).ok_or_else(wrong)?;
        // The last value that is read lies inside.
        let last =
            shape.iter().zip(stride).try_fold(*offset, |sum, (&size, &step)| sum.checked_add(size.saturating_sub(1).checked_mul(step)?));
        if count > 0 && last.is_none_or(|last| last >= *len) || count > *len && !stride.contains(&0) {
            return Err(wrong());
        }
        let size = len.checked_mul(kind.bytes()).ok_or_else(wrong)?;
        if !storages.contains_key(key) {
            let bytes = entry(&mut archive, &format!("{root}data/{key}"), size as u64)?;
            storages.insert(key.clone(), bytes);
        }
        let bytes = &storages[key];
        if bytes.len() != size {
            return Err(bad(format!("{name}: its storage has {} bytes in place of {size}", bytes.len())));
        }
        // Views of one storage are written out, but not without end.
        total += count as u64;
        if total > MAX_VALUES {
            return Err(bad(format!("holds more than {MAX_VALUES} values")));
        }
        let values = (0..count).map(|mut i| {
            let mut place = *offset;
            for (&size, &step) in shape.iter().zip(stride).rev() {
                place += i % size * step;
                i /= size;
            }
            kind.value(&bytes[place * kind.bytes()..])
        });
        let values = values.collect();
        out.push(NamedArray { shape: Shape::new(shape).map_err(|e| bad(format!("{name}: {e}")))?, name, values });
    }
    let parallel = !out.is_empty() && out.iter().all(|array| array.name.starts_with("module."));
    out.iter_mut().filter(|_| parallel).for_each(|array| array.name = array.name["module.".len()..].to_owned());
    Ok(out)
}

/// The stack machine of pickle, less all that runs code.
struct Machine<'a> {
    pickle: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack where MARK was met.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Bytes of values that were copied.
    copied: usize,
}

type Step<T> = std::result::Result<T, String>;

impl<'a> Machine<'a> {
    fn new(pickle: &'a [u8]) -> Self {
        Machine { pickle, at: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), copied: 0 }
    }

    fn take(&mut self, n: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.pickle.len()).ok_or("the pickle is truncated")?;
        let bytes = &self.pickle[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn number(&mut self, bytes: usize) -> Step<u64> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |word, &byte| word << 8 | byte as u64))
    }

    fn line(&mut self) -> Step<&'a str> {
        let len = self.pickle[self.at..].iter().position(|&byte| byte == b'\n').ok_or("the pickle is truncated")?;
        let line = self.take(len + 1)?;
        std::str::from_utf8(&line[..len]).map_err(|_| "a name is no text".into())
    }

    fn text(&mut self, bytes: usize) -> Step<String> {
        let len = usize::try_from(self.number(bytes)?).map_err(|_| "a text is too long")?;
        String::from_utf8(self.take(len)?.to_vec()).map_err(|_| "a text is no UTF-8".into())
    }

    fn push(&mut self, value: Value) {
        self.values.push(value);
        self.stack.push(self.values.len() - 1);
    }

    /// The topmost value above the last mark.
    fn pop(&mut self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.pop().ok_or_else(|| "the stack is empty".into()),
            false => Err("the stack is empty".into()),
        }
    }

    /// All values above the last mark, which goes.
    fn above_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Step<Id> {
        self.stack.last().copied().ok_or_else(|| "the stack is empty".into())
    }

    fn run(&mut self) -> Step<Id> {
        loop {
            let op = self.take(1)?[0];
            match op {
                // PROTO, FRAME
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.push(Value::None),
                // NEWTRUE, NEWFALSE
                0x88 | 0x89 => self.push(Value::Other),
                b'J' => {
                    let value = self.number(4)? as u32 as i32;
                    self.push(Value::Int(value.into()));
                }
                b'K' => {
                    let value = self.number(1)?;
                    self.push(Value::Int(value as i64));
                }
                b'M' => {
                    let value = self.number(2)?;
                    self.push(Value::Int(value as i64));
                }
                // LONG1
                0x8a => {
                    let len = self.number(1)? as usize;
                    let bytes = self.take(len)?;
                    if len > 8 {
                        return Err(format!("LONG1 of {len} bytes: no size of an array is so large"));
                    }
                    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
                    let word = bytes.iter().rev().fold(if negative { u64::MAX } else { 0 }, |word, &byte| word << 8 | byte as u64);
                    self.push(Value::Int(word as i64));
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Other);
                }
                b'X' => {
                    let text = self.text(4)?;
                    self.push(Value::Text(text));
                }
                // SHORT_BINUNICODE
                0x8c => {
                    let text = self.text(1)?;
                    self.push(Value::Text(text));
                }
                b')' | b']' => self.push(Value::Sequence(Vec::new())),
                b'}' => self.push(Value::Dict(Vec::new())),
                b't' => {
                    let items = self.above_mark()?;
                    self.push(Value::Sequence(items));
                }
                // TUPLE1, TUPLE2, TUPLE3
                0x85..=0x87 => {
                    let mut items = Vec::new();
                    for _ in 0..op - 0x84 {
                        items.push(self.pop()?);
                    }
                    items.reverse();
                    self.push(Value::Sequence(items));
                }
                b'a' | b'e' => {
                    let items = if op == b'a' { vec![self.pop()?] } else { self.above_mark()? };
                    let list = self.top()?;
                    match &mut self.values[list] {
                        Value::Sequence(own) => own.extend(items),
                        _ => return Err("APPEND to what is no list".into()),
                    }
                }
                b's' | b'u' => {
                    let items = if op == b's' {
                        let (value, key) = (self.pop()?, self.pop()?);
                        vec![key, value]
                    } else {
                        self.above_mark()?
                    };
                    if items.len() % 2 == 1 {
                        return Err("SETITEMS of a key without a value".into());
                    }
                    let dict = self.top()?;
                    match &mut self.values[dict] {
                        Value::Dict(own) => own.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
                        _ => return Err("SETITEM of what is no dictionary".into()),
                    }
                }
                b'q' | b'r' | 0x94 => {
                    let slot = match op {
                        b'q' => self.number(1)?,
                        b'r' => self.number(4)?,
                        _ => self.memo.len() as u64,
                    };
                    let top = self.top()?;
                    self.memo.insert(slot, top);
                }
                b'h' | b'j' => {
                    let slot = self.number(if op == b'h' { 1 } else { 4 })?;
                    let id = *self.memo.get(&slot).ok_or("BINGET of what was never kept")?;
                    self.stack.push(id);
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.name("GLOBAL", module, name)?;
                }
                // STACK_GLOBAL
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (self.values[module].clone(), self.values[name].clone()) else {
                        return Err("STACK_GLOBAL of what is no name".into());
                    };
                    self.name("STACK_GLOBAL", &module, &name)?;
                }
                b'Q' => self.persistent()?,
                b'R' => self.reduce()?,
                // What BUILD adds to a state dict is its versions, which are of no use here.
                b'b' => {
                    self.pop()?;
                    if !matches!(self.values[self.top()?], Value::Dict(_)) {
                        return Err("opcode BUILD, which sets an object's fields, is allowed for dictionaries only; nothing was run".into());
                    }
                }
                b'.' => return self.pop(),
                _ => {
                    let name = match op {
                        b'i' => " (INST), which makes an object",
                        b'o' => " (OBJ), which makes an object",
                        0x81 => " (NEWOBJ), which makes an object",
                        0x92 => " (NEWOBJ_EX), which makes an object",
                        0x82..=0x84 => " (EXT), which names an extension",
                        _ => "",
                    };
                    return Err(format!("opcode 0x{op:02x}{name} is not part of a state dict; nothing was run"));
                }
            }
        }
    }

    fn name(&mut self, opcode: &str, module: &str, name: &str) -> Step<()> {
        let known = global(module, name)
            .ok_or_else(|| format!("opcode {opcode} names {module:?} {name:?}, which a state dict does not need; nothing was run. Of a whole model save model.state_dict()"))?;
        self.push(Value::Global(known));
        Ok(())
    }

    fn sequence(&self, id: Id) -> Step<&[Id]> {
        match &self.values[id] {
            Value::Sequence(items) => Ok(items),
            _ => Err("a tuple was expected".into()),
        }
    }

    fn size(&self, id: Id) -> Step<usize> {
        match self.values[id] {
            Value::Int(value) => usize::try_from(value).map_err(|_| format!("{value} is no size")),
            _ => Err("a size was expected".into()),
        }
    }

    fn sizes(&self, id: Id) -> Step<Vec<usize>> {
        if self.sequence(id)?.len() > 16 {
            return Err("a tensor of more than 16 dimensions".into());
        }
        self.sequence(id)?.iter().map(|&size| self.size(size)).collect()
    }

    /// A storage by its key: `("storage", type, key, device, length)`.
    fn persistent(&mut self) -> Step<()> {
        let id = self.pop()?;
        let items = self.sequence(id)?;
        let [_, kind, key, _, len] = items[..] else { return Err("BINPERSID of another form than a storage's".into()) };
        let (Value::Global(Global::Storage(kind)), Value::Text(key)) = (&self.values[kind], &self.values[key]) else {
            return Err("BINPERSID of another form than a storage's".into());
        };
        let storage = Value::Storage { kind: *kind, key: key.clone(), len: self.size(len)? };
        self.copied += key.len();
        if self.copied > MAX_COPIES {
            return Err("the names of storages are too long".into());
        }
        self.push(storage);
        Ok(())
    }

    /// A call of one of the functions that are known.
    fn reduce(&mut self) -> Step<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let arguments = self.sequence(arguments)?.to_vec();
        let value = match (&self.values[function], &arguments[..]) {
            (Value::Global(Global::OrderedDict), []) => Value::Dict(Vec::new()),
            (Value::Global(Global::RebuildTensor), [storage, offset, shape, stride, ..]) => {
                if !matches!(self.values[*storage], Value::Storage { .. }) {
                    return Err("a tensor without a storage".into());
                }
                Value::Array { storage: *storage, offset: self.size(*offset)?, shape: self.sizes(*shape)?, stride: self.sizes(*stride)? }
            }
            (Value::Global(Global::RebuildParameter), [tensor, ..]) if matches!(self.values[*tensor], Value::Array { .. }) => {
                self.values[*tensor].clone()
            }
            _ => return Err("opcode REDUCE calls what a state dict does not need; nothing was run".into()),
        };
        self.push(value);
        Ok(())
    }

    /// The arrays of a dictionary, or of the dictionary that it holds.
    fn state_dict(&self, top: Id) -> Option<Vec<(String, Id)>> {
        let Value::Dict(items) = &self.values[top] else { return None };
        let arrays = |items: &[(Id, Id)]| -> Vec<(String, Id)> {
            let array = |&(key, value): &(Id, Id)| match (&self.values[key], &self.values[value]) {
                (Value::Text(name), Value::Array { .. }) if !name.ends_with("num_batches_tracked") => Some((name.clone(), value)),
                _ => None,
            };
            items.iter().filter_map(array).collect()
        };
        let own = arrays(items);
        if !own.is_empty() {
            return Some(own);
        }
        let inner = |wanted: &str| items.iter().find(|(key, _)| matches!(&self.values[*key], Value::Text(name) if name == wanted));
        ["state_dict", "model_state_dict", "model"].into_iter().find_map(|name| match &self.values[inner(name)?.1] {
            Value::Dict(items) => Some(arrays(items)).filter(|arrays| !arrays.is_empty()),
            _ => None,
        })
    }
}

/// A checkpoint that `torch.load` reads, with the arrays as a state dict of f32.
///
/// # Errors
/// [`Error::Io`] when the archive cannot be made.
pub fn encode(arrays: &[NamedArray]) -> Result<Vec<u8>> {
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    let text = |pickle: &mut Vec<u8>, text: &str| {
        pickle.push(b'X');
        pickle.extend((text.len() as u32).to_le_bytes());
        pickle.extend(text.as_bytes());
    };
    let number = |pickle: &mut Vec<u8>, value: usize| {
        pickle.extend([0x8a, 8]);
        pickle.extend((value as u64).to_le_bytes());
    };
    for (key, array) in arrays.iter().enumerate() {
        text(&mut pickle, &array.name);
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage");
        pickle.extend(b"ctorch\nFloatStorage\n");
        text(&mut pickle, &key.to_string());
        text(&mut pickle, "cpu");
        number(&mut pickle, array.values.len());
        pickle.extend(b"tQ");
        number(&mut pickle, 0);
        let shape = array.shape.to_vec();
        let strides = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
        for sizes in [shape, strides] {
            pickle.push(b'(');
            sizes.iter().for_each(|&size| number(&mut pickle, size));
            pickle.push(b't');
        }
        pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    pickle.extend(b"u.");
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored).large_file(false);
    let mut files = vec![("data.pkl".to_owned(), pickle), ("byteorder".to_owned(), b"little".to_vec())];
    files.extend(arrays.iter().enumerate().map(|(key, array)| (format!("data/{key}"), bytemuck::cast_slice(&array.values).to_vec())));
    files.push(("version".to_owned(), b"3\n".to_vec()));
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let mut pack = || -> zip::result::ZipResult<()> {
        for (name, bytes) in &files {
            writer.start_file(format!("archive/{name}"), options)?;
            writer.write_all(bytes)?;
        }
        Ok(())
    };
    let packed = pack().and_then(|()| writer.finish());
    packed.map(std::io::Cursor::into_inner).map_err(|e| Error::Config(format!("the checkpoint cannot be packed: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrays() -> Vec<NamedArray> {
        let weight =
            NamedArray { name: "fc.weight".into(), shape: Shape::new(&[2, 3]).unwrap(), values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.5] };
        vec![weight, NamedArray { name: "fc.bias".into(), shape: Shape::new(&[2]).unwrap(), values: vec![-1.0, 0.5] }]
    }

    fn pack(pickle: &[u8]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in [("a/data.pkl", pickle), ("a/data/0", &[0; 24])] {
            writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn parse(bytes: &[u8]) -> Result<Vec<NamedArray>> {
        read_from(std::io::Cursor::new(bytes), Path::new("a.pth"))
    }

    #[test]
    fn what_is_written_is_read() {
        let read = parse(&encode(&arrays()).unwrap()).unwrap();
        assert_eq!(read, arrays());
    }

    #[test]
    fn a_malicious_pickle_is_refused_by_the_name_of_its_opcode() {
        let error = |pickle: &[u8]| parse(&pack(pickle)).unwrap_err().to_string();
        for (pickle, words) in [
            (&b"\x80\x02cos\nsystem\nX\x04\0\0\0echo\x85R."[..], "opcode GLOBAL names \"os\" \"system\""),
            (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x01x\x85R.", "opcode STACK_GLOBAL names \"builtins\" \"eval\""),
            (b"\x80\x02(ios\nsystem\n.", "opcode 0x69 (INST)"),
            (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "opcode 0x81 (NEWOBJ)"),
            (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "opcode REDUCE calls"),
            (b"\x80\x02X\xff\xff\xff\x7fabc.", "the pickle is truncated"),
            (b"\x80\x02h\x05.", "BINGET of what was never kept"),
            (b"\x80\x02t.", "there is no mark"),
            (b"\x80\x02K\x05.", "no state dict"),
        ] {
            let message = error(pickle);
            assert!(message.contains(words) && message.starts_with("a.pth: "), "{message}");
        }
        // A million nested tuples, and a million marks.
        let deep = [b"\x80\x02)".to_vec(), vec![0x85; 1_000_000], b".".to_vec()].concat();
        assert!(error(&deep).contains("no state dict"));
        assert!(error(&[b"\x80\x02".to_vec(), vec![b'('; 1_000_000], b".".to_vec()].concat()).contains("the stack is empty"));
    }

    #[test]
    fn lying_sizes_are_refused() {
        let tensor = |len: &str, shape: &str, stride: &str| -> Vec<u8> {
            let number = |n: &str| [&[0x8a, 8][..], &n.parse::<u64>().unwrap().to_le_bytes()].concat();
            let tuple = |list: &str| [b"(".to_vec(), list.split(' ').flat_map(number).collect(), b"t".to_vec()].concat();
            let start = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu".to_vec();
            [start, number(len), b"tQ".to_vec(), number("0"), tuple(shape), tuple(stride), b"\x89}tRs.".to_vec()].concat()
        };
        assert_eq!(parse(&pack(&tensor("6", "2 3", "3 1"))).unwrap()[0].shape[..], [2, 3]);
        // A transposed view is read in its own order.
        assert_eq!(parse(&pack(&tensor("6", "3 2", "1 3"))).unwrap()[0].values.len(), 6);
        for (len, shape, stride) in [
            ("6", "2 4", "4 1"),
            ("1099511627776", "1048576 1048576", "1048576 1"),
            ("6", "9223372036854775807 9", "9 1"),
            ("6", "4294967296 2", "0 1"),
            ("7", "7", "1"),
        ] {
            let error = parse(&pack(&tensor(len, shape, stride))).unwrap_err().to_string();
            assert!(
                error.contains("does not fit")
                    || error.contains("holds more than")
                    || error.contains("truncated")
                    || error.contains("bytes in place of"),
                "{len} {shape}: {error}"
            );
        }
    }
}
