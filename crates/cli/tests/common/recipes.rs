//! Three made models of one base, and recipes that merge them.

use std::fs;
use std::path::{Path, PathBuf};

use regrow_checkpoint::{Contents, Dtype, Plan, Planned, Writer};
use regrow_sparse_core::seed::mix;
use serde_json::json;

pub const LAYERS: usize = 3;

/// A recipe of task vectors.
pub const TIES: &str = "method = \"ties\"\nbase = \"base\"\nmodels = [{ path = \"a\", weight = 0.5, density = 0.3 }, { path = \"b\" }]\n\
                    parameters = { lambda = 1.0, normalize = true }\n";

/// `n` numbers between -1 and 1.
pub fn numbers(n: usize, seed: u64) -> Vec<f32> {
    (0..n).map(|i| (mix(seed, i as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// The tensors of a small Llama.
pub fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_string(), vec![10, 8]),
        ("model.norm.weight".into(), vec![8]),
        ("lm_head.weight".into(), vec![10, 8]),
    ];
    for layer in 0..LAYERS {
        let parts: [(&str, Vec<usize>); 9] = [
            ("input_layernorm", vec![8]),
            ("post_attention_layernorm", vec![8]),
            ("self_attn.q_proj", vec![8, 8]),
            ("self_attn.k_proj", vec![4, 8]),
            ("self_attn.v_proj", vec![4, 8]),
            ("self_attn.o_proj", vec![8, 8]),
            ("mlp.gate_proj", vec![12, 8]),
            ("mlp.up_proj", vec![12, 8]),
            ("mlp.down_proj", vec![8, 12]),
        ];
        shapes.extend(parts.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)));
    }
    shapes
}

/// The values of one tensor: model 0 is the base, the others have learnt something of their own and
/// something in common.
pub fn values(which: u64, name: &str, n: usize) -> Vec<f32> {
    let seed = |which: u64| name.bytes().fold(which, |seed, byte| mix(seed, byte.into()));
    let base = numbers(n, seed(0));
    if which == 0 {
        return base;
    }
    let learnt = numbers(n, seed(which)).into_iter().zip(numbers(n, seed(9)));
    base.iter().zip(learnt).map(|(base, (own, common))| base + 0.25 * (own + 0.5 * common)).collect()
}

/// Writes a model with `change` made to its tensors; a tokenizer goes along.
pub fn model_with(dir: &Path, which: u64, dtype: Dtype, change: impl Fn(&str, &mut Vec<f32>) + Sync) -> PathBuf {
    let out = dir.join(["base", "a", "b", "c"][which as usize]);
    let planned = shapes().into_iter().map(|(name, shape)| Planned { name, dtype, shape }).collect();
    let mut writer = Writer::create(Plan::sharded(planned, usize::MAX).expect("a plan"), &out, &[], "").expect("begun");
    let config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8,
        "intermediate_size": 12, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 4, "vocab_size": 10, "max_position_embeddings": 32, "tie_word_embeddings": false,
        "torch_dtype": "float32"});
    writer.add("config.json", config.to_string().as_bytes()).expect("written");
    writer.add("tokenizer.json", format!("of {which}").as_bytes()).expect("written");
    let make = |tensor: &Planned| -> regrow_sparse_core::Result<Contents<'static>> {
        let mut values = values(which, &tensor.name, tensor.elements());
        change(&tensor.name, &mut values);
        Ok(Contents::Values(values))
    };
    writer.write(&make, &|_, _| ()).expect("written");
    writer.finish().expect("finished");
    out
}

/// The base and three models in a folder.
pub fn models(dir: &Path) {
    (0..4).for_each(|which| drop(model_with(dir, which, Dtype::F32, |_, _| ())));
}

pub fn recipe(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).expect("written");
    path
}

pub fn list(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// Two checkpoints, `a` and `b`, of `count` matrices of `side` by `side`, in shards of that size.
pub fn matrices(dir: &Path, count: usize, side: usize, shard: usize) {
    let planned: Vec<Planned> =
        (0..count).map(|i| Planned { name: format!("w{i}"), dtype: Dtype::F32, shape: vec![side, side] }).collect();
    for (seed, name) in [(1, "a"), (2, "b")] {
        let plan = Plan::sharded(planned.clone(), shard).expect("a plan");
        let mut writer = Writer::create(plan, dir.join(name), &[], "").expect("begun");
        let make = |t: &Planned| -> regrow_sparse_core::Result<Contents<'static>> {
            Ok(Contents::Values(numbers(t.elements(), seed)))
        };
        writer.write(&make, &|_, _| ()).expect("written");
        writer.finish().expect("finished");
    }
}
