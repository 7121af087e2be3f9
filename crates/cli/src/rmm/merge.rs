//! Merges several adapters into one directory of basis models and coefficients.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use regrow_checkpoint::{Checkpoint, Contents, Dtype, Plan, Planned, rounded};
use regrow_device::parallel::Together;
use regrow_lm::adapter::{Adapter, Module, Rest};
use regrow_merging::LowRank;
use regrow_merging::rmm::{BasisBudget, Rmm, Space, SpacePart};

use super::{FORMAT, Layer, MANIFEST, MODEL, Manifest, Task, about, space, stored, stored_rest};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::merge::Output;
use crate::source::identity;
use crate::text;

type Core<T> = regrow_sparse_core::Result<T>;

/// An adapter to merge.
#[derive(Clone, Debug)]
pub struct AdapterInput {
    /// The name to revert to it by.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
}

/// Merges the adapters of `sources` and writes the directory `out`; returns its description.
pub fn merge(sources: &[AdapterInput], rmm: &Rmm, budget: BasisBudget, out: &Output) -> Result<Manifest> {
    let job = Job { dtype: out.dtype.unwrap_or(Dtype::F32), ..Job::open(sources, rmm)? };
    let count = job.layers.len();
    let (bar, done) = (Bar::new("layers measured"), AtomicUsize::new(0));
    let watch = || bar.at(done.fetch_add(1, Ordering::Relaxed) + 1, count);
    let basis = rmm.choose(budget, sources.len(), count, |layer| job.models(layer), watch)?;
    job.write(basis, out)
}

/// Prints the size for each number of basis models of the adapters of `sources`.
pub fn plan(sources: &[AdapterInput], rmm: &Rmm, out: &mut dyn std::io::Write) -> Result<()> {
    let job = Job::open(sources, rmm)?;
    let all: usize = job.layers.iter().map(Layer::numbers).sum();
    let row = |basis: usize| {
        let of = |layer: &Layer| rmm.numbers(&layer.factors(), basis).map_err(|e| about(&layer.name, &e));
        let numbers = job.layers.iter().map(of).sum::<Core<usize>>()?;
        Ok(vec![basis.to_string(), text::grouped(numbers), text::percent(numbers, all)])
    };
    let rows = (1..=sources.len()).map(row).collect::<Result<Vec<_>>>()?;
    let header = ["basis models", "numbers", "of all"];
    writeln!(out, "{} adapters of {} modules, {} numbers\n", sources.len(), job.layers.len(), text::grouped(all))?;
    writeln!(out, "{}", text::table(&header, 1, rows))?;
    Ok(())
}

/// The opened adapters, and what they have in common.
struct Job<'a> {
    rmm: &'a Rmm,
    /// The type of basis models and coefficients.
    dtype: Dtype,
    sources: &'a [AdapterInput],
    adapters: Vec<Adapter>,
    layers: Vec<Layer>,
}

/// Squared errors and squared norms of the tasks in a layer.
type Lost = (Vec<f64>, Vec<f64>);

/// A tensor by its name.
type Named = (String, Vec<f32>);

impl<'a> Job<'a> {
    fn open(sources: &'a [AdapterInput], rmm: &'a Rmm) -> Result<Self> {
        let adapters = sources.iter().map(open).collect::<Result<Vec<_>>>()?;
        let first = adapters.first().ok_or_else(|| Error::Argument("there are no adapters to merge".into()))?;
        for (i, source) in sources.iter().enumerate() {
            if sources[..i].iter().any(|s| s.name == source.name) {
                return Err(Error::Argument(format!("two adapters are called `{}`", source.name)));
            }
        }
        adapters[1..].iter().try_for_each(|other| comparable(first, other))?;
        let ranks = |i: usize| adapters.iter().filter_map(|a| a.modules().nth(i)).map(|m| m.shape[1]).collect();
        let layers = first.modules().enumerate().map(|(i, module)| Layer::of(module, ranks(i))).collect();
        Ok(Self { rmm, dtype: Dtype::F32, sources, adapters, layers })
    }

    /// The differences of one module, task by task.
    fn models(&self, layer: usize) -> Core<Vec<LowRank>> {
        let Layer { name, shape: [m, d], ranks, .. } = &self.layers[layer];
        let one = |(adapter, r): (&Adapter, &usize)| {
            let factors = adapter.factors(layer)?;
            LowRank::new(factors.left, factors.right, [*m, *r, *d]).map_err(|e| about(name, &e))
        };
        self.adapters.iter().zip(ranks).map(one).collect()
    }

