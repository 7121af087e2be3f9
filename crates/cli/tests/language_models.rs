//! Language models as a user prunes them, on a directory made here, and bad input.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use common::{complaint, regrow, stdout, text};

const WIDTH: usize = 16;
const WORDS: [&str; 8] = ["a", "man", "saw", "the", "old", "dog", "in", "town"];

/// A Llama of two blocks that knows eight words, and a text of 400 of them.
fn model(folder: &Path) -> (PathBuf, PathBuf) {
    let dir = folder.join("model");
    fs::create_dir(&dir).expect("a folder");
    let config = json!({"model_type": "llama", "hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 8, "max_position_embeddings": 32});
    fs::write(dir.join("config.json"), config.to_string()).expect("written");
    let vocab: serde_json::Map<_, _> = WORDS.iter().enumerate().map(|(i, w)| (w.to_string(), i.into())).collect();
    let tokenizer = json!({"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "a"}});
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).expect("written");
    let mut shapes =
        vec![("model.embed_tokens.weight".to_string(), vec![8, WIDTH]), ("model.norm.weight".into(), vec![WIDTH])];
    for block in 0..2 {
        let layers: [(&str, Vec<usize>); 9] = [
            ("input_layernorm", vec![WIDTH]),
            ("post_attention_layernorm", vec![WIDTH]),
            ("self_attn.q_proj", vec![WIDTH, WIDTH]),
            ("self_attn.k_proj", vec![8, WIDTH]),
            ("self_attn.v_proj", vec![8, WIDTH]),
            ("self_attn.o_proj", vec![WIDTH, WIDTH]),
            ("mlp.gate_proj", vec![24, WIDTH]),
            ("mlp.up_proj", vec![24, WIDTH]),
            ("mlp.down_proj", vec![WIDTH, 24]),
        ];
        shapes.extend(layers.map(|(name, shape)| (format!("model.layers.{block}.{name}.weight"), shape)));
    }
    let values = |name: &str, n: usize| -> Vec<u8> {
        let value = |i: usize| ((i * 7919 + name.len() * 104_729) % 1009) as f32 / 1009.0 - 0.4999;
        (0..n).flat_map(|i| value(i).to_le_bytes()).collect()
    };
    let tensors: Vec<_> =
        shapes.into_iter().map(|(name, shape)| (values(&name, shape.iter().product()), name, shape)).collect();
    let views = tensors.iter().map(|(b, n, s)| (n, TensorView::new(Dtype::F32, s.clone(), b).expect("a view")));
    let file = safetensors::serialize(views, None).expect("bytes");
    fs::write(dir.join("model.safetensors"), file).expect("written");
    let words: Vec<&str> = (0..400).map(|i| WORDS[(i * i + 3 * i / 7) % 8]).collect();
    let file = folder.join("text.txt");
    fs::write(&file, words.join(" ")).expect("written");
    (dir, file)
}

#[test]
fn prune_then_inspect_then_eval() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, file) = model(folder.path());
    let calibration = ["--calibration", text(&file), "--samples", "8", "--window", "16"];
    for (method, pattern) in
        [("wanda", "unstructured"), ("wanda", "2:4"), ("sparsegpt", "unstructured"), ("magnitude", "2:4")]
    {
        let out = folder.path().join(format!("{method} {pattern}"));
        let args =
            ["prune", text(&dir), "--method", method, "--pattern", pattern, "--sparsity", "0.5", "--out", text(&out)];
        let said = stdout(&regrow(&[&args[..], &calibration].concat()));
        assert!(
            said.starts_with("sparsity 50.00 % (") && said.ends_with(" weights in 14 layers are zero)\n"),
            "{said}"
        );
        let inspected = stdout(&regrow(&["inspect", text(&out)]));
        assert!(pattern != "2:4" || inspected.matches("2:4").count() == 14, "{inspected}");
        let said = stdout(&regrow(&["eval", text(&out), "--text", text(&file), "--window", "16"]));
        // 25 windows of 16, 15 predictions each.
        assert!(said.starts_with("perplexity ") && said.ends_with(" (375 tokens)\n"), "{said}");
        let slid = stdout(&regrow(&["eval", text(&out), "--text", text(&file), "--window", "16", "--stride", "8"]));
        assert!(slid.ends_with(" (399 tokens)\n"), "{slid}");
        assert!(out.join("tokenizer.json").exists() && out.join("config.json").exists());
    }
    let left: Vec<_> = fs::read_dir(folder.path()).expect("a folder").collect();
    assert_eq!(left.len(), 2 + 4, "nothing half-written: {left:?}");
}

#[test]
fn budgets_and_selections() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, file) = model(folder.path());
    let prune = |name: &str, more: &[&str]| -> (PathBuf, String) {
        let out = folder.path().join(name);
        let base = ["prune", text(&dir), "--sparsity", "0.5", "--out", text(&out)];
        let calibration = ["--calibration", text(&file), "--samples", "8", "--window", "16"];
        let said = stdout(&regrow(&[&base[..], &calibration, more].concat()));
        (out, said)
    };
    let zeros = |out: &Path, part: &str, weights: usize| -> Vec<f64> {
        let json = stdout(&regrow(&["inspect", text(out), "--json"]));
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let tensors = json["tensors"].as_array().expect("tensors").iter();
        let named = tensors.filter(|t| t["name"].as_str().is_some_and(|n| n.contains(part)));
        named.map(|t| t["zeros"].as_f64().expect("a number") / weights as f64).collect()
    };
    let sparsities = |out: &Path| zeros(out, "down_proj", 24 * WIDTH);
    let (out, said) = prune("owl", &["--budget", "owl", "--owl-outlier", "2"]);
    let [a, b] = sparsities(&out)[..] else { panic!("two blocks") };
    assert!((a - b).abs() > 0.1 && (a + b - 1.0).abs() < 0.01, "{a} {b}");
    assert!(said.starts_with("sparsity 50.0") || said.starts_with("sparsity 49.9"), "{said}");
    let wide = ["--budget", "owl", "--owl-outlier", "2", "--owl-lambda", "0.2", "--pattern", "4:8"];
    let [a, b] = sparsities(&prune("mixed", &wide).0)[..] else { panic!("two blocks") };
    assert!(a != b && a + b == 1.0, "3:8 and 5:8, or wider apart: {a} {b}");
    let (out, said) = prune("down", &["--target", "mlp", "--ignore", r"layers\.0\."]);
    assert_eq!(sparsities(&out), [0.0, 0.5]);
    assert!(said.ends_with("weights in 3 layers are zero)\n"), "{said}");
    let (out, said) = prune("rd", &["--budget", "rd", "--rd-amounts", "10"]);
    assert_ne!(sparsities(&out), zeros(&out, "q_proj", WIDTH * WIDTH));
    // The head is the embedding's matrix here.
    assert_eq!(zeros(&out, "embed_tokens", 8 * WIDTH), [0.0]);
    // Budgets that look at shapes or at the weights alone.
    for budget in ["er", "erk", "global", "lamp", "uniform-plus"] {
        let (out, said) = prune(budget, &["--budget", budget]);
        assert!(said.starts_with("sparsity 50.00 %"), "{budget}: {said}");
        assert_ne!(sparsities(&out), zeros(&out, "q_proj", WIDTH * WIDTH), "{budget}");
    }
    let (with_head, _) = prune("head", &["--include-head", "--method", "sparsegpt"]);
    assert_eq!(zeros(&with_head, "embed_tokens", 8 * WIDTH), [0.5]);
    assert!(said.starts_with("sparsity 50.00 % (1,920 of 3,840 "), "{said}");
    let bytes = |dir: &Path| fs::read(dir.join("model.safetensors")).expect("a file");
    let (row, _) = prune("by row", &["--method", "wanda", "--with", "group=row"]);
    let (layer, _) = prune("by layer", &["--method", "wanda", "--with", "group=layer"]);
    assert_ne!(bytes(&row), bytes(&layer));
    let (damped, _) = prune("damped", &["--method", "sparsegpt", "--with", "block=4,damping=1"]);
    assert_ne!(bytes(&damped), bytes(&prune("not damped", &["--method", "sparsegpt"]).0));
    let calibrated = ["--calibration", text(&file), "--samples", "8", "--window", "16", "--sparsity", "0.5"];
    let says = |more: &[&str]| {
        let out = folder.path().join("x");
        let base = ["prune", text(&dir), "--out", text(&out)];
        complaint(&[&base[..], &calibrated, more].concat())
    };
    assert!(says(&["--method", "wanda", "--with", "block=4"]).contains("wanda has no parameter `block`: it has group"));
    assert!(says(&["--method", "sparsegpt", "--with", "damping=-1"]).contains("`damping` cannot be `-1`"));
    // By magnitude, whatever the method; where the head is pruned, the matrix they share is its.
    let (with_embedding, said) = prune("embedding", &["--include-embedding", "--method", "wanda"]);
    assert_eq!(zeros(&with_embedding, "embed_tokens", 8 * WIDTH), [0.5]);
    assert!(said.ends_with("weights in 15 layers are zero)\n"), "{said}");
    let (both, said) = prune("both", &["--include-head", "--include-embedding", "--method", "sparsegpt"]);
    assert!(said.ends_with("weights in 15 layers are zero)\n"), "{said}");
    assert_eq!(bytes(&both), bytes(&with_head));
}

