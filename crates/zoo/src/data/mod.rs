//! Data sets: embedded digits, MNIST and Fashion-MNIST, CIFAR-10 and CIFAR-100.

pub mod augment;
pub mod cifar;
pub mod digits;
pub mod folder;
pub mod idx;
pub mod images;

use std::path::{Path, PathBuf};

use regrow_sparse_core::{Error, Result};

pub use augment::Augmentation;
pub use images::{Images, Normalization};

/// A data set by name, training and test images.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// The name on the command line.
    pub name: String,
    /// Images to train on.
    pub train: Images,
    /// Images to test on.
    pub test: Images,
}

/// Which part of a data set to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The training images.
    Train,
    /// The test images.
    Test,
}

/// The names that [`open`] knows, in alphabetical order.
pub const NAMES: [&str; 5] = ["cifar10", "cifar100", "digits", "fashion-mnist", "mnist"];

/// Opens a data set by name. `dir` is the folder of the data set or the folder that contains it under its name;
/// `digits` needs none.
///
/// # Errors
/// An unknown name; a folder that lacks a file (the message says which and where to get the data).
pub fn open(name: &str, dir: Option<&Path>) -> Result<DataSet> {
    if name == "digits" {
        return digits::open();
    }
    let train = open_part(name, dir, Part::Train)?;
    Ok(DataSet { name: name.into(), train, test: open_part(name, dir, Part::Test)? })
}

/// One part of a data set, without reading the other.
///
/// # Errors
/// As [`open`].
pub fn open_part(name: &str, dir: Option<&Path>, part: Part) -> Result<Images> {
    let prefix = if part == Part::Train { "train" } else { "t10k" };
    match name {
        "digits" => digits::open().map(|d| if part == Part::Train { d.train } else { d.test }),
        "mnist" => idx::read(&folder(name, dir)?, prefix, 10, mnist_normalization(), SOURCE_MNIST),
        "fashion-mnist" => {
            let normalization = Normalization::bytes(&[0.28604], &[0.35302]);
            idx::read(&folder(name, dir)?, prefix, 10, normalization, SOURCE_FASHION)
        }
        "cifar10" => cifar10(&folder(name, dir)?, part),
        "cifar100" => cifar100(&folder(name, dir)?, part),
        _ => Err(Error::Argument(format!("unknown data set `{name}`: use {}", NAMES.join(", ")))),
    }
}

const SOURCE_MNIST: &str = "MNIST is LeCun, Cortes and Burges' data set: put its four IDX files there";
const SOURCE_FASHION: &str = "Fashion-MNIST is github.com/zalandoresearch/fashion-mnist: put its four IDX files there";
const SOURCE_CIFAR: &str =
    "CIFAR is Krizhevsky's data set (cs.toronto.edu/~kriz/cifar.html): put its binary version there";

fn mnist_normalization() -> Normalization {
    Normalization::bytes(&[0.1307], &[0.3081])
}

/// The usual normalization for ResNets on CIFAR.
fn cifar_normalization() -> Normalization {
    Normalization::bytes(&[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225])
}

/// `dir/name` if it exists, else `dir` itself.
fn folder(name: &str, dir: Option<&Path>) -> Result<PathBuf> {
    let dir = dir.ok_or_else(|| {
        Error::Argument(format!("the data set {name} needs a folder: give --data DIR or set REGROW_DATA"))
    })?;
    if !dir.is_dir() {
        return Err(Error::format(dir, "there is no such folder (given by --data or REGROW_DATA)"));
    }
    let inner = dir.join(name);
    Ok(if inner.is_dir() { inner } else { dir.to_path_buf() })
}

/// CIFAR-10: the binary files, or folders of images `train/<class>/` and `test/<class>/`.
fn cifar10(dir: &Path, part: Part) -> Result<Images> {
    const TRAIN: [&str; 5] =
        ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
    let images = dir.join(if part == Part::Train { "train" } else { "test" });
    if images.is_dir() {
        return folder::read(&images, cifar_normalization());
    }
    let nested = dir.join("cifar-10-batches-bin");
    let binary = if nested.is_dir() { nested } else { dir.to_path_buf() };
    let files: &[&str] = if part == Part::Train { &TRAIN } else { &["test_batch.bin"] };
    if let Some(missing) = files.iter().find(|f| !binary.join(f).exists()) {
        let archive = dir.join("cifar10-jpeg.tar.xz");
        let hint = match archive.exists() {
            true => format!("unpack the archive there: tar xf {} -C {}", archive.display(), dir.display()),
            false => SOURCE_CIFAR.to_string(),
        };
        return Err(Error::format(dir, format!("lacks {missing} (or folders of images train/ and test/); {hint}")));
    }
    cifar::read(&binary, files, 1, 10, cifar_normalization())
}

fn cifar100(dir: &Path, part: Part) -> Result<Images> {
    let nested = dir.join("cifar-100-binary");
    let binary = if nested.is_dir() { nested } else { dir.to_path_buf() };
    let file = if part == Part::Train { "train.bin" } else { "test.bin" };
    if !binary.join(file).exists() {
        return Err(Error::format(dir, format!("lacks {file}; {SOURCE_CIFAR}")));
    }
    cifar::read(&binary, &[file], 2, 100, cifar_normalization())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let says = |name: &str, dir: Option<&Path>| open(name, dir).unwrap_err().to_string();
        assert!(says("mnist", Some(dir.path())).contains("lacks train-images-idx3-ubyte"));
        assert!(says("mnist", None).contains("--data DIR or set REGROW_DATA"));
        assert!(says("mnist", Some(&dir.path().join("no"))).contains("no such folder"));
        assert!(says("cifar10", Some(dir.path())).contains("lacks data_batch_1.bin"));
        assert!(says("cifar100", Some(dir.path())).contains("lacks train.bin"));
        assert!(says("imagenet", None).contains("use cifar10, cifar100, digits"));
        std::fs::write(dir.path().join("cifar10-jpeg.tar.xz"), b"").unwrap();
        assert!(says("cifar10", Some(dir.path())).contains("tar xf"));
    }

    #[test]
    fn mnist_in_its_original_order() {
        let Some(data) = std::env::var_os("REGROW_DATA") else {
            println!("skipped: REGROW_DATA is not set");
            return;
        };
        let set = open("mnist", Some(Path::new(&data))).unwrap();
        assert_eq!((set.train.labels.len(), set.test.labels.len()), (60_000, 10_000));
        assert_eq!(set.train.labels[..8], [5, 0, 4, 1, 9, 2, 1, 3]);
        assert_eq!(set.test.labels[..8], [7, 2, 1, 0, 4, 1, 4, 9]);
        assert_eq!(open_part("fashion-mnist", Some(Path::new(&data)), Part::Test).unwrap().labels.len(), 10_000);
    }
}
