//! Reading memory once, which other work is held against.

use rayon::prelude::*;

/// Reads every value once, on all cores.
pub fn sum(values: &[f32]) -> f32 {
    let part = |part: &[f32]| {
        let mut sums = [0.0f32; 64];
        part.as_chunks::<64>().0.iter().for_each(|v| sums.iter_mut().zip(v).for_each(|(s, v)| *s += v));
        sums.iter().sum::<f32>()
    };
    values.par_chunks(1 << 18).map(part).sum()
}
