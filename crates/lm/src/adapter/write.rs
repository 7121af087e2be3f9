//! Writing adapters: in peft's format, or merged into their base.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use regrow_checkpoint::{Checkpoint, Contents, Dtype, Entry, Plan, Planned, Writer};
use regrow_device::parallel::Together;
use regrow_sparse_core::model::weight::transposed;
use regrow_sparse_core::{Error, Result};
use serde_json::{Map, Value, json};

use super::base::{Addition, tensor_of};
use super::{BASE_LAYER, CONFIG, Factors, Kind, MODEL, Module, PREFIX, Rest};

/// Bytes of a shard of a merged model.
const SHARD: usize = 5_000_000_000;

/// Computes the factors of a module by its number.
pub type Make<'a> = Box<dyn Fn(usize) -> Result<Factors> + Sync + 'a>;

/// An adapter to write. Factors are computed one module at a time.
pub struct Draft<'a> {
    /// An `adapter_config.json` as a template: its targets, base and task; ranks and scales are set here.
    pub config: Value,
    /// The type of the factors.
    pub dtype: Dtype,
    /// The adapted modules.
    pub modules: Vec<Module>,
    /// Their factors.
    pub factors: Make<'a>,
    /// Tensors that are not factors.
    pub rest: Vec<Rest<'a>>,
    /// Files to put beside the weights, in place of the base's: names and contents.
    pub beside: Vec<(String, Vec<u8>)>,
}

/// Where a [`Draft`] is written to.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// The directory, or, of a draft that is merged into its base, a file that ends in .safetensors.
    pub out: &'a Path,
    /// Its inputs, from which `out` must differ.
    pub inputs: Vec<&'a Checkpoint>,
    /// What identifies the run: a run resumes only if these settings are unchanged.
    pub settings: String,
    /// Whether to resume an interrupted run with these settings.
    pub resume: bool,
}

impl<'a> Target<'a> {
    /// A new target at `out`, without inputs.
    pub fn new(out: &'a Path) -> Self {
        Self { out, inputs: Vec::new(), settings: String::new(), resume: false }
    }

    /// Starts writing the plan, `kind`, or resumes it.
    fn begin(&self, plan: Plan, kind: &str, base: Option<&Checkpoint>) -> Result<Writer> {
        let inputs: Vec<&Checkpoint> = self.inputs.iter().copied().chain(base).collect();
        let begin = if self.resume { Writer::resume } else { Writer::create };
        Ok(begin(plan, self.out, &inputs, &format!("{kind} {}", self.settings))?)
    }
}

