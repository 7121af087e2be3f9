//! Statistics of language models.

use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use regrow_checkpoint::{Contents, Dtype, Plan, Planned, Writer};
use regrow_lm::{Head, NextToken, Transformer, batch};
use regrow_merging::{information, stream};
use regrow_sparse_core::layerwise::HiddenStates;
use regrow_sparse_core::layerwise::{BlockInputs, Calibration, InputStatistic, SecondMoment};
use regrow_sparse_core::layerwise::{BlockModel, LayerRef};

use super::kept::Kept;
use super::{Args, Tensors, count, write};
use crate::bar::Bar;
use crate::error::Result;
use crate::lm;
use crate::source::locate;
use crate::text;

type Core<T> = regrow_sparse_core::Result<T>;

/// The Fisher information of a decoder: for every window the squared gradient of the log-likelihood of tokens that the
/// model samples after each of its own, divided by the number of tokens.
pub fn fisher(args: &Args, file: &Path, out: &mut dyn Write) -> Result<()> {
    let device = regrow_device::current().autodiff();
    let model = Transformer::open(locate(&args.model, args.revision.as_deref())?, &device)?;
    let decoder = model.whole()?;
    let windows = lm::calibration(&model, file, args.samples, args.window, args.seed)?;
    let problem = NextToken::new(&model.config, windows.iter().map(Vec::as_slice).collect())?;
    let (bar, tokens, seed) = (Bar::new("windows"), windows[0].len(), args.seed.unwrap_or(0));
    let (mut kept, begun) = Kept::begin(args, args.settings(model.checkpoint())?)?;
    let found = information::gather_on(
        &decoder,
        begun.clone(),
        begun.examples..windows.len(),
        |decoder, i, add| add(1.0 / tokens as f64, problem.drawn(decoder, i, seed, &device)),
        |sums| {
            bar.at(sums.examples, windows.len());
            kept.keep(sums)
        },
    )?;
    let mut tensors = Tensors::new();
    model.each_tensor(&found, &mut |name, values| {
        let shape = model.checkpoint().entry(&name)?.shape.clone();
        tensors.push((Planned { name, dtype: Dtype::F32, shape }, values));
        Ok(())
    })?;
    write(&tensors, args, model.checkpoint(), "fisher")?;
    kept.end();
    let (numbers, tokens) = (text::grouped(count(&tensors)), text::grouped(windows.len() * tokens));
    writeln!(out, "Fisher information of {numbers} parameters over {tokens} tokens")?;
    Ok(())
}

/// The second moments of the inputs of a language model's linear layers.
pub fn moments(args: &Args, file: &Path, out: &mut dyn Write) -> Result<()> {
    let model = Transformer::open(locate(&args.model, args.revision.as_deref())?, &regrow_device::current())?;
    let windows = lm::calibration(&model, file, args.samples, args.window, args.seed)?;
    let embedding = model.embedding()?;
    let hidden = windows.iter().map(|window| embedding.forward(batch(&[window], model.device())));
    let hidden = match &args.spill {
        Some(folder) => HiddenStates::on_disk(folder, model.device(), hidden)?,
        None => HiddenStates::in_memory(hidden.collect()),
    };
    drop(embedding);
    let places = model.context(windows[0].len());
    let walk = Walk::new(&model, Calibration::new(&model, model.checkpoint(), &places, hidden))?;
    let plan = walk.plan()?;
    let (tensors, tokens) = (plan.tensors().count(), windows.len() * windows[0].len());
    let (settings, begin) =
        (args.settings(model.checkpoint())?, if args.resume { Writer::resume } else { Writer::create });
    // Save after each block.
    let writer = begin(plan, &args.out, &[model.checkpoint()], &settings)?.with_threads(1);
    let mut writer = writer.with_patience(Duration::ZERO);
    writer.write(&|tensor| walk.moment(tensor), &|_, _| ())?;
    writer.finish()?;
    writeln!(out, "second moments of the inputs of {tensors} layers over {} tokens", text::grouped(tokens))?;
    Ok(())
}

/// A calibration text passing through a model: moments are requested in the order of its blocks.
struct Walk<'a> {
    model: &'a Transformer,
    /// The layer behind the last block, if it has its own matrix.
    head: Option<(LayerRef, Head)>,
    at: Mutex<At<'a>>,
    bar: Bar,
}

/// The progress, and the inputs of the last block.
struct At<'a> {
    survey: Calibration<'a, Transformer>,
    seen: Option<BlockInputs<SecondMoment>>,
}

impl<'a> Walk<'a> {
    fn new(model: &'a Transformer, survey: Calibration<'a, Transformer>) -> Result<Self> {
        let head = if model.config.encoder { None } else { Some((model.head_layer()?, model.head()?)) };
        let head = head.filter(|(_, head)| head.has_own());
        Ok(Self { model, head, at: Mutex::new(At { survey, seen: None }), bar: Bar::new("blocks") })
    }

    /// All layers, block by block.
    fn layers(&self) -> impl Iterator<Item = LayerRef> {
        let blocks = (0..self.model.blocks()).flat_map(|index| self.model.layers(index));
        blocks.chain(self.head.iter().map(|(layer, _)| layer.clone()))
    }

    fn plan(&self) -> Result<Plan> {
        let planned = |layer: LayerRef| {
            let shape = &self.model.checkpoint().entry(&layer.tensor)?.shape;
            let input = if layer.transposed { shape.first() } else { shape.last() }.copied().unwrap_or(0);
            Core::Ok(Planned { name: layer.tensor, dtype: Dtype::F32, shape: vec![input, input] })
        };
        let turned: Vec<String> = self.layers().filter(|layer| layer.transposed).map(|layer| layer.tensor).collect();
        let plan = Plan::one("statistics", self.layers().map(planned).collect::<Core<_>>()?)?;
        Ok(if turned.is_empty() { plan } else { plan.with_metadata(stream::TRANSPOSED, turned.join("\n")) })
    }

    /// The moment of one layer's input.
    fn moment(&self, tensor: &Planned) -> Core<Contents<'static>> {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(seen) = &at.seen
                && let Some(layer) = seen.layers.iter().find(|layer| layer.tensor == tensor.name)
            {
                return Ok(Contents::Values(seen.of(layer)?.values(layer)?));
            }
            at.seen = None;
            let index = at.survey.index();
            // Layers already written are skipped.
            let wanted =
                index >= self.model.blocks() || self.model.layers(index).iter().any(|l| l.tensor == tensor.name);
            let passed = !wanted && at.survey.pass()?;
            if wanted {
                at.seen = at.survey.advance()?;
            }
            match passed || at.seen.is_some() {
                true => self.bar.at(at.survey.index(), self.model.blocks()),
                false => return self.of_head(tensor, at.survey.hidden()),
            }
        }
    }

    /// The moment of the head's inputs, after all blocks.
    fn of_head(&self, tensor: &Planned, hidden: &HiddenStates) -> Core<Contents<'static>> {
        let none = || regrow_sparse_core::Error::tensor(&tensor.name, "is no linear layer of this model");
        let (layer, head) = self.head.as_ref().filter(|(layer, _)| layer.tensor == tensor.name).ok_or_else(none)?;
        let mut sum: Option<SecondMoment> = None;
        hidden.each(|x| {
            let values = head.input(x);
            sum.get_or_insert_with(|| SecondMoment::begin(values.dims()[1], &values.device())).add(values);
        })?;
        Ok(Contents::Values(sum.ok_or_else(none)?.values(layer)?))
    }
}
