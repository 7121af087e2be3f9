//! Devices by name: the only place that knows the available backends.
//!
//! | name | computes on | cargo feature |
//! | --- | --- | --- |
//! | `flex` | this process's threads, in Rust alone | `flex` |
//! | `wgpu`, `wgpu:N`, `wgpu:cpu` | a GPU through any graphics API; the Nth discrete one; in software | `wgpu` |
//! | `vulkan`, `vulkan:N`, `vulkan:cpu` | the same, through Vulkan only | `vulkan` |
//! | `cuda`, `cuda:N` | the Nth NVIDIA GPU | `cuda` |
//! | `libtorch`, `libtorch:cuda:N` | LibTorch, on the CPU or on the Nth NVIDIA GPU | `libtorch` |
//! | `remote:TICKET`, `remote:@FILE` | the device a peer lends, by its ticket, or a file with the ticket | `remote` |
//! | `ws://CREDENTIAL@HOST:PORT` | the same over a web socket, on this machine only | `remote` |
//!
//! A program calls [`select`] or [`select_all`] once, with its user's choice, and [`current`] or [`all`] after that.

use std::sync::OnceLock;

use burn::tensor::{Device, Tensor};

use crate::properties::is_host;
use crate::quiet::quietly;
#[cfg(feature = "remote")]
use crate::remote::dial::title as peer_title;
use crate::{Error, Result};

/// The environment variable that names the device if a program does not.
pub const VARIABLE: &str = "REGROW_DEVICE";

/// Every backend: its name, the feature it is compiled in by, and whether it was.
const BACKENDS: [(&str, bool); 5] = [
    ("flex", cfg!(feature = "flex")),
    ("wgpu", cfg!(feature = "wgpu")),
    ("vulkan", cfg!(feature = "vulkan")),
    ("cuda", cfg!(feature = "cuda")),
    ("libtorch", cfg!(feature = "libtorch")),
];

/// Prefixes of the names of peers' devices.
const PEERS: [&str; 2] = ["remote:", "ws://"];

static CHOSEN: OnceLock<Vec<Device>> = OnceLock::new();

/// The names of the devices that were compiled in, each backend's first device.
pub fn compiled() -> Vec<&'static str> {
    BACKENDS.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect()
}

/// The device with that name, which may be missing: see [`probe`]. A peer's is connected to at once.
///
/// # Errors
/// An unknown name (the message suggests the nearest); a backend that was not compiled in; a peer that cannot be
/// reached.
pub fn parse(name: &str) -> Result<Device> {
    if let Some(prefix) = PEERS.iter().find(|prefix| name.starts_with(*prefix)) {
        return peer(name, prefix);
    }
    let (backend, rest) = name.split_once(':').map_or((name, None), |(backend, rest)| (backend, Some(rest)));
    match BACKENDS.iter().find(|(known, _)| *known == backend) {
        None => Err(unknown(name)),
        Some((_, false)) => {
            let there = compiled().join(", ");
            let reason =
                format!("the device `{name}` was not compiled in (cargo feature `{backend}`); there are {there}");
            Err(Error::Argument(reason))
        }
        Some((_, true)) => built(backend, rest).ok_or_else(|| unknown(name)),
    }
}

/// A device that a peer lends.
#[cfg(feature = "remote")]
fn peer(name: &str, prefix: &str) -> Result<Device> {
    use crate::remote::dial::{dial, dial_web_socket};

    match (prefix, name.strip_prefix("remote:@")) {
        ("ws://", _) => dial_web_socket(name),
        (_, None) => dial(&name.parse()?),
        (_, Some(file)) => {
            let text = std::fs::read_to_string(file).map_err(|e| Error::io(file, e))?;
            dial(&text.parse().map_err(|e: Error| Error::format(file, e.to_string()))?)
        }
    }
}

// Names of peers contain secrets, so the name is not repeated.
#[cfg(not(feature = "remote"))]
fn peer(_: &str, prefix: &str) -> Result<Device> {
    Err(Error::Argument(format!("devices of peers (`{prefix}..`) were not compiled in (cargo feature `remote`)")))
}

/// The device of a backend that was compiled in.
fn built(backend: &str, rest: Option<&str>) -> Option<Device> {
    match (backend, rest) {
        #[cfg(feature = "flex")]
        ("flex", None) => Some(Device::flex()),
        #[cfg(feature = "wgpu")]
        ("wgpu", rest) => adapter(rest).map(Device::wgpu),
        #[cfg(feature = "vulkan")]
        ("vulkan", rest) => adapter(rest).map(Device::vulkan),
        #[cfg(feature = "cuda")]
        ("cuda", rest) => {
            rest.unwrap_or("0").parse::<usize>().ok().filter(|index| *index < MOST_GPUS).map(Device::cuda)
        }
        #[cfg(feature = "libtorch")]
        ("libtorch", rest) => libtorch(rest),
        _ => None,
    }
}

