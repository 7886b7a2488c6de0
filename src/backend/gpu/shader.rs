//! Shader sources and their expansion: one level of `//#include`, `//#spec` constants, and files that take another's place ([`Variant`]): the type that
//! tensors are stored in, and how products are tiled. Nothing else is substituted but the types and sizes on lines that end in `//#result`, `//#side`, `//#left`
//! and `//#right`.

use crate::error::{Error, Result};
use std::borrow::Cow;
use std::path::Path;

/// Every family's source and the shared parts, as they lie in `shaders/`.
pub const SOURCES: &[(&str, &str)] = &[
    ("elementwise", include_str!("../../../shaders/elementwise.wgsl")),
    ("matmul", include_str!("../../../shaders/matmul.wgsl")),
    ("conv", include_str!("../../../shaders/conv.wgsl")),
    ("pool", include_str!("../../../shaders/pool.wgsl")),
    ("recurrent", include_str!("../../../shaders/recurrent.wgsl")),
    ("reduce", include_str!("../../../shaders/reduce.wgsl")),
    ("scan", include_str!("../../../shaders/scan.wgsl")),
    ("softmax", include_str!("../../../shaders/softmax.wgsl")),
    ("layout", include_str!("../../../shaders/layout.wgsl")),
    ("random", include_str!("../../../shaders/random.wgsl")),
    ("norm", include_str!("../../../shaders/norm.wgsl")),
    ("optimizer", include_str!("../../../shaders/optimizer.wgsl")),
    ("shared/f32.wgsl", include_str!("../../../shaders/shared/f32.wgsl")),
    ("shared/f16.wgsl", include_str!("../../../shaders/shared/f16.wgsl")),
    ("shared/index.wgsl", include_str!("../../../shaders/shared/index.wgsl")),
    ("shared/lanes.wgsl", include_str!("../../../shaders/shared/lanes.wgsl")),
    ("shared/loads.wgsl", include_str!("../../../shaders/shared/loads.wgsl")),
    ("shared/matrices.wgsl", include_str!("../../../shaders/shared/matrices.wgsl")),
    ("shared/math.wgsl", include_str!("../../../shaders/shared/math.wgsl")),
    ("shared/philox.wgsl", include_str!("../../../shaders/shared/philox.wgsl")),
    ("shared/stage.wgsl", include_str!("../../../shaders/shared/stage.wgsl")),
    ("shared/sum.wgsl", include_str!("../../../shaders/shared/sum.wgsl")),
    ("shared/tile.wgsl", include_str!("../../../shaders/shared/tile.wgsl")),
];

/// How a kernel's float operands are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Storage {
    /// 32-bit.
    #[default]
    F32,
    /// 16-bit: the variant for adapters that have it.
    F16,
    /// Operands 16-bit, the result (`R` in the sources) 32-bit: a partial sum.
    F16ToF32,
}

/// Which of the files that may take another's place an expansion includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Variant {
    /// `shared/f32.wgsl`, or `shared/f16.wgsl` for it.
    pub storage: Storage,
    /// `shared/lanes.wgsl` for `shared/tile.wgsl`: needs subgroups of eight lanes.
    pub lanes: bool,
    /// `shared/matrices.wgsl` for `shared/tile.wgsl`, with cooperative matrices of this side; 0 for none.
    pub matrices: u32,
    /// The left and the right matrix of a product in vectors of four numbers: the lines of `shared/loads.wgsl` that end in `//#left` and `//#right`.
    pub four: [bool; 2],
}

/// The sources that a device compiles: those of [`SOURCES`], unless a test puts others in their place.
#[derive(Debug, Clone)]
pub struct Sources(Vec<(&'static str, Cow<'static, str>)>);

impl Default for Sources {
    fn default() -> Self {
        Sources(SOURCES.iter().map(|&(name, text)| (name, Cow::Borrowed(text))).collect())
    }
}

