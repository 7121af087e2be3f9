//! Real adapters under every method: how much of each is in the merged result.
//!
//! Their tasks' data are not at hand, so that no accuracy is measured, but for each adapter `D_i` the cosine of
//! `D_i` with the merged difference `D`, which no factor on `D` changes:
//!
//! ```text
//! mean over i of <D, D_i> / (|D| |D_i|), inner products over all modules together
//! ```
//!
//! The mean of two differences at right angles has 0.707 with each; a method that keeps one alone has 0.5.

use std::path::Path;
use std::time::Instant;

use rayon::prelude::*;
use regrow_lm::adapter::{Adapter, Factors};
use regrow_merging::{BaseRole, LowRank, MergeEntry, Operand, Operands, tensor_methods};
use regrow_sparse_core::{Error, Result};

use super::rows::parameters;
use crate::harness::record::Record;

/// What the table calls them, their folder, and theirs in it.
const GROUPS: [(&str, &str, &[&str]); 3] = [
    ("GPT-2 adapters (cosine)", "gpt2-lora", &["tigrinya-1", "pseudo-to-code"]),
    ("DistilBERT adapters (cosine)", "distilbert-lora", &["imdb", "emotion"]),
    ("ConvNeXt adapters (cosine)", "convnext-lora", &["v1-2026-02", "v1-2026-03", "v2-2026-04"]),
];

/// The rows of all groups in `folder`.
pub fn rows(folder: &Path, seed: u64) -> Result<Vec<Record>> {
    let mut rows = Vec::new();
    for (name, group, members) in GROUPS {
        let paths = members.iter().map(|member| folder.join(group).join(member));
        let adapters = paths.map(Adapter::open).collect::<Result<Vec<_>>>()?;
        let record = |method: &str, cosine: f64, started: Instant| {
            Record::new(&format!("{method} | {name}"), 0.0, seed, 100.0 * cosine, started.elapsed().as_secs_f64())
        };
        let started = Instant::now();
        let alone = (0..adapters.len()).map(|i| cosine(&adapters, &|d, _| Ok(d[i].clone())));
        let alone = alone.collect::<Result<Vec<_>>>()?;
        rows.push(record("best model", alone.iter().copied().fold(0.0, f64::max), started));
        for entry in tensor_methods().filter(|entry| admits(entry, adapters.len())) {
            let started = Instant::now();
            let method = entry.tensor(&parameters(entry, adapters.len(), None, seed))?;
            let merged = |differences: &[Vec<f32>], tensor: (&str, [usize; 2])| {
                let operands: Vec<Operand<'_>> =
                    members.iter().zip(differences).map(|(n, d)| Operand::new(n, d)).collect();
                let base = vec![0.0; differences[0].len()];
                let base = entry.reads_base(members.len()).then_some(&base[..]);
                method.merge(&Operands::new(tensor.0, &tensor.1, base, &operands)?)
            };
            rows.push(record(entry.info.name, cosine(&adapters, &merged)?, started));
        }
    }
    Ok(rows)
}

/// Those that merge differences without knowing more of them.
fn admits(entry: &MergeEntry, models: usize) -> bool {
    let asks = ["fisher", "regmean", "sms"].contains(&entry.info.name);
    !asks && entry.check(models, entry.base == BaseRole::Parent).is_ok()
}

/// Makes one difference of those of all adapters, by the module's name and sizes.
type Merge<'a> = dyn Fn(&[Vec<f32>], (&str, [usize; 2])) -> Result<Vec<f32>> + Sync + 'a;

/// The mean cosine of the merged difference with each adapter's.
fn cosine(adapters: &[Adapter], merge: &Merge<'_>) -> Result<f64> {
    let n = adapters.len();
    let modules: Vec<_> = adapters[0].modules().collect();
    let of_module = |(index, module): (usize, &&regrow_lm::adapter::Module)| -> Result<Vec<f64>> {
        let [m, _, d] = module.shape;
        let dense = |adapter: &Adapter| {
            let other = adapter.modules().nth(index).filter(|other| other.name == module.name);
            let r = other.map(|other| other.shape[1]);
            let r = r.ok_or_else(|| Error::tensor(&module.name, "is not adapted by all adapters"))?;
            let Factors { left, right } = adapter.factors(index)?;
            Ok(LowRank::new(left, right, [m, r, d])?.dense())
        };
        let differences = adapters.iter().map(dense).collect::<Result<Vec<_>>>()?;
        let merged = merge(&differences, (&module.name, [m, d]))?;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let with = differences.iter().flat_map(|d| [dot(&merged, d), dot(d, d)]);
        Ok(with.chain([dot(&merged, &merged)]).collect())
    };
    let all = modules.par_iter().enumerate().map(of_module).collect::<Result<Vec<_>>>()?;
    let sum = |k: usize| all.iter().map(|of| of[k]).sum::<f64>();
    let norm = sum(2 * n).sqrt();
    let one = |i: usize| {
        let lengths = norm * sum(2 * i + 1).sqrt();
        if lengths > 0.0 { sum(2 * i) / lengths } else { 0.0 }
    };
    Ok((0..n).map(one).sum::<f64>() / n as f64)
}

#[cfg(test)]
mod tests {
    use regrow_checkpoint::Dtype;
    use regrow_lm::adapter::{Draft, Kind, Module, Target};

    use super::*;

    #[test]
    fn differences_at_right_angles_are_each_half_of_their_sum() {
        let dir = tempfile::tempdir().unwrap();
        let adapter = |name: &str, left: [f32; 2]| {
            let draft = Draft {
                config: serde_json::json!({ "peft_type": "LORA", "target_modules": ["q"] }),
                dtype: Dtype::F32,
                modules: vec![Module { name: "q".into(), kind: Kind::Linear, shape: [2, 1, 2] }],
                factors: Box::new(move |_| Ok(Factors { left: left.to_vec(), right: vec![1.0, 0.0] })),
                rest: Vec::new(),
                beside: Vec::new(),
            };
            draft.write(&Target::new(&dir.path().join(name)), &|_, _| ()).unwrap();
            Adapter::open(dir.path().join(name)).unwrap()
        };
        let both = [adapter("a", [1.0, 0.0]), adapter("b", [0.0, 3.0])];
        let first = cosine(&both, &|d, _| Ok(d[0].clone())).unwrap();
        let balanced = cosine(&both, &|d, _| Ok((0..4).map(|i| 3.0 * d[0][i] + d[1][i]).collect())).unwrap();
        regrow_testing::assert_close(&[first, balanced], &[0.5, 0.5f64.sqrt()], 1e-6);
    }
}
