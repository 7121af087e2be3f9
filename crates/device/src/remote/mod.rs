//! Devices of other processes and machines, through Burn's remote backend: a peer serves its device and issues a name
//! for it; anyone with that name can compute there.
//!
//! | to | look in |
//! | --- | --- |
//! | lend a device | [`serve`](mod@serve) |
//! | connect to one | [`dial`](mod@dial), or by name like any other device: [`parse`](crate::select::parse) |
//! | read what a name contains | [`ticket`] |
//!
//! Peers connect through Iroh (QUIC): the ticket contains the peer's key, so no other machine can impersonate it, and
//! the connection is encrypted. No relay and no name service is used: a ticket contains the addresses to dial. Web
//! sockets, Burn's older transport, are neither encrypted nor bound to a key, so they are limited to one machine:
//! loopback only.

pub mod dial;
pub mod serve;
pub mod ticket;

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use iroh::RelayMode;
use iroh::endpoint::{Builder, Endpoint, PortmapperConfig, QuicTransportConfig, VarInt, presets};
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};

use crate::{Error, Result};

/// How long a peer may be silent before it counts as lost, in milliseconds.
const SILENCE: u32 = 10_000;

/// The runtime of this process's endpoints, which lives as long as the process.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();
    let made =
        RUNTIME.get_or_init(|| RuntimeBuilder::new_multi_thread().worker_threads(2).enable_all().build()).as_ref();
    made.map_err(|e| Error::Argument(format!("no thread for remote devices could be started: {e}")))
}

/// Runs `work` on the runtime and waits for it on a separate thread: the caller may be a runtime's thread.
fn waited<T: Send>(work: impl Future<Output = T> + Send) -> Result<T> {
    let runtime = runtime()?;
    let done = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(work)).join());
    done.map_err(|_| Error::Argument("a thread for remote devices died".into()))
}

/// An endpoint that uses no relay, no name service and no router, and that notices within seconds when the other side
/// is gone.
fn endpoint() -> Builder {
    let quic = QuicTransportConfig::builder()
        .max_idle_timeout(Some(VarInt::from_u32(SILENCE).into()))
        .keep_alive_interval(Duration::from_millis(u64::from(SILENCE) / 5))
        .default_path_max_idle_timeout(Duration::from_millis(SILENCE.into()))
        .default_path_keep_alive_interval(Duration::from_millis(u64::from(SILENCE) / 5))
        // As in Burn: https://github.com/n0-computer/iroh/issues/4555.
        .enable_segmentation_offload(false);
    Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled)
        .transport_config(quic.build())
}
