//! What the layers of a model see of some inputs, block by block: the model runs as it is.
//!
//! A [`Survey`] holds one block and what it sees at a time; [`Survey::advance`] gives what its inputs have been
//! like, and goes on.

use std::collections::BTreeMap;

use burn::nn::conv::Conv2d;
use burn::nn::{Linear, PaddingConfig2d};
use burn::tensor::module::unfold4d;
use burn::tensor::ops::UnfoldOptions;
use burn::tensor::{Device, Tensor};

use crate::blockwise::{BlockModel, LayerRef, Squares, observed, told};
use crate::checkpoint::Checkpoint;
use crate::compute::Layers;
use crate::hidden::Hidden;
use crate::{Error, Result};

/// What is remembered of an input.
pub trait Statistic {
    /// Of an input of `d_in` columns, whose values come on `device`, before any.
    fn begin(d_in: usize, device: &Device) -> Self;

    /// One more sequence, `[tokens, d_in]`.
    fn add(&mut self, sequence: Tensor<2>);
}

impl Statistic for Squares {
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

impl Statistic for SecondMoment {
    fn begin(d_in: usize, device: &Device) -> Self {
        Self { sum: Tensor::zeros([d_in, d_in], device), rows: 0 }
    }

    fn add(&mut self, sequence: Tensor<2>) {
        self.rows += sequence.dims()[0];
        self.sum = self.sum.clone() + sequence.clone().transpose().matmul(sequence);
    }
}

/// The second moments of what the layers of a network read, by the layers' names: a network that runs with these as
/// its [`Layers`] tells them. A convolution `[out, in, height, width]` reads windows of `in height width` numbers, in
/// the order of its weights; one in groups is passed over.
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

impl Layers for Moments {
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

/// A walk over the blocks of a model.
pub struct Survey<'a, M: BlockModel> {
    model: &'a M,
    source: &'a Checkpoint,
    places: &'a M::Places,
    hidden: Hidden,
    index: usize,
}

/// What one block's inputs have been like.
pub struct Seen<S> {
    /// The block's linear layers.
    pub layers: Vec<LayerRef>,
    inputs: Vec<Option<S>>,
}

impl<S> Seen<S> {
    /// Of the input of a layer.
    ///
    /// # Errors
    /// A layer that no input has reached.
    pub fn of(&self, layer: &LayerRef) -> Result<&S> {
        let unreached = || Error::tensor(&layer.tensor, "was not reached by the calibration inputs");
        self.inputs.get(layer.input).and_then(Option::as_ref).ok_or_else(unreached)
    }
}

impl<'a, M: BlockModel> Survey<'a, M> {
    /// Before the first block of `model`, whose weights are in `source`; `hidden` are the inputs as that block sees
    /// them, `[1, tokens, width]` each.
    pub fn new(model: &'a M, source: &'a Checkpoint, places: &'a M::Places, hidden: Hidden) -> Self {
        Self { model, source, places, hidden, index: 0 }
    }

    /// The inputs as the next block sees them, or as the last has left them.
    pub fn hidden(&self) -> &Hidden {
        &self.hidden
    }

    /// The number of the next block.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Runs the next block without a look at what its inputs are like; whether there was one.
    ///
    /// # Errors
    /// As [`Survey::advance`].
    pub fn pass(&mut self) -> Result<bool> {
        if self.index >= self.model.blocks() {
            return Ok(false);
        }
        let block = self.model.load(self.source, self.index)?;
        let (model, places) = (self.model, self.places);
        self.hidden.advance(|x| model.forward(&block, x, places, &mut |_, _| {}))?;
        self.release();
        Ok(true)
    }

    /// Gives back the memory of a block that is done with: the next block needs it.
    fn release(&mut self) {
        self.model.layers(self.index).iter().for_each(|layer| self.source.release(&layer.tensor));
        self.index += 1;
    }

    /// Runs the next block; what its inputs have been like, or nothing after the last block.
    ///
    /// # Errors
    /// Tensors that are missing or not finite, a file of hidden states that cannot be read or written.
    pub fn advance<S: Statistic>(&mut self) -> Result<Option<Seen<S>>> {
        if self.index >= self.model.blocks() {
            return Ok(None);
        }
        let block = self.model.load(self.source, self.index)?;
        let mut inputs: Vec<Option<S>> = Vec::new();
        let mut add = |input: usize, values: Tensor<2>| {
            if inputs.len() <= input {
                inputs.resize_with(input + 1, || None);
            }
            let begin = || S::begin(values.dims()[1], &values.device());
            inputs[input].get_or_insert_with(begin).add(values);
        };
        let (model, places) = (self.model, self.places);
        match self.hidden.one_by_one()? {
            true => self.hidden.advance_each(|x| model.forward(&block, x, places, &mut add))?,
            false => {
                self.hidden.advance_seen(|x| observed(model, &block, x, places), |inputs| told(inputs, &mut add))?
            }
        }
        let layers = self.model.layers(self.index);
        self.release();
        Ok(Some(Seen { layers, inputs }))
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::conv::Conv2dConfig;
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn moments_are_means_over_rows() {
        let device = crate::device::current();
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
        let device = crate::device::current();
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
