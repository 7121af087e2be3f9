//! What the layers of a model see of some inputs, block by block: the model runs as it is.
//!
//! A [`Survey`] holds one block and what it sees at a time; [`Survey::advance`] gives what its inputs have been
//! like, and goes on.

use burn::tensor::{Device, Tensor};

use crate::blockwise::{BlockModel, LayerRef, Squares, observed, told};
use crate::checkpoint::Checkpoint;
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
        let rows = self.rows as f32;
        let values: Vec<f32> = self.sum.to_data().convert::<f32>().iter::<f32>().map(|v| v / rows).collect();
        match self.rows > 0 && values.iter().all(|v| v.is_finite()) {
            true => Ok(values),
            false => Err(Error::tensor(&layer.tensor, "its inputs are not finite")),
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
        // The next block needs the memory.
        layers.iter().for_each(|layer| self.source.release(&layer.tensor));
        self.index += 1;
        Ok(Some(Seen { layers, inputs }))
    }
}

#[cfg(test)]
mod tests {
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
}