    fn write(&self, basis: usize, out: &Output) -> Result<Manifest> {
        let mut places = BTreeMap::new();
        let mut tensors = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            for (part, shape) in self.rmm.outline(&layer.factors(), basis).map_err(|e| about(&layer.name, &e))? {
                let name = stored(&layer.name, &part);
                places.insert(name.clone(), (index, part));
                tensors.push(Planned { name, dtype: self.dtype, shape });
            }
        }
        let numbers = tensors.iter().map(Planned::elements).sum();
        let rest = self.rest()?;
        tensors.extend(rest.iter().map(|(name, r)| Planned {
            name: name.clone(),
            dtype: r.dtype,
            shape: r.shape.clone(),
        }));
        let inputs: Vec<&Checkpoint> = self.adapters.iter().map(Adapter::checkpoint).collect();
        let files = identity(inputs.iter().flat_map(|input| input.files()))?;
        let writer = out.writer(Plan::one(MODEL, tensors)?, &inputs, &format!("rmm {basis} {files}"))?;
        // A layer may take longer to compute than to write.
        let mut writer = writer.with_patience(Duration::ZERO);
        let (together, lost) = (Together::new(self.layers.len()), Mutex::new(BTreeMap::new()));
        let make = |tensor: &Planned| match places.get(&tensor.name) {
            Some((layer, part)) => {
                let values = together.take(*layer, part, || {
                    let (parts, errors) = self.layer(*layer, basis)?;
                    lost.lock().unwrap_or_else(PoisonError::into_inner).insert(*layer, errors);
                    Core::Ok(parts)
                })?;
                Core::Ok(Contents::Values(values))
            }
            None => Ok(Contents::Bytes(rest.get(&tensor.name).map_or_else(Cow::default, |r| Cow::Borrowed(&*r.bytes)))),
        };
        let bar = Bar::bytes();
        writer.write(&make, &|done, all| bar.at(done, all))?;
        let mut lost = lost.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.measure(&mut lost, &writer.open(MODEL)?)?;
        let manifest = self.manifest(basis, numbers, &lost, &rest);
        out.beside.iter().try_for_each(|(name, contents)| writer.add(name, contents))?;
        writer.add(MANIFEST, format!("{:#}\n", serde_json::to_value(&manifest)?).as_bytes())?;
        writer.finish()?;
        Ok(manifest)
    }

    /// The parts of one layer, and its errors.
    fn layer(&self, layer: usize, basis: usize) -> Core<(Vec<Named>, Lost)> {
        let models = self.models(layer)?;
        let named = |e: regrow_sparse_core::Error| about(&self.layers[layer].name, &e);
        let space = self.rmm.solve(models.clone()).map_err(named)?.space(basis).map_err(named)?;
        let space = self.rounded(space).map_err(named)?;
        let lost = lost(&space, &models)?;
        Ok((space.parts().into_iter().map(|part| (part.name, part.values)).collect(), lost))
    }

    /// The errors of layers that an interrupted run has written, measured from the file.
    fn measure(&self, known: &mut BTreeMap<usize, Lost>, written: &Checkpoint) -> Result<()> {
        let left: Vec<usize> = (0..self.layers.len()).filter(|index| !known.contains_key(index)).collect();
        let bar = Bar::new("layers measured");
        for (done, index) in left.iter().enumerate() {
            let space = space(written, &self.layers[*index].name, self.sources.len())?;
            known.insert(*index, lost(&space, &self.models(*index)?)?);
            bar.at(done + 1, left.len());
        }
        Ok(())
    }

    /// A space with the values it will have when read back.
    fn rounded(&self, space: Space) -> Core<Space> {
        if self.dtype == Dtype::F32 {
            return Ok(space);
        }
        let round = |part: SpacePart| Ok(SpacePart { values: rounded(&part.name, self.dtype, part.values)?, ..part });
        let parts = space.parts().into_iter().map(round).collect::<Core<Vec<_>>>()?;
        Space::from_parts(space.models(), &mut |name| Ok(parts.iter().find(|part| part.name == name).cloned()))
    }

    /// The tasks' other tensors, as they are stored.
    fn rest(&self) -> Result<BTreeMap<String, Rest<'_>>> {
        let mut all = BTreeMap::new();
        for (task, adapter) in self.adapters.iter().enumerate() {
            all.extend(adapter.rest()?.into_iter().map(|rest| (stored_rest(task, &rest.name), rest)));
        }
        Ok(all)
    }

    fn manifest(
        &self,
        basis: usize,
        numbers: usize,
        lost: &BTreeMap<usize, Lost>,
        rest: &BTreeMap<String, Rest<'_>>,
    ) -> Manifest {
        let relative = |error: f64, norm: f64| if norm > 0.0 { (error / norm).sqrt() } else { 0.0 };
        let mut layers = self.layers.clone();
        for (index, layer) in layers.iter_mut().enumerate() {
            let found = lost.get(&index).into_iter().flat_map(|(e, n)| e.iter().zip(n));
            layer.relative_errors = found.map(|(e, n)| relative(*e, *n)).collect();
        }
        let tasks = self.adapters.iter().zip(self.sources).enumerate().map(|(i, (adapter, source))| {
            let sum = |of: fn(&Lost) -> &Vec<f64>| lost.values().map(|l| of(l)[i]).sum::<f64>();
            let own = stored_rest(i, "");
            Task {
                name: source.name.clone(),
                dtype: adapter.dtype().to_string(),
                relative_error: relative(sum(|l| &l.0), sum(|l| &l.1)),
                rest: rest.keys().filter_map(|name| name.strip_prefix(&own)).map(String::from).collect(),
                config: adapter.config().clone(),
            }
        });
        Manifest {
            format: FORMAT,
            dtype: self.dtype.to_string(),
            granularity: self.rmm.granularity().to_string(),
            align: self.rmm.align().to_string(),
            centred: self.rmm.centred(),
            normalized: self.rmm.normalized(),
            rank: self.rmm.rank(),
            basis,
            tasks: tasks.collect(),
            numbers_of_all: layers.iter().map(Layer::numbers).sum(),
            numbers,
            layers,
        }
    }
}

