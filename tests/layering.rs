//! The layers: a file imports only from its own row of the table or from rows above it, and a family has a file of its name in every layer.

use mappa::cases::all;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The rows, top to bottom. An entry covers the module and all below it, unless a longer entry does; `backend` itself is only `backend/mod.rs`.
const LAYERS: &[&[&str]] = &[
    &["error", "dtype", "shape", "rng", "op"],
    &["backend", "backend::decorator"],
    &["backend::cpu", "backend::gpu", "backend::checked", "backend::profile", "backend::finite", "backend::null", "cases"],
    &["device"],
    &["tensor", "autodiff"],
    &["nn", "optim", "metrics", "io", "chart"],
    &["data", "models", "train", "verify"],
    &["cli", "main", "web"],
];

/// Families without operations on tensors: the optimisers' steps have no gradient and no method.
const WITHOUT_TENSOR_OPS: &[&str] = &["optimizer"];

/// The row of a module path such as `backend::gpu::kernels`.
fn layer(path: &str) -> Option<usize> {
    let mut path = path;
    loop {
        if let Some(row) = LAYERS.iter().position(|row| row.contains(&path)) {
            return Some(row);
        }
        path = path.rsplit_once("::")?.0;
    }
}

/// The source without comments, string literals and `#[cfg(test)]` modules. Line breaks stay.
fn code(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let literal = if c == 'r' && !out.ends_with(|c: char| c.is_alphanumeric() || c == '_') { raw_string(rest) } else { None };
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(len) = literal {
            len
        } else if c == '"' {
            string(rest)
        } else if c == '\'' {
            character(rest)
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        out.extend(rest[..skipped].chars().filter(|&c| c == '\n'));
        rest = &rest[skipped..];
    }
    without_test_modules(&out)
}

/// Bytes of the string literal that `text` begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of the raw string literal (`r"..."`, `r#"..."#`) that `text` begins with, if it does.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].chars().take_while(|&c| c == '#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&end).map_or(text.len(), |at| 2 + hashes + at + end.len()))
}

/// Bytes of the character literal that `text` begins with; 1 for the quote of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(1, |at| at + 4),
        Some(_) => chars.next().filter(|&(_, c)| c == '\'').map_or(1, |(at, _)| at + 1),
        None => 1,
    }
}

fn without_test_modules(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..at]);
        let item = &rest[at..];
        let (brace, semicolon) = (item.find('{').unwrap_or(item.len()), item.find(';').unwrap_or(item.len()));
        let mut end = semicolon + 1;
        if brace < semicolon {
            let mut depth = 0;
            end = item.len();
            for (i, c) in item.char_indices().skip_while(|(i, _)| *i < brace) {
                depth += (c == '{') as i32 - (c == '}') as i32;
                if depth == 0 {
                    end = i + 1;
                    break;
                }
            }
        }
        rest = &item[end.min(item.len())..];
    }
    out + rest
}

/// The paths that a source names from the crate's root: `use crate::a::{b, c::D}` gives `a::b` and `a::c::D`. `module` resolves `super`.
fn named_paths(code: &str, module: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, word) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
            continue;
        }
        let (mut from, mut tail) = (Vec::new(), &code[at + word.len()..]);
        if word == "super::" {
            let mut up = module.len().saturating_sub(1);
            while let Some(next) = tail.strip_prefix("super::") {
                (up, tail) = (up.saturating_sub(1), next);
            }
            from = module[..up].to_vec();
        }
        leaves(&from, &mut tail, &mut found);
    }
    found
}

