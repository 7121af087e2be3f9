//! Images as used by tables: parts of a data set, some of its classes, rotated or inverted.

use std::ops::Range;
use std::path::Path;

use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Examples;
use regrow_zoo::Arch;
use regrow_zoo::data::{self, DataSet, Images};
use serde::{Deserialize, Serialize};

/// How much of a data set a table uses: networks on images take hours on a few cores.
#[derive(clap::Args, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// Number of test images to evaluate on, evenly spaced; by default all
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<usize>,
    /// Number of training images to train and evaluate on, evenly spaced; by default all
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_images: Option<usize>,
}

impl Part {
    /// Rejects a count of zero.
    ///
    /// # Errors
    /// If there would be no image.
    pub fn check(&self) -> Result<()> {
        match (self.images, self.train_images) {
            (Some(0), _) | (_, Some(0)) => {
                Err(Error::Argument("a table needs at least one image (--images, --train-images)".into()))
            }
            _ => Ok(()),
        }
    }

    /// The images of `data` that are used.
    pub fn of(&self, data: DataSet) -> DataSet {
        let (train, test) = (few(data.train, self.train_images), few(data.test, self.images));
        DataSet { train, test, ..data }
    }

    /// A suffix for the description of the training data.
    pub fn says(&self) -> String {
        let training = self.train_images.map(|n| format!(", on {n} training images"));
        let test = self.images.map(|n| format!(", counted on {n} test images"));
        training.into_iter().chain(test).collect()
    }
}

/// Opens the data set `name` for this architecture.
///
/// # Errors
/// Data that is unknown, missing, or has another size than the network's input.
pub fn open(name: &str, arch: Arch, folder: Option<&Path>) -> Result<DataSet> {
    let data = data::open(name, folder)?;
    if data.train.size != arch.input() {
        let (have, want) = (data.train.size, arch.input());
        return Err(Error::Argument(format!("{} images are {have:?}, {arch} wants {want:?}", data.name)));
    }
    Ok(data)
}

/// With the normalization of the published weights of `arch`.
pub fn normalized(data: DataSet, arch: Arch) -> DataSet {
    match arch.normalization() {
        Some(normal) => DataSet {
            train: data.train.with_normalization(normal.clone()),
            test: data.test.with_normalization(normal),
            ..data
        },
        None => data,
    }
}

/// A subset of `images`, evenly spaced: some data sets are sorted by class.
pub fn few(images: Images, wanted: Option<usize>) -> Images {
    let all = images.len();
    match wanted {
        Some(few) if few < all => images.select(&(0..few).map(|i| i * all / few).collect::<Vec<_>>()),
        _ => images,
    }
}

/// Replaces the test images by a fifth of the training images: for choosing settings.
pub fn held_out(set: DataSet) -> DataSet {
    let (train, test) = set.train.split(0.2, 0);
    DataSet { train, test, ..set }
}

/// The images of `classes`, numbered from 0.
pub fn only(images: &Images, classes: Range<usize>) -> Images {
    let own = |i: &usize| classes.contains(&usize::from(images.labels[*i]));
    let mut own = images.select(&(0..images.labels.len()).filter(own).collect::<Vec<_>>());
    own.labels.iter_mut().for_each(|label| *label -= classes.start as u8);
    own.classes = classes.len();
    own
}

/// A change to images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    No,
    /// Quarter turns.
    Turned(usize),
    /// Bright and dark inverted.
    Inverted,
}

impl Change {
    /// The changed images.
    pub fn of(self, images: &Images) -> Images {
        match self {
            Self::No => images.clone(),
            Self::Turned(quarters) => turned(images, quarters),
            Self::Inverted => {
                let (mut images, most) = (images.clone(), images.normalization.scale as u8);
                images.pixels.iter_mut().for_each(|pixel| *pixel = most.saturating_sub(*pixel));
                images
            }
        }
    }

    /// A suffix for the name of changed images.
    pub fn says(self) -> String {
        match self {
            Self::No => String::new(),
            Self::Turned(quarters) => format!(", turned by {}", 90 * quarters),
            Self::Inverted => ", inverted".into(),
        }
    }
}

/// The images rotated `way % 4` times by 90 degrees, mirrored before that from 4 on.
pub fn turned(images: &Images, way: usize) -> Images {
    let side = images.size[2];
    let source = |row: usize, column: usize| {
        let (mut row, mut column) = (row, column);
        for _ in 0..way % 4 {
            (row, column) = (side - 1 - column, row);
        }
        if way >= 4 { (row, side - 1 - column) } else { (row, column) }
    };
    let mut turned = images.clone();
    for (from, to) in images.pixels.chunks(side * side).zip(turned.pixels.chunks_mut(side * side)) {
        for (place, pixel) in to.iter_mut().enumerate() {
            let (row, column) = source(place / side, place % side);
            *pixel = from[row * side + column];
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use regrow_zoo::data::Normalization;

    use super::*;

    #[test]
    fn images_are_turned_and_mirrored_by_hand() {
        let pixels = vec![1, 2, 3, 4];
        let images = Images::new([1, 2, 2], 1, pixels, vec![0], Normalization::bytes(&[0.0], &[1.0])).unwrap();
        let all: Vec<Vec<u8>> = (0..8).map(|way| turned(&images, way).pixels).collect();
        assert_eq!(all[0], [1, 2, 3, 4]);
        assert_eq!(all[1], [3, 1, 4, 2]);
        assert_eq!(all[2], [4, 3, 2, 1]);
        assert_eq!(all[4], [2, 1, 4, 3]);
        let mut different = all.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), 8);
    }

    #[test]
    fn halves_of_the_classes_are_numbered_anew_and_inverted() {
        let digits = data::open("digits", None).unwrap();
        let (low, high) = (only(&digits.train, 0..5), only(&digits.train, 5..10));
        assert_eq!(low.labels.len() + high.labels.len(), digits.train.labels.len());
        assert!([&low, &high].iter().all(|i| i.classes == 5 && i.labels.iter().max() == Some(&4)));
        let inverted = Change::Inverted.of(&low);
        let opposite: Vec<u8> = low.pixels.iter().map(|pixel| 16 - pixel).collect();
        assert_eq!(inverted.pixels, opposite);
        assert_ne!(Change::Turned(1).of(&low).pixels, low.pixels);
        assert_eq!(Change::Inverted.of(&inverted).pixels, low.pixels);
    }
}