impl Sources {
    /// The text of `name`, as [`SOURCES`] names it.
    ///
    /// # Errors
    /// [`Error::Gpu`] for an unknown name.
    pub fn get(&self, name: &str) -> Result<&str> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, text)| &**text).ok_or_else(|| Error::Gpu(format!("no shader source named {name}")))
    }

    /// Puts `text` in the place of `name`.
    ///
    /// # Errors
    /// [`Error::Gpu`] for an unknown name.
    pub fn replace(&mut self, name: &str, text: String) -> Result<()> {
        let source = self.0.iter_mut().find(|(n, _)| *n == name).ok_or_else(|| Error::Gpu(format!("no shader source named {name}")))?;
        source.1 = Cow::Owned(text);
        Ok(())
    }

    /// Whether no text was put in another's place.
    pub(super) fn are_built_in(&self) -> bool {
        self.0.iter().all(|(_, text)| matches!(text, Cow::Borrowed(_)))
    }

    /// An included file, or what takes its place.
    fn included(&self, part: &str, variant: Variant) -> Result<Cow<'_, str>> {
        Ok(match (part, variant.storage) {
            ("shared/tile.wgsl", _) if variant.matrices > 0 => {
                let (text, side) = (self.get("shared/matrices.wgsl")?, variant.matrices);
                let sided =
                    |line: &str| if line.ends_with("//#side") { line.replace("8x8", &format!("{side}x{side}")) } else { line.to_owned() };
                text.lines().map(|line| sided(line) + "\n").collect::<String>().into()
            }
            // Nothing is staged there.
            ("shared/stage.wgsl", _) if variant.lanes => "".into(),
            ("shared/tile.wgsl", _) if variant.lanes => self.get("shared/lanes.wgsl")?.into(),
            ("shared/loads.wgsl", _) => {
                let four = |line: &str| {
                    let wanted = variant.four[0] && line.ends_with("//#left") || variant.four[1] && line.ends_with("//#right");
                    if wanted { line.replace("= T;", "= T4;").replace("= 1u;", "= 4u;") } else { line.to_owned() }
                };
                self.get(part)?.lines().map(|line| four(line) + "\n").collect::<String>().into()
            }
            ("shared/f32.wgsl", Storage::F16) => self.get("shared/f16.wgsl")?.into(),
            ("shared/f32.wgsl", Storage::F16ToF32) => {
                self.get("shared/f16.wgsl")?.replace("alias R = f16; //#result", "alias R = f32; //#result").into()
            }
            _ => self.get(part)?.into(),
        })
    }

    /// A family's source with its includes in place and the given `//#spec` constants replaced.
    ///
    /// # Errors
    /// [`Error::Gpu`] for an unknown include, or a constant that the source does not mark with `//#spec`.
    pub fn expand(&self, family: &str, variant: Variant, specs: &[(&str, u32)]) -> Result<String> {
        self.expand_text(family, self.get(family)?, variant, specs)
    }

    pub(super) fn expand_text(&self, name: &str, text: &str, variant: Variant, specs: &[(&str, u32)]) -> Result<String> {
        let mut out = String::with_capacity(text.len() * 2);
        if variant.matrices > 0 {
            out.push_str("enable wgpu_cooperative_matrix;\n");
        }
        for line in text.lines() {
            match line.strip_prefix("//#include ") {
                Some(part) => out.push_str(self.included(part.trim(), variant)?.as_ref()),
                None => out.push_str(line),
            }
            out.push('\n');
        }
        for (constant, value) in specs {
            let head = format!("const {constant}: u32 = ");
            let line = out.lines().find(|l| l.starts_with(&head) && l.ends_with("//#spec"));
            let Some(line) = line.map(str::to_owned) else {
                return Err(Error::Gpu(format!("shader {name} has no line '{head}...; //#spec'")));
            };
            out = out.replacen(&line, &format!("{head}{value}u; //#spec"), 1);
        }
        Ok(out)
    }
}

/// Writes every family's expanded source to `dir`, as `mappa shaders --expand` does.
///
/// # Errors
/// [`Error::Io`] when a file cannot be written.
pub fn write_expanded(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let sources = Sources::default();
    let mut written = Vec::new();
    for (name, _) in SOURCES.iter().filter(|(n, _)| !n.starts_with("shared/")) {
        let path = dir.join(format!("{name}.wgsl"));
        std::fs::write(&path, sources.expand(name, Variant::default(), &[])?).map_err(|e| Error::io(&path, e))?;
        written.push(path);
    }
    Ok(written)
}
