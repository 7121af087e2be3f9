//! A new checkpoint, tensor by tensor, several at once, file by file, resumable.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::atomic::{folder_of, refuse_occupied};
use crate::config::Config;
use crate::partial::{self, Partial};
use crate::plan::PlannedFile;
use crate::rewrite::{copy_companions, refuse_input};
use crate::{Checkpoint, Dtype, Plan, Planned, directory, values};
use crate::{Error, Result};

/// Values that are converted and written at a time.
const PIECE: usize = 1 << 16;

/// The contents of a tensor to write.
#[derive(Clone, Debug)]
pub enum Contents<'a> {
    /// Values, row-major, which are rounded to the planned type.
    Values(Vec<f32>),
    /// Bytes as in the file: row-major, little-endian, of the planned type.
    Bytes(Cow<'a, [u8]>),
}

#[derive(Serialize, Deserialize)]
struct Journal {
    settings: String,
    /// The files that are written and synced.
    finished: Vec<String>,
    /// The finished tensors of the first unfinished file, by their positions in it.
    #[serde(default)]
    tensors: Vec<usize>,
}

impl partial::Journal for Journal {
    fn settings(&self) -> &str {
        &self.settings
    }
}

/// An unfinished checkpoint: `OUT.partial`, which becomes `OUT` when it is finished.
///
/// An `OUT` that ends in `.safetensors` is a file, any other a Hugging Face directory. An error removes the written
/// files. If the process is killed they stay, and [`Writer::resume`] continues after the last finished file, and within
/// the next file from the last save.
///
/// ```
/// use regrow_checkpoint::{Checkpoint, Contents, Dtype, Error, Plan, Planned, Writer};
/// # let folder = tempfile::tempdir()?;
/// # let out = folder.path().join("model");
/// let tensor = |name: &str| Planned { name: name.into(), dtype: Dtype::F16, shape: vec![2, 3] };
/// let plan = Plan::sharded(vec![tensor("a"), tensor("b")], 12)?;
/// let mut writer = Writer::create(plan, &out, &[], "the settings of this run")?;
/// writer.add("config.json", b"{}")?;
/// let make = |tensor: &Planned| Ok::<_, Error>(Contents::Values(vec![1.5; tensor.elements()]));
/// writer.write(&make, &|_, _| ())?;
/// writer.finish()?;
/// assert_eq!(Checkpoint::open(&out)?.read_f32("b")?, [1.5; 6]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Writer {
    partial: Partial,
    plan: Plan,
    journal: Journal,
    is_directory: bool,
    threads: usize,
    patience: Duration,
}

impl Writer {
    /// Starts a checkpoint at `out`, made from `inputs`, from which it must differ. `settings` identify the run.
    ///
    /// # Errors
    /// `out` is an input, is a directory that exists and is not empty, or cannot be written; a plan of several files
    /// for a single file; too little space on the disk; a folder `OUT.partial` that is not from such a run.
    pub fn create(plan: Plan, out: impl AsRef<Path>, inputs: &[&Checkpoint], settings: &str) -> Result<Self> {
        let out = out.as_ref();
        let is_directory = admit(&plan, out, inputs)?;
        check_room(out, plan.bytes() as u64)?;
        let journal = Journal { settings: settings.into(), finished: Vec::new(), tensors: Vec::new() };
        let partial = Partial::create(out, &journal)?;
        Ok(Self { partial, plan, journal, is_directory, threads: threads(), patience: PATIENCE })
    }

    /// Continues an interrupted run with the same `settings`; starts a new one if there is nothing.
    ///
    /// # Errors
    /// As [`Writer::create`], or the remains belong to a run with other settings.
    pub fn resume(plan: Plan, out: impl AsRef<Path>, inputs: &[&Checkpoint], settings: &str) -> Result<Self> {
        let target = out.as_ref();
        let is_directory = admit(&plan, target, inputs)?;
        let Some((partial, mut journal)) = Partial::left::<Journal>(target, settings)? else {
            return Self::create(plan, out, inputs, settings);
        };
        let whole = |name: &str| plan.files.iter().any(|file| file.name == name && is_whole(&plan, file, &partial));
        journal.finished.retain(|name| whole(name));
        let missing = plan.files.iter().filter(|file| !journal.finished.contains(&file.name));
        // The noted tensors belong to a file that has its full length, or are discarded.
        if !missing.clone().next().is_some_and(|file| is_whole(&plan, file, &partial)) {
            journal.tensors.clear();
        }
        let there = journal.tensors.iter().filter_map(|index| missing.clone().next()?.tensors.get(*index));
        let there: usize = there.map(Planned::bytes).sum();
        check_room(target, missing.map(|file| file.bytes() as u64).sum::<u64>().saturating_sub(there as u64))?;
        Ok(Self { partial, plan, journal, is_directory, threads: threads(), patience: PATIENCE })
    }

