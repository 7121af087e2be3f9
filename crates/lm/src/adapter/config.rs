//! `adapter_config.json`: the fields that determine the meaning of an adapter's numbers.

use std::collections::BTreeMap;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

/// The fields that are read; those that peft writes as `null` are absent.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    peft_type: Option<String>,
    r: Option<usize>,
    lora_alpha: Option<f64>,
    use_rslora: Option<bool>,
    rank_pattern: Option<BTreeMap<String, usize>>,
    alpha_pattern: Option<BTreeMap<String, f64>>,
    fan_in_fan_out: Option<bool>,
    use_dora: Option<bool>,
    use_qalora: Option<bool>,
    lora_bias: Option<bool>,
    layer_replication: Option<Value>,
    init_lora_weights: Option<Value>,
}

impl Config {
    /// Parses it; the error is the reason only.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let config = Self::deserialize(value).map_err(|e| format!("is no configuration of an adapter: {e}"))?;
        match &config.peft_type {
            Some(kind) if kind == "LORA" => {}
            Some(other) => return Err(format!("peft_type {other:?} is not supported: use LORA")),
            None => return Err("has no peft_type".into()),
        }
        let yes = |flag: Option<bool>| flag.unwrap_or(false);
        // Initializations that change the base: A and B are then not a difference to it.
        let moved = match &config.init_lora_weights {
            Some(Value::String(name)) => {
                let name = name.to_lowercase();
                ["pissa", "olora", "corda", "loftq", "lora_ga"].into_iter().find(|known| name.starts_with(known))
            }
            _ => None,
        };
        let refused = [
            (yes(config.use_dora), "DoRA (use_dora) is no low-rank difference"),
            (yes(config.use_qalora), "QALoRA (use_qalora) is not supported"),
            (yes(config.lora_bias), "biases of factors (lora_bias) are not supported"),
            (config.layer_replication.is_some(), "layer_replication is not supported"),
            (moved.is_some(), "its init_lora_weights changed the base too: convert it to plain LoRA first"),
        ];
        match refused.into_iter().find(|(found, _)| *found) {
            Some((_, reason)) => Err(reason.into()),
            None => Ok(config),
        }
    }

    /// Whether the base stores these layers' weights `[in, out]` (GPT-2's `Conv1D`).
    pub fn transposed(&self) -> bool {
        self.fan_in_fan_out.unwrap_or(false)
    }

    /// The rank of a module, and the factor of its factors' product.
    pub fn scale(&self, module: &str) -> Result<(usize, f64), String> {
        let rank = pattern(&self.rank_pattern, module)?.or(self.r).ok_or("has no rank r")?;
        let alpha = pattern(&self.alpha_pattern, module)?.or(self.lora_alpha).unwrap_or(8.0);
        let by = if self.use_rslora.unwrap_or(false) { (rank as f64).sqrt() } else { rank as f64 };
        match rank > 0 && alpha.is_finite() {
            true => Ok((rank, alpha / by)),
            false => Err(format!("rank {rank} and alpha {alpha} of {module} are impossible")),
        }
    }
}

/// The value of the first pattern that equals `module` or its end after a dot, as in peft.
fn pattern<T: Copy>(patterns: &Option<BTreeMap<String, T>>, module: &str) -> Result<Option<T>, String> {
    for (pattern, value) in patterns.iter().flatten() {
        let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$"))
            .map_err(|_| format!("the pattern {pattern:?} is no regular expression"))?;
        if regex.is_match(module) {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(more: Value) -> Value {
        let mut config =
            json!({ "peft_type": "LORA", "r": 8, "lora_alpha": 16, "rank_pattern": {}, "target_modules": ["q"] });
        more.as_object().unwrap().iter().for_each(|(k, v)| config[k] = v.clone());
        config
    }

    #[test]
    fn scales_are_those_of_peft() {
        let scale = |more: Value, module: &str| Config::parse(&with(more)).unwrap().scale(module).unwrap();
        assert_eq!(scale(json!({}), "a.q"), (8, 2.0));
        assert_eq!(scale(json!({ "use_rslora": true, "r": 16 }), "a.q"), (16, 4.0));
        let patterns = json!({ "rank_pattern": { "0.q": 4, "v": 2 }, "alpha_pattern": { "^h.1.v$": 6 } });
        assert_eq!(scale(patterns.clone(), "h.0.q"), (4, 4.0));
        assert_eq!(scale(patterns.clone(), "h.10.q"), (8, 2.0));
        assert_eq!(scale(patterns.clone(), "h.1.v"), (2, 3.0));
        assert_eq!(scale(patterns, "h.1.vv"), (8, 2.0));
    }

    #[test]
    fn what_is_no_plain_lora_is_refused() {
        let says = |more: Value| Config::parse(&with(more)).unwrap_err();
        assert!(says(json!({ "peft_type": "IA3" })).contains("IA3"));
        assert!(says(json!({ "use_dora": true })).contains("DoRA"));
        assert!(says(json!({ "init_lora_weights": "pissa_niter_4" })).contains("changed the base"));
        assert!(says(json!({ "r": "eight" })).contains("no configuration"));
        assert!(Config::parse(&json!({ "model_type": "gpt2" })).unwrap_err().contains("no peft_type"));
        assert!(Config::parse(&with(json!({ "r": 0 }))).unwrap().scale("q").is_err());
        assert!(Config::parse(&with(json!({ "use_dora": null, "layer_replication": null }))).is_ok());
    }
}
