//! Merges models as they arrive (OPCM): a folder holds the merged difference to the base. Its size does not depend on
//! the number of models.
//!
//! `regrow-opcm.json` names the file of the current difference. A new one is written beside it before the description
//! is replaced and the old one removed, so that a killed run changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use regrow_checkpoint::atomic;
use regrow_checkpoint::{Checkpoint, Contents, Dtype, Entry, Plan, Planned, Writer};
use regrow_merging::opcm::{OpcmState, norm, plain};
use regrow_merging::{Opcm, OpcmConfig};
use serde::{Deserialize, Serialize};

use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::merge::Output;
use crate::text;

type Core<T> = regrow_sparse_core::Result<T>;

/// The description's file name.
const MANIFEST: &str = "regrow-opcm.json";
/// The version of the format.
const FORMAT: usize = 1;

/// The description of a folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Manifest {
    format: usize,
    settings: OpcmConfig,
    /// The base's path as given.
    base: String,
    /// The merged models, in order.
    models: Vec<String>,
    /// Their paths as given.
    #[serde(default)]
    paths: Vec<PathBuf>,
    /// The state after the last model. The difference is the file's contents divided by its lambda.
    state: OpcmState,
    /// The file.
    file: String,
}

/// An arriving model.
pub struct Arrival<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it is.
    pub path: &'a Path,
    /// Its weights.
    pub checkpoint: &'a Checkpoint,
}

