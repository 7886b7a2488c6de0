//! `docs/ops.md` is written from the documentation of `src/op` and from the list of cases, and must be as they are.
//!
//! `MAPPA_WRITE_DOCS=1 cargo test --test ops_doc` writes it anew.

use mappa::cases::{all, half};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// What the cases show of an operation.
#[derive(Default)]
struct Seen {
    types: BTreeSet<&'static str>,
    gradient: bool,
    cases: usize,
}

/// An operation as its source defines it: name, attributes, the lines of its documentation.
struct Definition {
    name: String,
    attributes: Vec<String>,
    doc: String,
}

/// Names and documentation of the variants of the enums in a family's file (and of the fields of its one struct).
fn definitions(source: &str) -> Vec<Definition> {
    let (mut found, mut doc, mut inside, mut is_struct): (Vec<Definition>, Vec<&str>, bool, bool) = (Vec::new(), Vec::new(), false, false);
    for line in source.lines() {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim();
        if let Some(words) = text.strip_prefix("///") {
            doc.push(words.trim());
            continue;
        }
        if text.starts_with("#[") {
            continue;
        }
        if indent == 0 {
            let (of_enum, of_struct) = (text.strip_prefix("pub enum "), text.strip_prefix("pub struct "));
            inside = of_enum.is_some() || of_struct.is_some();
            is_struct = of_struct.is_some();
            if let Some(name) = of_struct {
                found.push(Definition { name: name.trim_end_matches([' ', '{']).into(), attributes: Vec::new(), doc: doc.join(" ") });
            }
        } else if inside && indent == 4 && !is_struct && text.starts_with(char::is_uppercase) {
            let name: String = text.chars().take_while(|c| c.is_alphanumeric()).collect();
            let of: String = text[name.len()..].chars().take_while(|&c| c != ',' && c != '{').collect();
            found.push(Definition { name: name + of.trim(), attributes: Vec::new(), doc: doc.join(" ") });
        } else if inside && (indent == 8 || is_struct && indent == 4) && text.contains(": ") && !text.starts_with("//") {
            let name = text.trim_start_matches("pub ").split(':').next().unwrap();
            if let Some(last) = found.last_mut() {
                last.attributes.push(format!("`{name}`: {}", doc.join(" ")));
            }
        }
        doc.clear();
    }
    found.retain(|d| !d.doc.is_empty());
    found
}

/// Links of rustdoc as plain code.
fn plain(doc: &str) -> String {
    let mut text = doc.replace("](crate::", "]~(").replace("[`", "`").replace("`]", "`");
    while let Some(start) = text.find("~(") {
        let end = text[start..].find(')').map_or(text.len(), |e| start + e + 1);
        text.replace_range(start..end, "");
    }
    text
}

fn document() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut families: BTreeMap<&str, BTreeMap<String, Seen>> = BTreeMap::new();
    for case in all().into_iter().chain(half()) {
        let specs: Vec<_> = case.inputs.iter().map(|d| d.spec().unwrap()).collect();
        let outputs = case.op.infer(&specs).unwrap();
        let seen = families.entry(case.op.family()).or_default().entry(case.op.name()).or_default();
        seen.types.extend(specs.first().or(outputs.first()).map(|s| s.dtype.name()));
        seen.gradient |= case.differentiable;
        seen.cases += 1;
    }
    let mut text = String::from(
        "# Operations\n\nEvery operation runs on the CPU (f32, f16, and f64 for gradient checks) and on the GPU (f32, and f16 where the adapter has it; the\n\
         kernel variant is `base`, and for matmul and conv `lanes` where subgroups have eight lanes: `--kernels product=tile` takes `base` there, too; for f16 `matrices` where `--kernels matrices=N` asks for it); types are those of the first operand. *Gradient* says that it is checked against finite differences. What is not listed here is composed of these: see the methods of\n\
         `Tensor`, and `nn`. This file is written by `MAPPA_WRITE_DOCS=1 cargo test --test ops_doc`.\n",
    );
    for (family, ops) in families {
        let source = std::fs::read_to_string(root.join(format!("src/op/{family}.rs"))).unwrap();
        let summary = source.lines().next().and_then(|l| l.strip_prefix("//! ")).unwrap();
        writeln!(text, "\n## {family}\n\n{summary}\n\n| operation | types | gradient | cases |\n| --- | --- | --- | ---: |").unwrap();
        for (name, seen) in ops {
            let types = seen.types.into_iter().collect::<Vec<_>>().join(", ");
            writeln!(text, "| {name} | {types} | {} | {} |", if seen.gradient { "yes" } else { "" }, seen.cases).unwrap();
        }
        text.push('\n');
        for d in definitions(&source) {
            writeln!(text, "- **{}**: {}", d.name, plain(&d.doc)).unwrap();
            for attribute in d.attributes {
                writeln!(text, "  - {}", plain(&attribute)).unwrap();
            }
        }
    }
    text
}

#[test]
fn the_list_of_operations_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ops.md");
    let text = document();
    if std::env::var("MAPPA_WRITE_DOCS").is_ok_and(|v| v == "1") {
        std::fs::write(&path, &text).unwrap();
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(current == text, "docs/ops.md is out of date; write it anew with: MAPPA_WRITE_DOCS=1 cargo test --test ops_doc");
}
