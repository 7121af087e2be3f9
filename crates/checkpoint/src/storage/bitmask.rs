//! One bit per weight, and the values that are not zero (`sparse-bitmask`).
//!
//! | part | type | shape |
//! | --- | --- | --- |
//! | `compressed` | the matrix's | `[kept]` |
//! | `bitmask` | U8 | `[rows, ceil(cols / 8)]`, low bit first |
//! | `shape` | I64 | `[2]` |
//! | `row_offsets` | I64 | `[rows]`, the sum of the kept of all rows before |
//!
//! For 16-bit weights it takes `1 - sparsity + 1 / 16` of the dense size and 8 bytes per row.

use super::{Matrix, bits};

/// A bit for each value, set if it is not zero; rows padded to whole bytes.
pub(super) fn bits(matrix: &Matrix<'_>) -> Vec<u8> {
    bits::nonzero(matrix)
}
