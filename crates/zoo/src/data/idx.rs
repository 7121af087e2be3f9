//! MNIST's IDX files, plain or gzipped.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use regrow_sparse_core::{Error, Result};

use super::images::{Images, Normalization};

/// Images and labels from `DIR/<prefix>-images-idx3-ubyte` and `DIR/<prefix>-labels-idx1-ubyte`, each plain or with
/// `.gz`. `source` is where the data set can be downloaded, for the error about a missing file.
///
/// # Errors
/// A missing or truncated file, a wrong magic number, counts that do not agree.
pub fn read(dir: &Path, prefix: &str, classes: usize, normalization: Normalization, source: &str) -> Result<Images> {
    let (path, header, pixels) = read_file(dir, &format!("{prefix}-images-idx3-ubyte"), 0x803, source)?;
    let (label_path, count, labels) = read_file(dir, &format!("{prefix}-labels-idx1-ubyte"), 0x801, source)?;
    if header[0] != count[0] {
        return Err(Error::format(
            label_path,
            format!("holds {} labels for the {} images of {}", count[0], header[0], path.display()),
        ));
    }
    Images::new([1, header[1], header[2]], classes, pixels, labels, normalization)
        .map_err(|e| Error::format(label_path, e.to_string()))
}

/// Path, dimensions and bytes of one file.
fn read_file(dir: &Path, name: &str, magic: u32, source: &str) -> Result<(PathBuf, Vec<usize>, Vec<u8>)> {
    let path = find(dir, name, source)?;
    let io = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::format(&path, "is cut short"),
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => {
            Error::format(&path, format!("is damaged: {e}"))
        }
        _ => Error::io(&path, e),
    };
    let file = File::open(&path).map_err(io)?;
    let mut bytes = Vec::new();
    match path.extension().is_some_and(|e| e == "gz") {
        true => GzDecoder::new(file).read_to_end(&mut bytes).map_err(io)?,
        false => {
            let mut file = file;
            file.read_to_end(&mut bytes).map_err(io)?
        }
    };
    let rank = (magic & 0xff) as usize;
    let word = |i: usize| bytes.get(i * 4..i * 4 + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let cut = || Error::format(&path, "is cut short");
    let found = word(0).ok_or_else(cut)?;
    if found != magic {
        return Err(Error::format(&path, format!("begins with {found:#x}, not with the magic number {magic:#x}")));
    }
    let dims = (1..=rank).map(word).collect::<Option<Vec<u32>>>().ok_or_else(cut)?;
    let dims: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
    let want = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let body = bytes.split_off((rank + 1) * 4);
    match want == Some(body.len()) {
        true => Ok((path, dims, body)),
        false => {
            Err(Error::format(&path, format!("holds {} bytes of data where its header promises {dims:?}", body.len())))
        }
    }
}

fn find(dir: &Path, name: &str, source: &str) -> Result<PathBuf> {
    let candidates = [dir.join(name), dir.join(format!("{name}.gz"))];
    let missing = || Error::format(dir, format!("lacks {name} or {name}.gz; {source}"));
    candidates.into_iter().find(|p| p.exists()).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(magic: u32, dims: &[u32], data: &[u8]) -> Vec<u8> {
        let words = std::iter::once(magic).chain(dims.iter().copied());
        words.flat_map(u32::to_be_bytes).chain(data.iter().copied()).collect()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    /// A folder with these two files, and what reading it says.
    fn read_with(images: (&str, &[u8]), labels: (&str, &[u8])) -> Result<Images> {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [images, labels] {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        read(dir.path(), "t", 10, Normalization::bytes(&[0.0], &[1.0]), "from its authors")
    }

    #[test]
    fn plain_and_gzipped_are_read() {
        let images = file(0x803, &[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        let labels = file(0x801, &[2], &[7, 9]);
        let got = read_with(("t-images-idx3-ubyte", &images), ("t-labels-idx1-ubyte.gz", &gz(&labels))).unwrap();
        assert_eq!((got.size, got.pixels, got.labels), ([1, 1, 3], vec![1, 2, 3, 4, 5, 6], vec![7, 9]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let images = file(0x803, &[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        let labels = file(0x801, &[2], &[7, 9]);
        let says = |i: (&str, &[u8]), l: (&str, &[u8])| read_with(i, l).unwrap_err().to_string();
        let (i, l) = ("t-images-idx3-ubyte", "t-labels-idx1-ubyte");
        assert!(says((i, &images), ("other", &labels)).contains("lacks t-labels-idx1-ubyte or"));
        assert!(says((i, &labels), (l, &labels)).contains("magic number 0x803"));
        assert!(says((i, &images[..20]), (l, &labels)).contains("promises [2, 1, 3]"));
        assert!(says((i, &images[..6]), (l, &labels)).contains("cut short"));
        let packed = gz(&images);
        assert!(says(("t-images-idx3-ubyte.gz", &packed[..packed.len() - 9]), (l, &labels)).contains("cut short"));
        assert!(says((i, &images), (l, &file(0x801, &[1], &[7]))).contains("1 labels for the 2 images"));
        assert!(says((i, &images), (l, &file(0x801, &[2], &[7, 99]))).contains("label 99"));
    }
}
