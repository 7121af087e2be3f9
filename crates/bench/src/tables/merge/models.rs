//! The models that are merged: trained here, and those of others.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use indicatif::ProgressBar;
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_train::lr::LrSchedule;
use regrow_zoo::data::{self, DataSet, Images, Part};
use regrow_zoo::{Arch, Net, load};

use super::MergeTable;
use crate::harness::images::few;
use crate::harness::trainer::{Fit, Trainer};

/// Models to merge, and what judges them.
pub struct ModelSet {
    /// What the table calls it.
    pub name: &'static str,
    /// The models.
    pub models: Vec<Net>,
    /// Their parent, where it is known.
    pub base: Option<Net>,
    /// Training images that choose lambda and recompute batch-norm statistics.
    pub validation: Images,
    /// Some of the images that each model has learnt from, to look at what it makes of them.
    pub own: Vec<Images>,
    /// Test images.
    pub test: Images,
}

/// How many images these are.
const OWN: usize = 512;

/// Models of `arch` trained from parents: one task from one, two tasks from one, two tasks from two.
pub fn trained(
    plan: &MergeTable,
    arch: Arch,
    data: &DataSet,
    seed: u64,
    device: &Device,
    bar: &ProgressBar,
) -> Result<Vec<ModelSet>> {
    let normal = |images: &Images| match arch.normalization() {
        Some(normalization) => images.clone().with_normalization(normalization),
        None => images.clone(),
    };
    let (train, validation) = normal(&data.train).split(0.1, mix(seed, 7));
    let test = normal(&data.test);
    let fit = |net: Net, images: &Images, epochs: usize, order: u64| -> Result<Net> {
        let trainer = Trainer { train: images, device, bar, batch: plan.batch, momentum: 0.9, recalibration: 0.2 };
        let fit = Fit { epochs, lr: LrSchedule::cosine(0.05), decay: 1e-4, seed: mix(seed, order) };
        trainer.fit(net, KeepMasks, &fit)
    };
    let autodiff = device.clone().autodiff();
    let parent = |number: u64| {
        let fresh = arch.init(train.classes, mix(seed, number), &autodiff);
        fit(fresh, &train, plan.parent_epochs, number)
    };
    let halves = halves(&train);
    let (one, other) = (parent(0)?, parent(1)?);
    let grown = |parent: &Net, images: &Images, order: u64| fit(parent.clone(), images, plan.epochs, order);
    let copies = [2, 3, 4].map(|order| grown(&one, &train, order)).into_iter().collect::<Result<Vec<_>>>()?;
    let (first, second) = (grown(&one, &halves[0], 5)?, grown(&one, &halves[1], 6)?);
    let stranger = grown(&other, &halves[1], 6)?;
    let set = |name, models: Vec<Net>, own: &[&Images]| ModelSet {
        name,
        own: own.iter().map(|images| few((*images).clone(), Some(OWN))).collect(),
        models: models.into_iter().map(|net| net.valid()).collect(),
        base: Some(one.valid()),
        validation: validation.clone(),
        test: test.clone(),
    };
    Ok(vec![
        set("one task, one parent", copies, &[&train; 3]),
        set("two tasks, one parent", vec![first.clone(), second], &[&halves[0], &halves[1]]),
        set("two tasks, two parents", vec![first, stranger], &[&halves[0], &halves[1]]),
    ])
}

/// The images of the lower classes, and those of the upper.
fn halves(images: &Images) -> [Images; 2] {
    let of = |upper: bool| {
        let wanted = |i: &usize| (usize::from(images.labels[*i]) >= images.classes / 2) == upper;
        images.select(&(0..images.labels.len()).filter(wanted).collect::<Vec<_>>())
    };
    [of(false), of(true)]
}

/// A group of networks of others: what the table calls it, files, network, data set.
type Group = (&'static str, &'static [&'static str], Arch, &'static str);

const MNIST: [Group; 2] = [
    ("MNIST CNNs of one start", &["same-init-a", "same-init-b", "same-init-c", "same-init-d"], Arch::MnistCnn, "mnist"),
    ("MNIST CNNs of two", &["independent-a", "independent-b"], Arch::MnistCnn, "mnist"),
];
const CIFAR: [Group; 1] =
    [("ResNet-20s of three", &["resnet20", "resnet20-b", "resnet20-c"], Arch::ResNet20, "cifar10")];

/// The folder of real adapters, which are merged otherwise.
pub const ADAPTERS: &str = "lora";

/// Refuses folders whose networks are not known here.
pub fn check(networks: &[String]) -> Result<()> {
    let known = |network: &&String| ["lora", "mnist-cnn", "resnet-cifar10"].contains(&network.as_str());
    networks.iter().find(|network| !known(network)).map_or(Ok(()), |network| Err(unknown(network)))
}

fn unknown(networks: &str) -> Error {
    Error::Argument(format!("unknown networks `{networks}`: use lora, mnist-cnn, resnet-cifar10"))
}

/// The networks of others that the plan asks for. Their parents are not known.
pub fn of_others(plan: &MergeTable, folder: Option<&Path>, device: &Device) -> Result<Vec<ModelSet>> {
    let mut sets = Vec::new();
    for network in &plan.networks {
        let groups: &[Group] = match network.as_str() {
            "mnist-cnn" => &MNIST,
            "resnet-cifar10" => &CIFAR,
            ADAPTERS => continue,
            other => return Err(unknown(other)),
        };
        let missing = || Error::Argument(format!("{network} lies in a folder of its name below --data"));
        let folder = folder.ok_or_else(missing)?;
        for (name, files, arch, dataset) in groups {
            let path = |file: &&str| folder.join(network).join(format!("{file}.safetensors"));
            let models = files.iter().map(|file| Ok(load(*arch, path(file), device)?.0.valid()));
            let part = |part: Part, wanted: usize| -> Result<Images> {
                let images = few(data::open_part(dataset, Some(folder), part)?, Some(wanted));
                Ok(match arch.normalization() {
                    Some(normalization) => images.with_normalization(normalization),
                    None => images,
                })
            };
            let validation = part(Part::Train, 500)?;
            sets.push(ModelSet {
                name,
                models: models.collect::<Result<_>>()?,
                base: None,
                own: vec![few(validation.clone(), Some(OWN)); files.len()],
                validation,
                test: part(Part::Test, plan.images)?,
            });
        }
    }
    Ok(sets)
}
