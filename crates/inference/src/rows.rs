//! What the forms have in common: rows that can be multiplied one by one.

use std::ops::Range;

use crate::SimdLevel;
use crate::kernel::{Number, Sums};

/// A sparse matrix by its rows.
pub(super) trait Rows: Sync {
    /// The type its values are stored as.
    type Number: Number;

    /// Bytes read in one pass over the matrix.
    fn bytes(&self) -> usize;

    /// Values stored.
    fn kept(&self) -> usize;

    /// Where the values of a row start.
    fn begin(&self, row: usize) -> usize;

    /// Expands a part with its zeros into `out`, which is as long and padded to whole words. Returns where the values
    /// of the next part start.
    fn expand(&self, level: SimdLevel, part: &Part, out: &mut [f32]) -> usize;

    /// Adds the products of a part with `source`, the inputs of its columns next to each other, `[cols, lanes]`, to
    /// `out`, `[lanes]`. Returns where the values of the next part start.
    fn add(&self, level: SimdLevel, part: &Part, source: &[f32], scratch: &mut Scratch, out: &mut [f32]) -> usize;

    /// Adds the products of a part with [`LANES`](crate::kernel::LANES) inputs, stored as [`Number::beside`] expects,
    /// and prefetches the values `ahead` positions further on. Returns where the values of the next part start.
    fn beside(&self, level: SimdLevel, part: &Part, x: &[f32], ahead: usize, sums: &mut Sums) -> usize;

    /// Prefetches approximately what [`Rows::expand`] or [`Rows::add`] will read.
    fn ask(&self, part: &Part);

    /// Whether rows are processed in parts, or whole: not in parts if finding a part's end takes longer than processing
    /// the part.
    const PARTS: bool;

    /// Whether [`Rows::dot`] expects the even numbers of every 32 before the odd ones.
    fn sorts(&self, level: SimdLevel) -> bool;

    /// The products of a row with `B` inputs, padded with zeros to whole words and sorted as it expects.
    fn dot<const B: usize>(&self, level: SimdLevel, row: usize, x: &[&[f32]; B]) -> [f32; B];
}

/// Some columns of a row.
pub(super) struct Part {
    pub(super) row: usize,
    /// Starting at a whole word.
    pub(super) columns: Range<usize>,
    /// Where their values start.
    pub(super) at: usize,
}

/// Buffers for decoding.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) offsets: Vec<u32>,
    pub(super) columns: Vec<u16>,
    pub(super) values: Vec<f32>,
    /// Parts of some rows with their zeros.
    pub(super) rows: Vec<f32>,
    /// Where the values of rows continue.
    pub(super) at: Vec<usize>,
}
