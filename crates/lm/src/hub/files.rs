//! Which of a model's files to download.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::failure::Failure;

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The hub's description of a revision.
#[derive(Deserialize)]
pub(super) struct Listing {
    /// The commit.
    pub sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    /// In bytes; not every hub reports it.
    size: Option<u64>,
}

/// The fields of `model.safetensors.index.json` that matter here.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// A file to download: its path within the model, and its size if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub path: String,
    pub size: Option<u64>,
}

/// Where the weights are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Weights {
    /// In one file.
    Single(Wanted),
    /// In the files that this index names.
    Sharded(Wanted),
}

impl Listing {
    /// The files beside the weights: configuration, tokenizer, licence, and what a sentence encoder keeps in folders.
    pub fn companions(&self) -> Vec<Wanted> {
        let companions = self.siblings.iter().filter(|s| is_companion(&s.rfilename) && s.size != Some(0));
        companions.map(Sibling::wanted).collect()
    }

    /// Where the weights are, by the same rule as when [opening a directory](regrow_checkpoint).
    pub fn weights(&self) -> Result<Weights, Failure> {
        if let Some(single) = self.find(SINGLE) {
            return Ok(Weights::Single(single));
        }
        if let Some(index) = self.find(INDEX) {
            return Ok(Weights::Sharded(index));
        }
        let top = self.siblings.iter().filter(|s| !s.rfilename.contains('/'));
        let mut safetensors = top.clone().filter(|s| s.rfilename.ends_with(".safetensors"));
        match (safetensors.next(), safetensors.next()) {
            (Some(only), None) => Ok(Weights::Single(only.wanted())),
            (Some(_), Some(_)) => {
                Err(Failure::Unusable(format!("has several safetensors files but neither {SINGLE} nor {INDEX}")))
            }
            (None, _) => {
                let others = [".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"];
                let is_other = |s: &&Sibling| others.iter().any(|end| s.rfilename.ends_with(end));
                let others = top.filter(is_other).map(|s| s.rfilename.as_str()).next();
                let others = others.map_or(String::new(), |name| format!(" (it has {name}; convert it first)"));
                Err(Failure::Unusable(format!("has no weights in safetensors{others}")))
            }
        }
    }

    /// The shards that an index names.
    pub fn shards(&self, index: &[u8]) -> Result<Vec<Wanted>, Failure> {
        let index: Index = serde_json::from_slice(index)
            .map_err(|e| Failure::Unusable(format!("its {INDEX} is not an index of shards: {e}")))?;
        let mut shards: Vec<&String> = index.weight_map.values().collect();
        shards.sort_unstable();
        shards.dedup();
        let missing = |shard: &str| Failure::Unusable(format!("its {INDEX} names {shard:?}, which it has not"));
        shards.into_iter().map(|shard| self.find(shard).ok_or_else(|| missing(shard))).collect()
    }

    fn find(&self, path: &str) -> Option<Wanted> {
        self.siblings.iter().find(|s| s.rfilename == path).map(Sibling::wanted)
    }
}

impl Sibling {
    fn wanted(&self) -> Wanted {
        Wanted { path: self.rfilename.clone(), size: self.size }
    }
}

/// Whether a file is small, belongs to the model, and is neither weights nor about weights in other formats.
fn is_companion(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    // Sentence encoders number the folders of their parts: 1_Pooling.
    let of_part = folder.starts_with(|c: char| c.is_ascii_digit()) && !folder.contains('/');
    if name.starts_with('.') || !(folder.is_empty() || of_part) {
        return false;
    }
    let kind = [".json", ".txt", ".model", ".jinja"].iter().any(|end| name.ends_with(end));
    let licence = ["LICENSE", "LICENCE", "NOTICE"].iter().any(|start| name.to_uppercase().starts_with(start));
    let index = name.ends_with(".index.json");
    (kind && !index) || licence
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(files: &[&str]) -> Listing {
        let sibling = |f: &&str| Sibling { rfilename: f.to_string(), size: Some(1) };
        Listing { sha: "0".into(), siblings: files.iter().map(sibling).collect() }
    }

    fn refusal(files: &[&str]) -> String {
        let Err(Failure::Unusable(reason)) = listing(files).weights() else { panic!("{files:?}") };
        reason
    }

    #[test]
    fn what_a_model_is_read_from_is_wanted_and_nothing_else() {
        let wanted = ["config.json", "tokenizer.json", "vocab.txt", "1_Pooling/config.json", "LICENSE"];
        let left = ["README.md", ".gitattributes", "pytorch_model.bin", "onnx/config.json", "model.py", INDEX];
        let found = listing(&[&wanted[..], &left].concat()).companions();
        assert_eq!(found.iter().map(|w| w.path.as_str()).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn weights_are_one_file_or_shards_or_named_as_missing() {
        let path = |weights| match weights {
            Ok(Weights::Single(w)) | Ok(Weights::Sharded(w)) => w.path,
            Err(failure) => panic!("{failure:?}"),
        };
        assert_eq!(path(listing(&[INDEX, SINGLE, "a.safetensors"]).weights()), SINGLE);
        assert_eq!(path(listing(&[INDEX, "a.safetensors"]).weights()), INDEX);
        assert_eq!(
            path(listing(&["adapter_model.safetensors", "x/b.safetensors"]).weights()),
            "adapter_model.safetensors"
        );
        assert!(refusal(&["pytorch_model.bin"]).contains("it has pytorch_model.bin"));
        assert!(refusal(&["config.json"]).ends_with("no weights in safetensors"));
        assert!(refusal(&["a.safetensors", "b.safetensors"]).contains("several"));
    }

    #[test]
    fn an_index_names_files_that_are_there() {
        let there = listing(&[INDEX, "m-1.safetensors", "m-2.safetensors"]);
        let index = br#"{"weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}}"#;
        let shards: Vec<String> = there.shards(index).unwrap().into_iter().map(|w| w.path).collect();
        assert_eq!(shards, ["m-1.safetensors", "m-2.safetensors"]);
        for bad in [&br#"{"weight_map": {"a": "../x"}}"#[..], b"{}"] {
            assert!(matches!(there.shards(bad), Err(Failure::Unusable(_))));
        }
    }
}
