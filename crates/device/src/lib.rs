//! Burn devices by name, pools of them, and devices that other machines lend.
//!
//! | to | look in |
//! | --- | --- |
//! | turn a name such as `wgpu:0` into a device, choose this process's devices | [`select`](mod@select) |
//! | query a device's properties: CPU threads of this process, its own memory | [`properties`] |
//! | distribute pieces of work over devices | [`pool`], [`parallel`] |
//! | reach or lend a device over the network | `remote` (feature `remote`) |
//!
//! ```
//! use regrow_device::{DevicePool, parse, probe, title};
//!
//! let device = parse("flex")?;
//! probe("flex", &device)?;
//! let pool = DevicePool::new(&[device.clone()], |_| 2);
//! let squares = pool.run::<usize, regrow_device::Error>(4, |_, i| Ok(i * i))?;
//! assert_eq!(squares, [0, 1, 4, 9]);
//! assert!(!title(&device).is_empty());
//! # Ok::<(), regrow_device::Error>(())
//! ```

mod error;
pub mod parallel;
pub mod pool;
pub mod properties;
mod quiet;
#[cfg(feature = "remote")]
pub mod remote;
pub mod select;

pub use error::{Error, Result};
pub use pool::DevicePool;
pub use properties::{has_kernels, has_own_memory, is_host, roundoff, wait_for};
pub use select::{VARIABLE, all, compiled, current, is_peer, parse, probe, select, select_all, title, without_secret};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
