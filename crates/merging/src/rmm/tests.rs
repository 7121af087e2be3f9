//! Properties of every granularity.

use super::testing::{SHAPE, by, every, models, total};
use super::*;
use crate::low_rank::tests::{gap, random, squares};

#[test]
fn as_many_basis_models_as_models_lose_nothing_and_fewer_lose_more() {
    let models = models(4);
    let all: f64 = models.iter().map(LowRank::squared_norm).sum();
    for rmm in every() {
        let solved = rmm.solve(models.clone()).unwrap();
        for (task, model) in models.iter().enumerate() {
            let back = solved.space(4).unwrap().revert(task).unwrap();
            assert!(gap(&back.dense(), &model.dense()) < 1e-5, "{rmm:?}");
        }
        let errors: Vec<f64> = (1..=4).map(|p| total(&solved.space(p).unwrap(), &models)).collect();
        assert!(errors[3] < 1e-10 * all && errors[0] < all, "{rmm:?}: {errors:?}");
        let dropped = solved.dropped();
        assert!(dropped.windows(2).all(|w| w[1] <= w[0]) && dropped[3] < 1e-10 * all);
        if rmm.granularity == Granularity::Product {
            assert!(errors.windows(2).all(|w| w[1] <= w[0] + 1e-10 * all), "{rmm:?}: {errors:?}");
        }
    }
}

#[test]
fn the_error_is_the_sum_of_what_is_dropped() {
    let models = models(5);
    for rmm in every() {
        let solved = rmm.solve(models.clone()).unwrap();
        for p in 1..=5 {
            let space = solved.space(p).unwrap();
            let lost: f64 = match rmm.granularity {
                Granularity::Product => total(&space, &models),
                // Of the factors, as they were stacked.
                _ => align::aligned(models.clone(), rmm.align)
                    .unwrap()
                    .iter()
                    .enumerate()
                    .map(|(task, model)| {
                        let back = space.revert(task).unwrap();
                        let off =
                            |a: &[f32], b: &[f32]| squares(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>());
                        off(back.left(), model.left()) + off(back.right(), model.right())
                    })
                    .sum(),
            };
            let expected = solved.dropped()[p - 1];
            assert!((lost - expected).abs() < 1e-5 * (1.0 + expected), "{rmm:?} {p}: {lost} {expected}");
        }
    }
}

#[test]
fn models_that_are_the_same_need_one() {
    let model = random(SHAPE, 3);
    for rmm in every() {
        let space = rmm.solve(vec![model.clone(); 3]).unwrap().space(1).unwrap();
        assert!(gap(&space.revert(2).unwrap().dense(), &model.dense()) < 1e-5, "{rmm:?}");
    }
}

#[test]
fn the_order_of_models_does_not_matter() {
    let models = models(3);
    let shuffled: Vec<LowRank> = [2, 0, 1].map(|i| models[i].clone()).into();
    for rmm in every() {
        let one = rmm.solve(models.clone()).unwrap().space(2).unwrap();
        let other = rmm.solve(shuffled.clone()).unwrap().space(2).unwrap();
        for (task, place) in [(0, 1), (1, 2), (2, 0)] {
            let (a, b) = (one.revert(task).unwrap(), other.revert(place).unwrap());
            assert!(gap(&a.dense(), &b.dense()) < 1e-4, "{rmm:?}");
        }
    }
}

#[test]
fn a_small_task_counts_as_much_as_a_large_one() {
    let grown = |seed: u64, by: f32| {
        let model = random(SHAPE, seed);
        LowRank::new(model.left().iter().map(|v| v * by).collect(), model.right().to_vec(), SHAPE).unwrap()
    };
    let models = [grown(1, 0.01), grown(2, 1.0), grown(3, 100.0)];
    let worst = |rmm: Rmm, p: usize| {
        let errors = rmm.solve(models.to_vec()).unwrap().space(p).unwrap().squared_errors(&models).unwrap();
        assert!(errors.len() == 3 && errors.iter().all(|e| e.is_finite()));
        errors.iter().zip(&models).map(|(e, m)| (e / m.squared_norm()).sqrt()).fold(0.0, f64::max)
    };
    for granularity in [Granularity::Layer, Granularity::Product] {
        let even = by(granularity).with_normalize(true);
        assert!(worst(even.init().unwrap(), 3) < 1e-5, "{granularity}");
        assert!(even.with_centred(true).init().unwrap_err().to_string().contains("not both"));
    }
    // The largest alone, or something of all.
    let plain = Rmm::new(Granularity::Product);
    let even = by(Granularity::Product).with_normalize(true).init().unwrap();
    let (alone, even) = (worst(plain, 1), worst(even, 1));
    assert!(alone > 0.99 && even < 0.97, "{alone} {even}");
}

