//! What the forms have in common: rows that can be multiplied, one by one.

use std::ops::Range;

use crate::SimdLevel;
use crate::kernel::{Number, Sums};

/// A sparse matrix by its rows.
pub(super) trait Rows: Sync {
    /// What its values are stored as.
    type Number: Number;

    /// Bytes read to go through the whole of it.
    fn bytes(&self) -> usize;

    /// Values stored.
    fn kept(&self) -> usize;

    /// Where the values of a row begin.
    fn begin(&self, row: usize) -> usize;

    /// A part with its zeros into `out`, which is as long and padded to whole words. Where the values of the next
    /// part begin.
    fn expand(&self, level: SimdLevel, part: &Part, out: &mut [f32]) -> usize;

    /// Adds the products of a part with `source`, the inputs of its columns beside each other, `[cols, lanes]`, to
    /// `out`, `[lanes]`. Where the values of the next part begin.
    fn add(&self, level: SimdLevel, part: &Part, source: &[f32], scratch: &mut Scratch, out: &mut [f32]) -> usize;

    /// Adds the products of a part with [`LANES`](crate::kernel::LANES) inputs, which lie as
    /// [`Number::beside`] wants them, and asks memory for what lies `ahead` values further on. Where the values of the
    /// next part begin.
    fn beside(&self, level: SimdLevel, part: &Part, x: &[f32], ahead: usize, sums: &mut Sums) -> usize;

    /// Asks memory for what [`Rows::expand`] or [`Rows::add`] will read, more or less.
    fn ask(&self, part: &Part);

    /// Whether rows are gone through in parts, or whole: not in parts where to find a part's end takes longer than
    /// the part does.
    const PARTS: bool;

    /// Whether [`Rows::dot`] wants the even numbers of every 32 before the odd ones.
    fn sorts(&self, level: SimdLevel) -> bool;

    /// The products of a row with `B` inputs, padded with zeros to whole words and sorted as it wants them.
    fn dot<const B: usize>(&self, level: SimdLevel, row: usize, x: &[&[f32]; B]) -> [f32; B];
}

/// Some columns of a row.
pub(super) struct Part {
    pub(super) row: usize,
    /// From a whole word on.
    pub(super) columns: Range<usize>,
    /// Where their values begin.
    pub(super) at: usize,
}

/// Room to decode into.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) offsets: Vec<u32>,
    pub(super) columns: Vec<u16>,
    pub(super) values: Vec<f32>,
    /// Parts of some rows with their zeros.
    pub(super) rows: Vec<f32>,
    /// Where the values of rows go on.
    pub(super) at: Vec<usize>,
}
