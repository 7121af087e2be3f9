//! A weighter of one's own: examples whose loss is far above the median are left out.
//!
//! `cargo run --release -p regrow-reweighting --example own_weighter`

use regrow_reweighting::prelude::*;

/// Weighs alike what is below `factor` times the batch's median loss, and leaves out the rest.
struct Trimmed {
    factor: f64,
}

impl SampleWeighter for Trimmed {
    fn weigh(&mut self, losses: &[f64]) -> Result<Vec<f64>> {
        let mut sorted = losses.to_vec();
        sorted.sort_by(f64::total_cmp);
        let limit = self.factor * sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        normalized(&losses.iter().map(|l| if *l <= limit { 1.0 } else { 0.0 }).collect::<Vec<_>>())
    }
}

/// Fits `y = slope x` by gradient descent; every tenth label is wrong.
fn fit(weighter: &mut dyn SampleWeighter) -> Result<f64> {
    let data: Vec<(f64, f64)> = (1..=50).map(|i| (f64::from(i) / 50.0, if i % 10 == 0 { -5.0 } else { 2.0 })).collect();
    let mut slope = 0.0;
    for _ in 0..2000 {
        let errors: Vec<f64> = data.iter().map(|(x, true_slope)| (slope - true_slope) * x).collect();
        let weights = weighter.weigh(&errors.iter().map(|e| 0.5 * e * e).collect::<Vec<_>>())?;
        let gradient: f64 = weights.iter().zip(&errors).zip(&data).map(|((w, e), (x, _))| w * e * x).sum();
        slope -= 0.5 * gradient;
    }
    Ok(slope)
}

fn main() -> Result<()> {
    let all = regrow_reweighting::registry::sample_weighters();
    let mut uniform = find(&all, "uniform")?.build(&Params::new(0))?;
    println!("The true slope is 2; every tenth label is wrong.");
    println!("uniform weights: slope {:.3}", fit(&mut *uniform)?);
    println!("trimmed weights: slope {:.3}", fit(&mut Trimmed { factor: 8.0 })?);
    Ok(())
}