/// The squared errors of these models when rebuilt, and their squared norms.
fn lost(space: &Space, models: &[LowRank]) -> Core<Lost> {
    Ok((space.squared_errors(models)?, models.iter().map(LowRank::squared_norm).collect()))
}

fn open(source: &AdapterInput) -> Result<Adapter> {
    let path = &source.path;
    if path.is_dir() && !Adapter::is_at(path) {
        let path = path.display();
        let reason = format!(
            "{path} is no adapter: `regrow compress {path} --base BASE --rank R --out DIR` makes one of a model"
        );
        return Err(Error::Argument(reason));
    }
    Ok(Adapter::open(path)?)
}

/// Rejects adapters that have different bases or do not adapt the same modules.
fn comparable(first: &Adapter, other: &Adapter) -> Result<()> {
    let paths = || format!("{} and {}", first.path().display(), other.path().display());
    let base = |adapter: &Adapter| {
        let name = adapter.config()["base_model_name_or_path"].as_str()?;
        Some(name.trim_end_matches('/').rsplit('/').next()?.to_string())
    };
    if let (Some(a), Some(b)) = (base(first), base(other))
        && a != b
    {
        return Err(Error::Argument(format!("{} adapt different bases, {a} and {b}", paths())));
    }
    let named = |adapter: &Adapter| adapter.modules().map(|m| (m.name.clone(), m.clone())).collect::<BTreeMap<_, _>>();
    let (ours, theirs) = (named(first), named(other));
    let missing =
        |a: &BTreeMap<String, Module>, b: &BTreeMap<String, Module>| a.keys().find(|k| !b.contains_key(*k)).cloned();
    if let Some(name) = missing(&ours, &theirs).or_else(|| missing(&theirs, &ours)) {
        return Err(Error::Argument(format!("{} adapt different modules: only one has {name}", paths())));
    }
    for (name, module) in &ours {
        let ([m, _, d], [rows, _, cols]) = (module.shape, theirs[name].shape);
        if (m, d) != (rows, cols) || module.kind != theirs[name].kind {
            let reason = format!("{} differ: {name} is {m}x{d} and {rows}x{cols}", paths());
            return Err(Error::Argument(reason));
        }
    }
    Ok(())
}
