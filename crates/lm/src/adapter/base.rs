//! The base model's tensors that an adapter changes.

use regrow_checkpoint::{Checkpoint, Entry};
use regrow_sparse_core::{Error, Result};

use super::{Kind, Module};

/// The tensor of `base` that an adapter calls `name`: with that name, with that name without its first part
/// (`transformer.h.0` for `h.0`), or the only one with that name after a first part.
///
/// # Errors
/// If there is none.
pub fn tensor_of<'a>(base: &'a Checkpoint, name: &str) -> Result<&'a Entry> {
    let shorter = name.split_once('.').map(|(_, rest)| rest);
    for candidate in [Some(name), shorter].into_iter().flatten() {
        if let Ok(entry) = base.entry(candidate) {
            return Ok(entry);
        }
    }
    let ends = |entry: &&Entry| entry.name.split_once('.').is_some_and(|(_, rest)| rest == name);
    let mut longer = base.entries().iter().filter(ends);
    match (longer.next(), longer.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(Error::format(base.path(), format!("has no tensor {name:?}: it is not the base of this adapter"))),
    }
}

/// A difference `left right` as an addition to a base's tensor.
pub(super) struct Addition {
    rows: usize,
    rank: usize,
    cols: usize,
    /// Whether the tensor is `[d, m]`.
    transposed: bool,
}

impl Addition {
    /// For the tensor `entry` of `base`, which is stored `[in, out]` if `transposed` and its kind allows it.
    pub fn new(base: &Checkpoint, entry: &Entry, module: &Module, transposed: bool) -> Result<Self> {
        let [rows, rank, cols] = module.shape;
        let matrix = |shape: &[usize]| match shape {
            [first, rest @ ..] => Some([*first, rest.iter().product::<usize>()]),
            [] => None,
        };
        let turned = transposed && module.kind == Kind::Linear && entry.shape == [cols, rows];
        match turned || matrix(&entry.shape) == Some([rows, cols]) {
            true => Ok(Self { rows, rank, cols, transposed: turned }),
            false => Err(Error::format(
                base.path(),
                format!(
                    "{} is {:?}, the adapter changes a {rows}x{cols} matrix: it is not its base",
                    entry.name, entry.shape
                ),
            )),
        }
    }

    /// Adds the product of the factors to the tensor's `values`.
    pub fn add(&self, values: &mut [f32], left: &[f32], right: &[f32]) {
        let mut row = vec![0.0f32; self.cols];
        for i in 0..self.rows {
            row.fill(0.0);
            for k in 0..self.rank {
                let factor = left[i * self.rank + k];
                row.iter_mut().zip(&right[k * self.cols..(k + 1) * self.cols]).for_each(|(r, v)| *r += factor * v);
            }
            match self.transposed {
                false => values[i * self.cols..(i + 1) * self.cols].iter_mut().zip(&row).for_each(|(v, r)| *v += r),
                true => row.iter().enumerate().for_each(|(j, r)| values[j * self.rows + i] += r),
            }
        }
    }
}
