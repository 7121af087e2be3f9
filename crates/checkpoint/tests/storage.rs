//! Packed matrices as the compressed-tensors package writes them, and whole checkpoints there and back.
//!
//! The fixture holds, for each type and format, a dense matrix and what version 0.12.2 of the package
//! (`compress_weight` of its `BitmaskCompressor` and `Sparse24BitMaskCompressor`, torch 2.9.0 on a CPU) made of
//! it. The 2:4 matrices have fours with none, one and two values that are not zero.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use regrow_checkpoint::storage::{Matrix, Part, Storage, unpack};
use regrow_checkpoint::{Checkpoint, Dtype, Form, Patch, convert};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

const FIXTURE: &[u8] = include_bytes!("fixtures/compressed-tensors.safetensors");

#[test]
fn parts_are_the_packages_to_the_bit() {
    let file = SafeTensors::deserialize(FIXTURE).unwrap();
    for (name, storage) in [("bitmask", Storage::Bitmask), ("24", Storage::TwoFour)] {
        for dtype in ["f32", "f16", "bf16"] {
            let theirs = |part: &str| file.tensor(&format!("{name}.{dtype}.{part}"));
            let dense = theirs("dense").unwrap();
            let matrix = Matrix::new(dense.dtype(), dense.shape(), dense.data()).unwrap();
            let parts = storage.parts(&matrix).unwrap();
            assert_eq!(parts.len(), Part::ALL.iter().filter(|part| theirs(part.name()).is_ok()).count());
            for (part, dtype, shape) in parts {
                let theirs = theirs(part.name()).unwrap();
                assert_eq!((theirs.dtype(), theirs.shape()), (dtype, shape.as_slice()), "{part:?}");
                assert_eq!(storage.part(&matrix, part), theirs.data(), "{name} {dtype} {part:?}");
            }
            let (values, bits) = (theirs("compressed").unwrap(), theirs("bitmask").unwrap());
            assert_eq!(unpack(dense.dtype(), dense.shape(), values.data(), bits.data()).unwrap(), dense.data());
        }
    }
}

#[test]
fn a_checkpoint_shows_the_packages_parts_as_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    fs::write(&path, FIXTURE).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.entries().len(), 12);
    for (name, storage) in [("bitmask", Storage::Bitmask), ("24", Storage::TwoFour)] {
        for dtype in ["f32", "f16", "bf16"] {
            let packed = format!("{name}.{dtype}.weight");
            assert_eq!(checkpoint.entry(&packed).unwrap().storage(), storage);
            let dense = checkpoint.read_f32(&format!("{name}.{dtype}.dense")).unwrap();
            assert_eq!(checkpoint.read_f32(&packed).unwrap(), dense);
            assert_eq!(checkpoint.values(&packed).unwrap(), dense);
        }
    }
}

/// Layers `a` (2:4) and `b` (dense), a norm and a counter, in a directory.
fn directory(folder: &Path) -> PathBuf {
    let path = folder.join("model");
    fs::create_dir(&path).expect("a model");
    let floats =
        |n: usize, value: &dyn Fn(usize) -> f32| -> Vec<u8> { (0..n).flat_map(|i| value(i).to_le_bytes()).collect() };
    let a = floats(64 * 64, &|i| if i % 4 < 2 { 0.25 * (i % 100) as f32 + 1.0 } else { 0.0 });
    let b = floats(64 * 64, &|i| 1.0 + i as f32);
    let (norm, count) = (floats(64, &|_| 1.1), 7i64.to_le_bytes());
    let view = |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).expect("a model");
    let tensors = [
        ("a.weight", view(Dtype::F32, &[64, 64], &a)),
        ("b.weight", view(Dtype::F32, &[64, 64], &b)),
        ("norm.weight", view(Dtype::F32, &[64], &norm)),
        ("count", view(Dtype::I64, &[1], &count)),
    ];
    let metadata = [("format".to_string(), "pt".to_string())].into();
    fs::write(path.join("model.safetensors"), safetensors::serialize(tensors, Some(metadata)).expect("a model"))
        .expect("a model");
    fs::write(path.join("config.json"), r#"{"model_type": "x", "torch_dtype": "float32"}"#).expect("a model");
    fs::write(path.join("tokenizer.json"), "{}").expect("a model");
    path
}

fn form(dtype: Option<Dtype>, storage: Storage) -> Form {
    Form { dtype, storage, layers: ["a.weight", "b.weight"].map(String::from).into() }
}

fn quiet(_: usize, _: usize) {}

