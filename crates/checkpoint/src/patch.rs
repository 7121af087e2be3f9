//! An unfinished copy of a checkpoint: tensors overwritten in place, step by step, resumable.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic::refuse_occupied;
use crate::partial::{self, Partial};
use crate::rewrite::{copy_companions, refuse_input};
use crate::{Checkpoint, Converted, Entry, Form, convert, values};
use crate::{Error, Result};

/// A report on a pruned tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pruned {
    /// Its name.
    pub tensor: String,
    /// Its number of weights.
    pub weights: usize,
    /// How many of them are zero now.
    pub zeros: usize,
}

/// Progress saved beside the copy, so that it can be resumed.
#[derive(Serialize, Deserialize)]
struct Journal {
    settings: String,
    /// Whether the copy was complete.
    copied: bool,
    done: usize,
    pruned: Vec<Pruned>,
}

impl partial::Journal for Journal {
    fn settings(&self) -> &str {
        &self.settings
    }
}

/// A folder `OUT.partial` that starts as a copy of a checkpoint, unpacked if that is packed, and becomes `OUT` when it
/// is finished.
///
/// An error removes it. If the process is killed it stays, and [`Patch::resume`] continues after the last finished
/// step.
pub struct Patch {
    partial: Partial,
    files: Vec<(PathBuf, File)>,
    /// Locates tensors in the copy of a packed source: their positions differ from the source's.
    unpacked: Option<Checkpoint>,
    journal: Journal,
}

/// Where the copy is converted to another form, inside its folder; hidden, so that it is not part of the copy.
const REFORMED: &str = ".reformed";

impl Patch {
    /// A new copy of `source`, a directory, to become `out`. `settings` identify the run.
    ///
    /// # Errors
    /// `out` is the input, exists and is not empty, or cannot be written; a folder `OUT.partial` that is not from such
    /// a run.
    pub fn create(source: &Checkpoint, out: impl AsRef<Path>, settings: &str) -> Result<Self> {
        admit(source, out.as_ref())?;
        let journal = Journal { settings: settings.into(), copied: false, done: 0, pruned: Vec::new() };
        let partial = Partial::create(out.as_ref(), &journal)?;
        let mut patch = Self { partial, files: Vec::new(), unpacked: None, journal };
        if source.is_packed() {
            patch.unpack(source)?;
        } else {
            for file in source.files() {
                let copy = patch.copy_of(file);
                fs::copy(file, &copy).map_err(|e| Error::io(&copy, e))?;
            }
            copy_companions(source, patch.partial.folder())?;
        }
        patch.open_files(source)?;
        patch.journal.copied = true;
        patch.write_journal()?;
        Ok(patch)
    }

    /// What an interrupted run with the same `settings` left; a new copy if there is none.
    ///
    /// # Errors
    /// As [`Patch::create`], or the remains belong to a run with other settings.
    pub fn resume(source: &Checkpoint, out: impl AsRef<Path>, settings: &str) -> Result<Self> {
        admit(source, out.as_ref())?;
        // An incomplete copy is removed before a new one is started.
        let left = Partial::left::<Journal>(out.as_ref(), settings)?.filter(|(_, journal)| journal.copied);
        let Some((partial, journal)) = left else { return Self::create(source, out, settings) };
        let mut patch = Self { partial, files: Vec::new(), unpacked: None, journal };
        patch.open_files(source)?;
        Ok(patch)
    }

    /// Puts a dense copy of a packed source into the folder.
    fn unpack(&self, source: &Checkpoint) -> Result<()> {
        let dense = self.partial.path(REFORMED);
        convert(source, &dense, &Form::default(), None, &|_, _| ())?;
        for entry in fs::read_dir(&dense).map_err(|e| Error::io(&dense, e))? {
            let path = entry.map_err(|e| Error::io(&dense, e))?.path();
            fs::rename(&path, self.copy_of(&path)).map_err(|e| Error::io(&path, e))?;
        }
        fs::remove_dir(&dense).map_err(|e| Error::io(&dense, e))
    }

    fn copy_of(&self, file: &Path) -> PathBuf {
        self.partial.folder().join(file.file_name().unwrap_or_default())
    }

    fn open_files(&mut self, source: &Checkpoint) -> Result<()> {
        self.unpacked = source.is_packed().then(|| self.checkpoint()).transpose()?;
        let files: Vec<PathBuf> = self.unpacked.as_ref().unwrap_or(source).files().map(Path::to_path_buf).collect();
        for file in files {
            let path = self.copy_of(&file);
            let open = OpenOptions::new().write(true).open(&path).map_err(|e| Error::io(&path, e))?;
            self.files.push((path, open));
        }
        Ok(())
    }

