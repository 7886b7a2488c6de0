//! Where Chromium is.

use std::process::{Command, Stdio};

/// Its command; `None`, with a line that says so, where there is none. With `MAPPA_REQUIRE_CHROMIUM=1` that fails.
pub fn chromium() -> Option<String> {
    let named = std::env::var("CHROMIUM").ok().into_iter();
    let runs =
        |name: &String| Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    let found = named.chain(["chromium", "chromium-browser", "google-chrome"].map(String::from)).find(runs);
    if found.is_none() {
        assert!(!std::env::var("MAPPA_REQUIRE_CHROMIUM").is_ok_and(|v| v == "1"), "MAPPA_REQUIRE_CHROMIUM=1, but there is no chromium");
        println!("left out: what needs a browser, since there is no chromium; install it or set CHROMIUM");
    }
    found
}
