//! Connecting to a peer's device.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use burn::remote::{ConnectError, IrohHost, RemoteHost};
use burn::tensor::Device;
use iroh::Endpoint;

use super::ticket::Ticket;
use super::{endpoint, waited};
use crate::{Error, Result};

/// How long a peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(6);

/// The peers' devices that this process is connected to, and their titles.
static REACHED: Mutex<Vec<(Device, String)>> = Mutex::new(Vec::new());

/// Connects to the device of the peer that issued `ticket`.
///
/// # Errors
/// An expired ticket; a peer that does not answer, or a different one at its address; one that rejects the credential,
/// or speaks another version.
pub fn dial(ticket: &Ticket) -> Result<Device> {
    ticket.check_time()?;
    let peer = ticket.peer();
    let from = own_endpoint()?;
    knock(&from, ticket)?;
    let host = IrohHost::new(ticket.address()).with_endpoint(from);
    let host = RemoteHost::iroh(host).with_credential(ticket.credential());
    connect(&host, format!("peer {peer}"))
}

/// Burn tries an address where nothing answers for a quarter of a minute, so the address is tested once before.
fn knock(from: &Endpoint, ticket: &Ticket) -> Result<()> {
    let answered = waited(async {
        tokio::time::timeout(PATIENCE, from.connect(ticket.address(), burn::server::BURN_REMOTE_ALPN)).await
    })?;
    let at: Vec<String> = ticket.addresses().iter().map(ToString::to_string).collect();
    let nobody = |why: String| {
        let (peer, at) = (ticket.peer(), at.join(" or "));
        Error::Argument(format!("peer {peer} is not at {at}{why}; is `regrow serve` running there?"))
    };
    match answered {
        Ok(Ok(_)) => Ok(()),
        // The first line of the reason: the rest is a backtrace if the user asked for one.
        Ok(Err(e)) => Err(nobody(format!(" ({})", e.to_string().lines().next().unwrap_or_default()))),
        Err(_) => Err(nobody(format!(": nothing answered for {} s", PATIENCE.as_secs()))),
    }
}

/// Connects to a peer on this machine that serves web sockets: `ws://CREDENTIAL@127.0.0.1:PORT`, or
/// `ws://127.0.0.1:PORT` if it requires no credential.
///
/// # Errors
/// An address outside this machine, or an invalid one; as [`dial`].
pub fn dial_web_socket(name: &str) -> Result<Device> {
    let rest = name.strip_prefix("ws://").unwrap_or(name);
    let (credential, host) = rest.rsplit_once('@').map_or((None, rest), |(credential, host)| (Some(credential), host));
    let address = host.trim_end_matches('/').to_socket_addrs().ok().and_then(|mut found| found.next());
    let Some(address) = address else {
        return Err(Error::Argument(format!("`ws://{host}` is no address: use ws://127.0.0.1:PORT")));
    };
    check_loopback(address)?;
    knock_web_socket(address)?;
    let host = RemoteHost::websocket(&format!("ws://{address}"));
    let host = if let Some(credential) = credential { host.with_credential(credential) } else { host };
    connect(&host, format!("peer ws://{address}"))
}

/// Refuses to send tensors and credentials unencrypted between machines.
pub(super) fn check_loopback(address: SocketAddr) -> Result<()> {
    match address.ip().is_loopback() {
        true => Ok(()),
        false => Err(Error::Argument(format!(
            "web sockets are not encrypted, so {address} is refused: loopback only; use a ticket (remote:..)"
        ))),
    }
}

/// Refuses an address where nothing, or no web socket, answers.
fn knock_web_socket(address: SocketAddr) -> Result<()> {
    let nobody = |e: std::io::Error| Error::Argument(format!("no peer is at ws://{address}: {e}"));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(nobody)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(nobody)?;
    let request = format!(
        "GET /session HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(nobody)?;
    let mut answer = [0; 12];
    match stream.read_exact(&mut answer) {
        Ok(()) if &answer == b"HTTP/1.1 101" => Ok(()),
        _ => Err(Error::Argument(format!("what answers at ws://{address} is no peer of Regrow's"))),
    }
}

/// Opens a session, and stores the device's title without its credential.
fn connect(host: &RemoteHost, title: String) -> Result<Device> {
    let device = Device::remote_options(host).init().map_err(|e| refused(&title, &e))?;
    let mut reached = REACHED.lock().unwrap_or_else(PoisonError::into_inner);
    if !reached.iter().any(|(known, _)| *known == device) {
        reached.push((device.clone(), title));
    }
    Ok(device)
}

fn refused(title: &str, error: &ConnectError) -> Error {
    Error::Argument(match error {
        ConnectError::Unauthorized => {
            format!("{title} refuses the credential: it is someone else's, or has expired there; ask for a new ticket")
        }
        other => format!("{title}: {other}"),
    })
}

/// The title of a device that was reached by [`dial`] or [`dial_web_socket`].
pub fn title(device: &Device) -> Option<String> {
    let device = device.clone().inner();
    let reached = REACHED.lock().unwrap_or_else(PoisonError::into_inner);
    reached.iter().find(|(known, _)| *known == device).map(|(_, title)| title.clone())
}

/// The endpoint that this process dials from, created on first use.
fn own_endpoint() -> Result<Endpoint> {
    static OWN: Mutex<Option<Endpoint>> = Mutex::new(None);
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(endpoint) = &*own {
        return Ok(endpoint.clone());
    }
    let bound =
        waited(endpoint().bind())?.map_err(|e| Error::Argument(format!("no socket for remote devices: {e}")))?;
    Ok(own.insert(bound).clone())
}
