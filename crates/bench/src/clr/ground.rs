//! What the table stands on: the anchor's data, and tasks of other classes and other kinds of images.

use std::ops::Range;
use std::path::Path;

use regrow_continual::stream::{DataSet, Scenario, TaskStream};
use regrow_sparse_core::{Error, Result};
use regrow_zoo::data::{self, Images};

use super::Plan;
use crate::continual::few;
use crate::tasks::turned;

/// Training and test images of five classes.
pub struct Part {
    /// As `5 to 9, inverted`.
    pub name: String,
    /// Images to learn from.
    pub train: Images,
    /// Images to count on.
    pub test: Images,
}

/// The anchor's data and the tasks'.
pub struct Ground {
    /// What the anchor learns.
    pub anchor: Part,
    /// The tasks, in their order.
    pub tasks: Vec<Part>,
}

/// Classes of each part.
pub const CLASSES: usize = 5;

/// The halves of ten classes.
const LOW: Range<usize> = 0..CLASSES;
const HIGH: Range<usize> = CLASSES..2 * CLASSES;

/// What is done to images.
#[derive(Clone, Copy)]
enum Change {
    No,
    /// Quarters of a turn.
    Turned(usize),
    /// Bright where it was dark.
    Inverted,
}

impl Ground {
    /// Opens the data of the plan's stream.
    ///
    /// # Errors
    /// An unknown stream, data that is missing.
    pub fn open(plan: &Plan, dir: Option<&Path>) -> Result<Self> {
        let open = |name: &str| data::open(name, dir).map(|set| if plan.validate { held_out(set) } else { set });
        let part = |set: &data::DataSet, classes: Range<usize>, change: Change| Part::new(set, classes, change, plan);
        match plan.stream.as_str() {
            "digits" => {
                let digits = open("digits")?;
                let tasks = vec![
                    part(&digits, HIGH, Change::No),
                    part(&digits, LOW, Change::Turned(1)),
                    part(&digits, HIGH, Change::Inverted),
                    part(&digits, HIGH, Change::Turned(1)),
                    part(&digits, LOW, Change::Inverted),
                ];
                Ok(Self { anchor: part(&digits, LOW, Change::No), tasks })
            }
            "mnist" => {
                let (mnist, fashion) = (open("mnist")?, open("fashion-mnist")?);
                let tasks = vec![
                    part(&mnist, HIGH, Change::No),
                    part(&fashion, LOW, Change::No),
                    part(&mnist, LOW, Change::Turned(1)),
                    part(&fashion, HIGH, Change::No),
                    part(&mnist, HIGH, Change::Inverted),
                ];
                Ok(Self { anchor: part(&mnist, LOW, Change::No), tasks })
            }
            other => Err(Error::Argument(format!("unknown stream `{other}`: use digits, mnist"))),
        }
    }

    /// The tasks as a stream.
    ///
    /// # Errors
    /// As [`TaskStream::sets`].
    pub fn stream(&self) -> Result<TaskStream<'_>> {
        let sets: Vec<DataSet<'_>> = self.tasks.iter().map(|t| (&t.train as _, &t.test as _, CLASSES)).collect();
        TaskStream::sets(Scenario::Task, &sets)
    }
}

impl Part {
    fn new(set: &data::DataSet, classes: Range<usize>, change: Change, plan: &Plan) -> Self {
        let how = match change {
            Change::No => String::new(),
            Change::Turned(quarters) => format!(", turned by {}", 90 * quarters),
            Change::Inverted => ", inverted".into(),
        };
        let name = format!("{} {} to {}{how}", set.name, classes.start, classes.end - 1);
        let of = |images: &Images| changed(&only(images, classes.clone()), change);
        Self { name, train: few(of(&set.train), plan.train_images), test: of(&set.test) }
    }
}

/// A fifth of the training images in place of the test images.
fn held_out(set: data::DataSet) -> data::DataSet {
    let (train, test) = set.train.split(0.2, 0);
    data::DataSet { train, test, ..set }
}

/// The images of `classes`, numbered from 0.
fn only(images: &Images, classes: Range<usize>) -> Images {
    let own = |i: &usize| classes.contains(&usize::from(images.labels[*i]));
    let mut own = images.select(&(0..images.labels.len()).filter(own).collect::<Vec<_>>());
    own.labels.iter_mut().for_each(|label| *label -= classes.start as u8);
    own.classes = classes.len();
    own
}

fn changed(images: &Images, change: Change) -> Images {
    match change {
        Change::No => images.clone(),
        Change::Turned(quarters) => turned(images, quarters),
        Change::Inverted => {
            let (mut images, most) = (images.clone(), images.normalization.scale as u8);
            images.pixels.iter_mut().for_each(|pixel| *pixel = most.saturating_sub(*pixel));
            images
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_five_classes_each_and_differ_in_their_images() {
        let digits = data::open("digits", None).unwrap();
        let (low, high) = (only(&digits.train, LOW), only(&digits.train, HIGH));
        assert_eq!(low.labels.len() + high.labels.len(), digits.train.labels.len());
        assert!([&low, &high].iter().all(|i| i.classes == 5 && i.labels.iter().max() == Some(&4)));
        let inverted = changed(&low, Change::Inverted);
        assert!(low.pixels.iter().zip(&inverted.pixels).all(|(a, b)| a + b == 16));
        assert_ne!(changed(&low, Change::Turned(1)).pixels, low.pixels);
        assert_eq!(changed(&inverted, Change::Inverted).pixels, low.pixels);
    }
}
