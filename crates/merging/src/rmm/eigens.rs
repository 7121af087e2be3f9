//! Eigenvalues and eigenvectors of Gram matrices, and the weights and coefficients derived from them.

use faer::Mat;
use regrow_sparse_core::Result;

use crate::low_rank::eigen;

/// Centring and scaling of the Gram matrix of `n` vectors before it is decomposed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GramPreprocess {
    /// Whether the mean is subtracted from the vectors.
    pub centred: bool,
    /// The divisor of each model's vectors.
    pub scales: Vec<f64>,
}

/// Eigenvalues, descending, and eigenvectors of the Gram matrices of some units.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Eigens {
    /// Number of vectors per unit.
    pub n: usize,
    /// `[units, n]`.
    pub values: Vec<f64>,
    /// `[units, n, n]`, a row for each eigenvector.
    pub vectors: Vec<f64>,
}

impl GramPreprocess {
    /// Models unchanged, centred, or divided by norms: by `norm(i)` for model `i`.
    pub fn new(models: usize, centred: bool, normalized: bool, norm: impl Fn(usize) -> f64) -> Self {
        let one = |i: usize| if normalized { divisor(norm(i)) } else { 1.0 };
        Self { centred, scales: (0..models).map(one).collect() }
    }

    /// Whether a Gram matrix stays unchanged.
    pub fn is_identity(&self) -> bool {
        !self.centred && self.scales.iter().all(|s| *s == 1.0)
    }

    /// The Gram matrix of the preprocessed vectors.
    pub fn apply(&self, gram: &mut [f64]) {
        let n = self.scales.len();
        if self.centred {
            centre(gram, n);
        }
        (0..n * n).for_each(|i| gram[i] /= self.scales[i / n] * self.scales[i % n]);
    }

    /// The weights of the models in basis vector `vector`.
    pub fn weights<'a>(&'a self, vector: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        // If the vectors are centred, so are the models' weights.
        let shift = if self.centred { vector.iter().sum::<f64>() / vector.len() as f64 } else { 0.0 };
        vector.iter().zip(&self.scales).map(move |(v, scale)| (v - shift) / scale)
    }

    /// The coefficients of the models along the eigenvectors `vectors [p, n]`.
    pub fn coefficients<'a>(&'a self, vectors: &'a [f64]) -> impl Iterator<Item = f32> + 'a {
        vectors.iter().zip(self.scales.iter().cycle()).map(|(v, scale)| (v * scale) as f32)
    }
}

impl Eigens {
    /// Of one Gram matrix.
    pub fn of(gram: &[f64], n: usize) -> Result<Self> {
        let (values, vectors) = eigen(&Mat::from_fn(n, n, |i, j| gram[i * n + j]))?;
        Ok(Self { n, values, vectors: (0..n * n).map(|i| vectors[(i % n, i / n)]).collect() })
    }

    /// How many units there are.
    pub fn units(&self) -> usize {
        self.values.len() / self.n.max(1)
    }

    /// Eigenvector `k` of a unit.
    pub fn vector(&self, unit: usize, k: usize) -> &[f64] {
        let start = (unit * self.n + k) * self.n;
        &self.vectors[start..start + self.n]
    }

    /// The first `fitted` eigenvectors of a unit, one after another.
    pub fn first(&self, unit: usize, fitted: usize) -> &[f64] {
        let start = unit * self.n * self.n;
        &self.vectors[start..start + fitted * self.n]
    }

    /// The sum of the eigenvalues of all units from number `from` on.
    pub fn tail(&self, from: usize) -> f64 {
        self.values.chunks(self.n.max(1)).map(|values| values[from..].iter().sum::<f64>()).sum()
    }
}

/// A norm as a divisor, 1 instead of 0.
fn divisor(norm: f64) -> f64 {
    if norm > 0.0 { norm } else { 1.0 }
}

/// The Gram matrix of the centred vectors.
fn centre(gram: &mut [f64], n: usize) {
    let mean: Vec<f64> = (0..n).map(|i| gram[i * n..(i + 1) * n].iter().sum::<f64>() / n as f64).collect();
    let all = mean.iter().sum::<f64>() / n as f64;
    (0..n * n).for_each(|i| gram[i] += all - mean[i / n] - mean[i % n]);
}
