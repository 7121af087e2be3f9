//! `regrow compress`: a fine-tuned model as its base plus differences of low rank.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use regrow_checkpoint::{Checkpoint, Dtype, Entry};
use regrow_lm::adapter::{Adapter, Draft, Factors, Kind, Module, Rest, Target};
use regrow_merging::LowRank;
use serde_json::{Value, json};

use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::lm::Selection;
use crate::parent;
use crate::source::identity;
use crate::text;

/// Compress a fine-tuned model to low-rank differences from its base
///
/// Every weight matrix's difference to the base is truncated to its R largest singular values and stored as LoRA
/// factors. Everything else that differs (biases, norms, embeddings, matrices too small to gain) is stored whole. The
/// result is an adapter that peft loads, and that `regrow merge` merges with rmm.
#[derive(clap::Args)]
#[command(after_help = "Example: regrow compress MODEL_DIR --base BASE_DIR --rank 16 --out ADAPTER_DIR")]
pub struct Args {
    /// The fine-tuned model: a safetensors file or a Hugging Face directory
    model: PathBuf,
    /// The model it was fine-tuned from
    #[arg(long)]
    base: PathBuf,
    /// Number of singular values to keep of each difference
    #[arg(long)]
    rank: usize,
    /// Only matrices whose names this regular expression matches somewhere; others are stored whole
    #[arg(long)]
    target: Option<String>,
    /// No matrices whose names this one matches
    #[arg(long)]
    ignore: Option<String>,
    /// Compress even if the base does not look like the model's parent
    #[arg(long)]
    any_base: bool,
    /// The output path of the adapter
    #[arg(long)]
    out: PathBuf,
    /// Resume an interrupted run with the same settings
    #[arg(long)]
    resume: bool,
}

impl Args {
    /// What identifies a run on these files.
    fn settings(&self, model: &Checkpoint, base: &Checkpoint) -> Result<String> {
        let Self { rank, target, ignore, .. } = self;
        Ok(format!("{rank} {target:?} {ignore:?} {}", identity([model, base].into_iter().flat_map(Checkpoint::files))?))
    }
}

/// Reads, truncates, writes, reports.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    if args.rank == 0 {
        return Err(Error::Argument("differences of rank 0 hold nothing (--rank)".into()));
    }
    let selection = Selection::new(args.target.as_deref(), args.ignore.as_deref())?;
    let (model, base) = (Checkpoint::open(&args.model)?, Checkpoint::open(&args.base)?);
    comparable(&model, &base)?;
    if !args.any_base {
        parent::check(&base, &args.model.display().to_string(), &model)?;
    }
    let config = config_of(&args.base)?;
    let job = Job::plan(&model, &base, args.rank, &selection, transposed(&config))?;
    let settings = args.settings(&model, &base)?;
    let to = Target { out: &args.out, inputs: vec![&model, &base], settings, resume: args.resume };
    let bar = Bar::bytes();
    job.draft(&args.base, &config).write(&to, &|done, all| bar.at(done, all))?;
    job.measure(&args.out)?;
    job.report(out)
}

/// What is stored, and how.
struct Job<'a> {
    model: &'a Checkpoint,
    base: &'a Checkpoint,
    transposed: bool,
    /// Matrices that are truncated, with their tensors' names.
    modules: Vec<(Module, &'a str)>,
    /// Tensors that are stored whole.
    whole: Vec<&'a Entry>,
    /// Squared norms of each difference and of its kept part.
    norms: Mutex<BTreeMap<usize, [f64; 2]>>,
}

impl<'a> Job<'a> {
    fn plan(
        model: &'a Checkpoint,
        base: &'a Checkpoint,
        rank: usize,
        selection: &Selection,
        transposed: bool,
    ) -> Result<Self> {
        let (mut modules, mut whole) = (Vec::new(), Vec::new());
        for entry in model.entries() {
            if same(model, base, entry)? {
                continue;
            }
            match module(entry, rank, transposed).filter(|_| selection.admits(&entry.name)) {
                Some(module) => modules.push((module, entry.name.as_str())),
                None => whole.push(entry),
            }
        }
        spare(&mut modules, &mut whole, model)?;
        match modules.is_empty() {
            true => Err(Error::Argument(format!(
                "{} and {} differ in no matrix that rank {rank} makes smaller",
                model.path().display(),
                base.path().display()
            ))),
            false => Ok(Self { model, base, transposed, modules, whole, norms: Mutex::default() }),
        }
    }

