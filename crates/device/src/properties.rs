//! Properties of a device.

use burn::tensor::{Device, Tensor};

/// How far a product of matrices may be off on `device`, as a fraction of the summed values: 2^-24 for f32 factors,
/// 2^-11 if they are rounded to TF32 first. Burn does that by default on NVIDIA GPUs.
pub fn roundoff(device: &Device) -> f32 {
    const SIDE: usize = 64;
    // An f32 number that lies between two TF32 numbers.
    let odd = 1.0 + 1.0 / 4096.0;
    let factor = |value: f32| Tensor::<2>::full([SIDE, SIDE], value, device);
    let sums = factor(odd).matmul(factor(1.0)).into_data().convert::<f32>();
    let exact = |sum: f32| (sum / SIDE as f32 - odd).abs() < 1e-6;
    if sums.iter::<f32>().all(exact) { 2f32.powi(-24) } else { 2f32.powi(-11) }
}

/// Whether tensors on `device` are computed by the threads of this process, so that running several small computations
/// in parallel pays off.
///
/// A device with its own queue gains nothing: one thread keeps it busy.
pub fn is_host(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    if *device == Device::flex() {
        return true;
    }
    let _ = device;
    false
}

/// Whether data on `device` must be copied before the CPU can read it, over a bus or a network.
pub fn has_own_memory(device: &Device) -> bool {
    #[cfg(feature = "libtorch")]
    #[allow(deprecated)]
    if *device == Device::libtorch() {
        return false;
    }
    !is_host(device)
}

/// Waits for `tensor` to be computed. `Tensor::into_data` alone may not wait: a device with its own queue is only read
/// when the values are accessed.
pub fn wait_for<const D: usize>(tensor: Tensor<D>) {
    let data = tensor.into_data();
    let _seen = data.iter::<f32>().next();
}

/// Whether CubeCL kernels can be compiled for `device`: it is a CubeCL device, in this process.
pub fn has_kernels(device: &Device) -> bool {
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
    if let burn::backend::DispatchDevice::Cube(_) = device.as_dispatch() {
        return true;
    }
    let _ = device;
    false
}
