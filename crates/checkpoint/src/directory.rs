//! Hugging Face directories: one `model.safetensors`, or shards and their index.

use std::collections::BTreeMap;
use std::fs;
use std::iter;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::Checkpoint;
use crate::file::TensorFile;
use crate::partial::JOURNAL;
use crate::{Error, Result};

const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// `model.safetensors.index.json`: which shard holds which tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens a directory; like transformers it prefers `model.safetensors` to an index, and without both uses the
/// directory's only safetensors file (adapters, diffusers).
pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    if path.join(SINGLE).exists() {
        return open_single(path, &path.join(SINGLE));
    }
    if path.join(INDEX).exists() {
        return open_shards(path, &path.join(INDEX));
    }
    match safetensors_files(path)?.as_slice() {
        [only] => open_single(path, only),
        _ => Err(Error::format(path, format!("holds neither {SINGLE} nor {INDEX}"))),
    }
}

fn open_single(path: &Path, file: &Path) -> Result<Checkpoint> {
    Checkpoint::assemble(path, true, vec![TensorFile::open(file)?])
}

fn open_shards(path: &Path, index_path: &Path) -> Result<Checkpoint> {
    let index = read_index(index_path)?;
    let mut shards: Vec<&str> = index.weight_map.values().map(String::as_str).collect();
    shards.sort_unstable();
    shards.dedup();

    let mut opened = Vec::with_capacity(shards.len());
    for shard in shards {
        opened.push(TensorFile::open(&shard_path(path, index_path, shard)?)?);
    }
    let checkpoint = Checkpoint::assemble(path, true, opened)?;
    check_index(&checkpoint, index_path, &index)?;
    Ok(checkpoint)
}

fn read_index(index_path: &Path) -> Result<Index> {
    let text = fs::read(index_path).map_err(|e| Error::io(index_path, e))?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|e| Error::format(index_path, format!("is not an index of shards: {e}")))?;
    if index.weight_map.is_empty() {
        return Err(Error::format(index_path, "names no tensors"));
    }
    Ok(index)
}

/// The path of a shard, which must exist and lie in the directory itself.
fn shard_path(folder: &Path, index_path: &Path, shard: &str) -> Result<PathBuf> {
    let mut parts = Path::new(shard).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    if !plain {
        let reason = format!("shard {shard:?} is not the name of a file beside the index");
        return Err(Error::format(index_path, reason));
    }
    let path = folder.join(shard);
    if !path.exists() {
        return Err(Error::format(index_path, format!("names the shard {shard:?}, which is missing")));
    }
    Ok(path)
}

/// Checks that each tensor lies in the shard that the index names.
fn check_index(checkpoint: &Checkpoint, index_path: &Path, index: &Index) -> Result<()> {
    for (name, shard) in &index.weight_map {
        let found = checkpoint.by_name.get(name).map(|&position| {
            let file = checkpoint.entries[position].file;
            checkpoint.files[file].path().file_name()
        });
        if found != Some(Some(shard.as_ref())) {
            let reason = format!("tensor {name:?} is not in its shard {shard:?}");
            return Err(Error::format(index_path, reason));
        }
    }
    Ok(())
}

fn safetensors_files(path: &Path) -> Result<Vec<PathBuf>> {
    let mut files = list(path)?;
    files.retain(|file| extension(file) == "safetensors");
    Ok(files)
}

/// The files beside the weights that are copied into a rewritten directory: configuration, tokenizer, licence, also
/// from its folders (a sentence encoder keeps its pooling in one); paths within the directory. Other formats of the
/// same weights would be outdated there and are not copied, nor are hidden files and folders.
pub(super) fn companions(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in iter::once(PathBuf::new()).chain(folders(path)?) {
        let files = beside_weights(&path.join(&folder))?;
        found.extend(files.iter().filter_map(|file| Some(folder.join(file.file_name()?))));
    }
    Ok(found)
}

/// The files of a folder that are not weights.
fn beside_weights(path: &Path) -> Result<Vec<PathBuf>> {
    const WEIGHTS: [&str; 11] =
        ["safetensors", "bin", "pt", "pth", "ckpt", "gguf", "ggml", "h5", "msgpack", "onnx", "mpk"];
    let mut files = list(path)?;
    files.retain(|file| {
        let index_of_others = file.to_string_lossy().ends_with(".bin.index.json");
        let journal = file.file_name().is_some_and(|name| name == JOURNAL);
        !index_of_others && !journal && !WEIGHTS.contains(&extension(file).as_str())
    });
    Ok(files)
}

/// The regular files of a folder that are not hidden, sorted.
fn list(path: &Path) -> Result<Vec<PathBuf>> {
    Ok(visible(path)?.into_iter().filter(|entry| entry.is_file()).collect())
}

/// The names of the folders in a folder that are not hidden, sorted.
fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    let folders = visible(path)?.into_iter().filter(|entry| entry.is_dir());
    Ok(folders.filter_map(|entry| entry.file_name().map(PathBuf::from)).collect())
}

/// The entries of a folder that are not hidden, sorted.
fn visible(path: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(path, e);
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn extension(file: &Path) -> String {
    file.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}
