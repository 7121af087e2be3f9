//! Every command as a user runs it, on embedded data and on bad input.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use regrow_zoo::{Arch, save};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tempfile::TempDir;

use common::{complaint, regrow, stdout, text};

/// A folder with a small network in it.
fn folder() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("net.safetensors");
    save(&Arch::MlpSmall.init(10, 1, &regrow_device::current()), &path).expect("saved");
    (dir, path)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("a folder")
        .map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

#[test]
fn prune_then_inspect_then_eval() {
    let (dir, net) = folder();
    let pruned = dir.path().join("pruned.safetensors");
    let said =
        stdout(&regrow(&["prune", text(&net), "--arch", "mlp-small", "--sparsity", "0.75", "--out", text(&pruned)]));
    assert!(said.ends_with("sparsity 75.00 % (12,288 of 16,384 prunable weights are zero)\n"), "{said}");
    let json = stdout(&regrow(&["inspect", text(&pruned), "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let zeros: u64 = json["tensors"].as_array().expect("tensors").iter().filter_map(|t| t["zeros"].as_u64()).sum();
    assert_eq!(zeros, 12_288);
    let said = stdout(&regrow(&["eval", text(&pruned), "--arch", "mlp-small", "--dataset", "digits"]));
    assert!(said.starts_with("accuracy ") && said.ends_with(" of 359)\n"), "{said}");
    let both = stdout(&regrow(&["eval", text(&pruned), "--arch", "mlp-small", "--dataset", "digits", "--sparse"]));
    assert!(both.contains(" of 3 layers are sparse now\n") && both.contains("128x64"), "{both}");
    for way in ["dense:  ", "sparse: "] {
        let line = both.lines().find_map(|line| line.strip_prefix(way)).expect("a line");
        assert!(line.starts_with(said.trim_end()), "{said} {line}");
    }
}

#[test]
fn crop_then_inspect_then_eval() {
    let dir = tempfile::tempdir().expect("a folder");
    let small = dir.path().join("small.safetensors");
    for densities in ["proxy", "erk", "synflow", "uniform"] {
        let args = ["--arch", "lenet5", "--sparsity", "0.75", "--densities", densities, "--out", text(&small)];
        let said = stdout(&regrow(&[&["crop"], &args[..]].concat()));
        assert!(said.starts_with("widths 1 ") && said.contains(" of 61,470 weights are left ("), "{said}");
        let json = stdout(&regrow(&["inspect", text(&small), "--json"]));
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let sizes = json["tensors"].as_array().expect("tensors").iter();
        let weights: u64 = sizes
            .filter(|t| t["name"].as_str().is_some_and(|n| n.ends_with("weight")))
            .map(|t| t["shape"].as_array().expect("a shape").iter().filter_map(|d| d.as_u64()).product::<u64>())
            .sum();
        assert!((10_000..=15_368).contains(&weights), "{densities}: {weights}");
    }
    // A narrower network is one of its architecture: it can be pruned and measured.
    stdout(&regrow(&["crop", "--arch", "mlp-small", "--sparsity", "0.5", "--multiple", "8", "--out", text(&small)]));
    let said = stdout(&regrow(&["eval", text(&small), "--arch", "mlp-small", "--dataset", "digits"]));
    assert!(said.starts_with("accuracy "), "{said}");
}

#[test]
fn an_impossible_crop_is_one_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("small.safetensors");
    let with = |more: &[&str]| complaint(&[&["crop", "--out", text(&out)], more].concat());
    assert!(with(&["--arch", "vgg", "--sparsity", "0.5"]).contains("unknown architecture `vgg`"));
    assert!(with(&["--arch", "mlp-small", "--sparsity", "1"]).contains("[0, 1)"));
    assert!(with(&["--arch", "mlp-small", "--sparsity", "0.999"]).contains("even the narrowest"));
    assert!(with(&["--arch", "mlp-small", "--sparsity", "0.5", "--multiple", "0"]).contains("at least 1"));
    assert!(with(&["--arch", "mlp-small", "--sparsity", "0.5", "--densities", "x"]).contains("erk, proxy"));
    assert!(!out.exists());
}

#[test]
fn a_pattern_is_met_and_inspect_sees_it() {
    let (dir, net) = folder();
    let pruned = dir.path().join("pruned.safetensors");
    let args =
        ["prune", text(&net), "--arch", "mlp-small", "--pattern", "2:4", "--include-head", "--out", text(&pruned)];
    let said = stdout(&regrow(&args));
    assert!(said.contains("sparsity 50.00 %"), "{said}");
    assert_eq!(stdout(&regrow(&["inspect", text(&pruned)])).matches("2:4").count(), 3);
}

#[test]
fn the_type_order_and_metadata_of_the_input_stay() {
    let (dir, net) = folder();
    let bytes = std::fs::read(&net).expect("read");
    let source = SafeTensors::deserialize(&bytes).expect("tensors");
    let half = |data: &[u8]| -> Vec<u8> {
        let floats = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        // The upper half of an f32 is a bf16, truncated.
        floats.flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect()
    };
    let tensors: Vec<_> =
        source.iter().map(|(name, view)| (name.to_string(), view.shape().to_vec(), half(view.data()))).collect();
    let views = tensors.iter().map(|(n, s, d)| (n, TensorView::new(Dtype::BF16, s.clone(), d).expect("a view")));
    let metadata = [("format".to_string(), "pt".to_string())].into();
    let file = dir.path().join("half.safetensors");
    std::fs::write(&file, safetensors::serialize(views, Some(metadata)).expect("bytes")).expect("written");
    let pruned = dir.path().join("pruned.safetensors");
    stdout(&regrow(&["prune", text(&file), "--arch", "mlp-small", "--sparsity", "0.5", "--out", text(&pruned)]));
    let (before, after) = (std::fs::read(&file).expect("read"), std::fs::read(&pruned).expect("read"));
    let header = 8 + u64::from_le_bytes(before[..8].try_into().expect("8 bytes")) as usize;
    assert_eq!(before[..header], after[..header]);
    assert_eq!(before.len(), after.len());
    assert_ne!(before, after);
}

#[test]
fn random_pruning_follows_its_seed() {
    let (dir, net) = folder();
    let pruned = |seed: &str| {
        let out = dir.path().join(format!("{seed}.safetensors"));
        stdout(&regrow(&[
            "prune",
            text(&net),
            "--arch",
            "mlp-small",
            "--method",
            "random",
            "--sparsity",
            "0.9",
            "--seed",
            seed,
            "--out",
            text(&out),
        ]));
        std::fs::read(out).expect("read")
    };
    assert_ne!(pruned("1"), pruned("2"));
    assert_eq!(pruned("1"), pruned("1"));
}

#[test]
fn wrong_arguments_are_named() {
    let (dir, net) = folder();
    let out = dir.path().join("out.safetensors");
    let with = |extra: &[&str]| {
        let mut args = vec!["prune", text(&net), "--out", text(&out)];
        args.extend(extra);
        complaint(&args)
    };
    assert!(with(&["--arch", "mlp-small", "--sparsity", "1.0"]).contains("outside [0, 1)"));
    assert!(with(&["--arch", "mlp-small", "--sparsity", "-0.1"]).contains("outside [0, 1)"));
    assert!(with(&["--arch", "mlp-small", "--sparsity", "many"]).contains("many"));
    assert!(with(&["--arch", "mlp-small"]).contains("--sparsity is missing"));
    assert!(with(&["--arch", "mlp", "--sparsity", "0.5"]).contains("no checkpoint of mlp"));
    assert!(with(&["--arch", "vgg", "--sparsity", "0.5"]).contains("unknown architecture `vgg`"));
    assert!(with(&["--arch", "mlp-small", "--sparsity", "0.5", "--method", "magic"]).contains("unknown score `magic`"));
    assert!(with(&["--arch", "mlp-small", "--sparsity", "0.5", "--budget", "fair"]).contains("unknown budget"));
    assert!(with(&["--arch", "mlp-small", "--pattern", "4:2"]).contains("unknown pattern"));
    assert!(with(&["--arch", "mlp-small", "--pattern", "2:4", "--sparsity", "0.8"]).contains("means sparsity 0.5"));
    assert!(with(&["--arch", "mlp-small", "--pattern", "2:5"]).contains("does not divide"));
    assert_eq!(names(dir.path()), ["net.safetensors"], "nothing half-written");
    assert!(
        complaint(&["eval", text(&net), "--arch", "mlp-small", "--dataset", "imagenet"]).contains("unknown data set")
    );
    assert!(complaint(&["eval", text(&net), "--arch", "mlp-small", "--dataset", "mnist"]).contains("--data DIR"));
    assert!(
        complaint(&["eval", text(&net), "--arch", "mlp-small", "--dataset", "mnist", "--data", text(dir.path())])
            .contains("lacks t10k")
    );
    assert!(
        complaint(&["eval", text(&net), "--arch", "resnet20", "--dataset", "digits"])
            .contains("no checkpoint of resnet20")
    );
}

#[test]
fn broken_files_are_named_and_outputs_protected() {
    let (dir, net) = folder();
    let whole = std::fs::read(&net).expect("read");
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let cut = file("cut.safetensors", &whole[..whole.len() - 10]);
    let huge = file("huge.safetensors", &[&(1u64 << 63).to_le_bytes()[..], &whole[8..]].concat());
    let mut poisoned = whole.clone();
    let end = poisoned.len();
    poisoned[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let nan = file("nan.safetensors", &poisoned);
    let missing = dir.path().join("missing.safetensors");
    let before = names(dir.path());
    let out = dir.path().join("out.safetensors");
    for path in [&cut, &huge, &nan, &missing] {
        let said = complaint(&["prune", text(path), "--arch", "mlp-small", "--sparsity", "0.5", "--out", text(&out)]);
        assert!(said.contains(path.file_name().and_then(|n| n.to_str()).expect("a name")), "{said}");
    }
    for path in [&cut, &huge, &missing] {
        complaint(&["inspect", text(path)]);
        complaint(&["eval", text(path), "--arch", "mlp-small", "--dataset", "digits"]);
    }
    let onto =
        |out: &Path| complaint(&["prune", text(&net), "--arch", "mlp-small", "--sparsity", "0.5", "--out", text(out)]);
    assert!(onto(&net).contains("is the input itself"));
    onto(&net.join("below-a-file.safetensors"));
    onto(&dir.path().join("no-such-folder/out.safetensors"));
    assert_eq!(names(dir.path()), before, "nothing half-written");
    assert_eq!(std::fs::read(&net).expect("read"), whole, "the input is untouched");
}

/// A limit on file sizes stands in for a full disk: writes fail half way through the file.
#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_leaves_nothing_behind() {
    let (dir, net) = folder();
    let before = names(dir.path());
    let out = dir.path().join("out.safetensors");
    // 8 blocks of 512 bytes or 1024, whatever the shell counts in; the network has 66 kB.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" prune \"$1\" --arch mlp-small --sparsity 0.5 --out \"$2\"";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_regrow"), text(&net), text(&out)])
        .output()
        .expect("a shell");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: ") && said.trim_end().lines().count() == 1 && said.contains("out.saf"), "{said}");
    assert_eq!(names(dir.path()), before, "nothing half-written");
}

#[test]
fn a_published_network_scores_what_its_source_says() {
    let Ok(data) = std::env::var("REGROW_DATA") else {
        println!("skipped: REGROW_DATA is not set");
        return;
    };
    let file = format!("{data}/mnist-cnn/same-init-a.safetensors");
    let said = stdout(&regrow(&["eval", &file, "--arch", "mnist-cnn", "--dataset", "mnist", "--data", &data]));
    let right: usize = said.split(['(', ' ']).filter_map(|w| w.parse().ok()).next().expect("a count");
    assert!(right.abs_diff(9897) <= 3, "{said}");
}

/// The fixture says which script made it.
#[test]
fn masks_of_a_published_resnet_equal_pytorchs() {
    let Ok(data) = std::env::var("REGROW_DATA") else {
        println!("skipped: REGROW_DATA is not set");
        return;
    };
    let fixture = include_str!("fixtures/torch-prune-resnet20.json");
    let fixture: serde_json::Value = serde_json::from_str(fixture).expect("JSON");
    let dir = tempfile::tempdir().expect("a folder");
    let (input, out) = (format!("{data}/resnet-cifar10/resnet20.safetensors"), dir.path().join("out.safetensors"));
    let rows = fixture["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 6);
    for row in rows {
        let (budget, sparsity) = (row["budget"].as_str().expect("a name"), row["sparsity"].to_string());
        let mut args = vec!["prune", &input, "--arch", "resnet20", "--budget", budget, "--sparsity", &sparsity];
        args.extend(["--out", text(&out)]);
        stdout(&regrow(&args));
        let (zeros, digest) = masks_of(&out, row["zeros"].as_object().expect("layers").keys());
        assert_eq!(serde_json::json!(zeros), row["zeros"], "{budget} {sparsity}");
        assert_eq!(digest, row["sha256"].as_str().expect("a digest"), "{budget} {sparsity}");
    }
}

/// Zeros of each tensor, and the SHA-256 of one byte per weight (1 = kept) of all of them.
fn masks_of<'a>(
    path: &Path,
    names: impl Iterator<Item = &'a String>,
) -> (std::collections::BTreeMap<&'a str, usize>, String) {
    use sha2::Digest;
    let bytes = std::fs::read(path).expect("read");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut digest = sha2::Sha256::new();
    let zeros = names.map(|name| {
        let tensor = file.tensor(name).expect("the tensor");
        let kept: Vec<u8> = tensor.data().chunks(4).map(|w| u8::from(w.iter().any(|b| b & 0x7f != 0))).collect();
        digest.update(&kept);
        (name.as_str(), kept.iter().filter(|k| **k == 0).count())
    });
    let zeros = zeros.collect();
    (zeros, digest.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

#[test]
fn devices_are_listed_and_chosen() {
    let said = stdout(&regrow(&["devices", "--size", "64"]));
    assert!(said.lines().any(|l| l.contains(" works: a product of 64 x 64 in ") && l.contains("32 takes ")), "{said}");
    let first = said.split(' ').next().expect("a name");
    assert_eq!(stdout(&regrow(&["--device", first, "devices", "--size", "64"])).lines().count(), said.lines().count());
    assert!(complaint(&["--device", "flexx", "devices"]).contains("unknown device `flexx`"));
    assert!(complaint(&["--device", "tpu:0", "devices"]).contains("there are "));
    if !said.contains("cuda") {
        assert!(complaint(&["devices", "--device", "cuda:0"]).contains("cargo feature `cuda`"));
    }
}