#[test]
fn spilled_and_reconstructed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, file) = model(folder.path());
    let prune = |name: &str, more: &[&str]| -> (Vec<u8>, String) {
        let out = folder.path().join(name);
        let base = ["prune", text(&dir), "--method", "wanda", "--sparsity", "0.5", "--out", text(&out)];
        let calibration = ["--calibration", text(&file), "--samples", "8", "--window", "16"];
        let said = stdout(&regrow(&[&base[..], &calibration, more].concat()));
        (fs::read(out.join("model.safetensors")).expect("a file"), said)
    };
    let (held, said) = prune("held", &[]);
    assert_eq!(prune("spilled", &["--spill", text(folder.path())]), (held.clone(), said));
    let (mended, said) = prune("mended", &["--reconstruct", "mask-lora", "--rank", "4"]);
    assert_ne!(mended, held);
    let kept: Vec<f64> =
        said.lines().filter_map(|l| l.split_once("reconstruction (")?.1.strip_suffix(" %)")?.parse().ok()).collect();
    assert!(kept.len() == 2 && kept.iter().all(|k| *k < 95.0), "{said}");
    assert!(said.contains("sparsity 50.00 %"), "{said}");
    assert_eq!(
        prune("spilled mended", &["--reconstruct", "mask-lora", "--rank", "4", "--spill", text(folder.path())]).0,
        mended
    );
}