#[cfg(any(feature = "wgpu", feature = "vulkan"))]
fn adapter(rest: Option<&str>) -> Option<burn::tensor::DeviceKind> {
    use burn::tensor::DeviceKind;

    match rest {
        None => Some(DeviceKind::DefaultDevice),
        Some("cpu") => Some(DeviceKind::Cpu),
        Some(number) => number.parse().ok().map(DeviceKind::DiscreteGpu),
    }
}

// Burn marks this backend as deprecated; it is kept for LibTorch users.
#[cfg(feature = "libtorch")]
#[allow(deprecated)]
fn libtorch(rest: Option<&str>) -> Option<Device> {
    match rest {
        None => Some(Device::libtorch()),
        Some(rest) => rest.strip_prefix("cuda:")?.parse::<usize>().ok().map(Device::libtorch_cuda),
    }
}

/// The error for an unknown name, with similar names, the nearest first.
fn unknown(name: &str) -> Error {
    let names =
        ["flex", "wgpu", "wgpu:0", "vulkan", "vulkan:0", "cuda", "cuda:0", "libtorch", "libtorch:cuda:0", "remote:"];
    let nearest =
        names.into_iter().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    let nearest = nearest.filter(|n| strsim::jaro_winkler(n, name) > 0.7);
    let hint = nearest.map_or_else(String::new, |n| format!("; did you mean `{n}`?"));
    let there = compiled().join(", ");
    Error::Argument(format!("unknown device `{name}`: there are {there}{hint}"))
}

/// Checks that a device computes: runs a small product on it, which also starts it.
///
/// # Errors
/// If the device is missing, with the first line of its driver's error.
pub fn probe(name: &str, device: &Device) -> Result<()> {
    #[cfg(feature = "cuda")]
    if let Some(reason) = missing_gpu(device) {
        return Err(Error::Argument(format!("the device `{name}` is not there: {reason}")));
    }
    let works = quietly(|| {
        let ones: Tensor<2> = Tensor::ones([2, 2], device);
        let sum: f32 = ones.clone().matmul(ones).into_data().convert::<f32>().iter::<f32>().sum();
        sum == 8.0
    });
    match works {
        Ok(true) => Ok(()),
        Ok(false) => {
            Err(Error::Argument(format!("the device `{name}` computes wrongly: 2 x 2 ones squared are not 2")))
        }
        Err(line) => Err(Error::Argument(format!("the device `{name}` is not there: {line}"))),
    }
}

/// What is missing if `device` is an absent NVIDIA GPU: computing on it would make another thread of Burn panic.
#[cfg(feature = "cuda")]
fn missing_gpu(device: &Device) -> Option<String> {
    let index = (0..MOST_GPUS).find(|index| *device == Device::cuda(*index))?;
    match Device::enumerate(burn::tensor::DeviceType::Cuda).into_iter().count() {
        0 => Some("no NVIDIA GPU with a driver was found".into()),
        count => (index >= count).then(|| format!("the GPUs that were found end with cuda:{}", count - 1)),
    }
}

/// More NVIDIA GPUs than one machine has.
#[cfg(feature = "cuda")]
const MOST_GPUS: usize = 1024;

/// Makes the device with that name, or Burn's default without one, this process's [`current`] one.
///
/// # Errors
/// As [`parse`] and [`probe`]; another device was in use already.
pub fn select(name: Option<&str>) -> Result<Device> {
    let names: Vec<&str> = name.into_iter().collect();
    select_all(&names).map(|_| current())
}

/// Makes the devices with these names, or Burn's default without any, those of this process: the first is the
/// [`current`] one, [`all`] returns all of them.
///
/// # Errors
/// As [`parse`] and [`probe`]; a name given twice; other devices were in use already.
pub fn select_all(names: &[&str]) -> Result<&'static [Device]> {
    let mut devices: Vec<Device> = Vec::new();
    for name in names {
        let device = parse(name)?;
        let shown = title(&device);
        if devices.contains(&device) {
            return Err(Error::Argument(format!("the device {shown} is named twice")));
        }
        probe(if is_peer(&device) { &shown } else { name }, &device)?;
        devices.push(device);
    }
    if devices.is_empty() {
        let device = Device::default();
        // A CPU device needs no driver.
        if !is_host(&device) {
            probe("default", &device)?;
        }
        devices.push(device);
    }
    match CHOSEN.get_or_init(|| devices.clone()) {
        chosen if *chosen == devices => Ok(chosen),
        _ => Err(Error::Argument("another device is in use already".into())),
    }
}

