//! What the forms have in common: rows that can be multiplied, one by one.

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

    /// A row with its zeros into `out`, which is as long and padded to whole words.
    fn expand(&self, level: Level, row: usize, out: &mut [f32]);

    /// Whether [`Rows::dot`] wants the even numbers of every 32 before the odd ones.
    fn sorts(&self, level: Level) -> bool;

    /// The products of a row with `B` inputs, padded with zeros to whole words and sorted as it wants them.
    fn dot<const B: usize>(&self, level: Level, row: usize, x: &[&[f32]; B]) -> [f32; B];

    /// The entry of `table` for each kept column of a row, and its value.
    fn decode<'a>(&'a self, level: Level, row: usize, table: &[u32], scratch: &'a mut Scratch) -> Decoded<'a>;
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
    /// Some rows with their zeros.
    pub(super) rows: Vec<f32>,
}
