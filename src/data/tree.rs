//! Pictures by folder, wherever they lie: in a directory, in a tar archive, or named by a table of paths and labels.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::io::picture::{self, ENDINGS};

/// The largest file of a picture in an archive; it is held in memory while it is decoded.
const MAX_FILE: u64 = 1 << 29;

/// Folders below class folders are read to this depth.
const MAX_DEPTH: usize = 8;

/// A folder: other folders and pictures, by name in the order of bytes.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) folders: BTreeMap<OsString, Tree>,
    pub(super) pictures: BTreeMap<OsString, Source>,
}

/// Where a picture is.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    File(PathBuf),
    Slice { archive: Arc<Archive>, name: PathBuf, offset: u64, len: u64 },
}

/// An open tar archive.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    file: Mutex<File>,
}

impl Source {
    /// The file, if it is one of its own.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Source::File(path) => Some(path),
            Source::Slice { .. } => None,
        }
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> PathBuf {
        match self {
            Source::File(path) => path.clone(),
            Source::Slice { archive, name, .. } => archive.path.join(name),
        }
    }

    /// The bytes of the file.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        let path = self.name();
        let cannot = |e: std::io::Error| Error::data(&path, format!("cannot be read: {e}"));
        match self {
            Source::File(path) => std::fs::read(path).map_err(cannot),
            Source::Slice { archive, offset, len, .. } => {
                if *len > MAX_FILE {
                    return Err(Error::data(path, format!("has {len} bytes; pictures in archives may have {MAX_FILE}")));
                }
                let mut bytes = vec![0; *len as usize];
                let mut file = archive.file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(*offset)).and_then(|_| file.read_exact(&mut bytes)).map_err(cannot)?;
                Ok(bytes)
            }
        }
    }

    /// The picture's pixels, as [`picture::read`] gives them.
    pub(crate) fn read(&self, channels: usize, height: usize, width: usize) -> Result<Vec<u8>> {
        match self {
            Source::File(path) => picture::read(path, channels, height, width),
            Source::Slice { .. } => picture::decode(&self.name(), Cursor::new(self.bytes()?), channels, height, width),
        }
    }
}

/// Hidden files, and what macOS puts into archives.
fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || name == "__MACOSX"
}