#[test]
fn retraining_keeps_zeros_and_lowers_perplexity() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, file) = model(folder.path());
    let (pruned, out) = (folder.path().join("pruned"), folder.path().join("retrained"));
    regrow(&["prune", text(&dir), "--sparsity", "0.5", "--out", text(&pruned)]);
    let retrain = ["retrain", text(&pruned), "--text", text(&file), "--window", "16", "--out", text(&out)];
    let said = stdout(&regrow(&[&retrain[..], &["--rank", "2", "--lr", "0.01", "--epochs", "4"]].concat()));
    assert!(said.starts_with("retrained 1,") && said.contains(" of 4,"), "{said}");
    let perplexity = |dir: &Path| -> f64 {
        let said = stdout(&regrow(&["eval", text(dir), "--text", text(&file), "--window", "16"]));
        said.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number")
    };
    assert!(perplexity(&out) < 0.95 * perplexity(&pruned), "{} {}", perplexity(&out), perplexity(&pruned));
    let zeros = |dir: &Path| {
        let json = stdout(&regrow(&["inspect", text(dir), "--json"]));
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        json["tensors"].as_array().expect("tensors").iter().map(|t| t["zeros"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(zeros(&out), zeros(&pruned));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 4, "no saves are left");
    let says = |more: &[&str]| complaint(&[&retrain[..6], &["--out", text(&folder.path().join("x"))], more].concat());
    assert!(says(&["--form", "lora"]).contains("mask-lora") && says(&["--form", "all"]).contains("unknown form"));
    assert!(says(&["--lr", "0"]).contains("above zero") && says(&["--form", "biases"]).contains("no biases"));
    assert!(says(&["--include-head"]).contains("no head of its own"));
    assert!(says(&["--lr", "1e30"]).contains("lower --lr"));
}

#[test]
fn a_model_speaks_the_same_with_the_same_seed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, _) = model(folder.path());
    let say = |more: &[&str]| {
        stdout(&regrow(&[&["generate", text(&dir), "--prompt", "the old", "--tokens", "12"], more].concat()))
    };
    let greedy = say(&[]);
    assert!(greedy.starts_with("the old ") && greedy.split_whitespace().count() == 14, "{greedy}");
    let drawn = say(&["--temperature", "5", "--seed", "3"]);
    assert_eq!(drawn, say(&["--temperature", "5", "--seed", "3"]));
    assert_ne!(drawn, say(&["--temperature", "5", "--seed", "4"]));
    let generate = ["generate", text(&dir), "--prompt"];
    assert!(complaint(&[&generate[..], &[""]].concat()).contains("a prompt of 0 tokens"));
    assert!(complaint(&[&generate[..], &["dog", "--temperature", "-1"]].concat()).contains("temperature"));
}

