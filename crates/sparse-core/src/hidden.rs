//! Hidden states of calibration sequences: in memory, or in a file where they would not fit.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};

use crate::{Error, Result};

/// The hidden states of some sequences, `[batch, tokens, width]` each, on their way through a model.
#[derive(Debug)]
pub struct Hidden(Store);

#[derive(Debug)]
enum Store {
    Held(Vec<Tensor<3>>),
    Spilled(Spilled),
}

/// Sequences one after the other in a file without a name, in f32.
#[derive(Debug)]
struct Spilled {
    folder: PathBuf,
    file: File,
    places: Vec<Place>,
    device: Device,
}

/// Where a sequence lies, in bytes, and its shape.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    shape: [usize; 3],
}

impl Hidden {
    /// In memory.
    pub fn held(sequences: Vec<Tensor<3>>) -> Self {
        Self(Store::Held(sequences))
    }

    /// In a file in `folder` that goes with this process, one sequence in memory at a time; they come
    /// back on `device`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn spilled(
        folder: impl AsRef<Path>,
        device: &Device,
        sequences: impl IntoIterator<Item = Tensor<3>>,
    ) -> Result<Self> {
        let mut spilled = Spilled::new(folder.as_ref(), device)?;
        sequences.into_iter().try_for_each(|x| spilled.push(x))?;
        Ok(Self(Store::Spilled(spilled)))
    }

    /// How many sequences there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Store::Held(sequences) => sequences.len(),
            Store::Spilled(spilled) => spilled.places.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sequence `index`.
    ///
    /// # Errors
    /// If there is none, or its file cannot be read.
    pub fn get(&self, index: usize) -> Result<Tensor<3>> {
        let none = || Error::Argument(format!("there is no sequence {index} of {}", self.len()));
        match &self.0 {
            Store::Held(sequences) => sequences.get(index).cloned().ok_or_else(none),
            Store::Spilled(spilled) => spilled.read(*spilled.places.get(index).ok_or_else(none)?),
        }
    }

    /// Hands every sequence to `visit`, in order.
    ///
    /// # Errors
    /// As [`Hidden::get`].
    pub fn each(&self, mut visit: impl FnMut(Tensor<3>)) -> Result<()> {
        (0..self.len()).try_for_each(|i| self.get(i).map(&mut visit))
    }

    /// Replaces every sequence by what `change` makes of it, which has its shape.
    ///
    /// # Errors
    /// As [`Hidden::get`], a file that cannot be written, another shape in a file.
    pub fn advance(&mut self, mut change: impl FnMut(Tensor<3>) -> Tensor<3>) -> Result<()> {
        match &mut self.0 {
            Store::Held(sequences) => sequences.iter_mut().for_each(|x| *x = change(x.clone())),
            Store::Spilled(spilled) => {
                for place in &spilled.places {
                    spilled.write(*place, change(spilled.read(*place)?))?;
                }
            }
        }
        Ok(())
    }

    /// What `change` makes of every sequence, kept where these are kept.
    ///
    /// # Errors
    /// As [`Hidden::advance`].
    pub fn map(&self, change: impl FnMut(Tensor<3>) -> Tensor<3>) -> Result<Self> {
        self.map_first(self.len(), change)
    }

    /// A copy of the first `count` sequences, or of all if there are no more.
    ///
    /// # Errors
    /// As [`Hidden::advance`].
    pub fn first(&self, count: usize) -> Result<Self> {
        self.map_first(count, |x| x)
    }

    fn map_first(&self, count: usize, mut change: impl FnMut(Tensor<3>) -> Tensor<3>) -> Result<Self> {
        match &self.0 {
            Store::Held(sequences) => Ok(Self::held(sequences.iter().take(count).map(|x| change(x.clone())).collect())),
            Store::Spilled(spilled) => {
                let mut new = Spilled::new(&spilled.folder, &spilled.device)?;
                let places = spilled.places.iter().take(count);
                places.copied().try_for_each(|place| new.push(change(spilled.read(place)?)))?;
                Ok(Self(Store::Spilled(new)))
            }
        }
    }
}

