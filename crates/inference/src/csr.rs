//! Compressed sparse rows: the column of each kept value, in 16 bits if possible.

use std::ops::Range;

use crate::SimdLevel;
use crate::kernel::{self, LANES, Number, Sums, portable_listed};
use crate::rows::{Part, Rows, Scratch};

/// A matrix `[rows, cols]`.
#[derive(Clone, Debug)]
pub(super) struct Csr<N> {
    /// Where each row starts, and where the last ends.
    begins: Vec<u64>,
    columns: Columns,
    values: Vec<N>,
}

#[derive(Clone, Debug)]
enum Columns {
    Short(Vec<u16>),
    Long(Vec<u32>),
}

impl Columns {
    fn at(&self, i: usize) -> usize {
        match self {
            Self::Short(columns) => usize::from(columns[i]),
            Self::Long(columns) => columns[i] as usize,
        }
    }
}

impl<N: Number> Csr<N> {
    /// The nonzero values of `dense`.
    pub(super) fn new([rows, cols]: [usize; 2], dense: &[f32]) -> Self {
        let count = dense.iter().filter(|v| **v != 0.0).count();
        let (mut begins, mut columns) = (Vec::with_capacity(rows + 1), Vec::with_capacity(count));
        let mut values = Vec::with_capacity(count);
        begins.push(0);
        for row in 0..rows {
            let kept = dense[row * cols..][..cols].iter().enumerate().filter(|(_, v)| **v != 0.0);
            for (column, value) in kept {
                columns.push(column as u32);
                values.push(N::narrow(*value));
            }
            begins.push(values.len() as u64);
        }
        let columns = match cols <= 1 << 16 {
            true => Columns::Short(columns.into_iter().map(|c| c as u16).collect()),
            false => Columns::Long(columns),
        };
        Self { begins, columns, values }
    }

    fn range(&self, row: usize) -> Range<usize> {
        self.begins[row] as usize..self.begins[row + 1] as usize
    }
}

impl<N: Number> Rows for Csr<N> {
    type Number = N;

    // Rows are processed whole.
    const PARTS: bool = false;

    fn bytes(&self) -> usize {
        let column = if matches!(self.columns, Columns::Short(_)) { 2 } else { 4 };
        (column + size_of::<N>()) * self.values.len() + 8 * self.begins.len()
    }

    fn kept(&self) -> usize {
        self.values.len()
    }

    fn begin(&self, row: usize) -> usize {
        self.begins[row] as usize
    }

    fn expand(&self, _level: SimdLevel, part: &Part, out: &mut [f32]) -> usize {
        out.fill(0.0);
        let end = self.range(part.row).end;
        (part.at..end).for_each(|i| out[self.columns.at(i)] = self.values[i].wide());
        end
    }

    fn add(&self, level: SimdLevel, part: &Part, source: &[f32], scratch: &mut Scratch, out: &mut [f32]) -> usize {
        let (lanes, range) = (out.len() as u32, self.range(part.row));
        let Scratch { offsets, values, .. } = scratch;
        let values = N::widened(&self.values[range.clone()], values);
        match &self.columns {
            Columns::Short(columns) => kernel::spread(level, &columns[range.clone()], values, source, out),
            Columns::Long(columns) => {
                offsets.clear();
                offsets.extend(columns[range.clone()].iter().map(|c| *c * lanes));
                kernel::spread(level, offsets, values, source, out);
            }
        }
        range.end
    }

    fn beside(&self, _level: SimdLevel, part: &Part, x: &[f32], _ahead: usize, sums: &mut Sums) -> usize {
        let end = self.range(part.row).end;
        for i in part.at..end {
            let (column, value) = (self.columns.at(i), self.values[i].wide());
            for (b, sums) in sums.iter_mut().enumerate() {
                sums[column % LANES] += value * x[(column / LANES * LANES + b) * LANES + column % LANES];
            }
        }
        end
    }

    fn ask(&self, _part: &Part) {}

    fn sorts(&self, _level: SimdLevel) -> bool {
        false
    }

    fn dot<const B: usize>(&self, level: SimdLevel, row: usize, x: &[&[f32]; B]) -> [f32; B] {
        let range = self.range(row);
        let values = &self.values[range.clone()];
        match &self.columns {
            Columns::Short(columns) => N::listed(level, &columns[range], values, x),
            Columns::Long(columns) => portable_listed(&columns[range], values, x),
        }
    }
}
