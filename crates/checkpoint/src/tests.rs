//! Round trips to the byte, every kind of damaged file, every rejected output.

use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use tempfile::TempDir;

use crate::*;

/// A safetensors file from its header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Two tensors whose header lists them backwards and ends in spaces, as other writers may do.
fn sample() -> Vec<u8> {
    let header = r#"{"b":{"dtype":"I64","shape":[1],"data_offsets":[16,24]}, "a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"__metadata__":{"format":"pt"}}   "#;
    file(header, &[floats(&[1.0, -2.0, 0.0, 4.0]), vec![7; 8]].concat())
}

/// A fresh folder with one file in it.
fn folder_with(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn names(folder: &Path) -> Vec<String> {
    let list = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = list.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Opens `bytes` as a file and returns the one-line error.
fn refusal(bytes: &[u8]) -> String {
    let (_folder, path) = folder_with("bad.safetensors", bytes);
    let message = Checkpoint::open(&path).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    let reason = message.strip_prefix(&format!("{}: ", path.display()));
    reason.unwrap_or_else(|| panic!("names no file: {message}")).to_string()
}

fn zero_first(tensor: &Entry, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut bytes = bytes.to_vec();
    if tensor.dtype == Dtype::F32 {
        apply_mask(tensor, &mut bytes, |index| index != 0)?;
    }
    Ok(Some(bytes))
}

#[test]
fn reads_what_the_header_says() {
    let (_folder, path) = folder_with("m.safetensors", &sample());
    let checkpoint = Checkpoint::open(&path).unwrap();
    let entries: Vec<_> =
        checkpoint.entries().iter().map(|e| (e.name.as_str(), e.dtype, e.shape.as_slice(), e.bytes())).collect();
    let expected: [(&str, _, &[usize], _); 2] = [("a", Dtype::F32, &[2, 2], 16), ("b", Dtype::I64, &[1], 8)];
    assert_eq!(entries, expected);
    assert_eq!(checkpoint.metadata().next().unwrap()["format"], "pt");
    assert_eq!(checkpoint.read_f32("a").unwrap(), [1.0, -2.0, 0.0, 4.0]);
    assert_eq!(checkpoint.raw("b").unwrap().as_ref(), [7; 8]);
}

#[test]
fn numbers_are_refused_where_there_are_none() {
    let (_folder, path) = folder_with("m.safetensors", &sample());
    let checkpoint = Checkpoint::open(&path).unwrap();
    let message = checkpoint.read_f32("b").unwrap_err().to_string();
    assert!(message.ends_with("tensor \"b\": type I64 is none of F64, F32, F16, BF16"), "{message}");
    let message = checkpoint.raw("c").unwrap_err().to_string();
    assert!(message.ends_with("has no tensor \"c\""), "{message}");
}

#[test]
fn an_edit_changes_its_bytes_and_no_others() {
    let (folder, path) = folder_with("in.safetensors", &sample());
    let checkpoint = Checkpoint::open(&path).unwrap();
    let (same, edited) = (folder.path().join("same"), folder.path().join("edited"));

    rewrite(&checkpoint, &same, |_, _| Ok(None)).unwrap();
    assert_eq!(fs::read(&same).unwrap(), sample());

    rewrite(&checkpoint, &edited, zero_first).unwrap();
    let mut expected = sample();
    let start = expected.len() - 24;
    expected[start..start + 4].fill(0);
    assert_eq!(fs::read(&edited).unwrap(), expected);
}

#[test]
fn half_precision_is_read_and_masked() {
    let values = [1.5, -0.0, f32::INFINITY, f32::NAN];
    let data: Vec<u8> = values
        .iter()
        .flat_map(|&v| f16::from_f32(v).to_le_bytes())
        .chain(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()))
        .chain(values.iter().flat_map(|&v| f64::from(v).to_le_bytes()))
        .collect();
    let header = r#"{"f":{"dtype":"F16","shape":[4],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[8,16]},"d":{"dtype":"F64","shape":[4],"data_offsets":[16,48]}}"#;
    let (_folder, path) = folder_with("m.safetensors", &file(header, &data));
    let checkpoint = Checkpoint::open(&path).unwrap();
    for name in ["f", "b", "d"] {
        let read = checkpoint.read_f32(name).unwrap();
        assert_eq!(read[..3], values[..3]);
        assert!(read[3].is_nan());
        let counts = checkpoint.counts(name).unwrap();
        assert_eq!(counts, Counts { zeros: 1, nan: 1, infinite: 1 });
        assert!(!checkpoint.finite(name).unwrap());

        let entry = checkpoint.entry(name).unwrap();
        let mut masked = checkpoint.raw(name).unwrap().to_vec();
        let width = masked.len() / 4;
        apply_mask(entry, &mut masked, |index| index == 0).unwrap();
        assert_eq!(masked[..width], checkpoint.raw(name).unwrap()[..width]);
        assert!(masked[width..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn scalars_and_empty_tensors_are_tensors() {
    let header = r#"{"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]}}"#;
    let (folder, path) = folder_with("m.safetensors", &file(header, &floats(&[3.0])));
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.read_f32("s").unwrap(), [3.0]);
    assert!(checkpoint.read_f32("e").unwrap().is_empty());
    let out = folder.path().join("out");
    rewrite(&checkpoint, &out, |_, _| Ok(None)).unwrap();
    assert_eq!(fs::read(out).unwrap(), fs::read(path).unwrap());
}

#[test]
fn damaged_files_are_refused_with_a_reason() {
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let huge = (1u64 << 63).to_le_bytes();
    let good = tensor("F32", "[2]", "[0,8]");
    let cases: [(Vec<u8>, &str); 15] = [
        (vec![], "the file is empty"),
        (vec![1, 2, 3], "cut short: 3 bytes"),
        (huge.to_vec(), "promises a header of 9223372036854775808 bytes"),
        ([&huge[..], b"{}"].concat(), "promises a header of 9223372036854775808 bytes"),
        ([&9u64.to_le_bytes()[..], b"{}"].concat(), "promises a header of 9 bytes, 2 bytes follow"),
        (file("not json", &[]), "not a JSON object"),
        (file("[1, 2]", &[]), "not a JSON object"),
        (file(r#"{"w":3}"#, &[]), "entry for tensor \"w\" is invalid"),
        (file(&tensor("Q7", "[2]", "[0,8]"), &[0; 8]), "entry for tensor \"w\" is invalid"),
        (file(&good, &[0; 7]), "cut short: tensor \"w\" ends at byte 8 of the data, the file holds 7"),
        (file(&good, &[0; 9]), "1 bytes follow the last tensor"),
        (file(&tensor("F32", "[2]", "[0,4]"), &[0; 4]), "tensor \"w\": its data should start at 0"),
        (file(&tensor("F32", "[2]", "[8,0]"), &[0; 8]), "tensor \"w\": its data should start at 0"),
        (file(&tensor("F32", "[-1]", "[0,8]"), &[0; 8]), "entry for tensor \"w\" is invalid"),
        (
            file(&tensor("F32", "[4611686018427387904,4]", "[0,8]"), &[0; 8]),
            "tensor \"w\": shape [4611686018427387904, 4] is impossible",
        ),
    ];
    for (bytes, expected) in cases {
        let reason = refusal(&bytes);
        assert!(reason.contains(expected), "{reason:?} has no {expected:?}");
    }
}

#[test]
fn offsets_that_overflow_together_are_refused() {
    let part = 1usize << 60;
    let tensors: Vec<String> = (0..15)
        .map(|i| {
            let (start, end) = (i * part, (i + 1) * part);
            format!(r#""t{i}":{{"dtype":"U8","shape":[{part}],"data_offsets":[{start},{end}]}}"#)
        })
        .collect();
    let reason = refusal(&file(&format!("{{{}}}", tensors.join(",")), &[]));
    assert!(reason.starts_with("cut short"), "{reason}");
}

#[test]
fn names_cannot_break_the_line() {
    let header = r#"{"a\nb":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#;
    assert!(refusal(&file(header, &[0; 4])).contains(r#"tensor "a\nb""#));
}

#[test]
fn missing_paths_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let message = Checkpoint::open(folder.path().join("none")).unwrap_err().to_string();
    assert!(message.contains("none: "), "{message}");
    let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("holds neither model.safetensors nor"), "{message}");
}

/// A directory of two shards, with configuration, index and an outdated copy of the weights.
fn sharded() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let tensor = |name: &str| format!(r#"{{"{name}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#);
    write("model-1.safetensors", &file(&tensor("x"), &floats(&[1.0, 2.0])));
    write("model-2.safetensors", &file(&tensor("y"), &floats(&[3.0, 4.0])));
    write(
        "model.safetensors.index.json",
        br#"{"metadata":{"total_size":16},"weight_map":{"x":"model-1.safetensors","y":"model-2.safetensors"}}"#,
    );
    write("config.json", b"{}");
    write("pytorch_model.bin", b"stale");
    folder
}

#[test]
fn directories_of_shards_are_read_and_rewritten() {
    let folder = sharded();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.files().len(), 2);
    assert_eq!(checkpoint.entry("y").unwrap().file, 1);
    assert_eq!(checkpoint.read_f32("y").unwrap(), [3.0, 4.0]);

    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    rewrite(&checkpoint, &out, zero_first).unwrap();
    let expected = ["config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"];
    assert_eq!(names(&out), expected);
    assert_eq!(names(parent.path()), ["out"]);
    let copy = Checkpoint::open(&out).unwrap();
    assert_eq!(copy.read_f32("x").unwrap(), [0.0, 2.0]);
    assert_eq!(copy.read_f32("y").unwrap(), [0.0, 4.0]);

    let again = rewrite(&checkpoint, &out, zero_first).unwrap_err().to_string();
    assert!(again.ends_with("exists and is not empty"), "{again}");
}

#[test]
fn directories_with_one_file_need_no_index() {
    let (folder, _) = folder_with("model.safetensors", &sample());
    assert_eq!(Checkpoint::open(folder.path()).unwrap().entries().len(), 2);
    let (folder, _) = folder_with("adapter_model.safetensors", &sample());
    assert_eq!(Checkpoint::open(folder.path()).unwrap().entries().len(), 2);
}

#[test]
fn a_wrong_index_is_refused() {
    let cases = [
        (r#"{"weight_map":{"x":"gone.safetensors"}}"#, "the shard \"gone.safetensors\", which is missing"),
        (r#"{"weight_map":{"z":"model-1.safetensors"}}"#, "tensor \"z\" is not in its shard"),
        (
            r#"{"weight_map":{"x":"model-2.safetensors","y":"model-1.safetensors"}}"#,
            "tensor \"x\" is not in its shard \"model-2.safetensors\"",
        ),
        (r#"{"weight_map":{"x":"../model-1.safetensors"}}"#, "not the name of a file beside"),
        (r#"{"weight_map":{}}"#, "names no tensors"),
        (r#"{"weights":1}"#, "is not an index of shards"),
        ("", "is not an index of shards"),
    ];
    for (index, expected) in cases {
        let folder = sharded();
        fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
        let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains("index.json: "), "{message}");
        assert!(message.contains(expected), "{message:?} has no {expected:?}");
    }
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let folder = sharded();
    let first = folder.path().join("model-1.safetensors");
    fs::copy(&first, folder.path().join("model-2.safetensors")).unwrap();
    let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("tensor \"x\" is in"), "{message}");
}

#[test]
fn the_input_is_never_written_over() {
    let (folder, path) = folder_with("in.safetensors", &sample());
    let checkpoint = Checkpoint::open(&path).unwrap();
    let round_about = folder.path().join(".").join("in.safetensors");
    let message = rewrite(&checkpoint, &round_about, zero_first).unwrap_err().to_string();
    assert!(message.ends_with("is the input itself; choose another output"), "{message}");
    assert_eq!(fs::read(&path).unwrap(), sample());

    let folder = sharded();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let before = names(folder.path());
    assert!(rewrite(&checkpoint, folder.path(), zero_first).is_err());
    assert_eq!(names(folder.path()), before);
}

#[test]
fn a_failed_rewrite_leaves_nothing() {
    let (folder, path) = folder_with("in.safetensors", &sample());
    let checkpoint = Checkpoint::open(&path).unwrap();
    let out = folder.path().join("out.safetensors");
    let fail = |_: &Entry, _: &[u8]| Err(Error::io("disk", std::io::ErrorKind::StorageFull.into()));
    assert!(rewrite(&checkpoint, &out, fail).is_err());
    let shorter = |_: &Entry, _: &[u8]| Ok(Some(vec![0]));
    let message = rewrite(&checkpoint, &out, shorter).unwrap_err().to_string();
    assert_eq!(message, "a: 1 bytes instead of 16 came back");
    let below_a_file = path.join("out.safetensors");
    assert!(rewrite(&checkpoint, &below_a_file, zero_first).is_err());
    assert_eq!(names(folder.path()), ["in.safetensors"]);

    let folder = sharded();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let parent = tempfile::tempdir().unwrap();
    assert!(rewrite(&checkpoint, parent.path().join("out"), fail).is_err());
    assert!(names(parent.path()).is_empty());
}

#[test]
fn masks_must_fit() {
    let (_folder, path) = folder_with("m.safetensors", &sample());
    let checkpoint = Checkpoint::open(&path).unwrap();
    let a = checkpoint.entry("a").unwrap();
    assert!(apply_mask(a, &mut [0; 12], |_| false).is_err());
    let b = checkpoint.entry("b").unwrap();
    let message = apply_mask(b, &mut [0; 8], |_| false).unwrap_err().to_string();
    assert!(message.starts_with("b: type I64"), "{message}");
}