    /// The number of finished steps.
    pub fn done(&self) -> usize {
        self.journal.done
    }

    /// The reports [noted](Patch::note) so far.
    pub fn pruned(&self) -> &[Pruned] {
        &self.journal.pruned
    }

    /// Stores the report on a tensor.
    pub fn note(&mut self, pruned: Pruned) {
        self.journal.pruned.retain(|p| p.tensor != pruned.tensor);
        self.journal.pruned.push(pruned);
    }

    /// The copy as it is now.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        Checkpoint::open(self.partial.folder())
    }

    /// Overwrites the tensor of `entry`, an entry of the source, with `values`, row-major, rounded to its type.
    ///
    /// # Errors
    /// Another number of values, a type that is none of F64, F32, F16, BF16, a value beyond the range of
    /// the type, or a failure to write.
    pub fn write_f32(&mut self, entry: &Entry, values: &[f32]) -> Result<()> {
        if values.len() != entry.elements() {
            let reason = format!("{} values given, it has {}", values.len(), entry.elements());
            return Err(Error::tensor(&entry.name, reason));
        }
        let entry = match &self.unpacked {
            Some(copy) => copy.entry(&entry.name)?,
            None => entry,
        };
        let bytes = values::encoded(&entry.name, entry.dtype, values)?;
        let (path, file) = &mut self.files[entry.file];
        let mut write = || {
            file.seek(SeekFrom::Start(entry.range.start as u64))?;
            file.write_all(&bytes)
        };
        write().map_err(|e| Error::io(path.as_path(), e))
    }

    /// Marks `done` steps as finished: they will not be lost.
    ///
    /// # Errors
    /// If they cannot be written to disk.
    pub fn finish_step(&mut self, done: usize) -> Result<()> {
        for (path, file) in &self.files {
            file.sync_data().map_err(|e| Error::io(path, e))?;
        }
        self.journal.done = done;
        self.write_journal()
    }

    fn write_journal(&self) -> Result<()> {
        self.partial.write_journal(&self.journal)
    }

    /// Renames the folder to its final name.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub fn finish(mut self) -> Result<()> {
        self.finish_step(self.journal.done)?;
        self.partial.finish()
    }

    /// As [`Patch::finish`], in another form, as by [`convert()`]. Temporarily both are on the disk.
    ///
    /// # Errors
    /// As [`convert()`]; finished work is then kept for [`Patch::resume`].
    pub fn finish_as(mut self, form: &Form, watch: &(dyn Fn(usize, usize) + Sync)) -> Result<Converted> {
        self.finish_step(self.journal.done)?;
        let reformed = self.partial.path(REFORMED);
        if reformed.exists() {
            // Left by a run that was killed before the last rename.
            fs::remove_dir_all(&reformed).map_err(|e| Error::io(&reformed, e))?;
        }
        match self.checkpoint().and_then(|copy| convert(&copy, &reformed, form, None, watch)) {
            Ok(converted) => self.partial.finish_file(REFORMED).map(|()| converted),
            Err(e) => Err(self.kept(e)),
        }
    }

    /// Keeps the folder and adds that to `reason`: it may contain hours of work.
    fn kept(mut self, reason: Error) -> Error {
        self.partial.keep();
        Error::Argument(format!("{reason}; what was done is kept in {}, to resume", self.partial.folder().display()))
    }
}

fn admit(source: &Checkpoint, out: &Path) -> Result<()> {
    if !source.is_directory() {
        return Err(Error::format(source.path(), "is no directory"));
    }
    refuse_input(source, out)?;
    refuse_occupied(out)
}

#[cfg(test)]
mod tests {
    use half::f16;
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::*;

    const JOURNAL: &str = "regrow-progress.json";

    fn directory(folder: &Path) -> PathBuf {
        let path = folder.join("in");
        fs::create_dir(&path).unwrap();
        let bytes: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        let view = |shape: Vec<usize>| TensorView::new(Dtype::F16, shape, &bytes).unwrap();
        let file = safetensors::serialize([("a", view(vec![4])), ("b", view(vec![2, 2]))], None).unwrap();
        fs::write(path.join("model.safetensors"), file).unwrap();
        fs::write(path.join("config.json"), "{}").unwrap();
        path
    }

