//! Streams of dissimilar tasks: halves of the classes of one or two data sets, rotated or inverted.

use std::path::Path;

use burn::module::Module;
use regrow_continual::stream::{Scenario, TaskStream};
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Headed;
use regrow_train::lr::LrSchedule;
use regrow_zoo::Net;
use regrow_zoo::data::{self, Images};

use crate::harness::images::{Change, few, held_out, only};
use crate::harness::table::Context;
use crate::harness::trainer::Fit;

/// Classes of each part.
pub const CLASSES: usize = 5;

/// A stream's name; data set, first class and change of each part. The first part is learned before the tasks.
type Stream = (&'static str, [(&'static str, usize, Change); 6]);

/// All streams.
#[rustfmt::skip]
const STREAMS: [Stream; 2] = [
    ("digits", [
        ("digits", 0, Change::No), ("digits", 5, Change::No), ("digits", 0, Change::Turned(1)),
        ("digits", 5, Change::Inverted), ("digits", 5, Change::Turned(1)), ("digits", 0, Change::Inverted),
    ]),
    ("mnist", [
        ("mnist", 0, Change::No), ("mnist", 5, Change::No), ("fashion-mnist", 0, Change::No),
        ("mnist", 0, Change::Turned(1)), ("fashion-mnist", 5, Change::No), ("mnist", 5, Change::Inverted),
    ]),
];

/// Training and test images of five classes.
pub struct Part {
    /// Such as `digits 5 to 9, inverted`.
    pub name: String,
    /// Training images.
    pub train: Images,
    /// Test images.
    pub test: Images,
}

/// The part that is learned first, and the tasks in order.
pub struct Parts {
    /// The part that is learned before the tasks.
    pub anchor: Part,
    /// The tasks.
    pub tasks: Vec<Part>,
}

/// The stream `name` from the data sets in `folder`; of each part `images` training images, tested on held-out training
/// images with `validate`.
///
/// # Errors
/// An unknown stream, data that is missing.
pub fn open(name: &str, folder: Option<&Path>, images: Option<usize>, validate: bool) -> Result<Parts> {
    let found = STREAMS.iter().find(|(stream, _)| *stream == name);
    let names = || STREAMS.map(|(stream, _)| stream).join(", ");
    let (_, parts) = found.ok_or_else(|| Error::Argument(format!("unknown stream `{name}`: use {}", names())))?;
    let part = |(set, first, change): &(&str, usize, Change)| {
        let set = data::open(set, folder)?;
        let set = if validate { held_out(set) } else { set };
        let of = |images: &Images| change.of(&only(images, *first..first + CLASSES));
        let name = format!("{} {first} to {}{}", set.name, first + CLASSES - 1, change.says());
        Ok(Part { name, train: few(of(&set.train), images), test: of(&set.test) })
    };
    let anchor = part(&parts[0])?;
    Ok(Parts { anchor, tasks: parts[1..].iter().map(part).collect::<Result<_>>()? })
}

impl Parts {
    /// A network with this many blocks in each stage (0: three convolutions) that has learned the first part, with a
    /// new head for all tasks, and its accuracy on its own classes.
    ///
    /// # Errors
    /// If the training fails.
    pub fn learned(
        &self,
        (blocks, epochs, batch): (usize, usize, usize),
        seed: u64,
        context: &Context<'_, Self>,
    ) -> Result<(Net, f64)> {
        let (own, channels) = (&self.anchor, self.anchor.train.size[0]);
        let (trainer, device) = (context.trainer(&own.train, batch), context.device.clone().autodiff());
        let net = |classes: usize, seed: u64| match blocks {
            0 => regrow_zoo::convnet([channels, classes], seed, &device),
            blocks => regrow_zoo::resnet(blocks, [channels, classes], seed, &device),
        };
        let fit = Fit { epochs, lr: LrSchedule::cosine(0.05), decay: 1e-4, seed: mix(seed, 1) };
        let mut learned = trainer.fit(net(CLASSES, seed), KeepMasks, &fit)?;
        let right = trainer.accuracy(&learned, &own.test);
        let fresh = net(CLASSES * self.tasks.len(), mix(seed, 2)).valid();
        *learned.head_mut() = fresh.head().clone();
        Ok((learned, right))
    }

    /// The tasks as a stream.
    ///
    /// # Errors
    /// As [`TaskStream::sets`].
    pub fn stream(&self) -> Result<TaskStream<'_>> {
        let sets: Vec<_> = self.tasks.iter().map(|t| (&t.train as _, &t.test as _, CLASSES)).collect();
        TaskStream::sets(Scenario::Task, &sets)
    }

    /// A description in words.
    pub fn says(&self) -> String {
        let tasks: Vec<String> = self.tasks.iter().enumerate().map(|(i, t)| format!("{} {}", i + 1, t.name)).collect();
        let counts = |parts: &[Part]| parts.iter().map(|p| p.train.labels.len().to_string()).collect::<Vec<_>>();
        format!(
            "{}; tasks: {}; {} and {} images to train on",
            self.anchor.name,
            tasks.join("; "),
            self.anchor.train.labels.len(),
            counts(&self.tasks).join(", ")
        )
    }
}