#[test]
fn storage_is_known_beforehand() {
    let models = models(4);
    let [m, r, d] = SHAPE;
    let shapes = [SHAPE; 4];
    for rmm in every().into_iter().chain([by(Granularity::Product).with_rank(Some(2)).init().unwrap()]) {
        let solved = rmm.solve(models.clone()).unwrap();
        for p in 1..=4 {
            let parts: Vec<_> = solved.space(p).unwrap().parts().into_iter().map(|p| (p.name, p.shape)).collect();
            assert_eq!(parts, rmm.outline(&shapes, p).unwrap(), "{rmm:?} {p}");
        }
    }
    assert_eq!(Rmm::default().numbers(&shapes, 2).unwrap(), 2 * (r + 4) * (m + d));
    assert_eq!(Rmm::new(Granularity::Layer).numbers(&shapes, 2).unwrap(), 2 * r * (m + d) + 2 * 2 * 4);
}

#[test]
fn the_budget_may_be_a_number_a_share_or_an_error() {
    let models = models(4);
    let load = |layer: usize| Ok(if layer == 0 { models.clone() } else { vec![models[0].clone(); 4] });
    let rmm = Rmm::new(Granularity::Layer);
    let choose = |budget| rmm.choose(budget, 4, 2, load, || {});
    assert_eq!(choose(BasisBudget::Basis(3)).unwrap(), 3);
    assert!(choose(BasisBudget::Basis(5)).unwrap_err().to_string().contains("use 1 to 4"));
    assert!(choose(BasisBudget::Basis(0)).is_err());
    // A basis model is a quarter of all and a few coefficients.
    assert_eq!(choose(BasisBudget::Storage(0.6)).unwrap(), 2);
    assert_eq!(choose(BasisBudget::Storage(2.0)).unwrap(), 4);
    assert!(choose(BasisBudget::Storage(0.2)).unwrap_err().to_string().contains("one basis model takes 0.2"));
    assert!(choose(BasisBudget::Storage(f64::NAN)).is_err());
    assert_eq!(choose(BasisBudget::Error(0.0)).unwrap(), 4);
    let errors = rmm.errors(models.clone()).unwrap();
    let norm = errors[0] + 4.0 * models[0].squared_norm();
    let relative = (errors[2] / norm).sqrt();
    assert_eq!(choose(BasisBudget::Error(relative * 1.001)).unwrap(), 2);
    assert_eq!(choose(BasisBudget::Error(relative * 0.999)).unwrap(), 3);
    assert!(choose(BasisBudget::Error(-1.0)).is_err());
    let cut = by(Granularity::Product).with_rank(Some(1)).init().unwrap();
    assert!(
        cut.choose(BasisBudget::Error(1e-3), 4, 2, load, || {}).unwrap_err().to_string().contains("basis models have")
    );
}

#[test]
fn what_does_not_go_together_is_refused() {
    let says = |models: Vec<LowRank>, rmm: Rmm| rmm.solve(models).err().map(|e| e.to_string()).unwrap_or_default();
    let other_rank = || vec![random([4, 2, 5], 1), random([4, 3, 5], 2)];
    assert!(says(vec![], Rmm::default()).contains("no models"));
    assert!(says(vec![random([4, 2, 5], 1), random([4, 2, 6], 2)], Rmm::default()).contains("4x5 and 4x6"));
    assert!(says(other_rank(), Rmm::default()).contains("ranks 2 and 3"));
    assert!(Rmm::new(Granularity::Product).solve(other_rank()).is_ok());
    let balanced =
        RmmConfig::new().with_align(Align::Balanced).init().unwrap().solve(other_rank()).unwrap().space(2).unwrap();
    assert!(total(&balanced, &other_rank()) < 1e-9);
    assert!(RmmConfig::new().with_rank(Some(2)).init().is_err());
    assert!(by(Granularity::Product).with_rank(Some(0)).init().is_err());
    assert!(Granularity::parse("row").unwrap_err().to_string().contains("position, layer, product"));
    assert!(Align::parse("svd").unwrap_err().to_string().contains("balanced"));
    let space = Rmm::default().solve(models(2)).unwrap().space(1).unwrap();
    assert!(space.revert(2).is_err() && space.squared_errors(&models(3)).is_err());
    assert!(Rmm::default().solve(models(2)).unwrap().space(3).is_err());
}
