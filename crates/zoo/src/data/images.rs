//! Labelled images in memory, as bytes, and batches of them.

use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Examples;

use super::augment::Augmentation;

/// How bytes become network inputs: `(byte / scale - mean) / std`, per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// The byte that means 1.0.
    pub scale: f32,
    /// Mean of each channel, on the scale [0, 1].
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, on the scale [0, 1].
    pub std: Vec<f32>,
}

impl Normalization {
    /// For bytes 0 to 255.
    pub fn bytes(mean: &[f32], std: &[f32]) -> Self {
        Self { scale: 255.0, mean: mean.to_vec(), std: std.to_vec() }
    }

    /// The input for each byte of `channel`: 256 divisions instead of one for every pixel.
    fn inputs(&self, channel: usize) -> [f32; 256] {
        let (mean, std) = (self.mean[channel], self.std[channel]);
        std::array::from_fn(|byte| (byte as f32 / self.scale - mean) / std)
    }
}

/// Labelled images of one size: bytes in the order image, channel, row, column.
#[derive(Clone, Debug)]
pub struct Images {
    /// Channels, height and width of every image.
    pub size: [usize; 3],
    /// The number of classes.
    pub classes: usize,
    /// The class of each image.
    pub labels: Vec<u8>,
    /// The bytes of all images.
    pub pixels: Vec<u8>,
    /// How bytes become inputs.
    pub normalization: Normalization,
    /// What [`Examples::augmented`] does.
    pub augmentation: Augmentation,
}

impl Images {
    /// Images from their bytes, without augmentation.
    ///
    /// # Errors
    /// If the number of bytes, labels or channels does not fit, or a label is not below `classes`.
    pub fn new(
        size: [usize; 3],
        classes: usize,
        pixels: Vec<u8>,
        labels: Vec<u8>,
        normalization: Normalization,
    ) -> Result<Self> {
        if pixels.len() != labels.len() * size.iter().product::<usize>() {
            return Err(Error::Argument(format!("{} bytes are not {} images of {size:?}", pixels.len(), labels.len())));
        }
        if normalization.mean.len() != size[0] || normalization.std.len() != size[0] {
            return Err(Error::Argument(format!("the normalization is not for {} channels", size[0])));
        }
        if let Some(label) = labels.iter().find(|l| usize::from(**l) >= classes) {
            return Err(Error::Argument(format!("label {label} is not one of {classes} classes")));
        }
        Ok(Self { size, classes, labels, pixels, normalization, augmentation: Augmentation::None })
    }

    /// The images at `indices`, in that order. Indices past the end are left out.
    pub fn select(&self, indices: &[usize]) -> Self {
        let indices: Vec<usize> = indices.iter().copied().filter(|i| *i < self.labels.len()).collect();
        let pixels = self.gathered(&indices);
        let labels = indices.iter().map(|i| self.labels[*i]).collect();
        Self { pixels, labels, ..self.clone_empty() }
    }

    /// A random share of the images and the rest: `(1 - fraction, fraction)`, drawn from `seed`.
    pub fn split(&self, fraction: f64, seed: u64) -> (Self, Self) {
        let mut order: Vec<usize> = (0..self.labels.len()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let second = (fraction.clamp(0.0, 1.0) * order.len() as f64).round() as usize;
        let (second, first) = order.split_at(second);
        (self.select(first), self.select(second))
    }

    /// The same images under another normalization.
    pub fn with_normalization(mut self, normalization: Normalization) -> Self {
        self.normalization = normalization;
        self
    }

    /// The same images, augmented in training.
    pub fn with_augmentation(mut self, augmentation: Augmentation) -> Self {
        self.augmentation = augmentation;
        self
    }

    /// The bytes of image `index`.
    pub fn bytes(&self, index: usize) -> &[u8] {
        let n = self.size.iter().product::<usize>();
        &self.pixels[index * n..(index + 1) * n]
    }

    /// The bytes of the images at `indices`, one after the other.
    fn gathered(&self, indices: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(indices.len() * self.size.iter().product::<usize>());
        indices.iter().for_each(|i| bytes.extend_from_slice(self.bytes(*i)));
        bytes
    }

    fn clone_empty(&self) -> Self {
        Self {
            size: self.size,
            classes: self.classes,
            labels: Vec::new(),
            pixels: Vec::new(),
            normalization: self.normalization.clone(),
            augmentation: self.augmentation,
        }
    }

    fn tensor(&self, bytes: &[u8], count: usize, device: &Device) -> Tensor<4> {
        let [c, h, w] = self.size;
        let inputs: Vec<[f32; 256]> = (0..c).map(|channel| self.normalization.inputs(channel)).collect();
        let mut values = Vec::with_capacity(bytes.len());
        for (plane, inputs) in bytes.chunks((h * w).max(1)).zip(inputs.iter().cycle()) {
            values.extend(plane.iter().map(|byte| inputs[usize::from(*byte)]));
        }
        Tensor::from_data(TensorData::new(values, [count, c, h, w]), device)
    }
}

impl Examples for Images {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn images(&self, indices: &[usize], device: &Device) -> Tensor<4> {
        self.tensor(&self.gathered(indices), indices.len(), device)
    }

    fn augmented(&self, indices: &[usize], seed: u64, device: &Device) -> Tensor<4> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut bytes = Vec::with_capacity(indices.len() * self.size.iter().product::<usize>());
        for i in indices {
            bytes.extend(self.augmentation.apply(self.bytes(*i), self.size, &mut rng));
        }
        self.tensor(&bytes, indices.len(), device)
    }

    fn labels(&self, indices: &[usize]) -> Vec<usize> {
        indices.iter().map(|i| usize::from(self.labels[*i])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Images {
        Images::new([1, 2, 2], 2, vec![0, 255, 51, 102, 1, 2, 3, 4], vec![0, 1], Normalization::bytes(&[0.2], &[0.5]))
            .unwrap()
    }

    #[test]
    fn bytes_become_normalized_inputs() {
        let x = two().images(&[0], &regrow_device::current()).into_data().iter::<f32>().collect::<Vec<_>>();
        for (got, want) in x.iter().zip([-0.4, 1.6, 0.0, 0.4]) {
            assert!((got - want).abs() < 1e-6, "{x:?}");
        }
    }

    #[test]
    fn a_split_loses_and_repeats_nothing() {
        let images = Images::new(
            [1, 1, 1],
            10,
            (0..100).collect(),
            (0..100).map(|i| i % 10).collect(),
            Normalization::bytes(&[0.0], &[1.0]),
        )
        .unwrap();
        let (a, b) = images.split(0.3, 7);
        let mut all = [a.pixels.clone(), b.pixels.clone()].concat();
        all.sort_unstable();
        assert_eq!((a.len(), b.len(), all), (70, 30, (0..100).collect::<Vec<u8>>()));
        assert_eq!(images.split(0.3, 7).1.pixels, b.pixels);
        assert_ne!(images.split(0.3, 8).1.pixels, b.pixels);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let norm = Normalization::bytes(&[0.0], &[1.0]);
        assert!(Images::new([1, 2, 2], 2, vec![0; 7], vec![0, 1], norm.clone()).is_err());
        assert!(Images::new([1, 2, 2], 2, vec![0; 8], vec![0, 2], norm.clone()).is_err());
        assert!(Images::new([3, 1, 1], 2, vec![0; 3], vec![0], norm).is_err());
    }
}
