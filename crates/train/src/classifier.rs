//! Image classifiers and their examples, as used by tables and soups.

use burn::module::{Module, ModuleDisplay};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{BatchNorm, Linear};
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Int, Tensor};

use crate::{Problem, StepContext};

/// An image classifier: a Burn module from images to logits.
///
/// Implement it for your own model to use it with this project's training loop and soups.
pub trait Classifier: Module {
    /// Logits `[batch, classes]` of `images` `[batch, channels, height, width]`.
    fn logits(&self, images: Tensor<4>) -> Tensor<2>;

    /// Calls `f` once with every batch-norm layer. A model without any keeps this default.
    fn batch_norms(&mut self, _f: &mut dyn FnMut(&mut BatchNorm)) {}
}

/// A classifier whose last layer is linear, the head: its logits are `head(features(images))`.
///
/// Needed by methods that use features, or the head's outputs for old and new classes.
pub trait Headed: Classifier {
    /// The head's inputs, `[batch, features]`, for `images` `[batch, channels, height, width]`.
    fn features(&self, images: Tensor<4>) -> Tensor<2>;

    /// The head.
    fn head(&self) -> &Linear;

    /// The head, mutable.
    fn head_mut(&mut self) -> &mut Linear;
}

/// A classifier whose convolutions' outputs can be changed before anything else reads them.
pub trait ConvHooks: Headed + ModuleDisplay {
    /// Output channels and kernel of each convolution, in the order in which they are applied.
    fn convolutions(&self) -> Vec<(usize, [usize; 2])>;

    /// [Features](Headed::features) of `images`, where `after(i, maps)` replaces the outputs of convolution `i`,
    /// `[batch, channels, height, width]`.
    fn tapped(&self, images: Tensor<4>, after: &mut dyn FnMut(usize, Tensor<4>) -> Tensor<4>) -> Tensor<2>;
}

/// Labelled images, handed out in batches by index.
pub trait Examples: Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Images `[batch, channels, height, width]` at `indices`, normalized and not augmented.
    fn images(&self, indices: &[usize], device: &Device) -> Tensor<4>;

    /// The same for training: augmented, if there is augmentation; equal for equal `seed`.
    fn augmented(&self, indices: &[usize], _seed: u64, device: &Device) -> Tensor<4> {
        self.images(indices, device)
    }

    /// Class numbers `[batch]` at `indices`.
    fn labels(&self, indices: &[usize]) -> Vec<usize>;
}

/// Learning to classify: cross-entropy, one loss per example.
#[derive(Clone, Copy, Debug)]
pub struct Classification<'a, D> {
    /// The training examples.
    pub data: &'a D,
    /// Label smoothing in [0, 1): the share of the target spread evenly over all classes.
    pub smoothing: f32,
}

impl<M: Classifier, D: Examples> Problem<M> for Classification<'_, D> {
    fn len(&self) -> usize {
        self.data.len()
    }

    fn losses(&self, model: &M, batch: &[usize], moment: StepContext, device: &Device) -> Tensor<1> {
        let logits = model.logits(self.data.augmented(batch, moment.seed, device));
        cross_entropy(logits, &self.data.labels(batch), self.smoothing)
    }
}

/// The cross-entropy `[batch]` of `logits` `[batch, classes]`, with the share `smoothing` of each target spread evenly
/// over all classes.
pub fn cross_entropy(logits: Tensor<2>, labels: &[usize], smoothing: f32) -> Tensor<1> {
    let targets = targets(labels, &logits.device());
    let log_p = log_softmax(logits, 1);
    let of_target = log_p.clone().gather(1, targets.unsqueeze_dim::<2>(1)).squeeze_dim::<1>(1).neg();
    match smoothing > 0.0 {
        false => of_target,
        true => of_target * (1.0 - smoothing) - log_p.mean_dim(1).squeeze_dim::<1>(1) * smoothing,
    }
}

fn targets(labels: &[usize], device: &Device) -> Tensor<1, Int> {
    let labels: Vec<i64> = labels.iter().map(|l| *l as i64).collect();
    Tensor::from_data(labels.as_slice(), device)
}

/// Class probabilities `[examples][classes]`, row after row, of `model` (in validation mode).
pub fn probabilities<M: Classifier, D: Examples>(model: &M, data: &D, batch: usize, device: &Device) -> Vec<f32> {
    in_batches(data.len(), batch, |indices| floats(softmax(model.logits(data.images(indices, device)), 1)))
}

/// Of the rows of `probabilities`, how many have their (first) largest entry at the label.
pub fn correct<D: Examples>(probabilities: &[f32], data: &D) -> usize {
    let labels = data.labels(&(0..data.len()).collect::<Vec<_>>());
    let classes = probabilities.len() / labels.len().max(1);
    let largest = |row: &[f32]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
    probabilities.chunks(classes.max(1)).zip(labels).filter(|(row, label)| largest(row) == *label).count()
}

/// How many of `data` the model (in validation mode) classifies correctly.
pub fn count_correct<M: Classifier, D: Examples>(model: &M, data: &D, batch: usize, device: &Device) -> usize {
    correct(&probabilities(model, data, batch, device), data)
}

/// Recomputes all batch-norm statistics from scratch: the plain mean over `batches`.
///
/// A model averaged from others needs it: its activations have different statistics (SMS, arXiv 2306.16788, sec. 2.2).
/// A model without batch norm is returned unchanged.
pub fn recalibrate<M: Classifier>(model: M, batches: impl IntoIterator<Item = Tensor<4>>) -> M {
    let mut momenta = Vec::new();
    let mut model = model;
    model.batch_norms(&mut |norm| momenta.push(norm.momentum));
    if momenta.is_empty() {
        return model;
    }
    let mut model = model.train();
    for (k, images) in batches.into_iter().enumerate() {
        // Momentum 1/k makes the running value the mean of the first k; the first step discards the old value.
        model.batch_norms(&mut |norm| norm.momentum = 1.0 / (k + 1) as f64);
        let _ = model.logits(images);
    }
    let mut momenta = momenta.into_iter();
    model.batch_norms(&mut |norm| norm.momentum = momenta.next().unwrap_or(norm.momentum));
    model.valid()
}

/// The mean cross-entropy loss of `model` on `data`, without smoothing.
pub fn mean_loss<M: Classifier, D: Examples>(model: &M, data: &D, batch: usize, device: &Device) -> f64 {
    let loss = CrossEntropyLossConfig::new().init(device);
    let sums = in_batches(data.len(), batch, |indices| {
        let logits = model.logits(data.images(indices, device));
        let mean: f32 = loss.forward(logits, targets(&data.labels(indices), device)).into_scalar();
        vec![f64::from(mean) * indices.len() as f64]
    });
    sums.iter().sum::<f64>() / data.len().max(1) as f64
}

fn in_batches<T>(len: usize, batch: usize, f: impl FnMut(&[usize]) -> Vec<T>) -> Vec<T> {
    let all: Vec<usize> = (0..len).collect();
    all.chunks(batch.max(1)).flat_map(f).collect()
}

fn floats(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().iter::<f32>().collect()
}