    fn draft(&self, base: &Path, config: &Value) -> Draft<'_> {
        Draft {
            config: self.config(base, config),
            dtype: Dtype::F32,
            modules: self.modules.iter().map(|(module, _)| module.clone()).collect(),
            factors: Box::new(|index| self.factors(index)),
            rest: self
                .whole
                .iter()
                .filter_map(|entry| rest(self.model, entry, &entry.name))
                .chain(self.head(config))
                .collect(),
            beside: Vec::new(),
        }
    }

    /// The head of a language model that shares its embedding's matrix; peft would leave it unchanged.
    fn head(&self, config: &Value) -> Option<Rest<'_>> {
        const HEAD: &str = "lm_head.weight";
        let speaks = task(config).is_some();
        let embedding =
            |entry: &&&Entry| ["wte.weight", "embed_tokens.weight"].iter().any(|end| entry.name.ends_with(end));
        let changed = self.whole.iter().find(embedding)?;
        (speaks && self.model.entry(HEAD).is_err()).then(|| rest(self.model, changed, HEAD)).flatten()
    }

    /// The difference of one matrix, as it is stored.
    fn difference(&self, index: usize) -> regrow_sparse_core::Result<Vec<f32>> {
        let name = self.modules[index].1;
        let mut values = self.model.read_f32(name)?;
        values.iter_mut().zip(self.base.read_f32(name)?).for_each(|(v, b)| *v -= b);
        Ok(values)
    }

    /// The truncated difference of one matrix.
    fn factors(&self, index: usize) -> regrow_sparse_core::Result<Factors> {
        let (module, name) = &self.modules[index];
        let [m, r, d] = module.shape;
        let values = self.difference(index)?;
        let turned = self.transposed && module.kind == Kind::Linear && self.model.entry(name)?.shape == [d, m];
        let stored = if turned { [d, m] } else { [m, d] };
        let cut = LowRank::approximate(&values, stored, r)
            .map_err(|e| regrow_sparse_core::Error::tensor(*name, e.to_string()))?;
        let cut = if turned { cut.transposed() } else { cut };
        self.found(index, &values, &cut);
        Ok(Factors { left: cut.left().to_vec(), right: cut.right().to_vec() })
    }

    /// Records how much a truncation has kept.
    fn found(&self, index: usize, difference: &[f32], cut: &LowRank) {
        let all = difference.iter().map(|v| f64::from(*v).powi(2)).sum();
        self.norms().insert(index, [all, cut.squared_norm()]);
    }

    fn norms(&self) -> MutexGuard<'_, BTreeMap<usize, [f64; 2]>> {
        self.norms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does so for the truncations of an interrupted run, from the written file.
    fn measure(&self, out: &Path) -> Result<()> {
        let known: BTreeSet<usize> = self.norms().keys().copied().collect();
        let left = self.modules.iter().enumerate().filter(|(index, _)| !known.contains(index));
        let left: BTreeMap<&str, usize> = left.map(|(index, (module, _))| (module.name.as_str(), index)).collect();
        if left.is_empty() {
            return Ok(());
        }
        let (adapter, bar) = (Adapter::open(out)?, Bar::new("matrices measured"));
        for (place, module) in adapter.modules().enumerate() {
            if let Some(index) = left.get(module.name.as_str()) {
                let Factors { left, right } = adapter.factors(place)?;
                self.found(*index, &self.difference(*index)?, &LowRank::new(left, right, module.shape)?);
            }
            bar.at(place + 1, self.modules.len());
        }
        Ok(())
    }

    /// An `adapter_config.json` that lists its modules by full name.
    fn config(&self, base: &Path, config: &Value) -> Value {
        let adapted: BTreeSet<&str> = self.modules.iter().map(|(m, _)| m.name.as_str()).collect();
        let parents = self.whole.iter().filter_map(|e| e.name.rsplit_once('.'));
        let saved = parents.clone().map(|(m, _)| m).chain(self.head(config).map(|_| "lm_head"));
        let saved: BTreeSet<&str> = saved.filter(|m| !adapted.contains(m)).collect();
        let biases = parents.clone().any(|(m, parameter)| parameter == "bias" && adapted.contains(m));
        let base = base.file_name().map_or_else(|| base.to_string_lossy(), |name| name.to_string_lossy());
        json!({
            "peft_type": "LORA",
            "base_model_name_or_path": base,
            "task_type": task(config),
            "inference_mode": true,
            "target_modules": adapted,
            "modules_to_save": if saved.is_empty() { Value::Null } else { json!(saved) },
            "bias": if biases { "all" } else { "none" },
            "fan_in_fan_out": self.transposed,
            "lora_dropout": 0.0,
        })
    }

    fn report(&self, out: &mut dyn Write) -> Result<()> {
        let add = |sums: [f64; 2], [all, kept]: &[f64; 2]| [sums[0] + all, sums[1] + kept];
        let [all, kept] = self.norms().values().fold([0.0; 2], add);
        let error = if all > 0.0 { ((all - kept) / all).max(0.0).sqrt() } else { 0.0 };
        let numbers: usize = self.modules.iter().map(|(m, _)| m.shape[1] * (m.shape[0] + m.shape[2])).sum();
        let of: usize = self.modules.iter().map(|(m, _)| m.shape[0] * m.shape[2]).sum();
        let whole: usize = self.whole.iter().map(|e| e.elements()).sum();
        writeln!(
            out,
            "{} matrices as {} of {} numbers ({}), relative error {error:.4}; {} numbers stored whole",
            self.modules.len(),
            text::grouped(numbers),
            text::grouped(of),
            text::percent(numbers, of),
            text::grouped(whole)
        )?;
        Ok(())
    }
}

