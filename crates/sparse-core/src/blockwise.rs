//! Pruning a model that is larger than memory: one block at a time, from what its layers see.
//!
//! A layer solver is a method that looks at a weight and at the inputs that reach it. [`Walk::prune`]
//! carries the hidden states of some calibration inputs from block to block: the block is loaded, run
//! with its layers' inputs observed, its weights solved and written, and run again as it is now written,
//! so that the next block sees what it will see in the pruned model.

use burn::tensor::{Bool, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::budget::rounded;
use crate::checkpoint::{Checkpoint, Patch, Pruned};
use crate::hidden::Hidden;
use crate::score::Score;
use crate::survey::Survey;
use crate::weight::{Weight, transposed};
use crate::{Error, Mask, Pattern, Result};

/// A linear layer of a block on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRef {
    /// Its weight's name in the checkpoint.
    pub tensor: String,
    /// Which of the block's inputs it reads; layers that read the same share one statistic.
    pub input: usize,
    /// Its place among those.
    pub place: usize,
    /// Whether it is stored `[d_in, d_out]`.
    pub transposed: bool,
}

/// A model of blocks in a row.
pub trait BlockModel: Sync {
    /// A block in memory.
    type Block: Sync;
    /// What all blocks need to know of a sequence.
    type Places: Sync;

    /// How many blocks there are.
    fn blocks(&self) -> usize;

    /// The linear layers of block `index`.
    fn layers(&self, index: usize) -> Vec<LayerRef>;

    /// Loads block `index` from `source`, a checkpoint with this model's tensors.
    ///
    /// # Errors
    /// Tensors that are missing, of other shapes, or not finite.
    fn load(&self, source: &Checkpoint, index: usize) -> Result<Self::Block>;

    /// Overwrites the tensors of block `index` in `out`, a copy of this model, with those of `block`, as
    /// its layers use them: reparameterized weights with what was made of them.
    ///
    /// # Errors
    /// A value that is not finite or beyond its type, a failure to write.
    fn store_block(&self, index: usize, block: &Self::Block, out: &mut Patch) -> Result<()>;

    /// `block` with other values, row-major `[d_out, d_in]`, for the weight of `layer`.
    fn replaced(&self, block: &Self::Block, layer: &LayerRef, values: &[f32]) -> Self::Block;

    /// Hidden states `[batch, tokens, width]` after `block`; `observe` is told the number of an input
    /// and its values `[tokens, d_in]` before the layers that read it.
    fn forward(
        &self,
        block: &Self::Block,
        hidden: Tensor<3>,
        places: &Self::Places,
        observe: &mut dyn FnMut(usize, Tensor<2>),
    ) -> Tensor<3>;
}

/// How much of a layer is to go, and where zeros may stand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// The fraction of weights to prune, in [0, 1).
    pub sparsity: f64,
    /// Unstructured or N:M.
    pub pattern: Pattern,
}

impl Goal {
    /// The mask of a layer with these scores, larger kept: `round(sparsity * n)` of all its weights go, or
    /// what the pattern says.
    ///
    /// # Errors
    /// Scores that are NaN, a pattern that does not divide the layer.
    pub fn mask(&self, weight: &Weight, scores: &[f32]) -> Result<Mask> {
        let prune = rounded(self.sparsity, scores.len());
        self.pattern.mask(&weight.shape, scores, prune).map_err(|e| Error::tensor(&weight.path, e.to_string()))
    }
}

/// A layer's new weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Solved {
    /// What is kept.
    pub mask: Mask,
    /// New values, row-major `[d_out, d_in]`, where kept weights change too.
    pub values: Option<Vec<f32>>,
}

/// A method that prunes one linear layer by the inputs it has seen.
pub trait LayerSolver {
    /// Its name, as on the command line.
    fn name(&self) -> &'static str;

    /// Whether it looks at inputs at all; where it does not, blocks are neither loaded nor run.
    fn watches(&self) -> bool {
        true
    }

    /// Begins to watch an input of `d_in` columns, whose values come on `device`.
    fn watch(&self, d_in: usize, device: &Device) -> Box<dyn Watching>;
}

/// What a solver remembers of an input.
pub trait Watching {
    /// One more sequence: its values `[tokens, d_in]`.
    fn add(&mut self, sequence: Tensor<2>);

    /// Prunes a layer that reads this input.
    ///
    /// # Errors
    /// Weights or inputs that are not finite, a pattern that does not divide a row.
    fn solve(&self, weight: &Weight, goal: &Goal) -> Result<Solved>;

