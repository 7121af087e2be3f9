//! What can be wrong with a model's directory, each in one line, and other forms that it is written in.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use regrow_checkpoint::{Checkpoint, Dtype};
use serde_json::{Value, json};

#[cfg(unix)]
use common::on_a_full_disk;
use common::{complaint, regrow, stdout, text, tiny, tokenizer};

/// The bytes of all files in a folder, by name.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(dir).expect("a folder").map(|e| e.expect("an entry").path());
    let mut files: Vec<_> = paths.map(|path| (path.clone(), fs::read(&path).expect("read"))).collect();
    files.sort();
    files
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("a folder").map(|e| e.expect("an entry").file_name().into_string());
    let mut names: Vec<String> = names.map(|name| name.expect("UTF-8")).collect();
    names.sort();
    names
}

/// Changes keys of `config.json`.
fn configure(dir: &Path, keys: &[(&str, Value)]) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    keys.iter().for_each(|(key, value)| config[key] = value.clone());
    fs::write(path, config.to_string()).expect("written");
}

/// Makes the model one of two shards whose index says `entries` besides.
fn shard(dir: &Path, entries: &[(&str, &str)]) {
    let whole = dir.join("model.safetensors");
    let bytes = fs::read(&whole).expect("read");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
    let (first, second): (Vec<_>, Vec<_>) = file.iter().partition(|(name, _)| name.contains("layers.0"));
    let mut map = serde_json::Map::new();
    for (shard, tensors) in [("model-1.safetensors", first), ("model-2.safetensors", second)] {
        map.extend(tensors.iter().map(|(name, _)| (name.to_string(), Value::from(shard))));
        fs::write(dir.join(shard), safetensors::serialize(tensors, None).expect("bytes")).expect("written");
    }
    map.extend(entries.iter().map(|(name, shard)| (name.to_string(), Value::from(*shard))));
    fs::write(dir.join("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).expect("written");
    fs::remove_file(whole).expect("removed");
}

#[test]
fn a_directory_that_is_not_whole_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, out) = (folder.path().join("text.txt"), folder.path().join("out"));
    fs::write(&file, "the old man saw a dog in town ".repeat(20)).expect("written");
    // The same words whatever is asked: evaluate, prune, look inside, convert.
    let says = |damage: &dyn Fn(&Path), expected: &str, inside: bool| {
        let home = tempfile::tempdir().expect("a folder");
        let dir = tiny(home.path());
        damage(&dir);
        let before = contents(&dir);
        let prune = ["prune", text(&dir), "--method", "wanda", "--pattern", "2:4", "--out", text(&out)];
        let calibration = ["--calibration", text(&file), "--samples", "4", "--window", "16"];
        let mut asked = vec![
            [&prune[..], &calibration].concat(),
            vec!["eval", text(&dir), "--text", text(&file), "--window", "16"],
        ];
        if inside {
            asked.push(vec!["inspect", text(&dir)]);
            asked.push(vec!["convert", text(&dir), "--dtype", "f16", "--out", text(&out)]);
        }
        for args in asked {
            let said = complaint(&args);
            assert!(said.contains(expected), "{args:?}: {said:?} has no {expected:?}");
        }
        assert_eq!(contents(&dir), before, "the source is as it was");
        assert_eq!(names(folder.path()), ["text.txt"], "nothing half-written");
    };
    says(&|dir| configure(dir, &[("model_type", json!("mamba"))]), "\"mamba\" is not supported: use bert", false);
    says(&|dir| fs::remove_file(dir.join("config.json")).expect("removed"), "config.json", false);
    says(&|dir| fs::write(dir.join("config.json"), "{").expect("written"), "config.json: EOF", false);
    let shard_gone = |dir: &Path| {
        shard(dir, &[]);
        fs::remove_file(dir.join("model-2.safetensors")).expect("removed");
    };
    says(&shard_gone, "names the shard \"model-2.safetensors\", which is missing", true);
    says(&|dir| shard(dir, &[("ghost", "model-1.safetensors")]), "tensor \"ghost\" is not in its shard", true);
    let cut = |dir: &Path| {
        let path = dir.join("model.safetensors");
        let bytes = fs::read(&path).expect("read");
        fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
    };
    says(&cut, "model.safetensors: cut short", true);
    // The tokenizer knows more words than the model, or is none.
    let words = ["a", "man", "saw", "the", "old", "cat", "of", "tree", "dog", "in", "town"];
    says(&|dir| tokenizer(dir, &words), "the model has 8 tokens: they do not belong together", false);
    says(&|dir| fs::write(dir.join("tokenizer.json"), "{}").expect("written"), "tokenizer.json", false);
    says(&|dir| fs::remove_file(dir.join("tokenizer.json")).expect("removed"), "tokenizer.json", false);
    // What asks for terabytes is refused before it gets them.
    for (key, value) in [
        ("hidden_size", 1u64 << 40),
        ("hidden_size", 1 << 30),
        ("intermediate_size", 1 << 62),
        ("vocab_size", 1 << 30),
        ("num_hidden_layers", 1 << 30),
        ("num_attention_heads", 1 << 63),
        ("head_dim", 1 << 63),
        ("head_dim", 1 << 30),
        ("max_position_embeddings", 1 << 62),
    ] {
        says(&|dir| configure(dir, &[(key, json!(value))]), ": ", false);
    }
}

