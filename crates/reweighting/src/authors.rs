//! Weights of examples and of sources against the authors' code on the same numbers.
//!
//! Examples: `batch_losses_from_logits` and the weighing of `trainer.py` of
//! github.com/sowmaster/Sample-Level-Loss-Reweighting-ICLR-2025 (edd6f15), in f64, one device, on logits
//! `sin(1.3 b + 0.7 t + 2.1 v) (1 + 0.2 b)` of 8 examples, 7 places and 5 tokens; the label of place `t` is
//! `(b + 2 t) mod 5`, none for the last `b mod 4`. `LOSSES` and `TOKENS` are what the former gives.
//!
//! Sources: `loss_on_batch`, `SampProb` and `get_optimizer` of github.com/2003pro/ScaleBiO (8ddf5c2), in f64:
//! four steps of two models of 7 tokens and 4 numbers for each, alpha 10, every rate 0.05, weight decay of
//! the models 5e-4, with sources 0 to 3 in turn, in the second batch 0 to 2. `by_w` and `by_u` are the losses
//! of examples before each step, `lambda` is its value after.

use std::collections::BTreeMap;

use regrow_testing::assert_close;
use serde::Deserialize;

use crate::prelude::*;

const LOSSES: [f64; 8] =
    [1.640441032, 1.46341482, 3.074079904, 1.608647464, 2.917070118, 2.652565543, 1.391099131, 4.331430399];
const TOKENS: [usize; 8] = [6, 5, 4, 3, 6, 5, 4, 3];

#[derive(Deserialize)]
struct Fixture {
    examples: Vec<Weighing>,
    sources: BTreeMap<String, Vec<Step>>,
}

#[derive(Deserialize)]
struct Weighing {
    shape: String,
    r: f64,
    weights: Vec<f64>,
    loss: f64,
}

#[derive(Deserialize)]
struct Step {
    of: Vec<usize>,
    by_w: Vec<f64>,
    by_u: Vec<f64>,
    loss: f64,
    gradient: Vec<f64>,
    lambda: Vec<f64>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../tests/fixtures/authors.json")).unwrap()
}

#[test]
fn examples_weigh_as_in_the_authors_trainer() {
    let descended = |weights: &[f64]| -> f64 {
        let factors = loss_factors(weights, &TOKENS).unwrap();
        LOSSES.iter().zip(factors).map(|(l, f)| l * f64::from(f)).sum::<f64>() / 8.0
    };
    let config = |shape, r| LossBasedConfig::new().with_shape(shape).with_temperature(r);
    let all = fixture().examples;
    assert_eq!(all.len(), 8);
    for Weighing { shape, r, weights, loss } in all {
        let found = config(LossShape::parse(&shape).unwrap(), r).init().unwrap().weigh(&LOSSES).unwrap();
        assert_close(&found, &weights, 1e-8);
        assert_close(&[descended(&found)], &[loss], 1e-6);
    }
    // Before the burn-in is over.
    let even = config(LossShape::LinearUpper, 0.4).with_warm_up(1).init().unwrap().weigh(&LOSSES).unwrap();
    assert_close(&[descended(&even)], &[2.322386623526352], 1e-6);
}

#[test]
fn sources_move_as_in_the_authors_code() {
    let all = fixture().sources;
    for (name, update) in [("sgd", LambdaUpdate::Descent), ("adam", LambdaUpdate::Adam), ("adamw", LambdaUpdate::AdamW)]
    {
        let config = ScaleBiOConfig::new(4).with_alpha(10.0).with_learning_rate(0.05).with_update(update);
        let mut scalebio = config.init().unwrap();
        for step in &all[name] {
            let sources = BatchSources::new(&step.of, 4).unwrap();
            let factors = sources.factors(scalebio.weights()).unwrap();
            let loss = step.by_u.iter().zip(factors).map(|(l, f)| l * f64::from(f)).sum::<f64>() / 9.0;
            assert_close(&[loss], &[step.loss], 1e-6);
            let means = sources.mean_losses(&step.by_w, &step.by_u).unwrap();
            assert_close(&scalebio.gradient(&means).unwrap(), &step.gradient, 2e-8);
            scalebio.update(&means).unwrap();
            assert_close(scalebio.weights(), &softmax(&step.lambda, 1.0), 1e-7);
        }
    }
}