#[test]
fn a_directory_goes_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(directory(folder.path())).unwrap();
    for storage in [Storage::Bitmask, Storage::TwoFour] {
        let (packed, back) =
            (folder.path().join(format!("packed {storage}")), folder.path().join(format!("back {storage}")));
        let done = convert(&source, &packed, &form(None, storage), None, &quiet).unwrap();
        assert_eq!(done.packed, 1, "a dense layer gets no smaller");
        assert!(done.bytes < done.dense && done.dense == 2 * 64 * 64 * 4 + 64 * 4 + 8);
        let config: serde_json::Value = serde_json::from_slice(&fs::read(packed.join("config.json")).unwrap()).unwrap();
        let section = &config["quantization_config"]["sparsity_config"];
        assert_eq!(section["format"], storage.package_name());
        assert_eq!(section["ignore"], serde_json::json!(["b", "lm_head"]));
        assert_eq!(section["global_sparsity"], 0.5 * 4096.0 / 8256.0);
        let checkpoint = Checkpoint::open(&packed).unwrap();
        assert_eq!(checkpoint.entries().iter().map(|e| e.stored_bytes()).sum::<usize>(), done.bytes);
        convert(&checkpoint, &back, &Form::default(), None, &quiet).unwrap();
        let back = Checkpoint::open(&back).unwrap();
        for entry in source.entries() {
            assert_eq!(source.raw(&entry.name).unwrap(), back.raw(&entry.name).unwrap(), "{}", entry.name);
        }
        assert!(back.path().join("tokenizer.json").exists());
        assert!(!fs::read_to_string(back.path().join("config.json")).unwrap().contains("quantization_config"));
    }
    let nothing = Form { layers: HashSet::from(["b.weight".into()]), ..form(None, Storage::TwoFour) };
    let says = convert(&source, folder.path().join("no"), &nothing, None, &quiet).unwrap_err().to_string();
    assert!(says.contains("no layer that is 2:4"), "{says}");
    assert!(!folder.path().join("no").exists());
}

#[test]
fn values_are_rounded_to_nearest_and_what_does_not_fit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(directory(folder.path())).unwrap();
    for (dtype, width) in [(Dtype::F16, 2), (Dtype::BF16, 2), (Dtype::F32, 4)] {
        let out = folder.path().join(dtype.to_string());
        assert_eq!(form(Some(dtype), Storage::Dense).is_that_of(&source), dtype == Dtype::F32);
        convert(&source, &out, &form(Some(dtype), Storage::Dense), None, &quiet).unwrap();
        let copy = Checkpoint::open(&out).unwrap();
        assert_eq!((copy.entry("b.weight").unwrap().bytes(), copy.raw("count").unwrap()[0]), (64 * 64 * width, 7));
        let nearest = |v: f32| match dtype {
            Dtype::F16 => f16::from_f32(v).to_f32(),
            Dtype::BF16 => bf16::from_f32(v).to_f32(),
            _ => v,
        };
        let expected: Vec<f32> = source.read_f32("b.weight").unwrap().into_iter().map(nearest).collect();
        assert_eq!(copy.read_f32("b.weight").unwrap(), expected);
        let said = if dtype == Dtype::BF16 { "bfloat16".to_string() } else { format!("float{}", 8 * width) };
        assert!(fs::read_to_string(out.join("config.json")).unwrap().contains(&said));
    }
    // A type and a storage at once; a single file.
    let out = folder.path().join("both.safetensors");
    convert(&source, &out, &form(Some(Dtype::F16), Storage::TwoFour), None, &quiet).unwrap();
    let both = Checkpoint::open(&out).unwrap();
    assert_eq!(both.entry("a.weight").unwrap().stored_bytes(), 64 * 32 * 2 + 64 * 8 + 16);
    assert_eq!(both.read_f32("a.weight").unwrap(), source.read_f32("a.weight").unwrap());
    // Beyond f16.
    let large = folder.path().join("large.safetensors");
    let bytes: Vec<u8> = [1.0f32, 1e5].iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![2], &bytes).unwrap();
    fs::write(&large, safetensors::serialize([("w", view)], None).unwrap()).unwrap();
    let large = Checkpoint::open(&large).unwrap();
    let half = form(Some(Dtype::F16), Storage::Dense);
    for says in [
        half.check(&large).unwrap_err(),
        convert(&large, folder.path().join("x.safetensors"), &half, None, &quiet).unwrap_err(),
    ] {
        assert_eq!(says.to_string(), "w: 100000 is beyond the range of F16");
    }
    assert!(!folder.path().join("x.safetensors").exists() && !folder.path().join("x.safetensors.partial").exists());
}

#[test]
fn a_packed_model_is_pruned_further() {
    let folder = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(directory(folder.path())).unwrap();
    let packed = folder.path().join("packed");
    convert(&source, &packed, &form(None, Storage::Bitmask), None, &quiet).unwrap();
    let packed = Checkpoint::open(&packed).unwrap();
    let zeroed = |patch: &mut Patch| {
        patch.write_f32(packed.entry("b.weight").unwrap(), &[0.0; 64 * 64]).unwrap();
        patch.finish_step(1).unwrap();
    };
    let (plain, again) = (folder.path().join("plain"), folder.path().join("again"));
    let mut patch = Patch::create(&packed, &plain, "x").unwrap();
    zeroed(&mut patch);
    // Killed and resumed.
    std::mem::forget(patch);
    Patch::resume(&packed, &plain, "x").unwrap().finish().unwrap();
    let plain = Checkpoint::open(&plain).unwrap();
    assert!(!plain.is_packed());
    assert_eq!(plain.read_f32("a.weight").unwrap(), source.read_f32("a.weight").unwrap());
    assert_eq!(plain.counts("b.weight").unwrap().zeros, 64 * 64);
    let mut patch = Patch::create(&packed, &again, "x").unwrap();
    zeroed(&mut patch);
    let done = patch.finish_as(&form(Some(Dtype::F16), Storage::Bitmask), &quiet).unwrap();
    assert_eq!(done.packed, 2);
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&again), ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(names(folder.path()), ["again", "model", "packed", "plain"]);
    let again = Checkpoint::open(&again).unwrap();
    assert_eq!(again.read_f32("a.weight").unwrap(), source.read_f32("a.weight").unwrap());
}
