//! Reference data that are not part of the repository.

use std::path::{Path, PathBuf};

/// What lies in `MAPPA_SHARED`, by default beside the repository; `None`, with a line that says so, where it is not there. With
/// `MAPPA_REQUIRE_SHARED=1` that fails.
pub fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("MAPPA_SHARED").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var("MAPPA_REQUIRE_SHARED").is_ok_and(|v| v == "1");
    assert!(!required, "MAPPA_REQUIRE_SHARED=1, but {} is not there", path.display());
    println!("left out: what needs {}; set MAPPA_SHARED", path.display());
    None
}