    /// Computes at most this many tensors at once; by default as many as there are cores.
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// With this much time between two saves of which tensors are on the disk, more if a save takes more than a
    /// twentieth of it; by default two seconds. Tensors made since the last save are made again after a kill.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// What to write.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How many files are finished.
    pub fn done(&self) -> usize {
        self.journal.finished.len()
    }

    /// Copies configuration, tokenizer and the like from the directory of `parent`.
    ///
    /// # Errors
    /// If they cannot be read or written.
    pub fn companions(&mut self, parent: &Checkpoint) -> Result<()> {
        if !self.is_directory || !parent.is_directory() {
            return Ok(());
        }
        copy_companions(parent, self.partial.folder())?;
        if parent.is_packed()
            && let Some(config) = Config::read(parent.path())?
        {
            // How the parent is packed applies to the parent only.
            self.add("config.json", &config.unpacked().text()?)?;
        }
        // The parent's index describes the parent's shards.
        let index = self.partial.path(directory::INDEX);
        if index.exists() { fs::remove_file(&index).map_err(|e| Error::io(index, e)) } else { Ok(()) }
    }

    /// Sets the type of the weights in the copied configuration, if there is one.
    ///
    /// # Errors
    /// If it is not a configuration, or cannot be written.
    pub fn set_dtype(&mut self, dtype: Dtype) -> Result<()> {
        let Some(mut config) = Config::read(self.partial.folder())? else { return Ok(()) };
        config.set_dtype(dtype);
        self.add("config.json", &config.text()?)
    }

