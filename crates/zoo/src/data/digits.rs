//! The 8x8 handwritten digits, embedded: real data for tables that run anywhere.
//!
//! 1,797 images (Alpaydin & Kaynak, UCI Machine Learning Repository, CC BY 4.0). Every fifth image,
//! the last of each five, is a test image: 1,438 to train on, 359 to test.

use std::io::Read;
use std::path::Path;

use regrow_sparse_core::{Error, Result};

use super::DataSet;
use super::images::{Images, Normalization};

const FILE: &[u8] = include_bytes!("../../assets/digits.csv.gz");

/// The digits.
///
/// # Errors
/// None in practice: the data is part of the program.
pub fn open() -> Result<DataSet> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(FILE)
        .read_to_string(&mut text)
        .map_err(|e| Error::io(Path::new("digits.csv.gz"), e))?;
    let bad = || Error::format(Path::new("digits.csv.gz"), "is not the table it should be");
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let row = line
            .split(',')
            .map(|v| v.parse::<f32>().map(|v| v as u8))
            .collect::<Result<Vec<u8>, _>>()
            .map_err(|_| bad())?;
        let (label, image) = row.split_last().ok_or_else(bad)?;
        pixels.extend_from_slice(image);
        labels.push(*label);
    }
    // Mean and deviation of the training images, checked by a test below.
    let normalization = Normalization { scale: 16.0, mean: vec![0.305807], std: vec![0.376442] };
    let all = Images::new([1, 8, 8], 10, pixels, labels, normalization)?;
    let (test, train): (Vec<usize>, Vec<usize>) = (0..all.labels.len()).partition(|i| i % 5 == 4);
    Ok(DataSet { name: "digits".into(), train: all.select(&train), test: all.select(&test) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_fixed_for_ever() {
        let data = open().unwrap();
        assert_eq!((data.train.labels.len(), data.test.labels.len()), (1438, 359));
        assert_eq!(data.train.labels[..8], [0, 1, 2, 3, 5, 6, 7, 8]);
        assert_eq!(data.test.labels[..8], [4, 9, 4, 9, 4, 9, 6, 9]);
        let sum = |bytes: &[u8]| bytes.iter().map(|b| u64::from(*b)).sum::<u64>();
        assert_eq!(sum(&data.train.pixels) + sum(&data.test.pixels), 561_718);
    }

    #[test]
    fn the_normalization_is_that_of_the_training_images() {
        let data = open().unwrap().train;
        let x: Vec<f64> = data.pixels.iter().map(|b| f64::from(*b) / 16.0).collect();
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let std = (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64).sqrt();
        assert!((mean - f64::from(data.normalization.mean[0])).abs() < 1e-5, "{mean}");
        assert!((std - f64::from(data.normalization.std[0])).abs() < 1e-5, "{std}");
    }
}
