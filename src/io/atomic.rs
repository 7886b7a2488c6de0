//! Files that are either complete or not there.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Writes a file so that a crash at any moment leaves the old content or the new, never a part: the bytes go to a temporary sibling,
/// reach the disk, and the sibling takes the file's name.
///
/// # Errors
/// [`Error::Io`] when a step fails; the old file is then still there.
pub fn write(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let Some(name) = path.file_name() else {
        return Err(Error::Io { path: path.into(), message: "this is no file name to write to".into() });
    };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(temporary);
    let result = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = result {
        // Best effort: the error that matters is the one above.
        let _ = fs::remove_file(&temporary);
        return Err(Error::io(path, error));
    }
    // The new name reaches the disk with the folder; where a folder cannot be opened (Windows) the rename is durable by itself.
    if let Ok(folder) = File::open(folder) {
        folder.sync_all().map_err(|error| Error::io(path, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_is_reported_with_the_path_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        // A folder with content cannot be replaced by a file.
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"").unwrap();
        let error = write(&path, b"new").unwrap_err();
        assert!(matches!(&error, Error::Io { path: p, .. } if *p == path), "{error:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let missing = dir.path().join("no").join("file");
        assert!(matches!(write(&missing, b"new"), Err(Error::Io { .. })));
    }
}