#[test]
fn dense_and_sparse_say_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, file) = model(folder.path());
    let pruned = folder.path().join("pruned");
    stdout(&regrow(&["prune", text(&dir), "--sparsity", "0.75", "--pattern", "1:4", "--out", text(&pruned)]));
    let eval = ["eval", text(&pruned), "--text", text(&file), "--window", "16"];
    let plain = stdout(&regrow(&eval));
    let said = stdout(&regrow(&[&eval[..], &["--sparse"]].concat()));
    assert!(said.contains(" of 15 layers are sparse now\n"), "{said}");
    // 3 projections of other shapes than the first, 75 % zeros, 25 windows of 16 tokens.
    assert!(said.contains("75 %") && said.contains("400") && said.contains("16x24"), "{said}");
    for way in ["dense:  ", "sparse: "] {
        let line = said.lines().find_map(|line| line.strip_prefix(way)).expect("a line");
        assert!(line.starts_with(plain.trim_end()) && line.contains(" s"), "{plain} {line}");
    }
    let dense = stdout(&regrow(&[&["eval", text(&dir)], &eval[2..], &["--sparse"]].concat()));
    // What speaks against sparse first: where the network is, or what is in it.
    let why = ["0 % of its weights are zero", "there are no sparse kernels"];
    let why = why.iter().any(|why| dense.contains(&format!("dense: {why}")));
    assert!(why && dense.contains("0 of 15 layers"), "{dense}");
    let generate = ["generate", text(&pruned), "--prompt", "the old", "--tokens", "12"];
    let plain = stdout(&regrow(&generate));
    let said = stdout(&regrow(&[&generate[..], &["--sparse"]].concat()));
    assert!(said.starts_with(plain.trim_end()) && said.ends_with("the first 12 of 12 the same\n"), "{plain} {said}");
    assert!(complaint(&["generate", text(&pruned), "--prompt", "", "--sparse"]).contains("a prompt of 0 tokens"));
    let other = ["--against", text(&dir), "--sparse"];
    assert!(complaint(&[&eval[..4], &other].concat()).contains("cannot be used with"));
}

#[test]
fn bad_input_is_one_line_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, file) = model(folder.path());
    let out = folder.path().join("out");
    let prune = |more: &[&str]| {
        complaint(
            &[&["prune", text(&dir), "--sparsity", "0.5", "--method", "wanda", "--out", text(&out)], more].concat(),
        )
    };
    let calibrated = |more: &[&str]| prune(&[&["--calibration", text(&file), "--window", "16"], more].concat());
    assert!(prune(&[]).contains("--calibration"));
    assert!(calibrated(&[]).contains("the text has 25 windows of 16 tokens, not 128"));
    assert!(calibrated(&["--samples", "0"]).contains("at least 1"));
    assert!(calibrated(&["--samples", "2", "--pattern", "3:7"]).contains("does not divide"));
    assert!(prune(&["--calibration", text(&file), "--window", "64"]).contains("takes 2 to 32"));
    assert!(prune(&["--calibration", "/nonexistent.txt"]).contains("/nonexistent.txt"));
    let own = ["prune", text(&dir), "--sparsity", "0.5", "--out", text(&dir)];
    assert!(complaint(&own).contains("input itself"));
    assert!(
        complaint(&["prune", text(&dir), "--sparsity", "0.5", "--method", "magic", "--out", text(&out)])
            .contains("wanda")
    );
    assert!(calibrated(&["--samples", "2", "--budget", "lump"]).contains("did you mean `lamp`?"));
    assert!(calibrated(&["--samples", "2", "--budget", "owl", "--owl-lambda", "0.9"]).contains("smaller lambda"));
    assert!(calibrated(&["--samples", "2", "--budget", "rd", "--pattern", "2:4"]).contains("no choice"));
    assert!(calibrated(&["--samples", "2", "--target", "("]).contains("pattern"));
    assert!(calibrated(&["--samples", "2", "--target", "nothing"]).contains("no layer"));
    assert!(complaint(&["eval", text(&dir)]).contains("--text"));
    let eval = ["eval", text(&dir), "--text", text(&file)];
    assert!(complaint(&[&eval[..], &["--window", "1"]].concat()).contains("takes 2 to 32"));
    assert!(complaint(&[&eval[..], &["--window", "16", "--stride", "17"]].concat()).contains("use 1 to 16"));
    assert!(complaint(&[&eval[..], &["--against", text(&dir)]].concat()).contains("no encoder"));
    fs::remove_file(dir.join("tokenizer.json")).expect("removed");
    assert!(complaint(&[&eval[..], &["--window", "16"]].concat()).contains("tokenizer.json"));
    fs::write(dir.join("config.json"), r#"{"model_type": "mamba"}"#).expect("written");
    assert!(complaint(&[&eval[..], &["--window", "16"]].concat()).contains("mamba"));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2, "nothing half-written");
}