impl Spilled {
    fn new(folder: &Path, device: &Device) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(|e| Error::io(folder, e))?;
        Ok(Self { folder: folder.into(), file, places: Vec::new(), device: device.clone() })
    }

    fn push(&mut self, x: Tensor<3>) -> Result<()> {
        let after = |last: &Place| last.start + 4 * last.shape.iter().product::<usize>() as u64;
        let place = Place { start: self.places.last().map_or(0, after), shape: x.dims() };
        self.write(place, x)?;
        self.places.push(place);
        Ok(())
    }

    fn read(&self, place: Place) -> Result<Tensor<3>> {
        let mut values = vec![0.0f32; place.shape.iter().product()];
        let mut file = &self.file;
        let read = file
            .seek(SeekFrom::Start(place.start))
            .and_then(|_| file.read_exact(bytemuck::cast_slice_mut(&mut values)));
        read.map_err(|e| Error::io(&self.folder, e))?;
        Ok(Tensor::from_data(TensorData::new(values, place.shape), &self.device))
    }

    fn write(&self, place: Place, x: Tensor<3>) -> Result<()> {
        if x.dims() != place.shape {
            let (had, has) = (place.shape, x.dims());
            return Err(Error::Argument(format!("hidden states of shape {had:?} became {has:?}")));
        }
        let values: Vec<f32> = x.into_data().convert::<f32>().iter::<f32>().collect();
        let mut file = &self.file;
        let written =
            file.seek(SeekFrom::Start(place.start)).and_then(|_| file.write_all(bytemuck::cast_slice(&values)));
        written.map_err(|e| Error::io(&self.folder, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(tokens: usize, from: f32) -> Tensor<3> {
        let values: Vec<f32> = (0..tokens * 2).map(|i| from + i as f32).collect();
        Tensor::from_data(TensorData::new(values, [1, tokens, 2]), &Device::default())
    }

    fn numbers(hidden: &Hidden) -> Vec<Vec<f32>> {
        let mut found = Vec::new();
        hidden.each(|x| found.push(x.into_data().iter::<f32>().collect())).unwrap();
        found
    }

    #[test]
    fn in_a_file_as_in_memory() {
        let (folder, device) = (tempfile::tempdir().unwrap(), Device::default());
        let all = || vec![sequence(2, 0.0), sequence(3, 10.0), sequence(1, 20.0)];
        let mut held = Hidden::held(all());
        let mut spilled = Hidden::spilled(folder.path(), &device, all()).unwrap();
        assert_eq!((spilled.len(), held.len()), (3, 3));
        assert_eq!(numbers(&spilled), numbers(&held));
        let doubled = spilled.map(|x| x * 2.0).unwrap();
        assert_eq!(numbers(&doubled), numbers(&held.map(|x| x * 2.0).unwrap()));
        assert_eq!(numbers(&spilled.first(2).unwrap()), numbers(&held)[..2]);
        held.advance(|x| x + 1.0).unwrap();
        spilled.advance(|x| x + 1.0).unwrap();
        assert_eq!(numbers(&spilled), numbers(&held));
        assert_eq!(spilled.get(2).unwrap().into_data(), held.get(2).unwrap().into_data());
        // The file has no name: nothing is left behind, whatever happens.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let (folder, device) = (tempfile::tempdir().unwrap(), Device::default());
        let mut spilled = Hidden::spilled(folder.path(), &device, [sequence(2, 0.0)]).unwrap();
        assert!(spilled.get(1).unwrap_err().to_string().contains("sequence 1 of 1"));
        assert!(spilled.advance(|x| x.narrow(1, 0, 1)).unwrap_err().to_string().contains("became [1, 1, 2]"));
        assert!(Hidden::spilled(folder.path().join("none"), &device, []).is_err());
    }
}