    /// Writes a file beside the weights, replacing a copied file with that name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.partial.path(name);
        fs::write(&path, bytes).map_err(|e| Error::io(path, e))
    }

    /// Opens a finished file of the plan, to read it before the whole checkpoint is finished; close it before
    /// finishing.
    ///
    /// # Errors
    /// If there is no such file, or it is not finished.
    pub fn open(&self, file: &str) -> Result<Checkpoint> {
        let path = self.partial.path(file);
        match self.journal.finished.iter().any(|name| name == file) {
            true => Checkpoint::open(path),
            false => Err(Error::format(path, "is not written yet")),
        }
    }

    /// Writes every unfinished file. `make` computes a tensor's contents and is called from several threads; after each
    /// tensor `watch` is called with the bytes written and the plan's total.
    ///
    /// Tensors of a file are started in order. At most [`Plan::in_work`] elements are processed at a time.
    ///
    /// # Errors
    /// The first error of `make`; contents of another length than planned, values beyond the range of the type or NaN,
    /// or a failure to write.
    pub fn write<'a, E: From<Error> + Send>(
        &mut self,
        make: &(dyn Fn(&Planned) -> Result<Contents<'a>, E> + Sync),
        watch: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<(), E> {
        let all = self.plan.bytes();
        let written = AtomicUsize::new(0);
        let advance = |bytes: usize| watch(written.fetch_add(bytes, Ordering::Relaxed) + bytes, all);
        for file in &self.plan.files {
            if self.journal.finished.contains(&file.name) {
                advance(file.bytes());
                continue;
            }
            self.write_file(file, make, &advance)?;
            self.journal.tensors.clear();
            self.journal.finished.push(file.name.clone());
            self.partial.write_journal(&self.journal)?;
        }
        Ok(())
    }

    fn write_file<'a, E: From<Error> + Send>(
        &self,
        file: &PlannedFile,
        make: &(dyn Fn(&Planned) -> Result<Contents<'a>, E> + Sync),
        advance: &(dyn Fn(usize) + Sync),
    ) -> Result<(), E> {
        let path = self.partial.path(&file.name);
        let io = |e| Error::io(&path, e);
        let header = self.plan.header(file)?;
        let (there, bytes) = (&self.journal.tensors, (header.len() + file.bytes()) as u64);
        let mut out = OpenOptions::new().write(true).create(true).truncate(there.is_empty()).open(&path).map_err(io)?;
        out.write_all(&header).map_err(io)?;
        out.set_len(bytes).map_err(io)?;
        let places = places(file, header.len());
        there.iter().filter_map(|index| file.tensors.get(*index)).for_each(|tensor| advance(tensor.bytes()));
        let queue = Queue::new(&file.tensors, self.plan.in_work(self.threads), there);
        let notes = Notes::new(there.clone(), self.patience);
        let work = || -> Result<(), E> {
            let mut out = OpenOptions::new().write(true).open(&path).map_err(io)?;
            while let Some(taken) = queue.take() {
                let tensor = &file.tensors[taken.index];
                let contents = make(tensor)?;
                check_length(tensor, &contents)?;
                out.seek(SeekFrom::Start(places[taken.index])).map_err(io)?;
                match &contents {
                    Contents::Bytes(bytes) => out.write_all(bytes).map_err(io)?,
                    // Piece by piece: just converted values are still in a near cache when they are written.
                    Contents::Values(values) => values.chunks(PIECE).try_for_each(|piece| {
                        let bytes = values::encoded(&tensor.name, tensor.dtype, piece)?;
                        out.write_all(&bytes).map_err(io)
                    })?,
                }
                advance(tensor.bytes());
                notes.add(taken.index, &|tensors| {
                    out.sync_data().map_err(io)?;
                    let Journal { settings, finished, .. } = &self.journal;
                    let (settings, finished) = (settings.clone(), finished.clone());
                    self.partial.write_journal(&Journal { settings, finished, tensors })
                })?;
                taken.done();
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads.min(file.tensors.len())).map(|_| scope.spawn(work)).collect();
            let results: Vec<_> = workers.into_iter().map(|w| w.join().unwrap_or_else(|_| Err(died()))).collect();
            results.into_iter().collect::<Result<(), E>>()
        })?;
        Ok(out.sync_data().map_err(io)?)
    }

    /// Writes the index of several files and renames everything to its final name.
    ///
    /// # Errors
    /// A file of the plan is not written yet, or a failure to write or rename.
    pub fn finish(mut self) -> Result<()> {
        if let Some(file) = self.plan.files.iter().find(|file| !self.journal.finished.contains(&file.name)) {
            return Err(Error::format(self.partial.path(&file.name), "is not written yet"));
        }
        if !self.is_directory {
            return self.partial.finish_file(&self.plan.files[0].name);
        }
        if let Some(index) = self.plan.index() {
            self.add(directory::INDEX, format!("{index:#}\n").as_bytes())?;
        }
        self.partial.finish()
    }
}

/// Whether a directory is written; an error if `out` cannot be written.
fn admit(plan: &Plan, out: &Path, inputs: &[&Checkpoint]) -> Result<bool> {
    inputs.iter().try_for_each(|input| refuse_input(input, out))?;
    let is_directory = out.extension().is_none_or(|e| e != "safetensors");
    if is_directory {
        refuse_occupied(out)?;
    } else if out.is_dir() {
        return Err(Error::format(out, "is a folder, not a file"));
    } else if plan.files() > 1 {
        return Err(Error::format(out, format!("is one file, {} are planned", plan.files())));
    }
    Ok(is_directory)
}

/// Refuses to start if the disk has too little space.
fn check_room(out: &Path, needed: u64) -> Result<()> {
    match fs4::available_space(folder_of(out)?) {
        Ok(free) if free < needed => {
            let [needed, free] = [needed, free].map(|bytes| bytes as f64 / 1e9);
            Err(Error::format(out, format!("needs {needed:.3} GB, its disk has {free:.3} GB free")))
        }
        // Not every file system can tell.
        _ => Ok(()),
    }
}

/// Whether a file that the journal lists as finished exists as planned.
fn is_whole(plan: &Plan, file: &PlannedFile, partial: &Partial) -> bool {
    let Ok(header) = plan.header(file) else { return false };
    let mut found = vec![0; header.len()];
    let read = File::open(partial.path(&file.name)).and_then(|mut open| {
        std::io::Read::read_exact(&mut open, &mut found)?;
        open.metadata()
    });
    read.is_ok_and(|data| found == header && data.len() == (header.len() + file.bytes()) as u64)
}

