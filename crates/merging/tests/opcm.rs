//! OPCM against its authors' code, on the same network.
#![allow(clippy::unwrap_used)]

use regrow_merging::OpcmConfig;
use regrow_merging::opcm::Difference;
use regrow_testing::assert_close;
use serde_json::Value;

/// As the fixture's origin says.
fn task(k: usize, sizes: &[usize]) -> Vec<Vec<f32>> {
    let (seed, scale) = (k as u64 + 1, 0.1 * (1.0 + 0.5 * k as f64));
    let value = |i: usize| {
        let i = i as u64;
        let x = (31 * i * i * i + (7919 * seed + 17) * i * i + 104_729 * i + 12_345 * seed + 777) % 65_521;
        (scale * (x as f64 / 65_521.0 - 0.5)) as f32
    };
    let mut at = 0;
    let mut next = |size: &usize| {
        at += size;
        (at - size..at).map(value).collect()
    };
    sizes.iter().map(&mut next).collect()
}

#[test]
fn every_step_is_that_of_the_authors_code() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/opcm.json")).unwrap();
    let shapes: Vec<Vec<usize>> = serde_json::from_value(fixture["shapes"].clone()).unwrap();
    let sizes: Vec<usize> = shapes.iter().map(|s| s.iter().product()).collect();
    for alpha in [0.2, 0.5, 0.9] {
        let theirs = &fixture["alpha"][alpha.to_string()];
        let matrix = |shape: &Vec<usize>| <[usize; 2]>::try_from(shape.clone()).ok();
        let empty = |(s, n): (&Vec<usize>, &usize)| Difference { values: vec![0.0; *n], matrix: matrix(s) };
        let mut merged: Vec<Difference> = shapes.iter().zip(&sizes).map(empty).collect();
        let mut state = None;
        for k in 0..4 {
            let now =
                OpcmConfig::new().with_alpha(alpha).init().unwrap().add(state, &mut merged, &task(k, &sizes)).unwrap();
            let lambda = theirs["lambda"][k].as_f64().unwrap();
            assert!((now.lambda - lambda).abs() < 1e-6 * lambda, "{alpha} {k}: {} {lambda}", now.lambda);
            let expected: Vec<Vec<f64>> = serde_json::from_value(theirs["steps"][k].clone()).unwrap();
            assert_eq!(merged.len(), expected.len());
            merged.iter().zip(&expected).for_each(|(ours, theirs)| assert_close(&ours.values, theirs, 1e-7));
            state = Some(now);
        }
    }
}
