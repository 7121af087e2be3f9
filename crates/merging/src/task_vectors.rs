//! Task vectors `D_i = W_i - W_0`, sparsified by a method and merged:
//!
//! ```text
//! W = W_0 + lambda * sum_i a_i f_i (K_i * D_i)
//! ```
//!
//! with a mask `K_i` and a factor `f_i` from the method. `normalize` divides the sum by `sum_i a_i`.
//!
//! With sign election (TIES, arXiv 2306.01708, section 4), an entry's sum includes only the terms with the same sign as
//! the sum of all; 0 counts as positive. `normalize` then divides by the sum of their `a_i`.
//!
//! TIES, DARE, DELLA, breadcrumbs and task arithmetic consist of a [`Consensus`], defined here, and a way to sparsify
//! one task vector, defined in the method's own file. A custom method needs only the second:
//!
//! ```
//! use regrow_merging::task_vectors::{Consensus, Sparse};
//! use regrow_merging::{Operand, Operands};
//!
//! let consensus = Consensus { weights: vec![1.0, 1.0], lambda: 1.0, normalize: false, elect: false };
//! let models = [Operand::new("a", &[3.0, -1.0]), Operand::new("b", &[0.5, 2.0])];
//! let tensor = Operands::new("w", &[2], Some(&[0.0, 0.0]), &models)?;
//! // Only what a model raised.
//! let raised = |_, _: &Operand<'_>, delta: &[f32]| Ok(Sparse::Values(delta.iter().map(|d| d.max(0.0)).collect()));
//! assert_eq!(consensus.merge(&tensor, &raised)?, [3.5, 2.0]);
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```

use rayon::prelude::*;
use regrow_sparse_core::mask::top_k::top_k;
use regrow_sparse_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::params::PerModel;
use crate::sums::PIECE;
use crate::tensors::{Operand, Operands};

/// Entries that are processed together: a word of a mask.
const BLOCK: usize = 64;

/// A sparsified task vector.
pub enum Sparse {
    /// Every entry unchanged.
    All,
    /// The entries whose bits are set, times a factor. Entry `i` is bit `i % 64` of word `i / 64`.
    Mask(Vec<u64>, f32),
    /// These values, one for each entry.
    Values(Vec<f32>),
}

/// Sparsifies a task vector, given the model's number, the model, and the vector.
pub type Sparsify<'k> = dyn Fn(usize, &Operand<'_>, &[f32]) -> Result<Sparse> + 'k;

/// How task vectors are combined.
#[derive(Clone, Debug, PartialEq)]
pub struct Consensus {
    /// A weight for each model, `a_i`.
    pub weights: Vec<f64>,
    /// The factor of the merged task vector.
    pub lambda: f64,
    /// Whether the sum is divided by the sum of the weights.
    pub normalize: bool,
    /// Whether the sign of each entry is elected.
    pub elect: bool,
}

impl Consensus {
    /// For `models` models.
    pub(crate) fn new(weight: &PerModel, models: usize, lambda: f64, normalize: bool, elect: bool) -> Result<Self> {
        match lambda.is_finite() {
            true => Ok(Self { weights: weight.of(models, "weight")?, lambda, normalize, elect }),
            false => Err(Error::Argument(format!("`lambda` must be a finite number, not {lambda}"))),
        }
    }

    /// The merged tensor, with each task vector sparsified by `sparsify`.
    ///
    /// # Errors
    /// No base, another number of models than of weights; as `sparsify`.
    pub fn merge(&self, tensor: &Operands<'_>, sparsify: &Sparsify<'_>) -> Result<Vec<f32>> {
        let base = tensor.base()?;
        let models = tensor.models(self.weights.len())?;
        let mut out = vec![0.0f32; base.len()];
        let mut sparse = Vec::with_capacity(models.len());
        for (i, model) in models.iter().enumerate() {
            subtract(model.values, base, &mut out);
            sparse.push(sparsify(i, model, &out)?);
        }
        self.fill(base, models, &sparse, &mut out);
        Ok(out)
    }

    /// The merged tensor with every task vector unchanged.
    ///
    /// # Errors
    /// No base, another number of models than of weights.
    pub fn merge_whole(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        let base = tensor.base()?;
        let models = tensor.models(self.weights.len())?;
        let sparse: Vec<Sparse> = models.iter().map(|_| Sparse::All).collect();
        let mut out = vec![0.0f32; base.len()];
        self.fill(base, models, &sparse, &mut out);
        Ok(out)
    }

    fn fill(&self, base: &[f32], models: &[Operand<'_>], sparse: &[Sparse], out: &mut [f32]) {
        let terms: Vec<Term<'_>> = models
            .iter()
            .zip(sparse)
            .zip(&self.weights)
            .map(|((model, sparse), weight)| Term { values: model.values, sparse, weight: *weight as f32 })
            .collect();
        let divisor = match self.normalize {
            true => not_zero(terms.iter().map(|t| t.weight).sum(), 1e-8),
            false => 1.0,
        };
        out.par_chunks_mut(PIECE).enumerate().for_each(|(piece, out)| {
            let mut deltas = vec![[0.0f32; BLOCK]; terms.len()];
            for (block, out) in out.chunks_mut(BLOCK).enumerate() {
                let at = piece * PIECE + block * BLOCK;
                let base = &base[at..at + out.len()];
                deltas.iter_mut().zip(&terms).for_each(|(delta, term)| term.weighted(at, base, delta));
                let mut mixed = match self.elect {
                    true => self.elected(&terms, &deltas),
                    false => total(&deltas).map(|sum| sum / divisor),
                };
                mixed.iter_mut().for_each(|m| *m *= self.lambda as f32);
                out.iter_mut().zip(base).zip(&mixed).for_each(|((out, base), mixed)| *out = base + mixed);
            }
        });
    }

    /// For each entry, the sum of the terms that have the sign of the sum of all.
    fn elected(&self, terms: &[Term<'_>], deltas: &[[f32; BLOCK]]) -> [f32; BLOCK] {
        let sum = total(deltas);
        let (mut mixed, mut divisor) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
        for (term, delta) in terms.iter().zip(deltas) {
            for k in 0..BLOCK {
                let agrees = if sum[k] >= 0.0 { delta[k] > 0.0 } else { delta[k] < 0.0 };
                mixed[k] += if agrees { delta[k] } else { 0.0 };
                divisor[k] += if agrees { term.weight } else { 0.0 };
            }
        }
        if self.normalize {
            mixed.iter_mut().zip(&divisor).for_each(|(m, d)| *m /= not_zero(*d, 0.0));
        }
        mixed
    }
}

/// One term of the sum.
struct Term<'a> {
    values: &'a [f32],
    sparse: &'a Sparse,
    weight: f32,
}

impl Term<'_> {
    /// `a_i f_i (K_i * D_i)` for the entries from `at` on, zero past the end of `base`.
    fn weighted(&self, at: usize, base: &[f32], delta: &mut [f32; BLOCK]) {
        let values = &self.values[at..at + base.len()];
        delta[base.len()..].fill(0.0);
        let weight = self.weight;
        let entries = delta.iter_mut().zip(values.iter().zip(base));
        match self.sparse {
            Sparse::All => entries.for_each(|(delta, (value, base))| *delta = (value - base) * weight),
            Sparse::Mask(words, factor) => {
                let keep = expanded(words[at / BLOCK]);
                entries
                    .zip(&keep)
                    .for_each(|((delta, (value, base)), keep)| *delta = (value - base) * keep * factor * weight);
            }
            Sparse::Values(values) => {
                delta.iter_mut().zip(&values[at..at + base.len()]).for_each(|(delta, value)| *delta = value * weight);
            }
        }
    }
}

/// `d`, or 1 if it is (nearly) zero.
fn not_zero(d: f32, nearly: f32) -> f32 {
    if d.abs() <= nearly { 1.0 } else { d }
}

fn total(deltas: &[[f32; BLOCK]]) -> [f32; BLOCK] {
    let mut sum = [0.0f32; BLOCK];
    deltas.iter().for_each(|delta| sum.iter_mut().zip(delta).for_each(|(sum, d)| *sum += d));
    sum
}

/// The eight bits of each byte as 0 or 1.
const BITS: [[f32; 8]; 256] = {
    let mut table = [[0.0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            if byte >> bit & 1 == 1 {
                table[byte][bit] = 1.0;
            }
            bit += 1;
        }
        byte += 1;
    }
    table
};

fn expanded(word: u64) -> [f32; BLOCK] {
    let mut lanes = [0.0f32; BLOCK];
    let bytes = lanes.chunks_exact_mut(8).zip(word.to_le_bytes());
    bytes.for_each(|(lanes, byte)| lanes.copy_from_slice(&BITS[usize::from(byte)]));
    lanes
}

fn subtract(values: &[f32], base: &[f32], delta: &mut [f32]) {
    let pieces = delta.par_chunks_mut(PIECE).zip(values.par_chunks(PIECE).zip(base.par_chunks(PIECE)));
    pieces.for_each(|(delta, (values, base))| {
        delta.iter_mut().zip(values.iter().zip(base)).for_each(|(d, (v, b))| *d = v - b);
    });
}

/// Bits of the `count` entries of largest magnitude; among equal ones, the earlier.
pub(crate) fn largest(tensor: &Operands<'_>, delta: &[f32], count: usize) -> Result<Vec<u64>> {
    top_k(delta, count, f32::abs).map_err(|e| tensor.error(e.to_string()))
}

/// How dropped entries are compensated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rescale {
    /// Not at all.
    None,
    /// Kept entries are divided by the probability of keeping them, so that the expectation is unchanged.
    Density,
    /// Kept entries are scaled so that the task vector's sum of magnitudes is unchanged (mergekit).
    L1,
}

impl Rescale {
    /// Names in parameters.
    pub const NAMES: [(&'static str, Self); 3] = [("none", Self::None), ("density", Self::Density), ("l1", Self::L1)];

    /// The factor for the entries of `delta` whose bits are set, a share `density` of all.
    pub(crate) fn factor(self, delta: &[f32], words: &[u64], density: f64) -> f32 {
        match self {
            Self::Density if density > 0.0 => (1.0 / density) as f32,
            Self::None | Self::Density => 1.0,
            Self::L1 => {
                let (all, kept) = magnitudes(delta, words);
                if all < 1e-7 || kept < 1e-7 { 1.0 } else { (all / kept) as f32 }
            }
        }
    }
}

/// Sums of the magnitudes of all entries and of those whose bits are set, in f64.
fn magnitudes(delta: &[f32], words: &[u64]) -> (f64, f64) {
    let piece = |(delta, words): (&[f32], &[u64])| {
        let (mut all, mut kept) = (0.0f64, 0.0f64);
        for (delta, word) in delta.chunks(BLOCK).zip(words) {
            for (d, keep) in delta.iter().zip(expanded(*word)) {
                all += f64::from(d.abs());
                kept += f64::from(d.abs() * keep);
            }
        }
        (all, kept)
    };
    let pieces: Vec<(f64, f64)> = delta.par_chunks(PIECE).zip(words.par_chunks(PIECE / BLOCK)).map(piece).collect();
    pieces.into_iter().fold((0.0, 0.0), |(a, k), (all, kept)| (a + all, k + kept))
}
