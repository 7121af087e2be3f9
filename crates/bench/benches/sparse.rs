//! Sparse matrices times one input and sixteen: 4096x4096, unstructured and 2:4, beside Burn's dense layer.
//!
//! `cargo bench -p regrow-bench --bench sparse`. `scripts/pytorch/sparse.py` runs the same cases and
//! PyTorch's in turn, asking this program with `--answer` for one time after the other. On a device that compiles
//! kernels (`REGROW_DEVICE`) the bitmasks are multiplied there, and a time that criterion prints is of ten products.

mod reading;

use std::io::{BufRead, Write};
use std::time::Instant;

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Distribution, Tensor};
use criterion::Criterion;
use regrow_checkpoint::Dtype;
use regrow_device::{current, has_kernels, has_own_memory, wait_for};
use regrow_inference::{Packing, SparseLinear};
use regrow_sparse_core::Pattern;

use reading::sum;

const SIDE: usize = 4096;

/// What is measured.
struct Case {
    name: String,
    run: Box<dyn FnMut()>,
}

impl Case {
    fn new(name: impl Into<String>, run: impl FnMut() + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

fn random(rows: usize, cols: usize) -> Tensor<2> {
    Tensor::random([rows, cols], Distribution::Normal(0.0, 1.0), &current())
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().expect("f32 values")
}

/// How many products are timed together: reading the outputs from where they are takes as long as some.
fn together() -> u32 {
    if has_own_memory(&current()) { 10 } else { 1 }
}

/// So many products, until the outputs of the last can be read.
fn products(forward: impl Fn() -> Tensor<2>) {
    let mut out = forward();
    (1..together()).for_each(|_| out = forward());
    wait_for(out);
}

/// `dense` with its smallest weights zero.
fn pruned(dense: &[f32], pattern: Pattern, percent: usize) -> Vec<f32> {
    let scores: Vec<f32> = dense.iter().map(|w| w.abs()).collect();
    let mask = pattern.mask(&[SIDE, SIDE], &scores, dense.len() * percent / 100).expect("a mask");
    dense.iter().enumerate().map(|(i, w)| if mask.keeps(i) { *w } else { 0.0 }).collect()
}

fn cases() -> Vec<Case> {
    let dense = random(SIDE, SIDE);
    let weights = values(dense.clone());
    let half = Packing::NofM { n: 2, m: 4 };
    let two_four = Pattern::NofM { n: 2, m: 4 };
    let kinds = [
        ("50 %", Pattern::Unstructured, 50, Packing::Bitmask, Dtype::F32),
        ("50 %", Pattern::Unstructured, 50, Packing::Bitmask, Dtype::F16),
        ("50 %", Pattern::Unstructured, 50, Packing::Bitmask, Dtype::BF16),
        ("50 %", Pattern::Unstructured, 50, Packing::Csr, Dtype::F32),
        ("2:4", two_four, 50, half, Dtype::F32),
        ("2:4", two_four, 50, half, Dtype::F16),
        ("2:4", two_four, 50, half, Dtype::BF16),
        ("70 %", Pattern::Unstructured, 70, Packing::Bitmask, Dtype::F32),
        ("80 %", Pattern::Unstructured, 80, Packing::Bitmask, Dtype::F32),
        ("80 %", Pattern::Unstructured, 80, Packing::Csr, Dtype::F32),
        ("90 %", Pattern::Unstructured, 90, Packing::Bitmask, Dtype::F32),
        ("90 %", Pattern::Unstructured, 90, Packing::Csr, Dtype::F32),
        ("90 %", Pattern::Unstructured, 90, Packing::Csr, Dtype::BF16),
        ("95 %", Pattern::Unstructured, 95, Packing::Csr, Dtype::F32),
    ];
    let mut cases: Vec<Case> = kinds
        .into_iter()
        .filter(|(.., packing, _)| !has_kernels(&current()) || *packing != Packing::Csr)
        .flat_map(|(name, pattern, percent, packing, dtype)| {
            let weights = pruned(&weights, pattern, percent);
            let layer = SparseLinear::new([SIDE, SIDE], &weights, packing, dtype).expect("a layer");
            [1, 16].map(|batch| {
                let name = format!("{name} {packing} {dtype} batch {batch}");
                if has_kernels(&current()) {
                    let (layer, x) = (layer.clone().on(&current()), random(batch, SIDE));
                    return Case::new(name, move || products(|| layer.forward(x.clone())));
                }
                let (layer, x, mut out) = (layer.clone(), values(random(batch, SIDE)), vec![0.0; batch * SIDE]);
                Case::new(name, move || layer.multiply(&x, &mut out).expect("shapes that fit"))
            })
        })
        .collect();
    let layer = Linear { weight: Param::from_tensor(dense.transpose()), bias: None };
    cases.extend([1, 16].map(|batch| {
        let (layer, x) = (layer.clone(), random(batch, SIDE));
        Case::new(format!("dense Burn F32 batch {batch}"), move || products(|| layer.forward(x.clone())))
    }));
    let memory = vec![1.0f32; 64 << 20];
    cases.push(Case::new("read of 256 MiB", move || {
        assert!(sum(&memory) > 0.0);
    }));
    cases
}

/// The names of all cases, a line each, and an empty line; then, for each number that is asked for, the
/// nanoseconds of one run of that case.
fn answer(mut cases: Vec<Case>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    cases.iter().try_for_each(|case| writeln!(out, "{}", case.name))?;
    writeln!(out)?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let Some(case) = line?.trim().parse().ok().and_then(|i: usize| cases.get_mut(i)) else { continue };
        let start = Instant::now();
        (case.run)();
        let times = if case.name.contains("batch") { together() } else { 1 };
        writeln!(out, "{}", start.elapsed().as_nanos() / u128::from(times))?;
        out.flush()?;
    }
    Ok(())
}

fn main() {
    if std::env::args().any(|arg| arg == "--answer") {
        return answer(cases()).expect("a pipe to answer through");
    }
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    for mut case in cases() {
        criterion.bench_function(&format!("sparse/{SIDE}x{SIDE}/{}", case.name), |b| b.iter(&mut case.run));
    }
    criterion.final_summary();
}