#[test]
fn a_text_that_is_too_short_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = tiny(folder.path());
    let (file, out) = (folder.path().join("text.txt"), folder.path().join("out"));
    let says = |words: &str, more: &[&str]| {
        fs::write(&file, words).expect("written");
        let prune = ["prune", text(&dir), "--method", "sparsegpt", "--sparsity", "0.5", "--calibration", text(&file)];
        complaint(&[&prune[..], &["--out", text(&out), "--window", "16"], more].concat())
    };
    assert!(says(&"dog ".repeat(40), &[]).contains("the text has 2 windows of 16 tokens, not 128"));
    assert!(says("dog ", &["--samples", "1"]).contains("the text has 1 tokens, fewer than one window of 16"));
    assert!(says("", &["--samples", "1"]).contains("the text has 0 tokens"));
    assert!(says(&"dog ".repeat(40), &["--samples", "3", "--seed", "1"]).contains("not 3"));
    assert!(!out.exists());
}

#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_in_the_middle_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = tiny(folder.path());
    let before = contents(&dir);
    let out = folder.path().join("out");
    for args in [
        &["prune", text(&dir), "--sparsity", "0.5", "--out", text(&out)][..],
        &["prune", text(&dir), "--pattern", "2:4", "--format", "2:4", "--out", text(&out)],
        &["convert", text(&dir), "--dtype", "f16", "--out", text(&out)],
    ] {
        let said = common::refused(&on_a_full_disk(&mut std::process::Command::new("sh"), args));
        assert!(said.contains("model.safetensors") && said.contains("large"), "{said}");
        assert_eq!(names(folder.path()), ["tiny"], "nothing half-written");
        assert_eq!(contents(&dir), before, "the source is as it was");
    }
}