/// Refuses a base that lacks a tensor of the model or has a different shape for it, before anything is read.
fn comparable(model: &Checkpoint, base: &Checkpoint) -> Result<()> {
    for entry in model.entries() {
        let name = &entry.name;
        let Ok(parent) = base.entry(name) else {
            let reason = format!("{} has no tensor {name:?}: it is not the base of this model", base.path().display());
            return Err(Error::Argument(reason));
        };
        if parent.shape != entry.shape {
            let (ours, theirs) = (text::shape(&entry.shape), text::shape(&parent.shape));
            return Err(Error::Argument(format!("{name} is {ours} in the model and {theirs} in the base")));
        }
    }
    let only = base.entries().iter().filter(|entry| model.entry(&entry.name).is_err());
    let names: Vec<&str> = only.map(|entry| entry.name.as_str()).collect();
    if let Some(first) = names.first() {
        let (path, count) = (base.path().display(), names.len());
        let first = text::one_line(first);
        eprintln!(
            "note: {path} has {count} tensors that the model lacks, as {first}: they stay as they are in the base"
        );
    }
    Ok(())
}

/// Whether the tensor equals the base's, value by value.
fn same(model: &Checkpoint, base: &Checkpoint, entry: &Entry) -> Result<bool> {
    let name = &entry.name;
    if base.entry(name)?.dtype == entry.dtype {
        return Ok(model.raw(name)? == base.raw(name)?);
    }
    Ok(model.read_f32(name)? == base.read_f32(name)?)
}

