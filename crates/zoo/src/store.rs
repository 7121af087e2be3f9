//! Loads and saves networks as PyTorch-named safetensors.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use regrow_checkpoint::atomic;
use regrow_checkpoint::{Checkpoint, Entry};
use regrow_sparse_core::{Error, Result};

use crate::arch::{Arch, TensorSpec};
use crate::models::Net;
use crate::names::{map_values, visit_values};

/// The network of `arch` with the weights of a safetensors file, and its number of classes.
///
/// Tensors have PyTorch's names; a prefix `module.` and `num_batches_tracked` are tolerated, f16
/// and bf16 become f32.
///
/// # Errors
/// A file that cannot be read, a tensor that is missing, superfluous, of another shape, or holds
/// NaN or infinity.
pub fn load(arch: Arch, path: impl AsRef<Path>, device: &Device) -> Result<(Net, usize)> {
    let checkpoint = Checkpoint::open(path)?;
    let Checked { tensors, widths } = check(arch, &checkpoint)?;
    let mut values = BTreeMap::new();
    for (spec, entry) in tensors {
        values.insert(spec.name, checkpoint.read_f32(&entry.name)?);
    }
    let net = map_values(arch.init_narrow(&widths, 0, device)?, &mut |name, _| values.remove(name));
    Ok((net, widths.last().copied().unwrap_or(0)))
}

/// A checkpoint that matches an architecture.
pub struct Checked {
    /// Each tensor with the entry that holds it.
    pub tensors: Vec<(TensorSpec, Entry)>,
    /// The widths of the network's groups of activations, the classes last.
    pub widths: Vec<usize>,
}

/// Compares the tensors of `checkpoint` with those of `arch`. A narrowed network matches `arch` too.
///
/// # Errors
/// A tensor that is missing, superfluous, of another shape, or holds NaN or infinity.
pub fn check(arch: Arch, checkpoint: &Checkpoint) -> Result<Checked> {
    let bad = |reason: String| Error::format(checkpoint.path(), format!("is no checkpoint of {arch}: {reason}"));
    let mut entries: BTreeMap<&str, &Entry> = checkpoint.entries().iter().map(|e| (plain(&e.name), e)).collect();
    let widths = widths(arch, &entries).map_err(|head| bad(format!("{head} is missing")))?;
    let mut pairs = Vec::new();
    for spec in arch.narrow_tensors(&widths) {
        let entry = entries.remove(spec.name.as_str()).ok_or_else(|| bad(format!("{} is missing", spec.name)))?;
        if entry.shape != spec.shape {
            return Err(bad(format!("{} has shape {:?}, not {:?}", spec.name, entry.shape, spec.shape)));
        }
        if !checkpoint.finite(&entry.name)? {
            return Err(Error::format(checkpoint.path(), format!("{} holds NaN or infinity", entry.name)));
        }
        pairs.push((spec, entry.clone()));
    }
    match entries.keys().find(|name| !name.ends_with("num_batches_tracked")) {
        Some(extra) => Err(bad(format!("it has a tensor {extra} besides"))),
        None => Ok(Checked { tensors: pairs, widths }),
    }
}

/// The widths of the outputs of the existing layers, if they do not exceed the full ones; without a head, which gives
/// the number of classes, its name as an error.
fn widths(arch: Arch, entries: &BTreeMap<&str, &Entry>) -> std::result::Result<Vec<usize>, String> {
    let specs: Vec<TensorSpec> = arch.tensors(10).into_iter().filter(|t| t.role.is_weight()).collect();
    let found = |spec: &TensorSpec| entries.get(spec.name.as_str()).and_then(|e| e.shape.first()).copied();
    let head = specs.last().map_or_else(String::new, |spec| spec.name.clone());
    let classes = specs.last().and_then(found).filter(|classes| *classes > 0).ok_or(head)?;
    let layout = arch.layout(classes);
    let mut widths = layout.widths();
    for (link, spec) in layout.layers.iter().zip(&specs) {
        let group = layout.groups[link.output];
        // A missing layer: the inside of a block that was removed.
        let width = found(spec).unwrap_or(group.least);
        if (group.least..=group.width).contains(&width) {
            widths[link.output] = width;
        }
    }
    Ok(widths)
}

