//! Merges the models of a set by every method and measures what comes out.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use regrow_inference::ForwardWith;
use regrow_merging::{MergeEntry, MergeParams, Operand, Operands, Soup, information, tensor_methods};
use regrow_sparse_core::layerwise::Moments;
use regrow_sparse_core::model::deep_copy::deep_clone;
use regrow_sparse_core::model::gradients::with_fixed_statistics;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::{Examples, correct, count_correct, mean_loss, probabilities, recalibrate};
use regrow_zoo::Net;
use regrow_zoo::data::Images;
use regrow_zoo::names::{map_values, visit_values};

use super::models::ModelSet;
use crate::harness::images::few;
use crate::harness::record::Record;

/// What lambda is chosen from.
const LAMBDAS: [f64; 4] = [0.3, 0.5, 0.7, 1.0];
/// Images per forward pass.
const BATCH: usize = 256;
/// The same where the windows of convolutions are laid out.
const SEEN: usize = 32;
/// Images that Fisher information is taken over: each takes a backward pass a class.
const INFORMED: usize = 64;

/// A network's tensors, by PyTorch's names.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Rows of one set: its best and worst model, their parent, their ensemble, and every method that it admits.
pub fn rows(set: &ModelSet, seed: u64, device: &Device) -> Result<Vec<Record>> {
    let mut rows = Vec::new();
    let mut add = |method: &str, accuracy: f64, seconds: f64| {
        rows.push(Record::new(&format!("{method} | {}", set.name), 0.0, seed, accuracy, seconds));
    };
    let accuracy = |net: &Net| percent(count_correct(net, &set.test, BATCH, device), &set.test);
    let alone: Vec<f64> = set.models.iter().map(&accuracy).collect();
    add("best model", alone.iter().copied().fold(0.0, f64::max), 0.0);
    add("worst model", alone.iter().copied().fold(100.0, f64::min), 0.0);
    if let Some(base) = &set.base {
        add("parent", accuracy(base), 0.0);
    }
    add("ensemble", ensemble(set, device), 0.0);
    let started = Instant::now();
    let finish = &mut |net: Net| Ok::<_, Error>(recalibrated(net, &set.validation, device));
    let judge = &mut |net: &Net| Ok(count_correct(net, &set.validation, BATCH, device) as f64);
    let (soup, _) = Soup::Greedy.cook(&set.models, finish, judge)?;
    add("greedy soup", accuracy(&soup), started.elapsed().as_secs_f64());
    for entry in tensor_methods().filter(|entry| admits(set, entry)) {
        let started = Instant::now();
        let statistics = match entry.info.name {
            "fisher" => Some(information(set, device)?),
            "regmean" => Some(moments(set, device)?),
            _ => None,
        };
        let net = merged(set, entry, statistics.as_ref(), seed, device)?;
        add(entry.info.name, accuracy(&net), started.elapsed().as_secs_f64());
    }
    Ok(rows)
}

/// Dense models share the mask of everything, so that SMS is the average.
fn admits(set: &ModelSet, entry: &MergeEntry) -> bool {
    entry.check(set.models.len(), set.base.is_some()).is_ok() && entry.info.name != "sms"
}

/// The Fisher information of each model, on images that it learnt from.
fn information(set: &ModelSet, device: &Device) -> Result<Vec<Tensors>> {
    let autodiff = device.clone().autodiff();
    let one = |(net, images): (&Net, &Images)| {
        let each = few(images.clone(), Some(INFORMED));
        let each = (0..each.len()).map(|i| each.images(&[i], &autodiff));
        Ok(tensors(&information::gather(&net.clone().train(), each, |_| ())?))
    };
    set.models.iter().zip(&set.own).map(one).collect()
}

/// The second moments of what each model's layers read, on images that it learnt from.
fn moments(set: &ModelSet, device: &Device) -> Result<Vec<Tensors>> {
    let one = |(net, images): (&Net, &Images)| {
        let (net, mut moments) = (with_fixed_statistics(net.clone()), Moments::default());
        let all: Vec<usize> = (0..images.len()).collect();
        for batch in all.chunks(SEEN) {
            let _ = net.run(images.images(batch, device), &mut moments);
        }
        let of_layer = |(layer, values): (String, Vec<f32>)| {
            let inputs = values.len().isqrt();
            (format!("{layer}.weight"), (vec![inputs, inputs], values))
        };
        Ok(moments.values()?.into_iter().map(of_layer).collect())
    };
    set.models.iter().zip(&set.own).map(one).collect()
}

fn percent(right: usize, images: &Images) -> f64 {
    100.0 * right as f64 / images.len().max(1) as f64
}

