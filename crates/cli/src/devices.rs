//! `regrow devices`: the devices that can compute here, and how fast they are.

use std::io::Write;
use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use regrow_device::{compiled, parse, probe, roundoff, wait_for};

use crate::error::Result;

/// List the devices that were compiled in and whether they work, with the time of a matrix product
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  regrow devices\n  regrow --device libtorch devices --size 2048")]
pub struct Args {
    /// Rows and columns of the matrices
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..=16384))]
    size: u16,
}

/// The roundoff of f32.
const ROUNDOFF: f32 = 0.5 * f32::EPSILON;

/// Tries every device.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let size = usize::from(args.size);
    for name in compiled() {
        let device = parse(name)?;
        match probe(name, &device) {
            Ok(()) => {
                let seconds = product(size, &device);
                let rate = 2.0 * (size as f64).powi(3) / seconds / 1e9;
                let took = format!("{:.2} ms", 1e3 * seconds);
                let kind = if roundoff(&device) > ROUNDOFF { "TF32" } else { "f32" };
                let product = format!("a product of {size} x {size} in {kind} takes {took} ({rate:.0} GFLOP/s)");
                writeln!(out, "{name:<10} works: {product}")?;
            }
            Err(reason) => writeln!(out, "{name:<10} {reason}")?,
        }
    }
    Ok(())
}

/// The minimum time of several products, in seconds.
fn product(size: usize, device: &Device) -> f64 {
    let random = || Tensor::<2>::random([size, size], Distribution::Default, device);
    let (a, b) = (random(), random());
    let once = |()| {
        let started = Instant::now();
        // Reading a value back waits for the product.
        wait_for(a.clone().matmul(b.clone()).narrow(0, 0, 1).narrow(1, 0, 1));
        started.elapsed().as_secs_f64()
    };
    std::iter::repeat_n((), 5).map(once).fold(f64::INFINITY, f64::min)
}
