//! What averaging does to checkpoints: each alone, their average, and the average with its
//! batch-norm statistics recomputed.
//!
//! `cargo run --release -p regrow-examples --example soup -- mnist-cnn mnist a.safetensors b.safetensors`
//! (`REGROW_DATA` names the folder of the data sets)

use burn::module::Module;
use burn::tensor::Device;
use regrow_merging::{average, equal_weights};
use regrow_train::classifier::{Examples, count_correct, recalibrate};
use regrow_zoo::{Arch, data, load};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [arch, dataset, files @ ..] = args.as_slice() else {
        return Err("use: soup ARCH DATASET FILE FILE..".into());
    };
    let arch = Arch::parse(arch)?;
    let folder = std::env::var_os("REGROW_DATA").map(std::path::PathBuf::from);
    let mut data = data::open(dataset, folder.as_deref())?;
    if let Some(normalization) = arch.normalization() {
        data.train = data.train.with_normalization(normalization.clone());
        data.test = data.test.with_normalization(normalization);
    }
    let device = Device::default();
    let percent = |right: usize| 100.0 * right as f64 / data.test.len() as f64;
    let mut models = Vec::new();
    for file in files {
        let (net, _) = load(arch, file, &device)?;
        let net = net.valid();
        println!("{:6.2} %  {file}", percent(count_correct(&net, &data.test, 500, &device)));
        models.push(net);
    }
    let soup = average(&models, &equal_weights(models.len()))?;
    println!("{:6.2} %  their average", percent(count_correct(&soup, &data.test, 500, &device)));
    let some: Vec<usize> = (0..data.train.len()).step_by(10).collect();
    let soup = recalibrate(soup, some.chunks(500).map(|batch| data.train.images(batch, &device)));
    let right = count_correct(&soup, &data.test, 500, &device);
    println!(
        "{:6.2} %  their average, batch-norm statistics recomputed on a tenth of the training images",
        percent(right)
    );
    Ok(())
}
