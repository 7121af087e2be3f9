//! Sparse layers that are really faster: multiplied in their stored form, without gradients.
//!
//! - [`SparseLinear`]: a matrix as CSR, bitmask or N:M, its values in f32, f16 or bf16, sums in f32
//! - [`SparseConv2d`]: a convolution with its kept weights only
//! - [`compress()`]: measures a model's layers, replaces those that are faster sparse, and reports on the others
//! - [`ForwardWith`], [`LayerExecutor`]: how a model lets others compute its layers
//!
//! A product with one input reads every stored byte once, and at these sizes is limited by memory bandwidth; so the
//! bytes give the possible speed-up ([`SparseLinear::bytes`]). For `n` weights, `kept` of them nonzero, `w` bytes each:
//!
//! | [`Packing`] | bytes | 4096x4096, f32 | f16, bf16 |
//! | --- | --- | --- | --- |
//! | dense | `w n` | 64 MiB | 32 MiB |
//! | `Bitmask`, half zeros | `w kept + n / 8`, and 8 per row | 34.0 MiB: 0.53 | 18.0 MiB: 0.28 |
//! | `NofM` 2:4 | `w n / 2 + n / 8` | 34.0 MiB: 0.53 | 18.0 MiB: 0.28 |
//! | `Bitmask`, 90 % zeros | as above | 8.4 MiB: 0.13 | 5.2 MiB: 0.08 |
//! | `Csr`, half zeros | `(w + 2) kept`, and 8 per row; `w + 4` beyond 65,536 columns | 48.0 MiB: 0.75 | 32.0 MiB: 0.50 |
//! | `Csr`, 90 % zeros | as above | 9.6 MiB: 0.15 | 6.4 MiB: 0.10 |
//!
//! (Ratios are relative to dense f32.) A bitmask spreads 16 values over their columns in one instruction with AVX-512,
//! eight with a table in AVX2, and costs the same however few are kept; CSR gathers inputs, and its cost falls with the
//! number of values: from about 85 % zeros on it wins. With many inputs at once the multiplications dominate; a kept
//! weight is then multiplied with a whole vector of inputs.
//!
//! [`SimdLevel`] says which instructions are used: the best that the processor has, detected at run time. On CUDA, WGPU
//! and Vulkan one CubeCL kernel computes linear layers from a bitmask, which takes an eighth of a byte more per weight
//! there; convolutions stay dense, as does everything on peers and with LibTorch, and [`compress()`] reports that.
mod aligned;
mod autotune;
mod bits;
mod conv;
mod csr;
#[cfg(feature = "kernels")]
mod cube;
mod kernel;
mod layers;
mod linear;
mod panel;
mod product;
mod rows;
#[cfg(test)]
mod tests;

use std::fmt;

pub use autotune::{Kind, LayerTiming, Options, is_possible};
pub use conv::SparseConv2d;
pub use layers::{Compressed, Swapped, compress, compress_by};
pub use linear::SparseLinear;
pub use regrow_sparse_core::mask::simd::SimdLevel;
pub use regrow_sparse_core::model::executor::{ConvTap, DenseExecutor, ForwardWith, LayerExecutor, ScopedExecutor};
pub use regrow_sparse_core::{Error, Result};

/// The memory layout of a sparse matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// The column of each kept weight.
    Csr,
    /// A bit for each weight.
    Bitmask,
    /// A bit for each weight, `n` set of every `m` along a row.
    NofM {
        /// Kept in each group.
        n: usize,
        /// Size of a group.
        m: usize,
    },
}

impl Packing {
    /// Whether rows of `cols` weights, row-major, keep no more than this pattern allows.
    fn holds(self, cols: usize, weights: &[f32]) -> bool {
        match self {
            Self::Csr | Self::Bitmask => true,
            Self::NofM { n, m } => bits::check(cols, weights, n, m).is_ok(),
        }
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Csr => f.write_str("CSR"),
            Self::Bitmask => f.write_str("bitmask"),
            Self::NofM { n, m } => write!(f, "{n}:{m}"),
        }
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
