//! What the forms have in common: rows that can be multiplied, one by one.

use std::ops::Range;

use super::Level;
use super::kernel::Number;

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

    /// Some columns of a row with their zeros into `out`, which is as long and padded to whole words; they begin
    /// at a whole word, and their values at `at`. Where the values of the next columns begin.
    fn expand(&self, level: Level, row: usize, columns: Range<usize>, at: usize, out: &mut [f32]) -> usize;

    /// Asks for what [`Rows::expand`] or [`Rows::decode`] will read of these columns.
    fn ask(&self, row: usize, columns: Range<usize>, at: usize);

    /// Whether [`Rows::dot`] wants the even numbers of every 32 before the odd ones.
    fn sorts(&self, level: Level) -> bool;

    /// The products of a row with `B` inputs, padded with zeros to whole words and sorted as it wants them.
    fn dot<const B: usize>(&self, level: Level, row: usize, x: &[&[f32]; B]) -> [f32; B];

    /// The entry of `table` for each kept one of some columns of a row, the first being at `table[0]`, and its
    /// value. Columns and values begin as for [`Rows::expand`].
    fn decode<'a>(
        &'a self,
        level: Level,
        row: usize,
        columns: Range<usize>,
        at: usize,
        table: &[u32],
        scratch: &'a mut Scratch,
    ) -> Decoded<'a>;
}

/// A row as [`spread`](super::kernel::spread) takes it.
pub(super) struct Decoded<'a> {
    pub(super) offsets: &'a [u32],
    pub(super) values: &'a [f32],
}

/// Room to decode into.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) offsets: Vec<u32>,
    pub(super) values: Vec<f32>,
    /// Parts of some rows with their zeros.
    pub(super) rows: Vec<f32>,
    /// Where the values of rows go on.
    pub(super) at: Vec<usize>,
}
