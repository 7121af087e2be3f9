//! Hidden states of calibration sequences: in memory, or in a file if they would not fit.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};

use crate::{Error, Result};
use regrow_device::is_host;
use regrow_device::parallel::map_on;

/// The hidden states of some sequences, `[batch, tokens, width]` each, on their way through a model.
#[derive(Debug)]
pub struct HiddenStates(Store);

#[derive(Debug)]
enum Store {
    InMemory(Vec<Tensor<3>>),
    OnDisk(OnDisk),
}

/// Sequences one after the other in an unnamed temporary file, in f32.
#[derive(Debug)]
struct OnDisk {
    folder: PathBuf,
    file: File,
    context: Vec<Place>,
    device: Device,
}

/// Elements in a sequence that alone keeps all cores busy.
const LARGE: usize = 1 << 20;

/// Where a sequence lies, in bytes, and its shape.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    shape: [usize; 3],
}

impl HiddenStates {
    /// In memory.
    pub fn in_memory(sequences: Vec<Tensor<3>>) -> Self {
        Self(Store::InMemory(sequences))
    }

    /// In a temporary file in `folder` that is deleted when this process ends, one sequence in memory at a time; they
    /// are read back to `device`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn on_disk(
        folder: impl AsRef<Path>,
        device: &Device,
        sequences: impl IntoIterator<Item = Tensor<3>>,
    ) -> Result<Self> {
        let mut on_disk = OnDisk::new(folder.as_ref(), device)?;
        sequences.into_iter().try_for_each(|x| on_disk.push(x))?;
        Ok(Self(Store::OnDisk(on_disk)))
    }

    /// How many sequences there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Store::InMemory(sequences) => sequences.len(),
            Store::OnDisk(on_disk) => on_disk.context.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns sequence `index`.
    ///
    /// # Errors
    /// If there is none, or its file cannot be read.
    pub fn get(&self, index: usize) -> Result<Tensor<3>> {
        let none = || Error::Argument(format!("there is no sequence {index} of {}", self.len()));
        match &self.0 {
            Store::InMemory(sequences) => sequences.get(index).cloned().ok_or_else(none),
            Store::OnDisk(on_disk) => on_disk.read(*on_disk.context.get(index).ok_or_else(none)?),
        }
    }

    /// Passes every sequence to `visit`, in order.
    ///
    /// # Errors
    /// As [`HiddenStates::get`].
    pub fn each(&self, mut visit: impl FnMut(Tensor<3>)) -> Result<()> {
        (0..self.len()).try_for_each(|i| self.get(i).map(&mut visit))
    }

    /// Replaces every sequence by the result of `change`, which has the same shape.
    ///
    /// # Errors
    /// As [`HiddenStates::get`], a file that cannot be written, another shape in a file.
    pub fn advance(&mut self, change: impl Fn(Tensor<3>) -> Tensor<3> + Sync) -> Result<()> {
        self.advance_seen(|x| (change(x), ()), |()| ())
    }

    /// The same, one sequence after the other.
    ///
    /// # Errors
    /// As [`HiddenStates::advance`].
    pub fn advance_each(&mut self, mut change: impl FnMut(Tensor<3>) -> Tensor<3>) -> Result<()> {
        (0..self.len()).try_for_each(|i| self.put(i, change(self.get(i)?)))
    }

    /// The same as [`HiddenStates::advance`]; what `change` returns besides goes to `see`, in the order of the
    /// sequences.
    ///
    /// # Errors
    /// As [`HiddenStates::advance`].
    pub fn advance_seen<T: Send>(
        &mut self,
        change: impl Fn(Tensor<3>) -> (Tensor<3>, T) + Sync,
        mut see: impl FnMut(T),
    ) -> Result<()> {
        for group in self.groups()? {
            let from = group.start;
            for (i, (x, seen)) in self.work(group, &change)?.into_iter().enumerate() {
                self.put(from + i, x)?;
                see(seen);
            }
        }
        Ok(())
    }

    /// Applies `look` to every sequence; the results go to `see`, in order.
    ///
    /// # Errors
    /// As [`HiddenStates::get`].
    pub fn look<T: Send>(&self, look: impl Fn(Tensor<3>) -> T + Sync, mut see: impl FnMut(T)) -> Result<()> {
        for group in self.groups()? {
            self.work(group, &look)?.into_iter().for_each(&mut see);
        }
        Ok(())
    }

    /// The results of `change` for all sequences, stored where these are stored.
    ///
    /// # Errors
    /// As [`HiddenStates::advance`].
    pub fn map(&self, change: impl Fn(Tensor<3>) -> Tensor<3> + Sync) -> Result<Self> {
        let mut new = self.empty()?;
        for group in self.groups()? {
            self.work(group, &change)?.into_iter().try_for_each(|x| new.push(x))?;
        }
        Ok(new)
    }

    /// A copy of the first `count` sequences, or of all if there are no more.
    ///
    /// # Errors
    /// As [`HiddenStates::advance`].
    pub fn first(&self, count: usize) -> Result<Self> {
        let mut new = self.empty()?;
        (0..count.min(self.len())).try_for_each(|i| new.push(self.get(i)?))?;
        Ok(new)
    }

    /// Whether sequences are processed one after the other, as large ones are: each keeps all cores busy, and several
    /// would need their memory several times.
    ///
    /// # Errors
    /// As [`HiddenStates::get`].
    pub fn one_by_one(&self) -> Result<bool> {
        Ok(self.is_empty() || side_by_side(&self.get(0)?) == 1)
    }

    /// Applies `work` to the sequences of a group in parallel.
    fn work<T: Send>(&self, group: Range<usize>, work: &(impl Fn(Tensor<3>) -> T + Sync)) -> Result<Vec<T>> {
        let sequences = group.map(|i| self.get(i)).collect::<Result<Vec<_>>>()?;
        let device = sequences.first().map_or_else(regrow_device::current, Tensor::device);
        Ok(map_on(&device, sequences, work))
    }

    /// The groups of sequences that are processed in parallel.
    fn groups(&self) -> Result<Vec<Range<usize>>> {
        let all = self.len();
        let size = if all == 0 { 1 } else { side_by_side(&self.get(0)?) };
        Ok((0..all).step_by(size).map(|from| from..all.min(from + size)).collect())
    }

    fn put(&mut self, index: usize, x: Tensor<3>) -> Result<()> {
        match &mut self.0 {
            Store::InMemory(sequences) => sequences[index] = x,
            Store::OnDisk(on_disk) => on_disk.write(on_disk.context[index], x)?,
        }
        Ok(())
    }

    fn push(&mut self, x: Tensor<3>) -> Result<()> {
        match &mut self.0 {
            Store::InMemory(sequences) => sequences.push(x),
            Store::OnDisk(on_disk) => on_disk.push(x)?,
        }
        Ok(())
    }

    /// No sequences yet, to be stored where these are.
    fn empty(&self) -> Result<Self> {
        Ok(Self(match &self.0 {
            Store::InMemory(_) => Store::InMemory(Vec::new()),
            Store::OnDisk(on_disk) => Store::OnDisk(OnDisk::new(&on_disk.folder, &on_disk.device)?),
        }))
    }
}

