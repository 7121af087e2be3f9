//! A transformer's `config.json`: its sizes, and how its family names tensors.

use std::fs;
use std::path::Path;

use regrow_checkpoint::Checkpoint;
use regrow_sparse_core::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::rope::Rope;

/// A transformer's sizes and conventions.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The `model_type`: llama, mistral, qwen2, qwen3, opt, gpt2, bert, roberta, xlm-roberta.
    pub family: String,
    /// Whether every token attends to all others (encoders), not only to those before it.
    pub encoder: bool,
    /// Blocks.
    pub layers: usize,
    /// Width of the hidden states.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Heads of keys and values, each shared by `heads / kv_heads` of the queries.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width inside the feed-forward layers.
    pub inner: usize,
    /// Number of tokens in the vocabulary.
    pub vocab: usize,
    /// Longest sequence the model supports, in tokens.
    pub context: usize,
    /// How many tokens back attention reaches, if not all.
    pub sliding_window: Option<usize>,
    /// How positions are encoded.
    pub positions: Positions,
    /// The norms.
    pub norm: NormKind,
    /// The activation of the feed-forward layers.
    pub activation: Activation,
    /// How tensors are named.
    pub(crate) names: Names,
}

/// How positions are encoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// Queries and keys are rotated.
    Rotary(Rope),
    /// A learned vector is added, that of `position + offset`.
    Learned {
        /// What is added to the position.
        offset: usize,
    },
}

/// The norms: before each half of a block, in encoders after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// Root mean square.
    Rms {
        /// Added to the mean square.
        eps: f64,
    },
    /// Mean and variance.
    Layer {
        /// Added to the variance.
        eps: f64,
    },
}

/// The activation inside a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x sigmoid(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
    /// `x Phi(x)`.
    Gelu,
    /// `x Phi(x)`, `Phi` approximated with a tanh.
    GeluTanh,
}

/// Names of tensors, without `.weight` and `.bias`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Names {
    /// Prefix of all names except the head's.
    pub prefix: String,
    pub embedding: &'static str,
    pub positions: Option<&'static str>,
    /// The encoder's tensor added to every token, and the norm of the sum.
    pub of_encoder: Option<[&'static str; 2]>,
    /// Prefix of a block's number.
    pub blocks: &'static str,
    pub norm1: &'static str,
    /// Queries, keys, values; one name if they are fused.
    pub qkv: &'static [&'static str],
    pub attention_out: &'static str,
    pub norm2: &'static str,
    pub gate: Option<&'static str>,
    pub up: &'static str,
    pub down: &'static str,
    /// The norm before the head; encoders have none.
    pub final_norm: &'static str,
    /// Whether matrices are stored `[d_in, d_out]` (GPT-2's `Conv1D`).
    pub transposed: bool,
}

const LLAMA: Names = Names {
    prefix: String::new(),
    embedding: "embed_tokens",
    positions: None,
    of_encoder: None,
    blocks: "layers",
    norm1: "input_layernorm",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    attention_out: "self_attn.o_proj",
    norm2: "post_attention_layernorm",
    gate: Some("mlp.gate_proj"),
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    final_norm: "norm",
    transposed: false,
};

const OPT: Names = Names {
    prefix: String::new(),
    embedding: "embed_tokens",
    positions: Some("embed_positions"),
    of_encoder: None,
    blocks: "layers",
    norm1: "self_attn_layer_norm",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    attention_out: "self_attn.out_proj",
    norm2: "final_layer_norm",
    gate: None,
    up: "fc1",
    down: "fc2",
    final_norm: "final_layer_norm",
    transposed: false,
};

const GPT2: Names = Names {
    prefix: String::new(),
    embedding: "wte",
    positions: Some("wpe"),
    of_encoder: None,
    blocks: "h",
    norm1: "ln_1",
    qkv: &["attn.c_attn"],
    attention_out: "attn.c_proj",
    norm2: "ln_2",
    gate: None,
    up: "mlp.c_fc",
    down: "mlp.c_proj",
    final_norm: "ln_f",
    transposed: true,
};

const BERT: Names = Names {
    prefix: String::new(),
    embedding: "embeddings.word_embeddings",
    positions: Some("embeddings.position_embeddings"),
    of_encoder: Some(["embeddings.token_type_embeddings", "embeddings.LayerNorm"]),
    blocks: "encoder.layer",
    norm1: "attention.output.LayerNorm",
    qkv: &["attention.self.query", "attention.self.key", "attention.self.value"],
    attention_out: "attention.output.dense",
    norm2: "output.LayerNorm",
    gate: None,
    up: "intermediate.dense",
    down: "output.dense",
    final_norm: "",
    transposed: false,
};