/// Where in the file each tensor's data starts.
fn places(file: &PlannedFile, start: usize) -> Vec<u64> {
    let begin = |at: &mut usize, tensor: &Planned| {
        let place = *at as u64;
        *at += tensor.bytes();
        Some(place)
    };
    file.tensors.iter().scan(start, begin).collect()
}

/// Checks that contents have the planned length.
fn check_length(tensor: &Planned, contents: &Contents<'_>) -> Result<()> {
    let (found, wanted, of) = match contents {
        Contents::Values(values) => (values.len(), tensor.elements(), "values"),
        Contents::Bytes(bytes) => (bytes.len(), tensor.bytes(), "bytes"),
    };
    match found == wanted {
        true => Ok(()),
        false => Err(Error::tensor(&tensor.name, format!("{found} {of} given, it has {wanted}"))),
    }
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn died<E: From<Error>>() -> E {
    Error::Argument("a thread at work on a tensor died".into()).into()
}

/// Default time between two saves.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which tensors of a file are written, saved to disk from time to time.
struct Notes {
    patience: Duration,
    written: Mutex<Written>,
}

struct Written {
    tensors: Vec<usize>,
    noted: Instant,
    /// How long the last save took.
    took: Duration,
    /// Whether a thread is saving.
    noting: bool,
}

impl Notes {
    fn new(tensors: Vec<usize>, patience: Duration) -> Self {
        let written = Written { tensors, noted: Instant::now(), took: Duration::ZERO, noting: false };
        Self { patience, written: Mutex::new(written) }
    }

    /// Records that tensor `index` is written and calls `note` with it and others when a save is due; the other threads
    /// continue meanwhile.
    fn add(&self, index: usize, note: &dyn Fn(Vec<usize>) -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        let tensors = {
            let mut written = self.lock();
            written.tensors.push(index);
            let wait = self.patience.max(20 * written.took);
            if written.noting || begun - written.noted < wait {
                return Ok(());
            }
            written.noting = true;
            written.tensors.clone()
        };
        note(tensors)?;
        let mut written = self.lock();
        (written.noted, written.took, written.noting) = (Instant::now(), begun.elapsed(), false);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tensors of a file, handed out in order while the elements being processed stay within a limit.
struct Queue<'a> {
    sizes: Vec<usize>,
    /// Tensors that are written already.
    there: &'a [usize],
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next: usize,
    in_work: usize,
    failed: bool,
}

impl<'a> Queue<'a> {
    fn new(tensors: &[Planned], limit: usize, there: &'a [usize]) -> Self {
        let sizes = tensors.iter().map(Planned::elements).collect();
        Self { sizes, there, limit, state: Mutex::default(), changed: Condvar::new() }
    }

    /// The next tensor, once there is room for it; `None` after the last one or an error.
    fn take(&self) -> Option<Taken<'_>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while self.there.contains(&state.next) {
                state.next += 1;
            }
            let index = state.next;
            let size = *self.sizes.get(index)?;
            if state.failed {
                return None;
            }
            if state.in_work == 0 || state.in_work + size <= self.limit {
                state.next += 1;
                state.in_work += size;
                return Some(Taken { queue: self, index, done: false });
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A tensor being processed; if it is dropped unfinished, no others are started.
struct Taken<'q> {
    queue: &'q Queue<'q>,
    index: usize,
    done: bool,
}

impl Taken<'_> {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.in_work -= self.queue.sizes[self.index];
        state.failed |= !self.done;
        self.queue.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use safetensors::{Dtype, SafeTensors};

    use super::*;

    /// Twelve tensors of 1 to 12 elements.
    fn tensors(dtype: Dtype) -> Vec<Planned> {
        (1..=12).map(|n| Planned { name: format!("t{n}"), dtype, shape: vec![n] }).collect()
    }

    fn contents(tensor: &Planned) -> Result<Contents<'static>> {
        Ok(Contents::Values(vec![tensor.elements() as f32; tensor.elements()]))
    }

    fn list(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn check(out: &Path) {
        let checkpoint = Checkpoint::open(out).unwrap();
        assert_eq!(checkpoint.entries().len(), 12);
        for entry in checkpoint.entries() {
            let n = entry.elements();
            assert_eq!(checkpoint.read_f32(&entry.name).unwrap(), vec![n as f32; n], "{}", entry.name);
        }
    }

    #[test]
    fn shards_index_and_companions() {
        let dir = tempfile::tempdir().unwrap();
        for (dtype, files) in [(Dtype::F32, 7), (Dtype::F16, 3), (Dtype::BF16, 3)] {
            let out = dir.path().join(dtype.to_string());
            let plan = Plan::sharded(tensors(dtype), 60).unwrap();
            assert_eq!(plan.files(), files);
            let mut writer = Writer::create(plan, &out, &[], "x").unwrap().with_threads(3);
            writer.add("config.json", b"{}").unwrap();
            let most = AtomicUsize::new(0);
            writer.write(&contents, &|done, all| assert!(most.fetch_max(done, Ordering::Relaxed) <= all)).unwrap();
            assert!(!out.exists());
            let all = writer.plan().bytes();
            writer.finish().unwrap();
            assert_eq!(most.into_inner(), all);
            check(&out);
            assert_eq!(list(&out).len(), files + 2);
        }
        assert_eq!(list(dir.path()), ["BF16", "F16", "F32"]);
    }

    #[test]
    fn companions_come_from_a_parent_without_its_index() {
        let dir = tempfile::tempdir().unwrap();
        let (parent, out) = (dir.path().join("parent"), dir.path().join("out"));
        let mut writer = Writer::create(Plan::sharded(tensors(Dtype::F32), 60).unwrap(), &parent, &[], "x").unwrap();
        writer.add("tokenizer.json", b"words").unwrap();
        writer.write(&contents, &|_, _| ()).unwrap();
        writer.finish().unwrap();
        let parent = Checkpoint::open(&parent).unwrap();
        let one = Plan::sharded(parent.entries().iter().map(Planned::from).collect(), usize::MAX).unwrap();
        let mut writer = Writer::create(one.clone(), &out, &[&parent], "x").unwrap();
        writer.companions(&parent).unwrap();
        let copy = |t: &Planned| Ok::<_, Error>(Contents::Bytes(parent.raw(&t.name)?));
        writer.write(&copy, &|_, _| ()).unwrap();
        writer.finish().unwrap();
        check(&out);
        assert_eq!(list(&out), ["model.safetensors", "tokenizer.json"]);
        let itself = Writer::create(one, parent.path(), &[&parent], "x").err().unwrap();
        assert!(itself.to_string().contains("input itself"), "{itself}");
    }

    #[test]
    fn one_file_stands_alone_and_its_header_is_read_by_safetensors() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("m.safetensors");
        fs::write(&out, "old").unwrap();
        let several = Plan::sharded(tensors(Dtype::F32), 60).unwrap();
        assert!(Writer::create(several, &out, &[], "x").err().unwrap().to_string().contains("7 are planned"));
        let plan = Plan::sharded(tensors(Dtype::F32), usize::MAX).unwrap();
        let mut writer = Writer::create(plan, &out, &[], "x").unwrap();
        writer.write(&contents, &|_, _| ()).unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"old");
        writer.finish().unwrap();
        assert_eq!(list(dir.path()), ["m.safetensors"]);
        check(&out);
        let bytes = fs::read(&out).unwrap();
        assert_eq!(SafeTensors::deserialize(&bytes).unwrap().len(), 12);
    }

    #[test]
    fn a_killed_run_goes_on_with_no_file_twice_and_none_missing() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let plan = Plan::sharded(tensors(Dtype::F32), 60).unwrap();
        let begun = |plan: &Plan| Writer::create(plan.clone(), &out, &[], "x").unwrap().with_threads(1);
        // The ninth tensor is never written: files 1 to 3 hold t1 to t5, t6 and t7, t8; killed in the fourth.
        let mut writer = begun(&plan);
        let stops = |t: &Planned| if t.name == "t9" { Err(Error::Argument("stop".into())) } else { contents(t) };
        assert!(writer.write(&stops, &|_, _| ()).is_err());
        assert_eq!(writer.done(), 3);
        // A killed process runs no destructors.
        std::mem::forget(writer);
        assert!(Writer::resume(plan.clone(), &out, &[], "y").err().unwrap().to_string().contains("other settings"));
        // A finished file that was truncated since is written again.
        let cut = dir.path().join("out.partial/model-00002-of-00007.safetensors");
        OpenOptions::new().write(true).open(cut).unwrap().set_len(70).unwrap();
        let mut writer = Writer::resume(plan.clone(), &out, &[], "x").unwrap();
        assert_eq!(writer.done(), 2);
        let made = Mutex::new(Vec::new());
        let note = |t: &Planned| {
            made.lock().unwrap().push(t.name.clone());
            contents(t)
        };
        writer.write(&note, &|_, _| ()).unwrap();
        writer.finish().unwrap();
        check(&out);
        let mut made = made.into_inner().unwrap();
        made.sort();
        assert_eq!(made, ["t10", "t11", "t12", "t6", "t7", "t9"]);
        assert_eq!(list(dir.path()), ["out"]);
    }

    #[test]
    fn a_killed_file_goes_on_after_its_last_note() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("m.safetensors");
        let plan =
            Plan::sharded(tensors(Dtype::F32), usize::MAX).unwrap().with_metadata("a", "b").with_metadata("z", "c");
        let stops = |t: &Planned| if t.name == "t9" { Err(Error::Argument("stop".into())) } else { contents(t) };
        let killed = |patience: Duration| {
            let mut writer = Writer::create(plan.clone(), &out, &[], "x").unwrap().with_threads(1);
            writer = writer.with_patience(patience);
            assert!(writer.write(&stops, &|_, _| ()).is_err());
            std::mem::forget(writer);
        };
        let goes_on = || {
            let made = Mutex::new(Vec::new());
            let note = |t: &Planned| {
                made.lock().unwrap().push(t.name.clone());
                contents(t)
            };
            let mut writer = Writer::resume(plan.clone(), &out, &[], "x").unwrap();
            let most = AtomicUsize::new(0);
            let watch = |done: usize, _: usize| {
                most.fetch_max(done, Ordering::Relaxed);
            };
            writer.write(&note, &watch).unwrap();
            assert_eq!(most.into_inner(), plan.bytes());
            writer.finish().unwrap();
            check(&out);
            made.into_inner().unwrap()
        };
        // A save takes time, and the next waits for twenty times as long: some of the eight are saved.
        killed(Duration::ZERO);
        let made = goes_on();
        assert!(made.len() < 12 && made.ends_with(&["t9", "t10", "t11", "t12"].map(String::from)), "{made:?}");
        // Without a save, or with a save of a file that was truncated since, all are made again.
        killed(Duration::from_secs(3600));
        assert_eq!(goes_on().len(), 12);
        killed(Duration::ZERO);
        let cut = dir.path().join("m.safetensors.partial").join(&plan.files[0].name);
        OpenOptions::new().write(true).open(cut).unwrap().set_len(70).unwrap();
        assert_eq!(goes_on().len(), 12);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let plan = Plan::sharded(tensors(Dtype::F16), usize::MAX).unwrap();
        let says = |make: &(dyn Fn(&Planned) -> Result<Contents<'static>> + Sync)| {
            let mut writer = Writer::create(plan.clone(), &out, &[], "x").unwrap();
            writer.write(make, &|_, _| ()).unwrap_err().to_string()
        };
        assert!(says(&|_| Ok(Contents::Values(vec![]))).contains("0 values given"));
        assert!(says(&|_| Ok(Contents::Bytes(vec![0; 7].into()))).contains("7 bytes given"));
        let filled = |value: f32| move |t: &Planned| Ok(Contents::Values(vec![value; t.elements()]));
        assert!(says(&filled(1e6)).contains("beyond the range of F16"));
        assert!(says(&filled(f32::NAN)).contains("not a number"));
        assert!(list(dir.path()).is_empty());
        let huge = Planned { name: "w".into(), dtype: Dtype::F32, shape: vec![1 << 58] };
        let no_room = Writer::create(Plan::one("x", vec![huge]).unwrap(), &out, &[], "x").err().unwrap();
        assert!(no_room.to_string().contains("GB free"), "{no_room}");
        let unfinished = Writer::create(plan.clone(), &out, &[], "x").unwrap().finish().unwrap_err();
        assert!(unfinished.to_string().contains("not written yet"));
        assert!(Writer::create(plan, dir.path().join("no/out"), &[], "x").is_err());
        assert!(list(dir.path()).is_empty());
    }
}