/// Writes `net` to a safetensors file with PyTorch's names and layouts, masks applied. The file is either complete or
/// absent.
///
/// # Errors
/// If the file cannot be written.
pub fn save(net: &Net, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let mut tensors = Vec::new();
    visit_values(&net.valid().materialize(), &mut |name, shape, values| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensors.push((name, shape, bytes));
    });
    let views = tensors.iter().map(|(name, shape, bytes)| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).map(|view| (name, view))
    });
    let bad = |e: safetensors::SafeTensorError| Error::format(path, e.to_string());
    let views = views.collect::<std::result::Result<Vec<_>, _>>().map_err(bad)?;
    let file = safetensors::serialize(views, None).map_err(bad)?;
    Ok(atomic::write_atomic(path, |out| out.write_all(&file))?)
}

fn plain(name: &str) -> &str {
    name.strip_prefix("module.").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(net: &Net) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let mut all = Vec::new();
        visit_values(net, &mut |name, shape, values| all.push((name, shape, values)));
        all
    }

    #[test]
    fn saved_and_loaded_bit_for_bit() {
        let (dir, device) = (tempfile::tempdir().unwrap(), regrow_device::current());
        for arch in [Arch::MlpSmall, Arch::MnistCnn, Arch::ResNet20] {
            let path = dir.path().join("net.safetensors");
            let net = arch.init(5, 3, &device).valid();
            save(&net, &path).unwrap();
            let (loaded, classes) = load(arch, &path, &device).unwrap();
            assert_eq!((values(&loaded), classes), (values(&net), 5), "{arch}");
        }
    }

    #[test]
    fn a_narrow_network_comes_back() {
        let (dir, device) = (tempfile::tempdir().unwrap(), regrow_device::current());
        let path = dir.path().join("net.safetensors");
        for (arch, stage) in [(Arch::LeNet5, 3), (Arch::ResNet20, 5)] {
            let mut narrow = arch.layout(10).widths();
            narrow[1..].iter_mut().take(stage).for_each(|w| *w = *w / 2 + 1);
            let net = arch.init_narrow(&narrow, 3, &device).unwrap().valid();
            save(&net, &path).unwrap();
            let (loaded, classes) = load(arch, &path, &device).unwrap();
            assert_eq!((values(&loaded), classes), (values(&net), 10), "{arch}");
            assert_eq!(check(arch, &Checkpoint::open(&path).unwrap()).unwrap().widths, narrow);
        }
    }

    #[test]
    fn another_architecture_is_refused() {
        let (dir, device) = (tempfile::tempdir().unwrap(), regrow_device::current());
        let path = dir.path().join("net.safetensors");
        save(&Arch::MlpSmall.init(10, 0, &device), &path).unwrap();
        let says = |arch| load(arch, &path, &device).map(|_| ()).unwrap_err().to_string();
        assert!(says(Arch::Mlp).contains("fc1.weight has shape [128, 64], not [128, 784]"));
        assert!(says(Arch::ResNet20).contains("linear.weight is missing"));
        save(&Arch::ResNet32.init(10, 0, &device), &path).unwrap();
        assert!(says(Arch::ResNet20).contains("besides"));
    }

    #[test]
    fn the_published_networks_load() {
        let Some(data) = std::env::var_os("REGROW_DATA") else {
            println!("skipped: REGROW_DATA is not set");
            return;
        };
        let files = [
            (Arch::ResNet20, "resnet-cifar10/resnet20.safetensors", 10),
            (Arch::ResNet20, "resnet-cifar10/resnet20-b.safetensors", 10),
            (Arch::ResNet20, "resnet-cifar10/resnet20-cifar5-last.safetensors", 5),
            (Arch::ResNet56, "resnet-cifar10/resnet56.safetensors", 10),
            (Arch::MnistCnn, "mnist-cnn/admm-pruned.safetensors", 10),
            (Arch::CifarLeNet, "cifar-lenet/a.safetensors", 10),
        ];
        for (arch, file, classes) in files {
            let (_, found) = load(arch, Path::new(&data).join(file), &regrow_device::current()).unwrap();
            assert_eq!(found, classes, "{file}");
        }
    }
}
