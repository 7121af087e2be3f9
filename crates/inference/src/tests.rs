//! Every form, type and set of instructions against the dense product.

use burn::nn::LinearConfig;
#[cfg(feature = "kernels")]
use burn::tensor::TensorData;
use burn::tensor::{Distribution, Tensor};
use proptest::prelude::*;
use safetensors::Dtype;

use crate::kernel::{LANES, Number, SLACK, WORD};
use crate::*;
#[cfg(feature = "kernels")]
use regrow_device::has_kernels;
use regrow_device::{current, roundoff};
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks};
use regrow_sparse_core::{Mask, MaskSet};

const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

/// Numbers that f16 and bf16 hold exactly.
fn number(seed: usize) -> f32 {
    let bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (bits % 255) as f32 / 64.0 - 2.0 + 1.0 / 64.0
}

/// A matrix of which `density` of 16 is kept; some rows are empty.
fn matrix(rows: usize, cols: usize, density: usize, seed: usize) -> Vec<f32> {
    let value = |i: usize| {
        let draw = (i + seed).wrapping_mul(0xd134_2543_de82_ef95) >> 33;
        let kept = draw % 16 < density && (i / cols) % 5 != 3;
        if kept { number(i * 31 + seed) } else { 0.0 }
    };
    (0..rows * cols).map(value).collect()
}

/// At most `n` of every `m` are left.
fn thinned(mut dense: Vec<f32>, n: usize, m: usize) -> Vec<f32> {
    for group in dense.chunks_mut(m) {
        group.iter_mut().filter(|v| **v != 0.0).skip(n).for_each(|v| *v = 0.0);
    }
    dense
}

fn product(dense: &[f32], [rows, cols]: [usize; 2], x: &[f32], bias: &[f32]) -> Vec<f64> {
    let batch = x.len() / cols.max(1);
    let dot = |b: usize, r: usize| -> f64 {
        (0..cols).map(|c| f64::from(dense[r * cols + c]) * f64::from(x[b * cols + c])).sum()
    };
    (0..batch * rows).map(|i| dot(i / rows, i % rows) + f64::from(bias[i % rows])).collect()
}