/// Larger than any size in any model, and small enough that a product of two does not overflow.
const MOST: usize = 1 << 31;

/// The supported families.
const KNOWN: &str = "bert, gpt2, llama, mistral, opt, qwen2, qwen3, roberta, xlm-roberta";

/// The fields of `config.json` that matter here; families use different names for the same value.
#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    #[serde(alias = "n_layer")]
    num_hidden_layers: Option<usize>,
    #[serde(alias = "n_embd")]
    hidden_size: Option<usize>,
    #[serde(alias = "n_head")]
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(alias = "n_inner", alias = "ffn_dim")]
    intermediate_size: Option<usize>,
    vocab_size: Option<usize>,
    #[serde(alias = "n_positions")]
    max_position_embeddings: Option<usize>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    rms_norm_eps: Option<f64>,
    #[serde(alias = "layer_norm_eps")]
    layer_norm_epsilon: Option<f64>,
    #[serde(alias = "activation_function")]
    hidden_act: Option<String>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    do_layer_norm_before: Option<bool>,
    word_embed_proj_dim: Option<usize>,
    scale_attn_by_inverse_layer_idx: Option<bool>,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
    pad_token_id: Option<usize>,
}

impl Config {
    /// Reads `config.json` in `folder`; `checkpoint` determines the prefix of its tensors' names.
    ///
    /// # Errors
    /// A file that is missing or not such a configuration, an unknown family, sizes that are missing or do not divide,
    /// an unsupported variant.
    pub fn read(folder: &Path, checkpoint: &Checkpoint) -> Result<Self> {
        let path = folder.join("config.json");
        let text = fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let raw: Raw = serde_json::from_slice(&text).map_err(|e| Error::format(&path, e.to_string()))?;
        let mut config = Self::from_raw(raw).map_err(|reason| Error::format(&path, reason))?;
        config.names.prefix = prefix(checkpoint, config.names.embedding)?;
        Ok(config)
    }

    fn from_raw(raw: Raw) -> std::result::Result<Self, String> {
        let family = raw.model_type.clone().ok_or("has no model_type")?;
        let need = |name: &str, value: Option<usize>| match value {
            Some(v) if v > MOST => Err(format!("{name} {v} is beyond all models")),
            Some(v) if v > 0 => Ok(v),
            _ => Err(format!("{name} is missing or zero")),
        };
        let names = match family.as_str() {
            "llama" | "mistral" | "qwen2" | "qwen3" => LLAMA,
            "opt" => OPT,
            "gpt2" => GPT2,
            "bert" | "roberta" | "xlm-roberta" => BERT,
            other => return Err(format!("model_type {other:?} is not supported: use {KNOWN}")),
        };
        refuse_variants(&raw)?;
        let width = need("hidden_size", raw.hidden_size)?;
        let heads = need("num_attention_heads", raw.num_attention_heads)?;
        let kv_heads = need("num_key_value_heads", raw.num_key_value_heads.or(Some(heads)))?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!("{heads} attention heads cannot share {kv_heads} key-value heads"));
        }
        let context = need("max_position_embeddings", raw.max_position_embeddings)?;
        let head_dim = need("head_dim", raw.head_dim.or(Some(width / heads)))?;
        let positions = match names.positions {
            Some(_) => Positions::Learned { offset: offset(&family, raw.pad_token_id) },
            None => {
                let parameters = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
                Positions::Rotary(Rope::read(raw.rope_theta, parameters)?)
            }
        };
        let norm = match names.positions {
            Some(_) => NormKind::Layer { eps: raw.layer_norm_epsilon.unwrap_or(usual_eps(&family)) },
            None => NormKind::Rms { eps: raw.rms_norm_eps.unwrap_or(1e-6) },
        };
        // Qwen2 stores the width of a window that it does not use.
        let slides = raw.use_sliding_window.unwrap_or(family == "mistral");
        Ok(Self {
            layers: need("num_hidden_layers", raw.num_hidden_layers)?,
            inner: need("intermediate_size", raw.intermediate_size.or((family == "gpt2").then_some(4 * width)))?,
            vocab: need("vocab_size", raw.vocab_size)?,
            // RoBERTa counts the rows of its table, the first of which are not positions.
            context: match (&positions, family.contains("roberta")) {
                (Positions::Learned { offset }, true) => need("context", context.checked_sub(*offset))?,
                _ => context,
            },
            encoder: names.of_encoder.is_some(),
            sliding_window: match raw.sliding_window.filter(|_| slides) {
                Some(window) => Some(need("sliding_window", Some(window))?),
                None => None,
            },
            activation: activation(&family, raw.hidden_act.as_deref())?,
            family,
            width,
            heads,
            kv_heads,
            head_dim,
            positions,
            norm,
            names,
        })
    }
}

