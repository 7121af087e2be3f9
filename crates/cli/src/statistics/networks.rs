//! Statistics of image classifiers.

use std::collections::BTreeSet;
use std::io::Write;

use regrow_checkpoint::{Checkpoint, Dtype, Planned};
use regrow_inference::ForwardWith;
use regrow_merging::information;
use regrow_sparse_core::layerwise::Moments;
use regrow_sparse_core::model::gradients::with_fixed_statistics;
use regrow_train::classifier::Examples;
use regrow_zoo::data::{self, Images, Part};
use regrow_zoo::names::{Role, visit_names, visit_values};
use regrow_zoo::{Arch, Net, load};

use super::kept::Kept;
use super::{Args, Tensors, count, write};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::text;

/// Images per forward pass.
const BATCH: usize = 32;

/// The Fisher information.
pub fn fisher(args: &Args, network: (&str, &str), out: &mut dyn Write) -> Result<()> {
    let device = regrow_device::current().autodiff();
    let (net, images, source) = open(args, network, &device)?;
    let bar = Bar::new("images");
    let (mut kept, begun) = Kept::begin(args, args.settings(&source)?)?;
    let each = (begun.examples..images.len()).map(|i| images.images(&[i], &device));
    let information = information::gather_on(&net, begun, each, information::of_classes, |sums| {
        bar.at(sums.examples, images.len());
        kept.keep(sums)
    })?;
    let mut parameters = BTreeSet::new();
    visit_names(&net, &mut |name, _, role| {
        if role != Role::Statistic {
            parameters.insert(name);
        }
    });
    let mut tensors = Tensors::new();
    visit_values(&information, &mut |name, shape, values| {
        if parameters.contains(&name) {
            tensors.push((Planned { name: own(&source, &name), dtype: Dtype::F32, shape }, values));
        }
    });
    write(&tensors, args, &source, "fisher")?;
    kept.end();
    let numbers = text::grouped(count(&tensors));
    writeln!(out, "Fisher information of {numbers} parameters over {} images", images.len())?;
    Ok(())
}

/// The second moments of what the layers read.
pub fn moments(args: &Args, network: (&str, &str), out: &mut dyn Write) -> Result<()> {
    let device = regrow_device::current();
    let (net, images, source) = open(args, network, &device)?;
    let net = with_fixed_statistics(net);
    let bar = Bar::new("images");
    let mut moments = Moments::default();
    let all: Vec<usize> = (0..images.len()).collect();
    for batch in all.chunks(BATCH) {
        let _ = net.run(images.images(batch, &device), &mut moments);
        bar.at(batch[0] + batch.len(), images.len());
    }
    let planned = |(layer, values): (String, Vec<f32>)| {
        let name = own(&source, &format!("{layer}.weight"));
        let inputs = values.len().isqrt();
        (Planned { name, dtype: Dtype::F32, shape: vec![inputs, inputs] }, values)
    };
    let tensors: Tensors = moments.values()?.into_iter().map(planned).collect();
    write(&tensors, args, &source, "moments")?;
    writeln!(out, "second moments of the inputs of {} layers over {} images", tensors.len(), images.len())?;
    Ok(())
}

/// The network, images that it fits, and its file.
fn open(
    args: &Args,
    (arch, dataset): (&str, &str),
    device: &burn::tensor::Device,
) -> Result<(Net, Images, Checkpoint)> {
    let arch = Arch::parse(arch)?;
    let source = Checkpoint::open(&args.model)?;
    let (net, classes) = load(arch, &args.model, device)?;
    Ok((net, self::images(args, arch, dataset, classes)?, source))
}

/// A parameter's name as the file has it: maybe with a prefix.
fn own(source: &Checkpoint, name: &str) -> String {
    let is_own = |own: &str| own.strip_suffix(name).is_some_and(|p| p.is_empty() || p == "module.");
    let found = source.entries().iter().find(|entry| is_own(&entry.name));
    found.map_or_else(|| name.to_string(), |entry| entry.name.clone())
}

/// Training images that fit the network, evenly spaced.
fn images(args: &Args, arch: Arch, dataset: &str, classes: usize) -> Result<Images> {
    let images = data::open_part(dataset, args.data.as_deref(), Part::Train)?;
    if images.size != arch.input() {
        let reason = format!("{dataset} images are {:?}, {arch} wants {:?}", images.size, arch.input());
        return Err(Error::Argument(reason));
    }
    if images.classes != classes {
        let reason = format!("the checkpoint has {classes} classes, {dataset} has {}", images.classes);
        return Err(Error::Argument(reason));
    }
    if args.images == 0 {
        return Err(Error::Argument("--images must be at least 1".into()));
    }
    let (all, wanted) = (images.len(), args.images.min(images.len()));
    let images = images.select(&(0..wanted).map(|i| i * all / wanted).collect::<Vec<_>>());
    Ok(match arch.normalization() {
        Some(normalization) => images.with_normalization(normalization),
        None => images,
    })
}