/// Reads one tree of a path (`a::{b, c::*}`) from the front of `rest`.
fn leaves(prefix: &[&str], rest: &mut &str, found: &mut Vec<String>) {
    let text = rest.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        *rest = group;
        loop {
            leaves(prefix, rest, found);
            *rest = rest.trim_start();
            match rest.strip_prefix(',') {
                Some(next) => *rest = next,
                None => break,
            }
        }
        *rest = rest.strip_prefix('}').unwrap_or(rest);
        return;
    }
    let len = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (word, tail) = text.split_at(len);
    let path: Vec<&str> = prefix.iter().copied().chain((!word.is_empty() && word != "self").then_some(word)).collect();
    match tail.strip_prefix("::") {
        Some(next) => {
            *rest = next;
            leaves(&path, rest, found);
        }
        None => {
            // `as Name` and `*` end here as well.
            let renamed = tail.trim_start().strip_prefix("as ").map(|t| t.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'));
            *rest = renamed.unwrap_or(tail.strip_prefix('*').unwrap_or(tail));
            if !path.is_empty() {
                found.push(path.join("::"));
            }
        }
    }
}

/// The names that `lib.rs` re-exports at the root, with the module each comes from.
fn root_names(lib: &str) -> Vec<(String, String)> {
    let mut names = Vec::new();
    for (at, word) in lib.match_indices("pub use ") {
        let mut found = Vec::new();
        leaves(&[], &mut &lib[at + word.len()..], &mut found);
        names.extend(found.into_iter().filter_map(|path| Some((path.rsplit_once("::")?.1.to_owned(), path))));
    }
    names
}