    /// What [`Watching::solve`] keeps of a layer whose weight stays on its device, true where kept; none, as without
    /// this, where it also changes values, or it must be the processor that solves. It must be the same to the last
    /// bit: [`Scores`](crate::select::Scores) helps.
    ///
    /// `values` are the weight's, finite, `outputs` is the dimension of them that counts outputs.
    fn kept_on_device(&self, _values: &Tensor<2>, _outputs: usize, _goal: &Goal) -> Option<Tensor<2, Bool>> {
        None
    }
}

/// A score that looks at weights alone, as a layer solver: each layer by itself.
#[derive(Clone, Debug)]
pub struct Unwatched<S>(pub S);

impl<S: Score + Clone + 'static> LayerSolver for Unwatched<S> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn watches(&self) -> bool {
        false
    }

    fn watch(&self, _d_in: usize, _device: &Device) -> Box<dyn Watching> {
        Box::new(self.clone())
    }
}

impl<S: Score + Clone + 'static> Watching for Unwatched<S> {
    fn add(&mut self, _sequence: Tensor<2>) {}

    fn solve(&self, weight: &Weight, goal: &Goal) -> Result<Solved> {
        let mask = goal.mask(weight, &self.0.score(weight, 0)?)?;
        Ok(Solved { mask, values: None })
    }
}

/// The mean over sequences of the summed squares of each column of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Squares {
    means: Vec<f64>,
    sequences: usize,
}

impl Squares {
    /// Of an input of `d_in` columns, before any sequence.
    pub fn new(d_in: usize) -> Self {
        Self { means: vec![0.0; d_in], sequences: 0 }
    }

    /// One more sequence `[tokens, d_in]`.
    pub fn add(&mut self, sequence: Tensor<2>) {
        let sums = (sequence.clone() * sequence).sum_dim(0).into_data().convert::<f32>();
        let n = self.sequences as f64;
        self.means.iter_mut().zip(sums.iter::<f32>()).for_each(|(a, s)| *a = (*a * n + f64::from(s)) / (n + 1.0));
        self.sequences += 1;
    }

    /// The root of each mean, for a `weight` that reads this input.
    ///
    /// # Errors
    /// Inputs that are not finite, or not as many as the weight has columns.
    pub fn norms(&self, weight: &Weight) -> Result<Vec<f32>> {
        let bad = || Error::tensor(&weight.path, "its inputs are not finite, or not as many as its columns");
        self.roots(weight.dims().1).ok_or_else(bad)
    }

    /// The root of each mean; none if they are not finite, or not of `cols` columns.
    pub fn roots(&self, cols: usize) -> Option<Vec<f32>> {
        let sound = self.means.len() == cols && self.means.iter().all(|s| s.is_finite());
        sound.then(|| self.means.iter().map(|s| s.sqrt() as f32).collect())
    }
}

/// What [`survey`] shows: a block's number, its linear weights and the squares of what each reads.
pub type Visit<'a> = dyn FnMut(usize, &[(Weight, &Squares)]) -> Result<()> + 'a;

/// Runs the model as it is over calibration inputs (as for [`Walk::prune`]), which stay as they are;
/// `visit` gets each block's number, its linear weights and the squares of what each reads.
///
/// # Errors
/// Whatever loading or `visit` runs into, a layer that no input reaches.
pub fn survey<M: BlockModel>(
    model: &M,
    source: &Checkpoint,
    places: &M::Places,
    hidden: &Hidden,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let mut survey = Survey::new(model, source, places, hidden.map(|x| x)?);
    while let Some(seen) = survey.advance::<Squares>()? {
        let reached = |layer: &LayerRef| Ok((read(source, layer)?, seen.of(layer)?));
        let layers = seen.layers.iter().map(reached).collect::<Result<Vec<_>>>()?;
        visit(survey.index() - 1, &layers)?;
        release(model, source, survey.index() - 1);
    }
    Ok(())
}

/// Inputs of layers, each with its number.
pub(crate) type Inputs = Vec<(usize, Tensor<2>)>;

/// Hidden states after `block`, and the inputs of its layers.
pub(crate) fn observed<M: BlockModel>(
    model: &M,
    block: &M::Block,
    x: Tensor<3>,
    places: &M::Places,
) -> (Tensor<3>, Inputs) {
    let mut inputs = Vec::new();
    let x = model.forward(block, x, places, &mut |input, values| inputs.push((input, values)));
    (x, inputs)
}

pub(crate) fn told(inputs: Inputs, add: &mut dyn FnMut(usize, Tensor<2>)) {
    inputs.into_iter().for_each(|(input, values)| add(input, values));
}