#[test]
fn a_model_is_pruned_into_another_form_which_every_command_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = tiny(folder.path());
    let file = folder.path().join("text.txt");
    fs::write(&file, "the old man saw a dog in town ".repeat(20)).expect("written");
    let place = |name: &str| folder.path().join(name);
    let prune = |from: &Path, out: &Path, more: &[&str]| {
        stdout(&regrow(&[&["prune", text(from), "--pattern", "2:4", "--out", text(out)], more].concat()))
    };
    let (dense, packed, half) = (place("dense"), place("packed"), place("half"));
    prune(&dir, &dense, &[]);
    let said = prune(&dir, &packed, &["--format", "2:4"]);
    assert!(said.starts_with("sparsity 50.00 %") && said.contains(", 14 matrices packed as 2:4\n"), "{said}");
    let said = prune(&dir, &half, &["--format", "bitmask", "--dtype", "f16"]);
    assert!(said.contains("matrices packed as bitmask"), "{said}");
    let eval = |dir: &Path| stdout(&regrow(&["eval", text(dir), "--text", text(&file), "--window", "16"]));
    assert_eq!(eval(&dense), eval(&packed));
    let inspected = stdout(&regrow(&["inspect", text(&packed)]));
    assert!(inspected.contains("bytes, stored in ") && inspected.contains("stored"), "{inspected}");
    let json: Value = serde_json::from_str(&stdout(&regrow(&["inspect", text(&packed), "--json"]))).expect("JSON");
    let sum =
        |key: &str| json["tensors"].as_array().expect("tensors").iter().filter_map(|t| t[key].as_u64()).sum::<u64>();
    assert_eq!(
        (json["total"]["bytes"].as_u64(), json["total"]["stored_bytes"].as_u64()),
        (Some(sum("bytes")), Some(sum("stored_bytes")))
    );
    assert!(sum("stored_bytes") < sum("bytes"));
    // Back to where it came from.
    let (back, wide) = (place("back"), place("wide"));
    stdout(&regrow(&["convert", text(&packed), "--format", "dense", "--out", text(&back)]));
    assert_eq!(
        stdout(&regrow(&["inspect", text(&back), "--json"])).replace("back", "dense"),
        stdout(&regrow(&["inspect", text(&dense), "--json"]))
    );
    stdout(&regrow(&["convert", text(&half), "--dtype", "f32", "--out", text(&wide)]));
    let (half, wide) = (Checkpoint::open(&half).expect("opened"), Checkpoint::open(&wide).expect("opened"));
    for entry in wide.entries() {
        assert_eq!(entry.dtype, Dtype::F32);
        assert_eq!(wide.read_f32(&entry.name).expect("read"), half.read_f32(&entry.name).expect("read"));
    }
    // What is packed is pruned further.
    let again = place("again");
    let said = stdout(&regrow(&["prune", text(&packed), "--sparsity", "0.75", "--out", text(&again)]));
    assert!(said.starts_with("sparsity 75.00 %"), "{said}");
    assert!(!fs::read_to_string(again.join("config.json")).expect("read").contains("quantization_config"));
}

#[test]
fn a_form_that_cannot_be_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = tiny(folder.path());
    let out = folder.path().join("out");
    let prune =
        |more: &[&str]| complaint(&[&["prune", text(&dir), "--sparsity", "0.5", "--out", text(&out)], more].concat());
    let convert = |more: &[&str]| complaint(&[&["convert", text(&dir)], more].concat());
    let to = ["--out", text(&out)];
    assert!(prune(&["--format", "2:4"]).contains("--pattern 2:4"));
    assert!(prune(&["--format", "csr"]).contains("use 2:4, bitmask, dense"));
    assert!(convert(&[&to[..], &["--format", "2:4"]].concat()).contains("no layer that is 2:4"));
    assert!(convert(&["--out", text(&dir), "--dtype", "f16"]).contains("input itself"));
    let file = dir.join("model.safetensors");
    assert!(complaint(&["convert", text(&file), "--format", "bitmask", "--out", text(&out)]).contains("directory"));
    configure(&dir, &[("quantization_config", json!({"quant_method": "gptq"}))]);
    let packed = prune(&["--pattern", "2:4", "--format", "2:4"]);
    assert!(packed.contains("quantized"), "{packed}");
    // Values that the type does not hold, by the tensor's name, before any work.
    let path = dir.join("model.safetensors");
    let mut bytes = fs::read(&path).expect("read");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&1e30f32.to_le_bytes());
    fs::write(&path, bytes).expect("written");
    let said = prune(&["--dtype", "f16"]);
    assert!(said.contains("model.") && said.contains("is beyond the range of F16"), "{said}");
    assert_eq!(names(folder.path()), ["tiny"], "nothing half-written");
}
