//! Every shader in every specialisation that the list of cases dispatches: valid, writable for Metal, Direct3D and Vulkan, bound as the Rust side
//! says, within WebGPU's default limits. No GPU is needed: naga reads what wgpu would compile.
#![cfg(feature = "gpu")]

mod common;

use common::{MATRICES, WORKGROUPS, dispatches, pipelines};
use mappa::backend::KernelTable;
use mappa::backend::gpu::Kernel;
use mappa::backend::gpu::kernels::Dispatch;
use mappa::backend::gpu::shader::{SOURCES, Sources, Storage, Variant};
use naga::valid::{Capabilities, GlobalUse, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, EntryPoint, Module, ShaderStage, StorageAccess, TypeInner};
use std::collections::HashSet;
use std::path::Path;

/// Bytes that the tiles of cooperative matrices may take: what `adapter::matrices` asks for.
const MATRICES_BYTES: u32 = 32_768;
/// WebGPU's defaults: <https://www.w3.org/TR/webgpu/#limits>.
const STORAGE_BUFFERS: usize = 8;
const INVOCATIONS: u32 = 256;
const WORKGROUP_BYTES: u32 = 16_384;

/// A parsed and validated source.
fn parse(name: &str, text: &str, variant: Variant) -> (Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(text)));
    // No capability beyond plain WGSL, but for the variants that ask for one: these shaders must run in a browser.
    let mut capabilities = Capabilities::empty();
    if variant.storage != Storage::F32 {
        capabilities |= Capabilities::SHADER_FLOAT16 | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    }
    if variant.lanes {
        capabilities |= Capabilities::SUBGROUP;
    }
    if variant.matrices > 0 {
        capabilities |= Capabilities::COOPERATIVE_MATRIX;
    }
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE).subgroup_operations(naga::valid::SubgroupOperationSet::all());
    let info = validator.validate(&module);
    let info = info.unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(text)));
    (module, info)
}

/// The module of one specialisation, its override constants replaced by their values, and nothing else in it than the entry point's needs.
fn specialised(kernel: &Kernel) -> (Module, ModuleInfo) {
    let text = Sources::default().expand(kernel.file, kernel.variant, &kernel.specs).unwrap();
    let (module, info) = parse(kernel.file, &text, kernel.variant);
    let constants = kernel.constants.iter().map(|&(name, value)| (name.to_owned(), value as f64)).collect();
    let entry = Some((ShaderStage::Compute, kernel.entry));
    let processed = naga::back::pipeline_constants::process_overrides(&module, &info, entry, &constants);
    let (module, info) = processed.unwrap_or_else(|e| panic!("{kernel:?}: {e}"));
    (module.into_owned(), info.into_owned())
}

fn entry_point<'a>(module: &'a Module, info: &'a ModuleInfo, kernel: &Kernel) -> (&'a EntryPoint, &'a naga::valid::FunctionInfo) {
    let i = module.entry_points.iter().position(|e| e.name == kernel.entry).unwrap_or_else(|| panic!("{kernel:?} has no such entry point"));
    (&module.entry_points[i], info.get_entry_point(i))
}

#[test]
fn every_specialisation_is_valid_and_can_be_written_as_msl_hlsl_and_spirv() {
    let pipelines = pipelines();
    for Dispatch { kernel, .. } in &pipelines {
        let (module, info) = specialised(kernel);
        let entry_point = Some((ShaderStage::Compute, kernel.entry.to_owned()));
        let options = naga::back::msl::PipelineOptions { entry_point: entry_point.clone(), ..Default::default() };
        // 2.0: what wgpu asks of every Metal device that it runs on. Subgroups came with 2.1 there, with shader model 6.0 in Direct3D.
        let lanes = kernel.variant.lanes;
        let matrices = kernel.variant.matrices > 0;
        let msl = naga::back::msl::Options { lang_version: (2, if matrices { 3 } else { lanes as u8 }), ..Default::default() };
        let (text, _) = naga::back::msl::write_string(&module, &info, &msl, &options).unwrap_or_else(|e| panic!("{kernel:?} as MSL: {e}"));
        assert!(text.contains("kernel void"), "{kernel:?} as MSL has no kernel:\n{text}");
        let mut text = String::new();
        let (mut hlsl, options) = (naga::back::hlsl::Options::default(), naga::back::hlsl::PipelineOptions { entry_point });
        if lanes {
            hlsl.shader_model = naga::back::hlsl::ShaderModel::V6_0;
        }
        // Direct3D has no cooperative matrices for wgpu.
        if !matrices {
            let written = naga::back::hlsl::Writer::new(&mut text, &hlsl, &options).write(&module, &info, None);
            written.unwrap_or_else(|e| panic!("{kernel:?} as HLSL: {e}"));
            assert!(text.contains("[numthreads("), "{kernel:?} as HLSL has no entry point:\n{text}");
        }
        let entry = naga::back::spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: kernel.entry.to_owned() };
        let spv = naga::back::spv::write_vec(&module, &info, &naga::back::spv::Options::default(), Some(&entry));
        assert_eq!(spv.unwrap_or_else(|e| panic!("{kernel:?} as SPIR-V: {e}"))[0], 0x0723_0203, "{kernel:?}: SPIR-V's magic number");
    }
    println!("{} specialisations of {} files", pipelines.len(), pipelines.iter().map(|d| d.kernel.file).collect::<HashSet<_>>().len());
}