/// What a source imports that it may not: one message each.
fn violations(module: &str, source: &str, root: &[(String, String)]) -> Vec<String> {
    let Some(own) = layer(module) else { return vec![format!("{module} is in no layer; add it to the table in tests/layering.rs")] };
    let parts: Vec<&str> = module.split("::").collect();
    let mut messages = BTreeSet::new();
    for path in named_paths(&code(source), &parts) {
        let full = root.iter().find(|(name, _)| *name == path).map_or(&path, |(_, full)| full);
        match layer(full) {
            Some(row) if row <= own => {}
            Some(row) => {
                messages.insert(format!("{module} (L{own}) imports {full} (L{row})"));
            }
            // `super::` of a module directly under the root leads to the root itself.
            None => {
                messages.insert(format!("{module} names {full}, which is in no layer; add it to the table in tests/layering.rs"));
            }
        }
    }
    messages.into_iter().collect()
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source below `dir` as (module path, text), `lib.rs` left out.
fn sources(dir: &Path, prefix: &str, found: &mut Vec<(String, String)>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let module = if prefix.is_empty() { stem.to_owned() } else { format!("{prefix}::{stem}") };
        if path.is_dir() {
            sources(&path, &module, found);
        } else if path.extension().is_some_and(|e| e == "rs") && module != "lib" {
            let module = if stem == "mod" { prefix.to_owned() } else { module };
            found.push((module, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn every_file_imports_only_from_its_own_layer_or_from_layers_above() {
    let lib = std::fs::read_to_string(src().join("lib.rs")).unwrap();
    let root = root_names(&code(&lib));
    assert!(root.iter().any(|(name, path)| name == "Tensor" && path == "tensor::Tensor"), "{root:?}");
    let mut files = Vec::new();
    sources(&src(), "", &mut files);
    for (module, text) in &files {
        let imports = text.lines().any(|line| line.starts_with("use crate::"));
        assert!(!imports || !named_paths(&code(text), &[]).is_empty(), "no import was found in {module}, but it has some");
    }
    let found: Vec<String> = files.iter().flat_map(|(module, text)| violations(module, text, &root)).collect();
    assert!(files.len() > 50, "only {} files were found", files.len());
    assert!(found.is_empty(), "the layers of docs/architecture.md are broken:\n{}", found.join("\n"));
}

#[test]
fn a_planted_violation_is_found_wherever_it_hides() {
    let root = vec![("Tensor".to_owned(), "tensor::Tensor".to_owned()), ("Error".to_owned(), "error::Error".to_owned())];
    let check = |module: &str, source: &str| violations(module, source, &root);
    for (module, source, message) in [
        ("op::pool", "use crate::backend::Backend;", "op::pool (L0) imports backend::Backend (L1)"),
        ("op::pool", "use crate::{error::Result, Tensor};", "op::pool (L0) imports tensor::Tensor (L4)"),
        ("op", "fn f() -> crate::tensor::Tensor { todo!() }", "op (L0) imports tensor::Tensor (L4)"),
        ("backend", "pub use gpu::Gpu;\nuse super::device::Device;", "backend (L1) imports device::Device (L3)"),
        ("backend", "use crate::backend::gpu::Gpu;", "backend (L1) imports backend::gpu::Gpu (L2)"),
        ("backend::gpu::stream", "use super::super::super::device;", "backend::gpu::stream (L2) imports device (L3)"),
        ("device", "use crate::{\n    backend::{Backend, cpu::Cpu as C},\n    nn::{self, Linear},\n};", "device (L3) imports nn (L5)"),
        ("nn::linear", "let c = '\"'; use crate::train::*;", "nn::linear (L5) imports train (L6)"),
        ("nn::linear", "fn f<'a>(x: &'a str) -> crate::cli::Flag<'a> {}", "nn::linear (L5) imports cli::Flag (L7)"),
    ] {
        let found = check(module, source);
        assert!(found.iter().any(|m| m == message), "{source}: {found:?} lacks {message}");
    }
    assert_eq!(check("novel", "use crate::op::Op;"), ["novel is in no layer; add it to the table in tests/layering.rs"]);
    assert_eq!(check("op", "use crate::novel::X;").len(), 1);
}

#[test]
fn comments_strings_tests_and_imports_from_above_are_no_violation() {
    for source in [
        "//! See [`Tensor`](crate::tensor::Tensor).\nuse crate::error::Error;",
        "/* use crate::cli::Flag; */",
        "const S: &str = \"crate::cli::Flag\\\" crate::cli\";",
        "const S: &str = r#\"use \"crate::cli::Flag\"#;",
        "#[cfg(test)]\nmod tests {\n    use crate::tensor::Tensor;\n    fn f() { { } }\n}\nuse crate::op::Op;",
        "use other_crate::cli::Flag;",
        "use super::{Operand, check_run};\nuse crate::backend::{Backend, cpu::Cpu};\nuse crate::cases::compare;",
    ] {
        assert_eq!(violations("backend::gpu", source, &[]), [""; 0], "{source}");
    }
}

#[test]
fn every_family_has_a_file_of_its_stem_in_every_layer_and_rows_in_the_cases() {
    let stems = |dir: &str, extension: &str| -> BTreeSet<String> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        let paths = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        let files = paths.filter(|path| path.extension().is_some_and(|e| e == extension));
        files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).filter(|stem| stem != "mod").collect()
    };
    let without =
        |set: BTreeSet<String>, names: &[&str]| -> BTreeSet<String> { set.into_iter().filter(|s| !names.contains(&&s[..])).collect() };
    let families: BTreeSet<String> = all().iter().map(|case| case.op.family().to_owned()).collect();
    // The opening for operations from outside has files but neither cases nor a shader; tests/custom_op.rs brings its own.
    let files = || families.iter().cloned().chain(["custom".to_owned()]).collect::<BTreeSet<_>>();
    // Files beside the families: tolerances in src/op, tile sizes among the kernels, what the CPU's fast paths share.
    assert_eq!(without(stems("src/op", "rs"), &["tolerance"]), files(), "src/op and the cases");
    assert_eq!(without(stems("src/backend/cpu", "rs"), &["fast"]), files(), "src/backend/cpu and the cases");
    assert_eq!(without(stems("src/backend/gpu/kernels", "rs"), &["tile"]), files(), "src/backend/gpu/kernels and the cases");
    assert_eq!(stems("shaders", "wgsl"), families, "shaders and the cases");
    assert_eq!(stems("src/tensor/ops", "rs"), without(files(), WITHOUT_TENSOR_OPS), "src/tensor/ops and the cases");
}