    #[test]
    fn a_finished_copy_has_the_new_values_and_the_companions() {
        let dir = tempfile::tempdir().unwrap();
        let source = Checkpoint::open(directory(dir.path())).unwrap();
        let out = dir.path().join("out");
        let mut patch = Patch::create(&source, &out, "x").unwrap();
        patch.write_f32(source.entry("b").unwrap(), &[0.0, 5.0, 0.0, 0.1]).unwrap();
        assert_eq!(patch.checkpoint().unwrap().read_f32("b").unwrap()[..3], [0.0, 5.0, 0.0]);
        patch.finish_step(1).unwrap();
        assert!(!out.exists());
        patch.finish().unwrap();
        let done = Checkpoint::open(&out).unwrap();
        assert_eq!(done.read_f32("a").unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(done.read_f32("b").unwrap()[3], f16::from_f32(0.1).to_f32());
        assert_eq!(fs::read_to_string(out.join("config.json")).unwrap(), "{}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(fs::read_dir(&out).unwrap().count(), 2);
    }

    #[test]
    fn what_a_killed_run_left_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let source = Checkpoint::open(directory(dir.path())).unwrap();
        let out = dir.path().join("out");
        let mut patch = Patch::create(&source, &out, "x").unwrap();
        patch.write_f32(source.entry("a").unwrap(), &[0.0; 4]).unwrap();
        patch.note(Pruned { tensor: "a".into(), weights: 4, zeros: 4 });
        patch.finish_step(1).unwrap();
        std::mem::forget(patch);
        assert!(Patch::resume(&source, &out, "y").err().unwrap().to_string().contains("other settings"));
        let patch = Patch::resume(&source, &out, "x").unwrap();
        assert_eq!((patch.done(), patch.pruned().len()), (1, 1));
        assert_eq!(patch.checkpoint().unwrap().read_f32("a").unwrap(), [0.0; 4]);
        // An error drops it: nothing is left.
        drop(patch);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone_and_half_a_copy_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let source = Checkpoint::open(directory(dir.path())).unwrap();
        let (out, partial) = (dir.path().join("out"), dir.path().join("out.partial"));
        fs::create_dir(&partial).unwrap();
        fs::write(partial.join("thesis.txt"), "years").unwrap();
        assert!(Patch::create(&source, &out, "x").err().unwrap().to_string().contains("in the way"));
        assert_eq!(fs::read_to_string(partial.join("thesis.txt")).unwrap(), "years");
        fs::write(partial.join(JOURNAL), r#"{"settings": "x", "copied": false, "done": 0, "pruned": []}"#).unwrap();
        let patch = Patch::resume(&source, &out, "x").unwrap();
        assert!(!partial.join("thesis.txt").exists());
        assert_eq!(patch.checkpoint().unwrap().read_f32("a").unwrap(), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn a_last_conversion_that_fails_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let source = Checkpoint::open(directory(dir.path())).unwrap();
        let out = dir.path().join("out");
        let mut patch = Patch::create(&source, &out, "x").unwrap();
        patch.write_f32(source.entry("a").unwrap(), &[0.0; 4]).unwrap();
        patch.finish_step(3).unwrap();
        // The folder to convert into cannot be created: a file with its name exists.
        fs::write(dir.path().join("out.partial/.reformed.partial"), "").unwrap();
        let form = Form { dtype: Some(crate::Dtype::F32), ..Form::default() };
        let says = patch.finish_as(&form, &|_, _| ()).unwrap_err().to_string();
        assert!(says.contains("what was done is kept in") && says.contains("out.partial"), "{says}");
        assert!(!out.exists());
        fs::remove_file(dir.path().join("out.partial/.reformed.partial")).unwrap();
        let patch = Patch::resume(&source, &out, "x").unwrap();
        assert_eq!(patch.done(), 3);
        patch.finish_as(&form, &|_, _| ()).unwrap();
        let done = Checkpoint::open(&out).unwrap();
        assert_eq!(done.read_f32("a").unwrap(), [0.0; 4]);
        assert_eq!(done.entry("b").unwrap().dtype, safetensors::Dtype::F32);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = directory(dir.path());
        let source = Checkpoint::open(&path).unwrap();
        assert!(Patch::create(&source, &path, "x").err().unwrap().to_string().contains("input itself"));
        assert!(Patch::create(&source, dir.path(), "x").err().unwrap().to_string().contains("not empty"));
        let mut patch = Patch::create(&source, dir.path().join("out"), "x").unwrap();
        let says = |patch: &mut Patch, values: &[f32]| patch.write_f32(source.entry("a").unwrap(), values).unwrap_err();
        assert!(says(&mut patch, &[0.0]).to_string().contains("1 values given"));
        assert!(says(&mut patch, &[1e6, 0.0, 0.0, 0.0]).to_string().contains("beyond the range"));
        assert!(says(&mut patch, &[f32::NAN, 0.0, 0.0, 0.0]).to_string().contains("not a number"));
    }
}