#[test]
fn every_entry_point_is_dispatched_by_some_case() {
    let used: HashSet<(&str, String)> = pipelines().iter().map(|d| (d.kernel.file, d.kernel.entry.to_owned())).collect();
    for (file, _) in SOURCES.iter().filter(|(name, _)| !name.starts_with("shared/")) {
        let (module, _) = parse(file, &Sources::default().expand(file, Variant::default(), &[]).unwrap(), Variant::default());
        for entry in module.entry_points {
            assert!(used.contains(&(*file, entry.name.clone())), "no case dispatches {file}: {}", entry.name);
        }
    }
}

/// Bindings that an entry point does not use: it shares the list of operands with another one.
const UNUSED: &[(&str, &str, u32)] = &[("reduce", "argmax", 1), ("conv", "depthwise_weight", 2)];

#[test]
fn bindings_are_those_of_the_plan_and_the_uniform_has_its_size() {
    for Dispatch { kernel, bindings, params, .. } in pipelines() {
        let (module, info) = specialised(&kernel);
        let (_, uses) = entry_point(&module, &info, &kernel);
        let mut bound = HashSet::new();
        for (handle, global) in module.global_variables.iter().filter(|(handle, _)| !uses[*handle].is_empty()) {
            let Some(at) = global.binding else { continue };
            let name = global.name.as_deref().unwrap_or_default();
            assert_eq!(at.group, 0, "{kernel:?}: {name}");
            assert!(bound.insert(at.binding), "{kernel:?}: two variables at binding {}", at.binding);
            match (bindings.get(at.binding as usize), global.space) {
                (Some(binding), AddressSpace::Storage { access }) => {
                    let want = if binding.write { StorageAccess::LOAD | StorageAccess::STORE } else { StorageAccess::LOAD };
                    assert_eq!(access, want, "{kernel:?}: the plan {} {name}", if binding.write { "writes" } else { "only reads" });
                    assert_eq!(uses[handle].contains(GlobalUse::WRITE), binding.write, "{kernel:?}: whether {name} is stored to");
                }
                (None, AddressSpace::Uniform) => {
                    assert_eq!(at.binding as usize, bindings.len(), "{kernel:?}: the uniform follows the storage bindings");
                    let TypeInner::Struct { span, .. } = module.types[global.ty].inner else {
                        panic!("{kernel:?}: the uniform is no struct")
                    };
                    assert_eq!(span as usize, params.len(), "{kernel:?}: size of {name}");
                }
                (plan, space) => panic!(
                    "{kernel:?}: {name} at binding {} is {space:?}, the plan has a storage buffer there: {}",
                    at.binding,
                    plan.is_some()
                ),
            }
        }
        for binding in 0..=bindings.len() as u32 {
            let unused = UNUSED.contains(&(kernel.file, kernel.entry, binding));
            assert_eq!(bound.contains(&binding), !unused, "{kernel:?}: whether the shader uses binding {binding}");
        }
    }
}

/// A field of a uniform: name, first byte, words.
type Field = (String, u32, u32);

/// The fields of the Rust parameter block of a family, read from its source. Its words are all 4 bytes, so offsets follow from the order.
fn rust_fields(family: &str) -> Vec<Field> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/backend/gpu/kernels/{family}.rs"));
    let text = std::fs::read_to_string(&path).unwrap();
    let body = text.split_once("struct Params {").unwrap_or_else(|| panic!("{family}.rs has no struct Params")).1;
    let body = body.split_once('}').unwrap().0;
    let mut fields: Vec<Field> = Vec::new();
    for line in body.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")) {
        let (name, kind) = line.trim_start_matches("pub ").trim_end_matches(',').split_once(": ").unwrap();
        let words = match kind {
            "u32" | "i32" | "f32" => 1,
            "[[u32; 4]; 2]" => 8,
            _ => {
                let length = kind.strip_prefix("[u32; ").and_then(|rest| rest.strip_suffix(']')).and_then(|n| n.parse().ok());
                length.unwrap_or_else(|| panic!("{family}.rs: {name} has a type that this test does not know: {kind}"))
            }
        };
        let offset = fields.last().map_or(0, |(_, at, words)| at + 4 * words);
        fields.push((name.to_owned(), offset, words));
    }
    fields
}

