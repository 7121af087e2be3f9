//! Statistics of the inputs of a layer: sums of squares, second moments.

use std::collections::BTreeMap;

use burn::nn::conv::Conv2d;
use burn::nn::{Linear, PaddingConfig2d};
use burn::tensor::module::unfold4d;
use burn::tensor::ops::UnfoldOptions;
use burn::tensor::{Device, Tensor};

use crate::layerwise::LayerRef;
use crate::model::executor::LayerExecutor;
use crate::model::weight::Weight;
use crate::{Error, Result};

/// A statistic of an input.
pub trait InputStatistic {
    /// Starts for an input of `d_in` columns, whose values are on `device`.
    fn begin(d_in: usize, device: &Device) -> Self;

    /// Adds one sequence, `[tokens, d_in]`.
    fn add(&mut self, sequence: Tensor<2>);
}

/// The mean over sequences of the summed squares of each column of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Squares {
    means: Vec<f64>,
    sequences: usize,
}

impl Squares {
    /// For an input of `d_in` columns, before any sequence.
    pub fn new(d_in: usize) -> Self {
        Self { means: vec![0.0; d_in], sequences: 0 }
    }

    /// Adds one sequence, `[tokens, d_in]`.
    pub fn add(&mut self, sequence: Tensor<2>) {
        let sums = (sequence.clone() * sequence).sum_dim(0).into_data().convert::<f32>();
        let n = self.sequences as f64;
        self.means.iter_mut().zip(sums.iter::<f32>()).for_each(|(a, s)| *a = (*a * n + f64::from(s)) / (n + 1.0));
        self.sequences += 1;
    }

    /// The root of each mean, for a `weight` that reads this input.
    ///
    /// # Errors
    /// Inputs that are not finite, or whose number differs from the weight's columns.
    pub fn norms(&self, weight: &Weight) -> Result<Vec<f32>> {
        let bad = || Error::tensor(&weight.path, "its inputs are not finite, or not as many as its columns");
        self.roots(weight.dims().1).ok_or_else(bad)
    }

    /// The root of each mean; `None` if they are not finite, or not of `cols` columns.
    pub fn roots(&self, cols: usize) -> Option<Vec<f32>> {
        let sound = self.means.len() == cols && self.means.iter().all(|s| s.is_finite());
        sound.then(|| self.means.iter().map(|s| s.sqrt() as f32).collect())
    }
}

impl InputStatistic for Squares {
    fn begin(d_in: usize, _device: &Device) -> Self {
        Self::new(d_in)
    }

    fn add(&mut self, sequence: Tensor<2>) {
        Self::add(self, sequence);
    }
}

/// The second moment of an input, `X^T X / rows`, `[d_in, d_in]`; sums are f32, on the device.
#[derive(Clone, Debug)]
pub struct SecondMoment {
    sum: Tensor<2>,
    rows: usize,
}

impl SecondMoment {
    /// The moment, row-major.
    ///
    /// # Errors
    /// Inputs that are not finite, or none.
    pub fn values(&self, layer: &LayerRef) -> Result<Vec<f32>> {
        self.read(&layer.tensor)
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let rows = self.rows as f32;
        let values: Vec<f32> = self.sum.to_data().convert::<f32>().iter::<f32>().map(|v| v / rows).collect();
        match self.rows > 0 && values.iter().all(|v| v.is_finite()) {
            true => Ok(values),
            false => Err(Error::tensor(name, "its inputs are not finite")),
        }
    }
}

impl InputStatistic for SecondMoment {
    fn begin(d_in: usize, device: &Device) -> Self {
        Self { sum: Tensor::zeros([d_in, d_in], device), rows: 0 }
    }

    fn add(&mut self, sequence: Tensor<2>) {
        self.rows += sequence.dims()[0];
        self.sum = self.sum.clone() + sequence.clone().transpose().matmul(sequence);
    }
}

/// The second moments of the inputs of a network's layers, by the layers' names: a network that runs with this as its
/// [`LayerExecutor`] reports them. A convolution `[out, in, height, width]` reads windows of `in height width` numbers,
/// in the order of its weights; grouped convolutions are skipped.
#[derive(Clone, Debug, Default)]
pub struct Moments(BTreeMap<String, SecondMoment>);

impl Moments {
    /// Every layer's, row-major, `[d_in, d_in]`.
    ///
    /// # Errors
    /// Inputs that are not finite.
    pub fn values(&self) -> Result<BTreeMap<String, Vec<f32>>> {
        self.0.iter().map(|(name, moment)| Ok((name.clone(), moment.read(name)?))).collect()
    }

    fn add(&mut self, name: &str, rows: Tensor<2>) {
        let begin = || SecondMoment::begin(rows.dims()[1], &rows.device());
        self.0.entry(name.to_string()).or_insert_with(begin).add(rows);
    }
}