/// Replaces each of `sequences` by the result of `change`, small ones in parallel on the CPU's cores.
pub fn advance_all(sequences: &mut [Tensor<3>], change: impl Fn(Tensor<3>) -> Tensor<3> + Sync) {
    let Some((size, device)) = sequences.first().map(|x| (side_by_side(x), x.device())) else { return };
    for group in sequences.chunks_mut(size) {
        let changed = map_on(&device, group.to_vec(), &change);
        group.iter_mut().zip(changed).for_each(|(x, changed)| *x = changed);
    }
}

/// How many sequences like `x` are processed in parallel: for small ones on the CPU, one per core.
fn side_by_side(x: &Tensor<3>) -> usize {
    match is_host(&x.device()) {
        true => (LARGE / x.shape().num_elements().max(1)).clamp(1, rayon::current_num_threads()),
        false => 1,
    }
}

impl OnDisk {
    fn new(folder: &Path, device: &Device) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(|e| Error::io(folder, e))?;
        Ok(Self { folder: folder.into(), file, context: Vec::new(), device: device.clone() })
    }

    fn push(&mut self, x: Tensor<3>) -> Result<()> {
        let after = |last: &Place| last.start + 4 * last.shape.iter().product::<usize>() as u64;
        let place = Place { start: self.context.last().map_or(0, after), shape: x.dims() };
        self.write(place, x)?;
        self.context.push(place);
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
        Tensor::from_data(TensorData::new(values, [1, tokens, 2]), &regrow_device::current())
    }

    fn numbers(hidden: &HiddenStates) -> Vec<Vec<f32>> {
        let mut found = Vec::new();
        hidden.each(|x| found.push(x.into_data().iter::<f32>().collect())).unwrap();
        found
    }

    #[test]
    fn in_a_file_as_in_memory() {
        let (folder, device) = (tempfile::tempdir().unwrap(), regrow_device::current());
        let all = || vec![sequence(2, 0.0), sequence(3, 10.0), sequence(1, 20.0)];
        let mut in_memory = HiddenStates::in_memory(all());
        let mut on_disk = HiddenStates::on_disk(folder.path(), &device, all()).unwrap();
        assert_eq!((on_disk.len(), in_memory.len()), (3, 3));
        assert_eq!(numbers(&on_disk), numbers(&in_memory));
        let doubled = on_disk.map(|x| x * 2.0).unwrap();
        assert_eq!(numbers(&doubled), numbers(&in_memory.map(|x| x * 2.0).unwrap()));
        assert_eq!(numbers(&on_disk.first(2).unwrap()), numbers(&in_memory)[..2]);
        in_memory.advance(|x| x + 1.0).unwrap();
        on_disk.advance(|x| x + 1.0).unwrap();
        assert_eq!(numbers(&on_disk), numbers(&in_memory));
        assert_eq!(on_disk.get(2).unwrap().into_data(), in_memory.get(2).unwrap().into_data());
        // The file is unnamed: nothing is left behind, whatever happens.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn side_by_side_as_one_by_one() {
        let all = || (0..7).map(|i| sequence(3, 10.0 * i as f32)).collect::<Vec<_>>();
        let (mut a, mut b) = (HiddenStates::in_memory(all()), HiddenStates::in_memory(all()));
        let first = |x: &Tensor<3>| x.clone().into_data().iter::<f32>().next().unwrap();
        let (mut seen, mut order) = (Vec::new(), Vec::new());
        a.look(|x| first(&x), |value| order.push(value)).unwrap();
        assert_eq!(order, (0..7).map(|i| 10.0 * i as f32).collect::<Vec<_>>());
        a.advance_seen(|x| (x.clone() * 2.0, first(&x)), |value| seen.push(value)).unwrap();
        b.advance_each(|x| x * 2.0).unwrap();
        assert_eq!((numbers(&a), seen), (numbers(&b), order));
        let mut in_memory = all();
        advance_all(&mut in_memory, |x| x * 2.0);
        assert_eq!(numbers(&HiddenStates::in_memory(in_memory)), numbers(&b));
        let large = Tensor::zeros([1, 1 << 10, 1 << 10], &regrow_device::current());
        assert!(HiddenStates::in_memory(vec![large]).one_by_one().unwrap());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let (folder, device) = (tempfile::tempdir().unwrap(), regrow_device::current());
        let mut on_disk = HiddenStates::on_disk(folder.path(), &device, [sequence(2, 0.0)]).unwrap();
        assert!(on_disk.get(1).unwrap_err().to_string().contains("sequence 1 of 1"));
        assert!(on_disk.advance(|x| x.narrow(1, 0, 1)).unwrap_err().to_string().contains("became [1, 1, 2]"));
        assert!(HiddenStates::on_disk(folder.path().join("none"), &device, []).is_err());
    }
}
