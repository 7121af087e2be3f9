//! What `config.json` contains about the weights: their type, and how they are packed.

use std::fs;
use std::path::Path;

use indexmap::IndexMap;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::storage::Storage;
use crate::{Error, Result};

/// The section with this name; with this method it belongs to compressed-tensors.
const SECTION: &str = "quantization_config";
const METHOD: &str = "compressed-tensors";
/// The version of the package whose layout is written.
const VERSION: &str = "0.12.2";

/// How weights are packed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Packing {
    pub storage: Storage,
    /// The fraction of zeros in the whole model.
    pub sparsity: f64,
    /// Linear layers that are not packed, by their modules' names.
    pub dense: Vec<String>,
}

/// A configuration, keys in the order of its file.
pub(super) struct Config(IndexMap<String, Value>);

impl Config {
    /// The configuration in `folder`, if it has one.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("config.json");
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let read = serde_json::from_slice(&text).map_err(|e| Error::format(&path, format!("is no configuration: {e}")));
        read.map(|keys| Some(Self(keys)))
    }

    /// Sets the type of the weights.
    pub fn set_dtype(&mut self, dtype: Dtype) {
        let name = match dtype {
            Dtype::F64 => "float64",
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            _ => "bfloat16",
        };
        // transformers wrote the first until version 4.56, and writes the second since.
        let keys = ["torch_dtype", "dtype"].map(|key| (key, self.0.contains_key(key)));
        for (key, _) in keys.iter().filter(|(key, there)| *there || (*key == "torch_dtype" && !keys[1].1)) {
            self.0.insert(key.to_string(), name.into());
        }
    }

    /// Without packing information; other quantization information stays.
    pub fn unpacked(mut self) -> Self {
        if !self.is_quantized() {
            self.0.shift_remove(SECTION);
        }
        self
    }

    /// With information on how weights are packed.
    ///
    /// # Errors
    /// The weights are quantized: that uses the same section.
    pub fn packed(mut self, packing: &Packing) -> Result<Self, String> {
        self.check_packable()?;
        self.0.insert(SECTION.into(), packing.section());
        Ok(self)
    }

    /// Refuses quantized weights.
    ///
    /// # Errors
    /// As [`Config::packed`].
    pub fn check_packable(&self) -> Result<(), String> {
        match self.is_quantized() {
            true => Err(format!("has a {SECTION} already: quantized weights are not packed")),
            false => Ok(()),
        }
    }

    /// Whether weights are more than packed.
    fn is_quantized(&self) -> bool {
        let known = ["quant_method", "version", "sparsity_config", "transform_config"];
        let only_packed = |section: &Value| {
            let keys = section.as_object().map(|o| o.keys().all(|key| known.contains(&key.as_str())));
            section.is_null() || (section["quant_method"] == METHOD && keys == Some(true))
        };
        self.0.get(SECTION).is_some_and(|section| !only_packed(section))
    }

    /// Its text.
    pub fn text(&self) -> Result<Vec<u8>> {
        let text = serde_json::to_string_pretty(&self.0).map_err(|e| Error::format("config.json", e.to_string()))?;
        Ok((text + "\n").into_bytes())
    }
}

impl Packing {
    fn section(&self) -> Value {
        let structure = if self.storage == Storage::TwoFour { "2:4" } else { "unstructured" };
        json!({
            "quant_method": METHOD,
            "version": VERSION,
            "sparsity_config": {
                "format": self.storage.package_name(),
                "global_sparsity": self.sparsity,
                "sparsity_structure": structure,
                "targets": ["Linear"],
                "ignore": self.dense,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config(serde_json::from_str(text).unwrap())
    }

    fn text(config: &Config) -> String {
        String::from_utf8(config.text().unwrap()).unwrap().split_whitespace().collect()
    }

    #[test]
    fn the_type_is_said_where_it_was_and_the_order_stays() {
        for (before, after) in [
            (r#"{"z":1,"torch_dtype":"float32","a":2}"#, r#"{"z":1,"torch_dtype":"float16","a":2}"#),
            (r#"{"dtype":"float32","a":2}"#, r#"{"dtype":"float16","a":2}"#),
            (r#"{"a":2}"#, r#"{"a":2,"torch_dtype":"float16"}"#),
        ] {
            let mut config = config(before);
            config.set_dtype(Dtype::F16);
            assert_eq!(text(&config), after);
        }
    }

    #[test]
    fn the_packing_is_said_and_taken_back_and_quantization_left_alone() {
        let packing = Packing { storage: Storage::TwoFour, sparsity: 0.5, dense: vec!["lm_head".into()] };
        let packed = config(r#"{"a":2}"#).packed(&packing).unwrap();
        let said = text(&packed);
        assert!(said.contains(r#""format":"sparse-24-bitmask""#) && said.contains(r#""ignore":["lm_head"]"#), "{said}");
        assert_eq!(text(&packed.unpacked()), r#"{"a":2}"#);
        let quantized = r#"{"quantization_config":{"quant_method":"compressed-tensors","config_groups":{}}}"#;
        assert!(config(quantized).packed(&packing).err().unwrap().contains("already"));
        assert!(text(&config(quantized).unpacked()).contains("config_groups"));
    }
}