/// Merges `arrivals` into the folder `into`, one after another, and prints a line for each.
pub fn add(
    into: &Path,
    base: &Checkpoint,
    arrivals: &[Arrival<'_>],
    config: OpcmConfig,
    out: &mut dyn std::io::Write,
) -> Result<()> {
    let opcm = config.init()?;
    let mut manifest = open(into)?;
    if let Some(found) = &manifest {
        check(into, found, base, arrivals, &config)?;
    }
    for arrival in arrivals {
        comparable(base, arrival.name, arrival.checkpoint)?;
    }
    fs::create_dir_all(into).map_err(|e| regrow_sparse_core::Error::io(into, e))?;
    for arrival in arrivals {
        let started = Instant::now();
        let step = Step { into, base, opcm, config: &config, before: manifest.as_ref(), arrival };
        let next = step.run()?;
        let OpcmState { models, lambda, norm } = next.state;
        let name = text::one_line(arrival.name);
        let seconds = started.elapsed().as_secs_f64();
        writeln!(out, "{name}: model {models}, lambda {lambda:.4}, mean norm {norm:.4}, {seconds:.1} s")?;
        manifest = Some(next);
    }
    Ok(())
}

/// Names and paths of the models that have been merged into the folder `into`, in their order.
pub fn merged(into: &Path) -> Result<Vec<(String, PathBuf)>> {
    Ok(open(into)?.map(|found| found.named()).unwrap_or_default())
}

impl Manifest {
    /// The models' names and paths.
    fn named(&self) -> Vec<(String, PathBuf)> {
        let path = |(i, name): (usize, &String)| self.paths.get(i).cloned().unwrap_or_else(|| name.into());
        self.models.iter().enumerate().map(|(i, name)| (name.clone(), path((i, name)))).collect()
    }
}

/// The tensors of the merged model: the base's, with its types or `dtype`.
pub fn planned(base: &Checkpoint, dtype: Option<Dtype>) -> Vec<Planned> {
    let one = |entry: &Entry| {
        let floating = is_floating(entry);
        Planned { dtype: dtype.filter(|_| floating).unwrap_or(entry.dtype), ..Planned::from(entry) }
    };
    base.entries().iter().map(one).collect()
}

/// Writes the merged model of the folder `into`.
pub fn write(into: &Path, base: &Checkpoint, output: &Output) -> Result<()> {
    let missing = || Error::Argument(format!("{} holds no {MANIFEST}: nothing was merged into it", into.display()));
    let manifest = open(into)?.ok_or_else(missing)?;
    let difference = Checkpoint::open(into.join(&manifest.file))?;
    let plan = output.plan(planned(base, output.dtype), base)?;
    let settings = format!("opcm {} {}", manifest.models.join(" "), manifest.state.lambda);
    let mut writer = output.begin(plan, base, &[base, &difference], &settings)?;
    let bar = Bar::bytes();
    let make = |tensor: &Planned| {
        if difference.entry(&tensor.name).is_err() {
            return Core::Ok(Contents::Bytes(base.raw(&tensor.name)?));
        }
        let mut values = base.read_f32(&tensor.name)?;
        let added = difference.read_f32(&tensor.name)?;
        values.iter_mut().zip(added).for_each(|(v, d)| *v += (f64::from(d) / manifest.state.lambda) as f32);
        Ok(Contents::Values(values))
    };
    writer.write(&make, &|done, all| bar.at(done, all))?;
    Ok(writer.finish()?)
}

fn open(into: &Path) -> Result<Option<Manifest>> {
    let path = into.join(MANIFEST);
    if !path.exists() {
        return match fs::read_dir(into).map(|mut list| list.next()) {
            Ok(Some(_)) => Err(Error::Argument(format!(
                "{} is not empty and holds no {MANIFEST}: choose another folder",
                into.display()
            ))),
            _ => Ok(None),
        };
    }
    let text = fs::read(&path).map_err(|e| regrow_sparse_core::Error::io(&path, e))?;
    let bad = |reason: String| regrow_sparse_core::Error::format(&path, reason);
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    match manifest.format {
        FORMAT => Ok(Some(manifest)),
        other => Err(bad(format!("has format {other}, this program reads {FORMAT}")).into()),
    }
}

/// Rejects other settings, another base, and a model that is already merged.
fn check(
    into: &Path,
    found: &Manifest,
    base: &Checkpoint,
    arrivals: &[Arrival<'_>],
    config: &OpcmConfig,
) -> Result<()> {
    let says = |reason: String| Err(Error::Argument(format!("{}: {reason}", into.display())));
    if found.settings != *config {
        let OpcmConfig { alpha, convolutions } = found.settings;
        return says(format!("was begun with alpha {alpha} and convolutions {convolutions}"));
    }
    if let Some(twice) = arrivals.iter().find(|a| found.models.iter().any(|m| m == a.name)) {
        return says(format!("{} has been merged into it", twice.name));
    }
    let difference = Checkpoint::open(into.join(&found.file))?;
    let fits = |entry: &Entry| base.entry(&entry.name).is_ok_and(|parent| parent.shape == entry.shape);
    match difference.entries().iter().find(|entry| !fits(entry)) {
        None => Ok(()),
        Some(entry) => says(format!("was begun with another base, {}: {} differs", found.base, entry.name)),
    }
}

/// Rejects a model that does not have the base's tensors.
pub fn comparable(base: &Checkpoint, name: &str, model: &Checkpoint) -> Result<()> {
    for parent in base.entries().iter().filter(|entry| is_floating(entry)) {
        let entry = model.entry(&parent.name)?;
        if entry.shape != parent.shape {
            let (ours, theirs) = (text::shape(&entry.shape), text::shape(&parent.shape));
            return Err(Error::Argument(format!("{name}: {} is {ours}, in the base {theirs}", entry.name)));
        }
    }
    Ok(())
}

/// Whether a tensor is merged.
pub fn is_floating(entry: &Entry) -> bool {
    matches!(entry.dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// The merge of one arriving model.
struct Step<'a> {
    into: &'a Path,
    base: &'a Checkpoint,
    opcm: Opcm,
    config: &'a OpcmConfig,
    before: Option<&'a Manifest>,
    arrival: &'a Arrival<'a>,
}

impl Step<'_> {
    fn run(&self) -> Result<Manifest> {
        let count = self.before.map_or(0, |m| m.models.len()) + 1;
        let file = format!("difference-{count:04}.safetensors");
        let path: PathBuf = self.into.join(&file);
        let old = self.before.map(|m| Checkpoint::open(self.into.join(&m.file))).transpose()?;
        let floating = self.base.entries().iter().filter(|entry| is_floating(entry));
        let planned = floating.map(|entry| Planned { dtype: Dtype::F32, ..Planned::from(entry) }).collect();
        let mut writer = Writer::create(Plan::one(file.as_str(), planned)?, &path, &[], "opcm")?;
        // Norms by name, so that they are summed in the same order, independent of threads.
        let norms = Mutex::new(BTreeMap::new());
        let bar = Bar::bytes();
        let make = |tensor: &Planned| {
            let (values, task) = self.tensor(tensor, old.as_ref())?;
            let of = (task.powi(2), norm([values.as_slice()].into_iter()).powi(2));
            norms.lock().unwrap_or_else(PoisonError::into_inner).insert(tensor.name.clone(), of);
            Core::Ok(Contents::Values(values))
        };
        writer.write(&make, &|done, all| bar.at(done, all))?;
        let norms = norms.into_inner().unwrap_or_else(PoisonError::into_inner);
        let task = norms.values().map(|n| n.0).sum::<f64>().sqrt();
        let sum = norms.values().map(|n| n.1).sum::<f64>().sqrt();
        let state = match self.before {
            None => OpcmState::first(task),
            Some(before) => before.state.next(task, sum)?,
        };
        writer.finish()?;
        let models = self.before.map(|m| m.models.clone()).unwrap_or_default();
        let paths = self.before.map(Manifest::named).unwrap_or_default().into_iter().map(|(_, path)| path);
        let next = Manifest {
            format: FORMAT,
            settings: self.config.clone(),
            base: self.base.path().display().to_string(),
            models: models.into_iter().chain([self.arrival.name.to_string()]).collect(),
            paths: paths
                .chain([std::path::absolute(self.arrival.path).unwrap_or_else(|_| self.arrival.path.into())])
                .collect(),
            state,
            file,
        };
        let text = format!("{:#}\n", serde_json::to_value(&next)?);
        atomic::write_atomic(self.into.join(MANIFEST), |out| out.write_all(text.as_bytes()))?;
        if let Some(before) = self.before {
            let _left = fs::remove_file(self.into.join(&before.file));
        }
        Ok(next)
    }

    /// `lambda D + T'` of one tensor, and the norm of its `T`.
    fn tensor(&self, tensor: &Planned, old: Option<&Checkpoint>) -> Core<(Vec<f32>, f64)> {
        let name = &tensor.name;
        let mut task = self.arrival.checkpoint.read_f32(name)?;
        task.iter_mut().zip(self.base.read_f32(name)?).for_each(|(t, b)| *t -= b);
        if task.iter().any(|v| !v.is_finite()) {
            return Err(regrow_sparse_core::Error::tensor(name, "holds NaN or infinity in the model or its base"));
        }
        let length = norm([task.as_slice()].into_iter());
        let (Some(old), Some(before)) = (old, self.before) else { return Ok((task, length)) };
        let mut difference = old.read_f32(name)?;
        difference.iter_mut().for_each(|d| *d = (f64::from(*d) / before.state.lambda) as f32);
        let values = match self.opcm.projected_matrix(name, &tensor.shape) {
            Some(shape) => self.opcm.matrix(&before.state, &difference, &task, shape)?,
            None => plain(&before.state, &difference, &task),
        };
        Ok((values, length))
    }
}