/// The [selected](select) device, the first of several; without one, the device that [`VARIABLE`] names, or Burn's
/// default if it names none that exists. Programs call [`select`] first, which rejects such a name.
pub fn current() -> Device {
    all().first().cloned().unwrap_or_default()
}

/// The devices that were [selected](select_all), else [`current`] alone.
pub fn all() -> &'static [Device] {
    CHOSEN.get_or_init(|| vec![by_variable().and_then(Result::ok).unwrap_or_default()])
}

/// The device that [`VARIABLE`] names, if it is set.
fn by_variable() -> Option<Result<Device>> {
    std::env::var(VARIABLE).ok().filter(|name| !name.is_empty()).map(|name| parse(&name))
}

/// Whether `device` is lent by a peer, so that it can be lost while this process runs.
pub fn is_peer(device: &Device) -> bool {
    peer_title(device).is_some()
}

/// The title of `device` for people to read: a peer's is shown without its credential.
pub fn title(device: &Device) -> String {
    peer_title(device).unwrap_or_else(|| format!("{device:?}"))
}

#[cfg(not(feature = "remote"))]
fn peer_title(_: &Device) -> Option<String> {
    None
}

/// A word of a command line with the credentials in names of peers' devices removed, to be shown.
pub fn without_secret(word: &str) -> String {
    if let Some((option, names)) = word.split_once('=').filter(|(option, _)| option.starts_with("--")) {
        return format!("{option}={}", without_secret(names));
    }
    let one = |name: &str| match PEERS.iter().find(|prefix| name.starts_with(*prefix)) {
        Some(prefix) => format!("{prefix}.."),
        None => name.to_string(),
    };
    word.split(',').map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::roundoff;

    fn says(name: &str) -> String {
        parse(name).unwrap_err().to_string()
    }

    #[test]
    fn names_are_devices() {
        for name in compiled() {
            assert!(parse(name).is_ok(), "{name}");
        }
        #[cfg(feature = "flex")]
        {
            let device = parse("flex").unwrap();
            assert!(is_host(&device) && !is_peer(&device));
            probe("flex", &device).unwrap();
        }
    }

    #[test]
    fn roundoff_is_that_of_f32_where_nothing_is_rounded_before() {
        let (device, roundoff) = (current(), roundoff(&current()));
        assert!(roundoff == 2f32.powi(-24) || !is_host(&device));
        // One third is exact in neither type: a product with one shows the rounding.
        let third = Tensor::<2>::full([8, 8], 1.0 / 3.0, &device).matmul(Tensor::eye(8, &device));
        let off = third.into_data().iter::<f32>().map(|v| (v - 1.0 / 3.0).abs()).fold(0.0, f32::max);
        assert!(off <= roundoff, "{off} {roundoff}");
    }

    #[test]
    fn the_tests_run_on_the_device_that_was_asked_for() {
        if let Some(device) = by_variable() {
            assert_eq!(current(), device.unwrap());
        }
    }

    #[test]
    fn a_slip_is_named_its_nearest() {
        assert!(says("flx").contains("did you mean `flex`?"));
        assert!(says("libtorhc").contains("did you mean `libtorch`?"));
        assert!(says("tpu").starts_with("unknown device `tpu`: there are "));
        #[cfg(feature = "flex")]
        assert!(says("flex:1").contains("unknown device `flex:1`"));
        assert!(says("").contains("unknown device ``"));
    }

    #[test]
    fn credentials_are_left_out() {
        assert_eq!(
            without_secret("flex,remote:mfrggzdf,remote:@a,ws://x@127.0.0.1:1"),
            "flex,remote:..,remote:..,ws://.."
        );
        assert_eq!(without_secret("--device=remote:mfrggzdf"), "--device=remote:..");
        assert_eq!(without_secret("--device"), "--device");
    }

    #[cfg(not(feature = "remote"))]
    #[test]
    fn a_ticket_is_not_repeated_where_it_is_of_no_use() {
        for name in ["remote:mfrggzdf", "ws://mfrggzdf@127.0.0.1:1"] {
            assert!(
                says(name).contains("(cargo feature `remote`)") && !says(name).contains("mfrggzdf"),
                "{}",
                says(name)
            );
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn what_was_not_compiled_in_says_its_feature() {
        assert!(says("cuda:0").contains("was not compiled in (cargo feature `cuda`)"));
    }
}