fn ensemble(set: &ModelSet, device: &Device) -> f64 {
    let mut sum: Vec<f32> = Vec::new();
    for net in &set.models {
        let found = probabilities(net, &set.test, BATCH, device);
        sum.resize(found.len(), 0.0);
        sum.iter_mut().zip(found).for_each(|(sum, p)| *sum += p);
    }
    percent(correct(&sum, &set.test), &set.test)
}

/// The merge by one method, lambda chosen by the loss on validation images where there is one.
fn merged(
    set: &ModelSet,
    entry: &MergeEntry,
    statistics: Option<&Vec<Tensors>>,
    seed: u64,
    device: &Device,
) -> Result<Net> {
    let tensors: Vec<Tensors> = set.models.iter().map(tensors).collect();
    let base = set.base.as_ref().map(self::tensors);
    let with = |lambda: Option<f64>| -> Result<Net> {
        let parameters = parameters(entry, set.models.len(), lambda, seed);
        let inputs = Inputs { models: &tensors, base: base.as_ref(), statistics };
        let net = of_tensors(&set.models[0], &inputs, entry, &parameters)?;
        Ok(recalibrated(net, &set.validation, device))
    };
    if !entry.has("lambda") {
        return with(None);
    }
    let mut best: Option<(f64, Net)> = None;
    for lambda in LAMBDAS {
        let net = with(Some(lambda))?;
        let loss = mean_loss(&net, &set.validation, BATCH, device);
        if best.as_ref().is_none_or(|(least, _)| loss < *least) {
            best = Some((loss, net));
        }
    }
    best.map(|(_, net)| net).ok_or_else(|| Error::Argument("no lambda to choose from".into()))
}

/// What the papers or mergekit suggest, where a method has parameters.
pub fn parameters(entry: &MergeEntry, models: usize, lambda: Option<f64>, seed: u64) -> MergeParams {
    let density = match entry.info.name {
        "ties" => 0.2,
        "breadcrumbs" | "breadcrumbs-ties" => 0.85,
        _ => 0.5,
    };
    let settings = [("density", density.to_string()), ("t", "0.5".into()), ("seed", seed.to_string())];
    let lambda = lambda.map(|lambda| ("lambda", lambda.to_string()));
    let known = settings.into_iter().chain(lambda).filter(|(name, _)| entry.has(name));
    known.fold(MergeParams::new(models), |all, (name, value)| all.with(name, value))
}

/// What is merged.
struct Inputs<'a> {
    models: &'a [Tensors],
    base: Option<&'a Tensors>,
    statistics: Option<&'a Vec<Tensors>>,
}

fn of_tensors(net: &Net, inputs: &Inputs<'_>, entry: &MergeEntry, parameters: &MergeParams) -> Result<Net> {
    let method = entry.tensor(parameters)?;
    let names: Vec<String> = (0..inputs.models.len()).map(|i| format!("model {i}")).collect();
    let mut new = BTreeMap::new();
    for (name, (shape, _)) in &inputs.models[0] {
        let of = |tensors: &Tensors| tensors.get(name).map(|(_, values)| values.clone()).unwrap_or_default();
        let values: Vec<Vec<f32>> = inputs.models.iter().map(of).collect();
        // Running statistics have no information, and only layers have moments.
        let counts = !(name.ends_with("running_mean") || name.ends_with("running_var"));
        let known = inputs.statistics.filter(|all| counts && all.iter().all(|of| of.contains_key(name)));
        let known = known.map(|all| all.iter().map(of).collect::<Vec<_>>());
        let operand = |i: usize| Operand {
            model: &names[i],
            values: &values[i],
            statistic: known.as_ref().map(|known| known[i].as_slice()),
        };
        let operands: Vec<Operand<'_>> = (0..names.len()).map(operand).collect();
        let base = inputs.base.map(of);
        new.insert(name.clone(), method.merge(&Operands::new(name, shape, base.as_deref(), &operands)?)?);
    }
    Ok(map_values(deep_clone(net), &mut |name, _| new.remove(name)))
}

fn tensors(net: &Net) -> Tensors {
    let mut tensors = BTreeMap::new();
    visit_values(net, &mut |name, shape, values| drop(tensors.insert(name, (shape, values))));
    tensors
}

/// With batch-norm statistics of its own.
fn recalibrated(net: Net, images: &Images, device: &Device) -> Net {
    let all: Vec<usize> = (0..images.len()).collect();
    let autodiff = device.clone().autodiff();
    recalibrate(net, all.chunks(BATCH).map(|batch| images.images(batch, &autodiff)))
}
