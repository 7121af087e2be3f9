//! CIFAR-10 and CIFAR-100 in their standard binary files.

use std::path::Path;

use regrow_sparse_core::{Error, Result};

use super::images::{Images, Normalization};

const IMAGE: usize = 3 * 32 * 32;

/// Images of the given `files` of `dir`: each record is `label_bytes` labels, the last of which is used, then 3,072
/// bytes.
///
/// # Errors
/// A missing file or one that is not a whole number of records.
pub fn read(
    dir: &Path,
    files: &[&str],
    label_bytes: usize,
    classes: usize,
    normalization: Normalization,
) -> Result<Images> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for file in files {
        let path = dir.join(file);
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let record = label_bytes + IMAGE;
        if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
            return Err(Error::format(
                path,
                format!("holds {} bytes, not a whole number of {record}-byte records", bytes.len()),
            ));
        }
        for record in bytes.chunks(record) {
            labels.push(record[label_bytes - 1]);
            pixels.extend_from_slice(&record[label_bytes..]);
        }
    }
    Images::new([3, 32, 32], classes, pixels, labels, normalization).map_err(|e| Error::format(dir, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_cut_ones_refused() {
        let dir = tempfile::tempdir().unwrap();
        let record = |coarse: u8, fine: u8| [&[coarse, fine][..], &[fine; IMAGE]].concat();
        std::fs::write(dir.path().join("train.bin"), [record(3, 42), record(4, 7)].concat()).unwrap();
        let norm = Normalization::bytes(&[0.0; 3], &[1.0; 3]);
        let images = read(dir.path(), &["train.bin"], 2, 100, norm.clone()).unwrap();
        assert_eq!((images.labels.clone(), images.bytes(1)[0]), (vec![42, 7], 7));
        assert!(
            read(dir.path(), &["train.bin"], 1, 10, norm.clone())
                .unwrap_err()
                .to_string()
                .contains("3073-byte records")
        );
        assert!(read(dir.path(), &["test.bin"], 2, 100, norm).unwrap_err().to_string().contains("test.bin"));
    }
}