/// Refuses variants with a different forward pass.
fn refuse_variants(raw: &Raw) -> std::result::Result<(), String> {
    if raw.do_layer_norm_before == Some(false) {
        return Err("do_layer_norm_before false (a norm after each half of a block) is not supported".into());
    }
    if raw.position_embedding_type.as_deref().is_some_and(|kind| kind != "absolute") {
        return Err("a position_embedding_type other than absolute is not supported".into());
    }
    if raw.is_decoder == Some(true) {
        return Err("is_decoder true (an encoder made a decoder) is not supported".into());
    }
    if raw.word_embed_proj_dim.is_some_and(|dim| Some(dim) != raw.hidden_size) {
        return Err("word_embed_proj_dim other than hidden_size is not supported".into());
    }
    if raw.scale_attn_by_inverse_layer_idx == Some(true) {
        return Err("scale_attn_by_inverse_layer_idx is not supported".into());
    }
    Ok(())
}

fn usual_eps(family: &str) -> f64 {
    if matches!(family, "opt" | "gpt2") { 1e-5 } else { 1e-12 }
}

/// The offset added to a position: the first rows of some tables are not positions.
fn offset(family: &str, padding: Option<usize>) -> usize {
    match family {
        "opt" => 2,
        "roberta" | "xlm-roberta" => padding.unwrap_or(1).min(MOST) + 1,
        _ => 0,
    }
}

fn activation(family: &str, name: Option<&str>) -> std::result::Result<Activation, String> {
    let usual = match family {
        "opt" => "relu",
        "gpt2" => "gelu_new",
        "bert" | "roberta" | "xlm-roberta" => "gelu",
        _ => "silu",
    };
    match name.unwrap_or(usual) {
        "silu" | "swish" => Ok(Activation::Silu),
        "relu" => Ok(Activation::Relu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        other => Err(format!("the activation {other:?} is not supported: use silu, relu, gelu, gelu_new")),
    }
}

/// The prefix of the embedding's name.
fn prefix(checkpoint: &Checkpoint, embedding: &str) -> Result<String> {
    let end = format!("{embedding}.weight");
    let found = checkpoint.entries().iter().find_map(|entry| entry.name.strip_suffix(&end));
    let plain = |prefix: &&str| prefix.is_empty() || prefix.ends_with('.');
    let missing = || Error::format(checkpoint.path(), format!("has no tensor named like {end:?}"));
    found.filter(plain).map(str::to_string).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<Config, String> {
        Config::from_raw(serde_json::from_str(text).map_err(|e| e.to_string())?)
    }

    const QWEN: &str = r#"{"model_type": "qwen2", "hidden_size": 8, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 16, "vocab_size": 32,
        "max_position_embeddings": 64, "rope_theta": 1000000.0, "sliding_window": 16, "use_sliding_window": false}"#;

    #[test]
    fn sizes_and_defaults_are_read() {
        let config = read(QWEN).unwrap();
        assert_eq!((config.head_dim, config.kv_heads, config.sliding_window), (2, 2, None));
        assert_eq!(config.norm, NormKind::Rms { eps: 1e-6 });
        let gpt2 =
            r#"{"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 9, "n_positions": 4}"#;
        let gpt2 = read(gpt2).unwrap();
        assert_eq!((gpt2.inner, gpt2.activation), (32, Activation::GeluTanh));
        assert_eq!(gpt2.positions, Positions::Learned { offset: 0 });
    }

    #[test]
    fn what_cannot_be_is_named() {
        let says = |from: &str, to: &str| read(&QWEN.replace(from, to)).unwrap_err();
        assert!(says("qwen2", "mamba").contains("mamba"));
        assert!(says(r#""num_key_value_heads": 2"#, r#""num_key_value_heads": 3"#).contains("cannot share 3"));
        assert!(says(r#""vocab_size": 32"#, r#""vocab_size": 0"#).contains("vocab_size"));
        let window = r#""sliding_window": 16, "use_sliding_window": false"#;
        assert!(
            says(window, r#""sliding_window": 0, "use_sliding_window": true"#)
                .contains("sliding_window is missing or zero")
        );
        assert!(says(r#""rope_theta""#, r#""hidden_act": "xielu", "rope_theta""#).contains("xielu"));
        assert!(says(r#""rope_theta": 1000000.0"#, r#""rope_scaling": {"rope_type": "odd"}"#).contains("odd"));
    }
}
