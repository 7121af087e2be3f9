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

use serde::Deserialize;

use super::bilevel::{ScaleBiO, Sources, Update};
use super::sample::{LossBased, Shape};
use super::{WeighSamples, WeighSources, factors, softmax};

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
    serde_json::from_str(include_str!("../../tests/fixtures/reweight.json")).unwrap()
}

fn close(found: &[f64], said: &[f64], by: f64, what: &str) {
    let near = found.len() == said.len() && found.iter().zip(said).all(|(a, b)| (a - b).abs() < by);
    assert!(near, "{what}: {found:?}, not {said:?}");
}

#[test]
fn examples_weigh_as_in_the_authors_trainer() {
    let descended = |weights: &[f64]| -> f64 {
        let factors = factors(weights, &TOKENS).unwrap();
        LOSSES.iter().zip(factors).map(|(l, f)| l * f64::from(f)).sum::<f64>() / 8.0
    };
    let all = fixture().examples;
    assert_eq!(all.len(), 8);
    for Weighing { shape, r, weights, loss } in all {
        let found = LossBased::new(Shape::parse(&shape).unwrap(), r).unwrap().weigh(&LOSSES).unwrap();
        close(&found, &weights, 1e-8, &shape);
        close(&[descended(&found)], &[loss], 1e-6, &shape);
    }
    // Before the burn-in is over.
    let even = LossBased::new(Shape::LinearUpper, 0.4).unwrap().with_warm_up(1).weigh(&LOSSES).unwrap();
    close(&[descended(&even)], &[2.322386623526352], 1e-6, "burn-in");
}

#[test]
fn sources_move_as_in_the_authors_code() {
    let all = fixture().sources;
    for (name, update) in [("sgd", Update::Descent), ("adam", Update::Adam), ("adamw", Update::AdamW)] {
        let mut scalebio = ScaleBiO::new(4, 10.0, 0.05).unwrap().with_update(update);
        for step in &all[name] {
            let sources = Sources::new(&step.of, 4).unwrap();
            let factors = sources.factors(scalebio.weights());
            let loss = step.by_u.iter().zip(factors).map(|(l, f)| l * f64::from(f)).sum::<f64>() / 9.0;
            close(&[loss], &[step.loss], 1e-6, name);
            let means = sources.means(&step.by_w, &step.by_u);
            close(&scalebio.gradient(&means).unwrap(), &step.gradient, 2e-8, name);
            scalebio.learn(&means).unwrap();
            close(scalebio.weights(), &softmax(&step.lambda, 1.0), 1e-7, name);
        }
    }
}