/// Gives back the memory that block `index` of `source` is mapped to: the next block needs it.
fn release<M: BlockModel>(model: &M, source: &Checkpoint, index: usize) {
    model.layers(index).iter().for_each(|layer| source.release(&layer.tensor));
}

/// The place of number `index`, made if it is not there yet.
fn slot<T>(places: &mut Vec<Option<T>>, index: usize) -> &mut Option<T> {
    if places.len() <= index {
        places.resize_with(index + 1, || None);
    }
    &mut places[index]
}

fn unreached(layer: &LayerRef) -> Error {
    Error::tensor(&layer.tensor, "was not reached by the calibration inputs")
}

/// What is done to a block once its layers are pruned, before the next block sees its outputs.
pub trait Mend<M: BlockModel> {
    /// The block to be written in place of `block`, which is pruned: zeros stay where they are. `inputs`
    /// is what it sees, `wanted` what it gave of that before it was pruned.
    ///
    /// # Errors
    /// Whatever mending runs into.
    fn mend(
        &self,
        model: &M,
        index: usize,
        block: M::Block,
        places: &M::Places,
        inputs: &Hidden,
        wanted: &Hidden,
    ) -> Result<M::Block>;
}

/// A linear layer behind the last block, as a language model's head.
pub struct Tail<'a> {
    /// The layer.
    pub layer: LayerRef,
    /// What to do with it.
    pub goal: Goal,
    /// What it reads, `[tokens, d_in]`, of hidden states after the last block.
    pub input: &'a dyn Fn(Tensor<3>) -> Tensor<2>,
}

/// A model to prune, and how.
pub struct Walk<'a, M: BlockModel> {
    /// The model.
    pub model: &'a M,
    /// Its weights.
    pub source: &'a Checkpoint,
    /// What all blocks need to know of a calibration sequence.
    pub places: M::Places,
    /// The method.
    pub solver: &'a dyn LayerSolver,
    /// What to do with a layer of block `index`; `None` leaves it.
    pub goal: &'a dyn Fn(usize, &LayerRef) -> Option<Goal>,
    /// What is done to each block after that, if anything.
    pub mend: Option<&'a dyn Mend<M>>,
    /// What is pruned behind the last block, if anything.
    pub tail: Option<Tail<'a>>,
}

