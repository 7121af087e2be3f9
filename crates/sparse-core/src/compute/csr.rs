//! Compressed sparse rows: the column of each kept value, in 16 bits where that is enough.

use std::ops::Range;

use super::Level;
use super::kernel::{self, Number, portable_listed};
use super::rows::{Decoded, Rows, Scratch};

/// A matrix `[rows, cols]`.
#[derive(Clone, Debug)]
pub(super) struct Csr<N> {
    cols: usize,
    /// Where each row begins, and where the last ends.
    begins: Vec<u64>,
    columns: Columns,
    values: Vec<N>,
}

#[derive(Clone, Debug)]
enum Columns {
    Short(Vec<u16>),
    Long(Vec<u32>),
}

impl<N: Number> Csr<N> {
    /// What is not zero in `dense`.
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
        Self { cols, begins, columns, values }
    }

    fn range(&self, row: usize) -> Range<usize> {
        self.begins[row] as usize..self.begins[row + 1] as usize
    }

    /// Where the values of a row, from `at` on, reach `column`.
    fn end(&self, row: usize, at: usize, column: usize) -> usize {
        let rest = at..self.range(row).end;
        match &self.columns {
            _ if column >= self.cols => rest.end,
            Columns::Short(columns) => at + below(&columns[rest], column as u16),
            Columns::Long(columns) => at + below(&columns[rest], column as u32),
        }
    }
}

/// How many of `columns`, which ascend, are below `end`.
fn below<C: Copy + Ord>(columns: &[C], end: C) -> usize {
    let mut count = 0;
    // In pieces without a branch for each.
    for piece in columns.chunks(32) {
        let here = piece.iter().filter(|c| **c < end).count();
        count += here;
        if here < piece.len() {
            break;
        }
    }
    count
}

impl<N: Number> Rows for Csr<N> {
    type Number = N;

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

    fn expand(&self, _level: Level, row: usize, columns: Range<usize>, at: usize, out: &mut [f32]) -> usize {
        out.fill(0.0);
        let mut put = |column: usize, value: N| out[column - columns.start] = value.wide();
        let end = self.end(row, at, columns.end);
        for i in at..end {
            match &self.columns {
                Columns::Short(columns) => put(usize::from(columns[i]), self.values[i]),
                Columns::Long(columns) => put(columns[i] as usize, self.values[i]),
            }
        }
        end
    }

    fn ask(&self, row: usize, columns: Range<usize>, at: usize) {
        let (rest, cols) = (self.range(row).end.saturating_sub(at), self.cols.saturating_sub(columns.start).max(1));
        let share = rest * columns.len() / cols;
        kernel::ask(&self.values[at..], share);
        match &self.columns {
            Columns::Short(columns) => kernel::ask(&columns[at..], share),
            Columns::Long(columns) => kernel::ask(&columns[at..], share),
        }
    }

    fn sorts(&self, _level: Level) -> bool {
        false
    }

    fn dot<const B: usize>(&self, level: Level, row: usize, x: &[&[f32]; B]) -> [f32; B] {
        let range = self.range(row);
        let values = &self.values[range.clone()];
        match &self.columns {
            Columns::Short(columns) => N::listed(level, &columns[range], values, x),
            Columns::Long(columns) => portable_listed(&columns[range], values, x),
        }
    }

    fn decode<'a>(
        &'a self,
        _level: Level,
        row: usize,
        columns: Range<usize>,
        at: usize,
        table: &[u32],
        scratch: &'a mut Scratch,
    ) -> Decoded<'a> {
        let (first, range) = (columns.start as u32, at..self.end(row, at, columns.end));
        // Lanes lie evenly: without looking them up, many offsets are found at a time.
        let lanes = table.get(1).copied().unwrap_or_default();
        scratch.offsets.clear();
        match &self.columns {
            Columns::Short(columns) => {
                scratch.offsets.extend(columns[range.clone()].iter().map(|c| (u32::from(*c) - first) * lanes));
            }
            Columns::Long(columns) => {
                scratch.offsets.extend(columns[range.clone()].iter().map(|c| (*c - first) * lanes));
            }
        }
        let values = N::widened(&self.values[range], &mut scratch.values);
        Decoded { offsets: &scratch.offsets, values }
    }
}
