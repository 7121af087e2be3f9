//! Random thinning against mergekit's.
//!
//! Fixture `mergekit-draws.json`: means over 4000 draws of `bernoulli` and `della_magprune` of mergekit 0.1.5's
//! `sparsify.py` (torch, seed 1) on the 60 numbers of [`numbers`] with seed 5, as `[6, 10]` for DELLA; density
//! 0.4, epsilon 0.2.

use regrow_merging::{DareConfig, DellaConfig, Operand, Operands, Rescale, TensorMerge};
use regrow_sparse_core::seed::mix;

fn numbers(n: usize, seed: u64) -> Vec<f32> {
    (0..n).map(|i| (mix(seed, i as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// The mean over `draws` seeds of the merge of one model with a base of zeros, and the mean number kept.
fn mean(draws: u64, method: impl Fn(u64) -> Box<dyn TensorMerge>) -> (Vec<f64>, f64) {
    let (base, values) = (vec![0.0; 60], numbers(60, 5));
    let models = [Operand::new("a", &values)];
    let tensor = Operands::new("w", &[6, 10], Some(&base), &models).expect("operands");
    let (mut sum, mut kept) = (vec![0.0f64; 60], 0);
    for seed in 0..draws {
        let drawn = method(seed).merge(&tensor).expect("merged");
        kept += drawn.iter().filter(|v| **v != 0.0).count();
        sum.iter_mut().zip(drawn).for_each(|(sum, v)| *sum += f64::from(v));
    }
    (sum.into_iter().map(|sum| sum / draws as f64).collect(), kept as f64 / draws as f64)
}

#[test]
fn expectations_and_counts_are_mergekit_s() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mergekit-draws.json");
    let fixture: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let draws = fixture["draws"].as_u64().unwrap();
    let dare = |rescale| {
        move |seed| -> Box<dyn TensorMerge> {
            let config = DareConfig::new().with_density(0.4.into()).with_seed(seed).with_rescale(rescale);
            Box::new(config.init(1).unwrap())
        }
    };
    let della = |seed: u64| -> Box<dyn TensorMerge> {
        let config = DellaConfig::new().with_density(0.4.into()).with_epsilon(0.2.into()).with_seed(seed);
        let config = config.with_elect(false).with_normalize(false).with_rescale(Rescale::L1);
        Box::new(config.init(1).unwrap())
    };
    let cases = [
        ("dare_l1", mean(draws, dare(Rescale::L1))),
        ("dare_none", mean(draws, dare(Rescale::None))),
        ("della_l1", mean(draws, della)),
    ];
    for (name, (ours, kept)) in cases {
        let theirs = &fixture[name];
        // Five standard deviations of the difference of two means: an entry's is below 1.7, a count's below 3.9.
        let spread = 5.0 * (2.0 / draws as f64).sqrt();
        assert!((kept - theirs["kept"].as_f64().unwrap()).abs() < 3.9 * spread, "{name}: {kept}");
        for (ours, theirs) in ours.iter().zip(theirs["mean"].as_array().unwrap()) {
            assert!((ours - theirs.as_f64().unwrap()).abs() < 1.7 * spread, "{name}: {ours} {theirs}");
        }
    }
}
