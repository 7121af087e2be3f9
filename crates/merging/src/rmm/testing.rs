//! Shared by the tests of these files.

use faer::Mat;

use super::settings::{ALIGNMENTS, GRANULARITIES};
use super::{Granularity, Rmm, RmmConfig, Space};
use crate::LowRank;
use crate::low_rank::tests::{gap, random};

pub(super) const SHAPE: [usize; 3] = [12, 3, 9];

pub(super) fn models(n: usize) -> Vec<LowRank> {
    // A common part, so that some basis models matter more than others.
    let common = random(SHAPE, 77);
    let one = |i: usize| {
        let own = random(SHAPE, i as u64);
        let mix = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a + 0.5 * b).collect();
        LowRank::new(mix(common.left(), own.left()), mix(common.right(), own.right()), SHAPE).unwrap()
    };
    (0..n).map(one).collect()
}

pub(super) fn by(granularity: Granularity) -> RmmConfig {
    RmmConfig::new().with_granularity(granularity)
}

pub(super) fn every() -> Vec<Rmm> {
    let mut all = Vec::new();
    for (_, granularity) in GRANULARITIES {
        for (_, align) in ALIGNMENTS {
            for centred in [false, true] {
                all.push(by(granularity).with_align(align).with_centred(centred).init().unwrap());
            }
        }
    }
    all
}

pub(super) fn total(space: &Space, models: &[LowRank]) -> f64 {
    space.squared_errors(models).unwrap().iter().sum()
}

/// The best rank-p fit of the rows of `x [n][len]` by a dense SVD, rebuilt.
pub(super) fn dense_fit(x: &[Vec<f32>], p: usize) -> Vec<Vec<f64>> {
    let (n, len) = (x.len(), x[0].len());
    let matrix = Mat::from_fn(len, n, |l, i| f64::from(x[i][l]));
    let svd = matrix.thin_svd().unwrap();
    let s = svd.S().column_vector();
    let at = |l: usize, i: usize| (0..p.min(s.nrows())).map(|k| svd.U()[(l, k)] * s[k] * svd.V()[(i, k)]).sum();
    (0..n).map(|i| (0..len).map(|l| at(l, i)).collect()).collect()
}

/// Whether values match those of a dense computation.
pub(super) fn near(a: &[f32], b: &[f64]) {
    let b: Vec<f32> = b.iter().map(|v| *v as f32).collect();
    assert!(gap(a, &b) < 1e-5, "{}", gap(a, &b));
}