impl Draft<'_> {
    /// Writes a directory that peft loads: scales are 1 (`lora_alpha` is the rank), ranks other than the most common
    /// one are in `rank_pattern`. `watch` is called with the bytes written and the total.
    ///
    /// # Errors
    /// No modules; a target that exists and is not empty, is an input or cannot be written, or the remains of a run
    /// with other settings; errors of the factors, or factors of another shape than their module.
    pub fn write(&self, to: &Target<'_>, watch: &(dyn Fn(usize, usize) + Sync)) -> Result<()> {
        let mut indices = BTreeMap::new();
        let mut tensors = Vec::with_capacity(2 * self.modules.len() + self.rest.len());
        for (index, module) in self.modules.iter().enumerate() {
            for (name, shape) in stored(module) {
                indices.insert(name.clone(), index);
                tensors.push(Planned { name, dtype: self.dtype, shape });
            }
        }
        let rest: BTreeMap<String, &Rest<'_>> = self.rest.iter().map(|rest| (self.stored_name(rest), rest)).collect();
        tensors.extend(rest.iter().map(|(name, rest)| planned(name, rest)));
        let config = self.config()?;
        // Save after each module's factors.
        let mut writer = to.begin(Plan::one(MODEL, tensors)?, "an adapter", None)?.with_patience(Duration::ZERO);
        let halves = Together::new(self.modules.len());
        let make = |tensor: &Planned| match indices.get(&tensor.name) {
            Some(index) => {
                let values = halves.take(*index, &tensor.name, || self.stored_values(*index))?;
                Ok::<_, Error>(Contents::Values(values))
            }
            None => Ok(Contents::Bytes(rest.get(&tensor.name).map_or_else(Cow::default, |r| Cow::Borrowed(&*r.bytes)))),
        };
        writer.write(&make, watch)?;
        self.beside.iter().try_for_each(|(name, contents)| writer.add(name, contents))?;
        writer.add(CONFIG, format!("{config:#}\n").as_bytes())?;
        Ok(writer.finish()?)
    }

    /// Writes `base` with the adapter added to it, a directory or a file; types are the base's; tensors that the base
    /// does not have (heads) are added.
    ///
    /// # Errors
    /// A base that lacks a module or has another shape for it; as [`Draft::write`].
    pub fn merge_into(&self, base: &Checkpoint, to: &Target<'_>, watch: &(dyn Fn(usize, usize) + Sync)) -> Result<()> {
        let transposed = self.config["fan_in_fan_out"].as_bool().unwrap_or(false);
        let mut changed = BTreeMap::new();
        for (index, module) in self.modules.iter().enumerate() {
            let entry = tensor_of(base, &format!("{}.weight", module.name))?;
            changed.insert(entry.name.clone(), (index, Addition::new(base, entry, module, transposed)?));
        }
        let mut replaced = BTreeMap::new();
        for rest in &self.rest {
            let name = tensor_of(base, &rest.name).map_or_else(|_| rest.name.clone(), |entry| entry.name.clone());
            replaced.insert(name, rest);
        }
        let kept = |entry: &&Entry| !replaced.contains_key(&entry.name);
        let mut tensors: Vec<Planned> = base.entries().iter().filter(kept).map(Planned::from).collect();
        tensors.extend(replaced.iter().map(|(name, rest)| planned(name, rest)));
        let mut writer = to.begin(Plan::sharded(tensors, SHARD)?, "a merged adapter", Some(base))?;
        writer.companions(base)?;
        self.beside.iter().try_for_each(|(name, contents)| writer.add(name, contents))?;
        let make = |tensor: &Planned| {
            if let Some(rest) = replaced.get(&tensor.name) {
                return Ok::<_, Error>(Contents::Bytes(Cow::Borrowed(&*rest.bytes)));
            }
            match changed.get(&tensor.name) {
                None => Ok(Contents::Bytes(base.raw(&tensor.name)?)),
                Some((index, addition)) => {
                    let mut values = base.read_f32(&tensor.name)?;
                    let Factors { left, right } = self.checked(*index)?;
                    addition.add(&mut values, &left, &right);
                    Ok(Contents::Values(values))
                }
            }
        };
        writer.write(&make, watch)?;
        Ok(writer.finish()?)
    }

    /// The factors of a module, with their shapes checked.
    fn checked(&self, index: usize) -> Result<Factors> {
        let Module { name, shape: [m, r, d], .. } = &self.modules[index];
        let factors = (self.factors)(index)?;
        match (factors.left.len(), factors.right.len()) == (m * r, r * d) {
            true => Ok(factors),
            false => Err(Error::tensor(name, format!("its factors are not {m}x{r} and {r}x{d}"))),
        }
    }

    /// The tensors of a module as stored, by name.
    fn stored_values(&self, index: usize) -> Result<Vec<(String, Vec<f32>)>> {
        let module = &self.modules[index];
        let [m, r, d] = module.shape;
        let Factors { left, right } = self.checked(index)?;
        let values = match module.kind {
            Kind::Embedding => [transposed(&left, m, r), transposed(&right, r, d)],
            Kind::Linear | Kind::Convolution(_) => [right, left],
        };
        Ok(stored(module).map(|(name, _)| name).into_iter().zip(values).collect())
    }

    /// peft's name of a tensor that is not a factor: parameters of adapted modules are one level deeper.
    fn stored_name(&self, rest: &Rest<'_>) -> String {
        match rest.name.rsplit_once('.') {
            Some((module, parameter)) if self.modules.iter().any(|m| m.name == module) => {
                format!("{PREFIX}{module}{BASE_LAYER}{parameter}")
            }
            _ => format!("{PREFIX}{}", rest.name),
        }
    }

    /// The configuration with this draft's ranks.
    fn config(&self) -> Result<Value> {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        self.modules.iter().for_each(|m| *counts.entry(m.shape[1]).or_default() += 1);
        let commonest = counts.iter().max_by_key(|(rank, count)| (**count, **rank)).map(|(rank, _)| *rank);
        let rank = commonest.ok_or_else(|| Error::Argument("an adapter needs at least one module".into()))?;
        let others = || self.modules.iter().filter(|m| m.shape[1] != rank);
        let pattern: Map<String, Value> = others().map(|m| (m.name.clone(), json!(m.shape[1]))).collect();
        let mut config = self.config.clone();
        let set = [
            ("peft_type", json!("LORA")),
            ("r", json!(rank)),
            ("lora_alpha", json!(rank)),
            ("use_rslora", json!(false)),
            ("rank_pattern", Value::Object(pattern.clone())),
            ("alpha_pattern", Value::Object(pattern)),
            ("init_lora_weights", json!(true)),
        ];
        for (name, value) in set {
            config[name] = value;
        }
        Ok(config)
    }
}

/// The names and shapes of a module's tensors: `A`, then `B`.
fn stored(module: &Module) -> [(String, Vec<usize>); 2] {
    let [m, r, d] = module.shape;
    let name = |factor: &str| format!("{PREFIX}{}.{factor}", module.name);
    match &module.kind {
        Kind::Linear => [(name("lora_A.weight"), vec![r, d]), (name("lora_B.weight"), vec![m, r])],
        Kind::Embedding => [(name("lora_embedding_A"), vec![r, m]), (name("lora_embedding_B"), vec![d, r])],
        Kind::Convolution(kernel) => {
            let input = d / kernel.iter().product::<usize>().max(1);
            let ones = vec![1; kernel.len()];
            [
                (name("lora_A.weight"), [&[r, input], &kernel[..]].concat()),
                (name("lora_B.weight"), [&[m, r], &ones[..]].concat()),
            ]
        }
    }
}

fn planned(name: &str, rest: &Rest<'_>) -> Planned {
    Planned { name: name.into(), dtype: rest.dtype, shape: rest.shape.clone() }
}
