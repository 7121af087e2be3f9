//! Sparse layers that are really faster: multiplied as they are stored, zeros neither read nor multiplied.
mod bits;
mod csr;
mod kernel;
mod level;
mod linear;
mod product;
mod rows;
#[cfg(test)]
mod tests;

use std::fmt;

pub use level::Level;
pub use linear::SparseLinear;

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