impl<M: BlockModel> Walk<'_, M> {
    /// Prunes every block into `out`; what became of each layer.
    ///
    /// `hidden` are the calibration inputs as the first block sees them, `[1, tokens, width]` each. Blocks that `out` holds already are run, not solved again. `watch` is told
    /// the number of blocks done after each.
    ///
    /// # Errors
    /// Whatever loading, solving or writing runs into.
    pub fn prune(&self, mut hidden: Hidden, out: &mut Patch, watch: &mut dyn FnMut(usize)) -> Result<Vec<Pruned>> {
        let (first, blocks) = (out.done(), self.model.blocks());
        let runs = self.solver.watches() || self.mend.is_some();
        for index in 0..blocks {
            if index >= first {
                self.solve_block(index, &hidden, out)?;
                out.finish_step(index + 1)?;
            }
            // The last block's outputs may go nowhere.
            if runs && (index + 1 < blocks || self.tail.is_some()) {
                let block = self.model.load(&out.checkpoint()?, index)?;
                let (model, places) = (self.model, &self.places);
                hidden.advance(|x| model.forward(&block, x, places, &mut |_, _| {}))?;
            }
            release(self.model, self.source, index);
            watch(index + 1);
        }
        if let Some(tail) = self.tail.as_ref().filter(|_| out.done() <= blocks) {
            self.solve_tail(tail, &hidden, out)?;
            out.finish_step(blocks + 1)?;
        }
        Ok(out.pruned().to_vec())
    }

    /// Prunes the layer behind the last block and writes it.
    fn solve_tail(&self, tail: &Tail<'_>, hidden: &Hidden, out: &mut Patch) -> Result<()> {
        let weight = read(self.source, &tail.layer)?;
        let mut watching: Option<Box<dyn Watching>> = None;
        if self.solver.watches() {
            hidden.each(|x| {
                let values = (tail.input)(x);
                let fresh = || self.solver.watch(values.dims()[1], &values.device());
                watching.get_or_insert_with(fresh).add(values);
            })?;
        }
        let watching = watching.unwrap_or_else(|| self.solver.watch(weight.dims().1, &crate::device::current()));
        let solved = watching.solve(&weight, &tail.goal)?;
        write(self.source, &tail.layer, weight, solved, out)
    }

    /// Prunes block `index`, mends it, and writes it.
    fn solve_block(&self, index: usize, hidden: &Hidden, out: &mut Patch) -> Result<()> {
        let Some(mend) = self.mend else { return self.solve_layers(index, hidden, out) };
        let block = self.model.load(self.source, index)?;
        let (model, places) = (self.model, &self.places);
        let wanted = hidden.map(|x| model.forward(&block, x, places, &mut |_, _| {}))?;
        drop(block);
        self.solve_layers(index, hidden, out)?;
        let block = self.model.load(&out.checkpoint()?, index)?;
        let block = mend.mend(self.model, index, block, &self.places, hidden, &wanted)?;
        self.model.store_block(index, &block, out)
    }

    /// Prunes the layers of block `index` and writes them.
    fn solve_layers(&self, index: usize, hidden: &Hidden, out: &mut Patch) -> Result<()> {
        let seen = if self.solver.watches() { self.watched(index, hidden)? } else { Vec::new() };
        for layer in self.model.layers(index) {
            let Some(goal) = (self.goal)(index, &layer) else { continue };
            let weight = read(self.source, &layer)?;
            let solved = match seen.get(layer.input).and_then(Option::as_ref) {
                Some(watching) => watching.solve(&weight, &goal)?,
                None if self.solver.watches() => return Err(unreached(&layer)),
                None => self.solver.watch(weight.dims().1, &crate::device::current()).solve(&weight, &goal)?,
            };
            write(self.source, &layer, weight, solved, out)?;
        }
        Ok(())
    }

    /// What the solver has seen of each input of block `index`.
    fn watched(&self, index: usize, hidden: &Hidden) -> Result<Vec<Option<Box<dyn Watching>>>> {
        let block = self.model.load(self.source, index)?;
        let mut seen: Vec<Option<Box<dyn Watching>>> = Vec::new();
        let (model, places) = (self.model, &self.places);
        let mut add = |input: usize, values: Tensor<2>| {
            let watching = slot(&mut seen, input);
            watching.get_or_insert_with(|| self.solver.watch(values.dims()[1], &values.device())).add(values);
        };
        match hidden.one_by_one()? {
            true => hidden.each(|x| drop(model.forward(&block, x, places, &mut add)))?,
            false => hidden.look(|x| observed(model, &block, x, places).1, |inputs| told(inputs, &mut add))?,
        }
        Ok(seen)
    }
}

/// Prunes one layer that no input is known of, with a `solver` that needs none, and writes it.
///
/// # Errors
/// A weight that is not finite, a pattern that does not divide a row, a failure to write.
pub fn prune_unseen(
    source: &Checkpoint,
    layer: &LayerRef,
    solver: &dyn LayerSolver,
    goal: &Goal,
    out: &mut Patch,
) -> Result<()> {
    let weight = read(source, layer)?;
    let solved = solver.watch(weight.dims().1, &crate::device::current()).solve(&weight, goal)?;
    write(source, layer, weight, solved, out)
}

/// Writes a layer as it was solved.
fn write(source: &Checkpoint, layer: &LayerRef, weight: Weight, solved: Solved, out: &mut Patch) -> Result<()> {
    let Solved { mask, values } = solved;
    let mut values = values.unwrap_or(weight.values);
    mask.fill_pruned(&mut values, 0.0);
    let values = if layer.transposed {
        transposed(&values, mask.shape()[0], mask.len() / mask.shape()[0].max(1))
    } else {
        values
    };
    out.write_f32(source.entry(&layer.tensor)?, &values)?;
    out.note(Pruned { tensor: layer.tensor.clone(), weights: mask.len(), zeros: mask.pruned() });
    Ok(())
}

/// A layer's weight, row-major `[d_out, d_in]`.
///
/// # Errors
/// No such tensor, or one that is not finite.
pub fn read(source: &Checkpoint, layer: &LayerRef) -> Result<Weight> {
    let entry = source.entry(&layer.tensor)?;
    let (values, shape) = (source.read_f32(&layer.tensor)?, entry.shape.clone());
    if !values.iter().all(|v| v.is_finite()) {
        return Err(Error::tensor(&layer.tensor, "holds NaN or infinity"));
    }
    let (values, shape) = match layer.transposed {
        true => (transposed(&values, shape[0], shape[1]), vec![shape[1], shape[0]]),
        false => (values, shape),
    };
    Ok(Weight { path: layer.tensor.clone(), id: burn::module::ParamId::new(), shape, values, mask: None })
}
