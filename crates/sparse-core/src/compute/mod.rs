//! Sparse layers that are really faster: multiplied as they are stored, zeros neither read nor multiplied.
mod bits;
mod conv;
mod csr;
mod kernel;
mod layers;
mod level;
mod linear;
mod product;
mod rows;
#[cfg(test)]
mod tests;
mod trial;

use std::fmt;

pub use conv::SparseConv2d;
pub use layers::{Compressed, Layered, Layers, Stock, Swapped, Within, compress, compress_by};
pub use level::Level;
pub use linear::SparseLinear;
pub use trial::{Kind, Options, Verdict};

/// How a sparse matrix lies in memory.
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

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Csr => f.write_str("CSR"),
            Self::Bitmask => f.write_str("bitmask"),
            Self::NofM { n, m } => write!(f, "{n}:{m}"),
        }
    }
}