#[test]
fn parameter_blocks_have_the_same_fields_in_wgsl_and_in_rust() {
    for (family, _) in SOURCES.iter().filter(|(name, _)| !name.starts_with("shared/")) {
        let (module, _) = parse(family, &Sources::default().expand(family, Variant::default(), &[]).unwrap(), Variant::default());
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).unwrap();
        let structs = module.types.iter().filter(|(_, t)| t.name.as_deref() == Some("Params"));
        let members =
            structs.filter_map(|(_, t)| if let TypeInner::Struct { members, .. } = &t.inner { Some(members) } else { None }).next();
        let members = members.unwrap_or_else(|| panic!("{family}.wgsl has no struct Params"));
        let named = |fields: Vec<Field>| -> Vec<Field> {
            fields.into_iter().filter(|(name, ..)| !name.starts_with("pad") || name.starts_with("pad_")).collect()
        };
        let wgsl = members.iter().map(|m| (m.name.clone().unwrap_or_default(), m.offset, layouter[m.ty].size / 4)).collect();
        assert_eq!(named(wgsl), named(rust_fields(family)), "{family}: fields of Params in WGSL (left) and in Rust: name, offset, words");
    }
}

#[test]
fn every_dispatch_fits_the_default_limits_of_webgpu() {
    for Dispatch { kernel, bindings, .. } in pipelines() {
        assert!(bindings.len() <= STORAGE_BUFFERS, "{kernel:?} binds {} storage buffers", bindings.len());
        let (module, info) = specialised(&kernel);
        let (entry, uses) = entry_point(&module, &info, &kernel);
        let invocations: u32 = entry.workgroup_size.iter().product();
        assert!((1..=INVOCATIONS).contains(&invocations), "{kernel:?}: {invocations} invocations a workgroup");
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).unwrap();
        let shared =
            module.global_variables.iter().filter(|(handle, global)| global.space == AddressSpace::WorkGroup && !uses[*handle].is_empty());
        // Each variable starts at a multiple of 16, as WebGPU counts.
        let bytes: u32 = shared.map(|(_, global)| layouter[global.ty].size.next_multiple_of(16)).sum();
        let most = if kernel.variant.matrices > 0 { MATRICES_BYTES } else { WORKGROUP_BYTES };
        assert!(bytes <= most, "{kernel:?}: {bytes} bytes of workgroup memory");
    }
    for Dispatch { kernel, groups, .. } in [KernelTable::gpu(0, 0), KernelTable::gpu(8, 0)].into_iter().chain(MATRICES).flat_map(dispatches)
    {
        assert!(groups.iter().all(|g| (1..=WORKGROUPS).contains(g)), "{kernel:?}: {groups:?} workgroups");
    }
}

#[test]
fn every_file_says_what_it_does_in_its_header() {
    for (name, text) in SOURCES {
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//") && !line.starts_with("//#")).collect();
        assert!(!header.is_empty(), "{name} has no header comment");
        if name.starts_with("shared/") {
            continue;
        }
        for word in ["Layout", "Bindings", "Dispatch", "Overrides", "Precision"] {
            assert!(header.iter().any(|line| line.starts_with(&format!("// {word}"))), "{name}: the header has no line '// {word}'");
        }
    }
}

#[test]
fn a_specialisation_constant_that_is_not_marked_is_refused() {
    let error = Sources::default().expand("matmul", Variant::default(), &[("NO_SUCH", 1)]).unwrap_err().to_string();
    assert_eq!(error, "shader matmul has no line 'const NO_SUCH: u32 = ...; //#spec'");
    assert!(Sources::default().replace("no_such", String::new()).is_err());
    assert!(Sources::default().expand("matmul", Variant::default(), &[("TM", 8)]).unwrap().contains("const TM: u32 = 8u; //#spec"));
}

/// What `Pipelines::get` promises when it drops wgpu's guard: loops that count to a bound.
#[test]
fn no_shader_has_a_loop_without_a_bound() {
    for (name, text) in SOURCES {
        for line in text.lines().map(|line| line.split("//").next().unwrap_or_default()) {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            assert!(!words.contains(&"loop") && !words.contains(&"while"), "{name}: {line}");
            if let Some(head) = line.split("for (").nth(1) {
                let parts: Vec<&str> = head.split(") {").next().unwrap().split(';').map(str::trim).collect();
                let [begin, condition, step] = parts[..] else { panic!("{name}: {line}") };
                let counter = begin.trim_start_matches("var ").split([' ', ':', '=']).next().unwrap();
                // Up by a constant or a variable that the loop does not change, down by one, or to the half or the double.
                let counts = ["++", "--", " += ", " /= 2u", " *= 2u", " <<= 1u", " >>= 1u"]
                    .iter()
                    .any(|by| step.starts_with(&format!("{counter}{by}")));
                assert!(counts && condition.starts_with(counter), "{name}: {line}");
            }
        }
    }
}
