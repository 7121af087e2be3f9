//! What a device is like.

use burn::tensor::{Device, Tensor};

/// How far a product of matrices may be off on `device`, as a fraction of what is summed: 2^-24 where factors are
/// f32, 2^-11 where they are rounded to TF32 first. Burn does that on NVIDIA GPUs, without being asked.
pub fn roundoff(device: &Device) -> f32 {
    const SIDE: usize = 64;
    // A number of f32, between two of TF32.
    let odd = 1.0 + 1.0 / 4096.0;
    let factor = |value: f32| Tensor::<2>::full([SIDE, SIDE], value, device);
    let sums = factor(odd).matmul(factor(1.0)).into_data().convert::<f32>();
    let exact = |sum: f32| (sum / SIDE as f32 - odd).abs() < 1e-6;
    if sums.iter::<f32>().all(exact) { 2f32.powi(-24) } else { 2f32.powi(-11) }
}

/// Whether tensors on `device` are computed by the threads of this process, so that several small
/// computations are worth running side by side.
///
/// A device with a queue of its own gains nothing: it is kept busy by one thread.
pub fn is_host(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    if *device == Device::flex() {
        return true;
    }
    let _ = device;
    false
}

/// Whether what is on `device` must travel before the processor can read it, by a bus or a network.
pub fn has_own_memory(device: &Device) -> bool {
    #[cfg(feature = "libtorch")]
    #[allow(deprecated)]
    if *device == Device::libtorch() {
        return false;
    }
    !is_host(device)
}

/// Waits for `tensor` to be computed. `Tensor::into_data` alone may not: a device with a queue of its own is asked for
/// numbers when they are looked at.
pub fn wait_for<const D: usize>(tensor: Tensor<D>) {
    let data = tensor.into_data();
    let _seen = data.iter::<f32>().next();
}

/// Whether CubeCL kernels can be compiled for `device`: it is one of CubeCL's, in this process.
pub fn has_kernels(device: &Device) -> bool {
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
    if let burn::backend::DispatchDevice::Cube(_) = device.as_dispatch() {
        return true;
    }
    let _ = device;
    false
}