fn is_picture(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

impl Tree {
    /// The folders and pictures in a directory, without hidden ones.
    pub(super) fn directory(root: &Path) -> Result<Tree> {
        Self::scan(root, 0)
    }

    fn scan(folder: &Path, depth: usize) -> Result<Tree> {
        let cannot = |e: std::io::Error| Error::data(folder, format!("cannot be read: {e}"));
        let mut tree = Tree::default();
        for entry in std::fs::read_dir(folder).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let (path, name) = (entry.path(), entry.file_name());
            if is_hidden(&name) {
                continue;
            }
            // A folder called x.jpg is a picture that cannot be read, and is named as such.
            if is_picture(&path) {
                tree.pictures.insert(name, Source::File(path));
                continue;
            }
            // Links to folders are followed where classes are, not below, where they may lead in circles.
            let linked = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if path.is_dir() && depth < MAX_DEPTH && !(linked && depth > 1) {
                tree.folders.insert(name, Self::scan(&path, depth + 1)?);
            }
        }
        Ok(tree)
    }

    /// The folders and pictures in a tar archive, plain or compressed by gzip. Nothing is unpacked: names that lead outside are only names.
    pub(super) fn tar(path: &Path) -> Result<Tree> {
        let bad = |e: std::io::Error| Error::data(path, format!("this is no complete tar archive: {e}"));
        let mut file = File::open(path).map_err(|e| Error::data(path, format!("cannot be read: {e}")))?;
        let mut magic = [0; 2];
        let zipped = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
        file.rewind().map_err(bad)?;
        if zipped {
            let mut plain = tempfile::tempfile().map_err(|e| Error::io(std::env::temp_dir(), e))?;
            let mut reader = flate2::read::MultiGzDecoder::new(BufReader::new(file));
            std::io::copy(&mut reader, &mut plain).map_err(bad)?;
            file = plain;
            file.rewind().map_err(bad)?;
        }
        let size = file.metadata().map_err(bad)?.len();
        let archive = Arc::new(Archive { path: path.to_owned(), file: Mutex::new(file.try_clone().map_err(bad)?) });
        let mut tree = Tree::default();
        let mut reader = tar::Archive::new(file);
        for entry in reader.entries_with_seek().map_err(bad)? {
            let entry = entry.map_err(bad)?;
            let name = entry.path().map_err(bad)?.into_owned();
            if !entry.header().entry_type().is_file() || !is_picture(&name) {
                continue;
            }
            let (offset, len) = (entry.raw_file_position(), entry.size());
            if offset.checked_add(len).is_none_or(|end| end > size) {
                return Err(Error::data(path, format!("is truncated: {} ends behind the archive's end", name.display())));
            }
            let parts: Vec<&OsStr> =
                name.components().filter_map(|part| if let Component::Normal(part) = part { Some(part) } else { None }).collect();
            let Some((own, folders)) = parts.split_last().filter(|_| !parts.iter().any(|part| is_hidden(part))) else { continue };
            let folder = folders.iter().fold(&mut tree, |tree, &part| tree.folders.entry(part.to_owned()).or_default());
            folder.pictures.insert((*own).to_owned(), Source::Slice { archive: Arc::clone(&archive), name: name.clone(), offset, len });
        }
        Ok(tree)
    }

    /// The pictures that a CSV file names: in its columns a path, relative to the file's own folder, a label, and perhaps a part, `train`, `val`
    /// or `test`. A first row of `path,label` is a header.
    pub(super) fn table(path: &Path) -> Result<Tree> {
        let bad = |e: csv::Error| Error::data(path, format!("is no table of path,label: {e}"));
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_path(path).map_err(bad)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let (mut tree, mut with_parts) = (Tree::default(), None);
        for (row, record) in reader.records().enumerate() {
            let record = record.map_err(bad)?;
            let fields: Vec<&str> = record.iter().collect();
            let header = ["path", "file", "filename", "image"];
            if row == 0 && fields.first().is_some_and(|first| header.iter().any(|known| first.eq_ignore_ascii_case(known))) {
                continue;
            }
            let line = record.position().map_or(row as u64 + 1, |position| position.line());
            let wrong = |what: &str| Err(Error::data(path, format!("line {line}: {what}; a row is path,label or path,label,part")));
            let (file, label, part) = match fields[..] {
                [file, label] => (file, label, None),
                [file, label, part] => (file, label, Some(part)),
                _ => return wrong(&format!("has {} fields", fields.len())),
            };
            if file.is_empty() || label.is_empty() || part == Some("") {
                return wrong("has an empty field");
            }
            if *with_parts.get_or_insert(part.is_some()) != part.is_some() {
                return wrong("some rows name a part and some do not");
            }
            let root = part.into_iter().fold(&mut tree, |tree, part| tree.folders.entry(part.into()).or_default());
            let class = root.folders.entry(label.into()).or_default();
            class.pictures.insert(file.into(), Source::File(folder.join(file)));
        }
        Ok(tree)
    }

    /// The folder that holds the others, where a folder or an archive holds nothing but it.
    pub(super) fn descend(self, mut path: PathBuf) -> (Tree, PathBuf) {
        let mut tree = self;
        loop {
            let single = tree.folders.len() == 1 && tree.pictures.is_empty() && tree.folders.values().all(|only| !only.folders.is_empty());
            if !single {
                return (tree, path);
            }
            if let Some((name, only)) = tree.folders.pop_first() {
                path.push(name);
                tree = only;
            }
        }
    }

    /// All pictures below, with their folders' names.
    pub(super) fn all(&self) -> Vec<&Source> {
        self.pictures.values().chain(self.folders.values().flat_map(Tree::all)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        // Written as it is: the crate refuses to write names with "..".
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, bytes).unwrap();
    }

    fn names(tree: &Tree, path: &str) -> Vec<String> {
        let own = tree.pictures.keys().map(|name| format!("{path}{}", name.to_string_lossy()));
        own.chain(tree.folders.iter().flat_map(|(name, t)| names(t, &format!("{path}{}/", name.to_string_lossy())))).collect()
    }

    #[test]
    fn an_archive_is_read_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let png = dir.path().join("a.png");
        image::RgbImage::from_pixel(4, 4, image::Rgb([9, 8, 7])).save(&png).unwrap();
        let png = std::fs::read(png).unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        for name in ["set/a/1.png", "set/b/../b/2.png", "../../set/a/3.png", "/set/b/4.png", "set/a/._1.png", "set/a/notes.txt"] {
            add(&mut tar, name, &png);
        }
        let bytes = tar.into_inner().unwrap();
        let path = dir.path().join("set.tar");
        std::fs::write(&path, &bytes).unwrap();
        let (tree, root) = Tree::tar(&path).unwrap().descend(path.clone());
        assert_eq!(names(&tree, ""), ["a/1.png", "a/3.png", "b/4.png", "b/b/2.png"]);
        assert_eq!(root, path.join("set"));
        assert!(tree.all().iter().all(|source| source.read(3, 1, 1).unwrap() == [9, 8, 7]));
        assert!(!dir.path().join("set").exists(), "nothing is unpacked");

        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut zipped, &bytes).unwrap();
        let gz = dir.path().join("set.tar.gz");
        std::fs::write(&gz, zipped.finish().unwrap()).unwrap();
        let (tree, _) = Tree::tar(&gz).unwrap().descend(gz.clone());
        assert!(tree.all().len() == 4 && tree.all().iter().all(|source| source.read(3, 1, 1).unwrap() == [9, 8, 7]));

        // Cut in the third picture's bytes.
        std::fs::write(&path, &bytes[..2 * 1024 + 512 + 40]).unwrap();
        assert!(Tree::tar(&path).unwrap_err().to_string().contains("set.tar: is truncated"));
        std::fs::write(&path, "no archive, but quite long. ".repeat(40)).unwrap();
        assert!(Tree::tar(&path).unwrap_err().to_string().contains("no complete tar archive"));
    }

    #[test]
    fn a_table_names_pictures_labels_and_parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Tree::table(&path)
        };
        let tree = read("path,label\nx/1.jpg, cat\n\"x/2,3.jpg\",dog\n").unwrap();
        assert_eq!(names(&tree, ""), ["cat/x/1.jpg", "dog/x/2,3.jpg"]);
        let tree = read("1.jpg,cat,train\n2.jpg,cat,test\n").unwrap();
        assert_eq!(names(&tree, ""), ["test/cat/2.jpg", "train/cat/1.jpg"]);
        for (text, message) in [
            ("1.jpg\n", "line 1: has 1 fields"),
            ("1.jpg,cat\n2.jpg,\n", "line 2: has an empty field"),
            ("1.jpg,cat\n2.jpg,dog,test\n", "line 2: some rows name a part and some do not"),
        ] {
            assert!(read(text).unwrap_err().to_string().contains(message), "{text}");
        }
        assert!(Tree::table(&dir.path().join("none.csv")).unwrap_err().to_string().contains("none.csv"));
    }

    #[test]
    #[cfg(unix)]
    fn circles_of_links_end() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/deep")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("a/deep/again")).unwrap();
        std::fs::write(dir.path().join("a/deep/1.jpg"), "").unwrap();
        assert_eq!(names(&Tree::directory(dir.path()).unwrap(), ""), ["a/deep/1.jpg"]);
    }
}
