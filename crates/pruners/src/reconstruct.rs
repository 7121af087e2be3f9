//! Layer-wise reconstruction with few parameters (PERP, Zimmer et al., arXiv 2312.15230, sec. 3.3).
//!
//! Block by block: with `X` the outputs of the pruned blocks before it and `Y` the block's outputs for `X` before
//! pruning, `mean (block(X) - Y)^2` is minimised over the parameters of a [`Form`], which are then merged. A block that
//! did not get closer stays as pruned.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use regrow_sparse_core::layerwise::HiddenStates;
use regrow_sparse_core::layerwise::{BlockModel, BlockReconstruction};
use regrow_sparse_core::model::weight::Select;
use regrow_sparse_core::{Error, Result};
use regrow_train::{Problem, StepContext, Training};

use crate::perp::{Form, Perp};

/// Reconstructs blocks after they are pruned.
pub struct Reconstruction {
    perp: Perp,
    training: Training,
    errors: RefCell<Vec<Errors>>,
}

/// How far a block's outputs are from the original's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors {
    /// The block.
    pub block: usize,
    /// Mean square of the change that pruning made in its outputs.
    pub pruned: f64,
    /// The same after reconstruction.
    pub reconstructed: f64,
}

impl Reconstruction {
    /// With the parameters of `perp`, by AdamW with these settings; the batch size counts sequences.
    ///
    /// # Errors
    /// A form that cannot be merged, no epoch, no sequence in a batch, a rate that is not above zero.
    pub fn new(perp: Perp, training: Training) -> Result<Self> {
        if perp.form() == Form::Lora {
            return Err(Error::Argument("lora cannot be merged without filling the zeros: use mask-lora".into()));
        }
        let Training { epochs, batch, lr, .. } = &training;
        if *epochs == 0 || *batch == 0 || !lr.initial.is_finite() || lr.initial <= 0.0 {
            let rate = lr.initial;
            return Err(Error::Argument(format!(
                "reconstruction of {epochs} epochs of {batch} sequences a step at rate {rate}"
            )));
        }
        // In a block every linear layer counts: none of them is the model's head.
        let perp = perp.with_pruned(Select::default().with_head());
        Ok(Self { perp, training, errors: RefCell::default() })
    }

    /// The errors of the blocks so far, in order.
    pub fn errors(&self) -> Vec<Errors> {
        self.errors.borrow().clone()
    }
}

impl<M> BlockReconstruction<M> for Reconstruction
where
    M: BlockModel + Sync,
    M::Block: Module,
    M::SequenceContext: Sync,
{
    fn reconstruct(
        &self,
        model: &M,
        index: usize,
        block: M::Block,
        context: &M::SequenceContext,
        inputs: &HiddenStates,
        wanted: &HiddenStates,
    ) -> Result<M::Block> {
        let outputs = Outputs { model, context, inputs, wanted, failed: Mutex::default() };
        let pruned = outputs.error(&block)?;
        let trained = self.perp.retrain(block.clone(), &outputs, &self.training, None, &mut |_| {})?;
        outputs.check()?;
        let trained = self.perp.merge(trained)?;
        let reconstructed = outputs.error(&trained)?;
        // False for NaN too.
        let closer = reconstructed < pruned;
        let errors = Errors { block: index, pruned, reconstructed: if closer { reconstructed } else { pruned } };
        tracing::info!(block = index, pruned, reconstructed, closer, "block reconstructed");
        self.errors.borrow_mut().push(errors);
        Ok(if closer { trained } else { block })
    }
}

/// The original outputs of a block, as the target.
struct Outputs<'a, M: BlockModel> {
    model: &'a M,
    context: &'a M::SequenceContext,
    inputs: &'a HiddenStates,
    wanted: &'a HiddenStates,
    /// Why sequences could not be read while the loss was computed.
    failed: Mutex<Option<Error>>,
}

impl<M: BlockModel> Outputs<'_, M> {
    /// The mean squared distance of sequence `index`, `[1]`.
    fn distance(&self, block: &M::Block, index: usize) -> Result<Tensor<1>> {
        let given = self.model.forward(block, self.inputs.get(index)?, self.context, &mut |_, _| {});
        Ok((given - self.wanted.get(index)?).powf_scalar(2.0).mean())
    }

    /// The mean over all sequences.
    fn error(&self, block: &M::Block) -> Result<f64> {
        let mut sum = 0.0;
        for index in 0..self.inputs.len() {
            let distance = self.distance(block, index)?.into_data().convert::<f32>();
            sum += distance.iter::<f32>().map(f64::from).sum::<f64>();
        }
        Ok(sum / self.inputs.len().max(1) as f64)
    }

    fn check(&self) -> Result<()> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), Err)
    }
}

impl<M> Problem<M::Block> for Outputs<'_, M>
where
    M: BlockModel + Sync,
    M::SequenceContext: Sync,
{
    fn len(&self) -> usize {
        self.inputs.len()
    }

    fn losses(&self, block: &M::Block, batch: &[usize], _moment: StepContext, device: &Device) -> Tensor<1> {
        let one = |index: &usize| {
            self.distance(block, *index).unwrap_or_else(|e| {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                Tensor::zeros([1], device)
            })
        };
        Tensor::cat(batch.iter().map(one).collect(), 0)
    }
}
