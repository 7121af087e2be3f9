//! Models, data sets and checkpoints for tables and the command line.
//!
//! - [`data`]: embedded digits, MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100, with augmentation
//! - [`models`]: MLP, LeNet-5, a MNIST CNN, CIFAR ResNets, a small CNN with batch norm
//! - [`Arch`]: the models by name, their tensors as PyTorch names them
//! - [`load`], [`save`]: PyTorch-named safetensors
//!
//! ```
//! use burn::module::Module;
//! use burn::tensor::Device;
//! use regrow_train::classifier::count_correct;
//! use regrow_zoo::{Arch, data};
//!
//! let digits = data::open("digits", None)?;
//! let device = Device::default();
//! let net = Arch::MlpSmall.init(10, 0, &device).valid();
//! let right = count_correct(&net, &digits.test, 64, &device);
//! assert!(right < 180, "an untrained network knows little");
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```

mod arch;
pub mod data;
pub mod models;
pub mod names;
mod store;

pub use arch::{Arch, TensorSpec, convnet, drawn, mlp, resnet};
pub use models::Net;
pub use names::Role;
pub use store::{Checked, check, load, save};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