impl LayerExecutor for Moments {
    fn linear(&mut self, name: &str, layer: &Linear, x: Tensor<2>) -> Tensor<2> {
        self.add(name, x.clone());
        layer.forward(x)
    }

    fn conv2d(&mut self, name: &str, layer: &Conv2d, images: Tensor<4>) -> Tensor<4> {
        let padding = match layer.padding {
            PaddingConfig2d::Valid => Some([0, 0]),
            PaddingConfig2d::Explicit(top, left, bottom, right) => {
                (top == bottom && left == right).then_some([top, left])
            }
            _ => None,
        };
        if let Some(padding) = padding.filter(|_| layer.groups == 1) {
            let options = UnfoldOptions::new(layer.stride, padding, layer.dilation);
            let windows = unfold4d(images.clone(), layer.kernel_size, options);
            let [_, inputs, _] = windows.dims();
            self.add(name, windows.swap_dims(1, 2).reshape([-1, inputs as i32]));
        }
        layer.forward(images)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::conv::Conv2dConfig;
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn moments_are_means_over_rows() {
        let device = regrow_device::current();
        let mut moment = SecondMoment::begin(2, &device);
        moment.add(Tensor::from_data([[1.0, 2.0], [3.0, 0.0]], &device));
        moment.add(Tensor::from_data([[0.0, 2.0]], &device));
        let layer = LayerRef { tensor: "w".into(), input: 0, place: 0, transposed: false };
        let values = moment.values(&layer).unwrap();
        let wanted = [10.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0, 8.0 / 3.0];
        assert!(values.iter().zip(wanted).all(|(v, w)| (v - w).abs() < 1e-6), "{values:?}");
        assert!(SecondMoment::begin(2, &device).values(&layer).is_err());
        moment.add(Tensor::from_data([[f32::NAN, 2.0]], &device));
        assert!(moment.values(&layer).unwrap_err().to_string().contains("not finite"));
    }

    #[test]
    fn of_a_convolution_they_are_those_of_its_windows() {
        let device = regrow_device::current();
        let layer = Conv2dConfig::new([2, 3], [2, 3]).with_stride([1, 2]).with_padding(explicit(1, 0)).init(&device);
        let number = |i: usize| ((i * 37) % 11) as f32 - 5.0;
        let data: Vec<f32> = (0..2 * 2 * 3 * 5).map(number).collect();
        let images = Tensor::from_data(TensorData::new(data.clone(), [2, 2, 3, 5]), &device);
        let mut moments = Moments::default();
        let made = moments.conv2d("c", &layer, images);
        // Every window as a row, in the order of the weights.
        let at = |n: usize, c: usize, y: usize, x: usize| match (1..4).contains(&y) {
            true => data[((n * 2 + c) * 3 + y - 1) * 5 + x],
            false => 0.0,
        };
        let [_, _, height, width] = made.dims();
        let mut rows: Vec<Vec<f32>> = Vec::new();
        for (n, y, x) in (0..2).flat_map(|n| (0..height).flat_map(move |y| (0..width).map(move |x| (n, y, x)))) {
            let place = |k: usize| at(n, k / 6, y + k % 6 / 3, 2 * x + k % 3);
            rows.push((0..12).map(place).collect());
        }
        let weights: Vec<f32> = layer.weight.val().into_data().iter::<f32>().collect();
        let bias: Vec<f32> = layer.bias.as_ref().unwrap().val().into_data().iter::<f32>().collect();
        let made: Vec<f32> = made.into_data().iter::<f32>().collect();
        let first: f32 = rows[0].iter().zip(&weights).map(|(x, w)| x * w).sum::<f32>() + bias[0];
        assert!((made[0] - first).abs() < 1e-4, "{} {first}", made[0]);
        let found = &moments.values().unwrap()["c"];
        for (i, j) in (0..12).flat_map(|i| (0..12).map(move |j| (i, j))) {
            let wanted = rows.iter().map(|row| row[i] * row[j]).sum::<f32>() / rows.len() as f32;
            assert!((found[i * 12 + j] - wanted).abs() < 1e-3, "{i} {j}: {} {wanted}", found[i * 12 + j]);
        }
        let grouped = Conv2dConfig::new([2, 2], [1, 1]).with_groups(2).init(&device);
        let _ = moments.conv2d("grouped", &grouped, Tensor::ones([1, 2, 2, 2], &device));
        assert_eq!(moments.values().unwrap().len(), 1);
    }

    fn explicit(rows: usize, columns: usize) -> PaddingConfig2d {
        PaddingConfig2d::Explicit(rows, columns, rows, columns)
    }
}