/// The matrix or kernel of a layer, if factors of this rank are smaller than it is. Embeddings are looked up, not
/// multiplied: peft treats them differently, and they are stored whole.
fn module(entry: &Entry, rank: usize, transposed: bool) -> Option<Module> {
    let name = entry.name.strip_suffix(".weight")?;
    let floating = matches!(entry.dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16);
    if !floating || text::is_embedding(&entry.name) {
        return None;
    }
    let (kind, [m, d]) = match entry.shape[..] {
        // GPT-2's layers are stored [in, out], but its head is not.
        [input, output] if transposed && !name.ends_with("lm_head") => (Kind::Linear, [output, input]),
        [output, input] => (Kind::Linear, [output, input]),
        [output, input, ref kernel @ ..] if !kernel.is_empty() => {
            (Kind::Convolution(kernel.to_vec()), [output, input * kernel.iter().product::<usize>()])
        }
        _ => return None,
    };
    let smaller = rank * (m + d) < m * d;
    smaller.then(|| Module { name: name.into(), kind, shape: [m, rank, d] })
}

/// peft finds modules to save whole by the ends of names: a matrix whose module's name ends like one of them
/// (`pre_classifier`, `classifier`) is saved whole as well.
fn spare<'a>(modules: &mut Vec<(Module, &'a str)>, whole: &mut Vec<&'a Entry>, model: &'a Checkpoint) -> Result<()> {
    loop {
        let saved = whole.iter().filter_map(|e| e.name.rsplit_once('.')).map(|(module, _)| module);
        let saved: Vec<&str> = saved.filter(|name| modules.iter().all(|(m, _)| m.name != *name)).collect();
        let met = |(module, _): &(Module, &str)| saved.iter().any(|name| module.name.ends_with(name));
        let Some(place) = modules.iter().position(met) else { return Ok(()) };
        whole.push(model.entry(modules.remove(place).1)?);
    }
}

/// peft's name for a language model's task; for other tasks it would add its own layers to save.
fn task(config: &Value) -> Option<&'static str> {
    let head = config["architectures"][0].as_str()?;
    (head.ends_with("ForCausalLM") || head.ends_with("LMHeadModel")).then_some("CAUSAL_LM")
}

fn rest<'a>(model: &'a Checkpoint, entry: &Entry, name: &str) -> Option<Rest<'a>> {
    let bytes = model.raw(&entry.name).ok()?;
    Some(Rest { name: name.into(), dtype: entry.dtype, shape: entry.shape.clone(), bytes })
}

/// The base's `config.json`, if it has one.
fn config_of(base: &Path) -> Result<Value> {
    let path = base.join("config.json");
    if !path.is_file() {
        return Ok(Value::Null);
    }
    let text = std::fs::read(&path).map_err(|e| regrow_sparse_core::Error::io(&path, e))?;
    let bad = |e: serde_json::Error| regrow_sparse_core::Error::format(&path, format!("is no JSON: {e}"));
    Ok(serde_json::from_slice::<Value>(&text).map_err(bad)?)
}

/// Whether linear layers are stored `[in, out]`.
fn transposed(config: &Value) -> bool {
    matches!(config["model_type"].as_str(), Some("gpt2" | "openai-gpt" | "imagegpt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_factors() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let view = |shape: &[usize]| {
            let data: &'static [u8] = vec![0u8; 4 * shape.iter().product::<usize>()].leak();
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), data).expect("a view")
        };
        let tensors = [
            ("fc.weight", view(&[8, 6])),
            ("fc.bias", view(&[8])),
            ("embed.weight", view(&[20, 6])),
            ("conv.weight", view(&[8, 3, 3, 3])),
            ("head.weight", view(&[2, 6])),
        ];
        std::fs::write(&file, safetensors::serialize(tensors, None).expect("bytes")).expect("written");
        let checkpoint = Checkpoint::open(file.path()).expect("a checkpoint");
        let of = |name: &str, turned: bool| {
            module(checkpoint.entry(name).expect("there"), 2, turned).map(|m| (m.kind, m.shape))
        };
        assert_eq!(of("fc.weight", false), Some((Kind::Linear, [8, 2, 6])));
        assert_eq!(of("fc.weight", true), Some((Kind::Linear, [6, 2, 8])));
        assert_eq!(of("conv.weight", false), Some((Kind::Convolution(vec![3, 3]), [8, 2, 27])));
        for name in ["fc.bias", "embed.weight", "head.weight"] {
            assert_eq!(of(name, false), None, "{name}");
        }
    }
}