/// All types and instructions; values are exact in each type, so only the order of sums differs.
fn check(dense: &[f32], shape: [usize; 2], packing: Packing, batch: usize) {
    let [rows, cols] = shape;
    let x: Vec<f32> = (0..batch * cols).map(|i| number(i + 7)).collect();
    let bias: Vec<f32> = (0..rows).map(number).collect();
    let expected = product(dense, shape, &x, &bias);
    for dtype in DTYPES {
        let layer = SparseLinear::new(shape, dense, packing, dtype).unwrap().with_bias(bias.clone()).unwrap();
        assert_eq!(layer.to_dense(), dense, "{layer:?}");
        for level in SimdLevel::all() {
            let mut out = vec![f32::NAN; batch * rows];
            layer.clone().with_level(level).multiply(&x, &mut out).unwrap();
            for (i, (out, expected)) in out.iter().zip(&expected).enumerate() {
                let near = (f64::from(*out) - expected).abs() <= 1e-5 * (cols as f64).max(1.0);
                assert!(near, "{layer:?}, {level}, batch {batch}, output {i}: {out}, not {expected}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn unstructured_products_are_the_dense_ones(
        rows in 1usize..40, cols in 1usize..200, density in 0usize..=16, batch in 1usize..40, seed in 0usize..1000
    ) {
        let dense = matrix(rows, cols, density, seed);
        for packing in [Packing::Csr, Packing::Bitmask] {
            check(&dense, [rows, cols], packing, batch);
        }
    }

    #[test]
    fn n_of_m_products_are_the_dense_ones(
        rows in 1usize..20, groups in 1usize..40, m in 1usize..9, n in 1usize..9, batch in 1usize..20, seed in 0usize..1000
    ) {
        let n = n.min(m);
        let dense = thinned(matrix(rows, groups * m, 12, seed), n, m);
        check(&dense, [rows, groups * m], Packing::NofM { n, m }, batch);
    }
}

#[test]
fn batches_of_every_kind_and_several_threads() {
    // Enough products that rows are shared among threads, and every number of lanes.
    // Rows longer than what stays in the nearest cache, and some of them empty.
    let shape = [301, 1100];
    let dense = matrix(301, 1100, 12, 3);
    let half = thinned(dense.clone(), 2, 4);
    for batch in [1, 2, 3, 7, 8, 9, 16, 17, 33, 64, 65, 150] {
        check(&dense, shape, Packing::Csr, batch);
        check(&dense, shape, Packing::Bitmask, batch);
        check(&half, shape, Packing::NofM { n: 2, m: 4 }, batch);
    }
}

#[test]
fn sums_of_a_row_go_on_where_they_were() {
    let words = [0x8000_0000_0000_0001, 0, u64::MAX, 0x0123_4567_89ab_cdef];
    let count = words.iter().map(|w| w.count_ones() as usize).sum::<usize>();
    let values: Vec<f32> = (0..count + SLACK).map(number).collect();
    let x: Vec<f32> = (0..words.len() * WORD * LANES).map(|i| number(i + 7)).collect();
    let mut expected = vec![0.0; LANES];
    let set = (0..words.len() * WORD).filter(|c| words[c / WORD] >> (c % WORD) & 1 == 1);
    for (column, value) in set.zip(&values) {
        let place = |b: usize| (column / 16 * LANES + b) * 16 + column % 16;
        expected.iter_mut().enumerate().for_each(|(b, sum)| *sum += value * x[place(b)]);
    }
    for level in SimdLevel::all() {
        let mut sums = [[0.0; 16]; LANES];
        for twice in 1..=2 {
            assert_eq!(f32::beside(level, &words, &values, &x, 7, &mut sums), count, "{level}");
            for (sums, expected) in sums.iter().zip(&expected) {
                let near = (sums.iter().sum::<f32>() - twice as f32 * expected).abs() < 1e-3;
                assert!(near, "{level}");
            }
        }
    }
}

#[test]
fn columns_beyond_16_bits() {
    let cols = (1 << 16) + 3;
    let mut dense = vec![0.0; 2 * cols];
    (dense[cols - 1], dense[5], dense[cols + 70]) = (0.5, -1.5, 2.0);
    for batch in [1, 9] {
        check(&dense, [2, cols], Packing::Csr, batch);
        check(&dense, [2, cols], Packing::Bitmask, batch);
    }
}

#[test]
fn matrices_of_nothing() {
    for packing in [Packing::Csr, Packing::Bitmask, Packing::NofM { n: 2, m: 4 }] {
        check(&[0.0; 24], [3, 8], packing, 2);
        check(&[0.0; 24], [3, 8], packing, 20);
        for (shape, batch) in [([0, 8], 2), ([3, 0], 2)] {
            let layer = SparseLinear::new(shape, &[], packing, Dtype::F32).unwrap();
            let mut out = vec![1.0; batch * shape[0]];
            layer.multiply(&vec![1.0; batch * shape[1]], &mut out).unwrap();
            assert!(out.iter().all(|o| *o == 0.0));
        }
    }
}

/// What a layer that was put on the device of the tests gives for `x`, `[batch, cols]`.
#[cfg(feature = "kernels")]
fn by_kernel(layer: &SparseLinear, x: &[f32]) -> Vec<f32> {
    let [rows, cols] = layer.shape();
    let (layer, x) = (layer.clone().on(&current()), TensorData::new(x.to_vec(), [x.len() / cols, 1, cols]));
    let out = layer.forward(Tensor::<3>::from_data(x, &current()));
    assert_eq!(out.dims()[1..], [1, rows]);
    out.into_data().convert::<f32>().iter().collect()
}

#[cfg(feature = "kernels")]
#[test]
fn the_kernel_of_a_device_gives_the_dense_products() {
    if !has_kernels(&current()) {
        return println!("skipped: no kernels are compiled for {:?}", current());
    }
    let shapes = [(1, 1, 16, 1), (9, 31, 8, 1), (8, 32, 8, 3), (40, 100, 2, 9), (17, 1000, 12, 17), (3, 64, 0, 2)];
    for (rows, cols, density, batch) in shapes {
        let x: Vec<f32> = (0..batch * cols).map(|i| number(i + 7)).collect();
        let bias: Vec<f32> = (0..rows).map(number).collect();
        let dense = matrix(rows, cols, density, 5);
        let expected = product(&dense, [rows, cols], &x, &bias);
        for (packing, dtype) in [
            (Packing::Bitmask, Dtype::F32),
            (Packing::Bitmask, Dtype::F16),
            (Packing::Csr, Dtype::BF16),
            (Packing::Bitmask, Dtype::BF16),
        ] {
            let layer = SparseLinear::new([rows, cols], &dense, packing, dtype).unwrap();
            // With a bias that comes before or after.
            let (before, after) = (layer.clone().with_bias(bias.clone()), layer.on(&current()).with_bias(bias.clone()));
            for layer in [before.unwrap(), after.unwrap()] {
                for (i, (out, expected)) in by_kernel(&layer, &x).iter().zip(&expected).enumerate() {
                    let near = (f64::from(*out) - expected).abs() <= 1e-5 * cols as f64;
                    assert!(near, "{layer:?}, batch {batch}, output {i}: {out}, not {expected}");
                }
            }
        }
    }
}

#[cfg(feature = "kernels")]
#[test]
fn the_kernel_of_a_device_takes_no_inputs_as_well() {
    if !has_kernels(&current()) {
        return println!("skipped: no kernels are compiled for {:?}", current());
    }
    let layer = SparseLinear::new([3, 8], &matrix(3, 8, 8, 1), Packing::Bitmask, Dtype::F32).unwrap().on(&current());
    let out = layer.forward(Tensor::<2>::zeros([0, 8], &current()));
    assert_eq!(out.dims(), [0, 3]);
}

#[cfg(feature = "kernels")]
#[test]
fn more_inputs_than_a_grid_holds_go_in_parts() {
    if !has_kernels(&current()) {
        return println!("skipped: no kernels are compiled for {:?}", current());
    }
    // 65,535 groups of 8 inputs, and a few more.
    let x: Vec<f32> = (0..65_535 * 8 + 11).map(number).collect();
    let layer = SparseLinear::new([1, 1], &[2.0], Packing::Bitmask, Dtype::F32).unwrap();
    let out = by_kernel(&layer, &x);
    assert_eq!(out.len(), x.len());
    assert!(out.iter().zip(&x).all(|(out, x)| *out == 2.0 * x));
}

#[cfg(feature = "kernels")]
#[test]
fn the_kernel_of_a_device_widens_every_kind_of_number() {
    if !has_kernels(&current()) {
        return println!("skipped: no kernels are compiled for {:?}", current());
    }
    // The least and the largest of f16, subnormal and normal, and numbers between.
    let halves = [1u16, 2, 0x3ff, 0x400, 0x401, 0x3c00, 0x3555, 0x7bff, 0x8001, 0x83ff, 0x8400, 0xbc00, 0xfbff];
    let weights: Vec<f32> = halves.iter().map(|bits| half::f16::from_bits(*bits).to_f32()).collect();
    for dtype in DTYPES {
        let layer = SparseLinear::new([weights.len(), 1], &weights, Packing::Bitmask, dtype).unwrap();
        let mut expected = vec![0.0; weights.len()];
        layer.multiply(&[1.0], &mut expected).unwrap();
        assert_eq!(by_kernel(&layer, &[1.0]), expected, "{dtype}");
    }
}

#[test]
fn bytes_are_those_promised() {
    let (dense, shape) = (thinned(matrix(256, 512, 16, 0), 2, 4), [256, 512]);
    let bytes = |packing, dtype| SparseLinear::new(shape, &dense, packing, dtype).unwrap().bytes();
    let kept = dense.iter().filter(|v| **v != 0.0).count();
    assert_eq!(bytes(Packing::Bitmask, Dtype::F32), 4 * kept + 256 * 512 / 8 + 8 * 256);
    assert_eq!(bytes(Packing::NofM { n: 2, m: 4 }, Dtype::F32), 4 * 256 * 512 / 2 + 256 * 512 / 8);
    assert_eq!(bytes(Packing::Csr, Dtype::BF16), 4 * kept + 8 * 257);
}

#[test]
fn bad_weights_are_refused() {
    let says = |weights: &[f32], packing, dtype| {
        SparseLinear::new([2, 8], weights, packing, dtype).map(|_| ()).unwrap_err().to_string()
    };
    let mut weights = [1.0f32; 16];
    let half = Packing::NofM { n: 2, m: 4 };
    assert!(says(&weights, half, Dtype::F32).contains("row 0 keeps more than 2 of the 4 weights from column 0"));
    (0..12).for_each(|i| weights[i] = 0.0);
    let refused = says(&weights, half, Dtype::F32);
    assert_eq!(refused, "row 1 keeps more than 2 of the 4 weights from column 4 on: not 2:4");
    assert!(says(&weights, Packing::NofM { n: 2, m: 3 }, Dtype::F32).contains("2:3 does not divide rows of 8"));
    assert!(says(&weights, Packing::NofM { n: 5, m: 4 }, Dtype::F32).contains("5:4"));
    assert!(says(&weights[1..], Packing::Csr, Dtype::F32).contains("15 weights for a matrix of 2x8"));
    assert!(says(&weights, Packing::Csr, Dtype::I64).contains("I64"));
    weights[13] = 1e6;
    assert!(says(&weights, Packing::Csr, Dtype::F16).contains("row 1, column 5 is 1000000, which F16"));
    weights[13] = f32::NAN;
    assert!(says(&weights, Packing::Bitmask, Dtype::F32).contains("row 1, column 5 is NaN"));
    let layer = SparseLinear::new([2, 8], &[0.0; 16], Packing::Csr, Dtype::F32).unwrap();
    assert!(layer.multiply(&[0.0; 9], &mut [0.0; 2]).unwrap_err().to_string().contains("from 8 to 2"));
    assert!(layer.multiply(&[0.0; 16], &mut [0.0; 2]).is_err());
    assert!(layer.with_bias(vec![0.0; 3]).unwrap_err().to_string().contains("3 biases for 2 outputs"));
}

#[test]
fn a_masked_burn_layer_gives_the_same() {
    let device = current();
    let mask = Mask::from_fn([70, 130], |i| i % 3 == 1);
    let masks: MaskSet = [("weight".to_string(), mask)].into_iter().collect();
    let layer = apply_masks(LinearConfig::new(130, 70).init(&device), &masks, Gradient::Masked, Base::Kept).unwrap();
    let x = Tensor::<3>::random([2, 11, 130], Distribution::Normal(0.0, 1.0), &device);
    let expected: Vec<f32> = layer.forward(x.clone()).into_data().iter().collect();
    let sparse = SparseLinear::of(&layer, Packing::Bitmask, Dtype::F32).unwrap();
    assert_eq!(sparse.kept(), 70 * 130 / 3);
    let out = sparse.forward(x);
    assert_eq!(out.dims(), [2, 11, 70]);
    let out = out.into_data();
    let tolerance = (8.0 * roundoff(&device)).max(1e-4);
    for (a, b) in out.iter::<f32>().zip(expected) {
        assert!((a - b).abs() < tolerance, "{a} {b}");
    }
}
