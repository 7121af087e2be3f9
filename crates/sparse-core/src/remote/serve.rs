//! Lending a device: whoever holds the name that is handed out may compute on it, until it expires.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, SystemTime};

use burn::server::{
    AuthorizationRequest, BURN_REMOTE_ALPN, PeerAuthorizer, RemoteServer, ServeError, TokenAuthorizer,
    WebSocketTransport,
};
use burn::tensor::Device;
use data_encoding::BASE32_NOPAD;
use iroh::SecretKey;
use iroh::protocol::Router;
use tokio::task::JoinHandle;

use super::dial::check_loopback;
use super::ticket::{Ticket, credential};
use super::{endpoint, runtime, waited};
use crate::device::title;
use crate::{Error, Result};

/// A device being lent, until this is dropped.
pub struct Lent {
    name: String,
    serving: Serving,
}

enum Serving {
    Iroh(Router),
    WebSocket(Task),
}

/// A server's task, which ends with it.
struct Task(JoinHandle<Result<(), ServeError>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Lends `device` to holders of a new ticket, for as long as it `lives`, at the address `bind`; port 0 is
/// any that is free.
///
/// The address is the one that others dial, `127.0.0.1` for this machine alone. Each call has a key of its
/// own, so an old ticket is no good for a new peer at the same address. A session that was opened in time goes
/// on beyond the ticket.
///
/// # Errors
/// An address that cannot be dialled or is taken; a device that cannot be lent (LibTorch's, a peer's).
pub fn serve(device: &Device, bind: SocketAddr, lives: Duration) -> Result<Lent> {
    if bind.ip().is_unspecified() {
        return Err(Error::Argument(format!("{bind} is no address to dial: give the one that others reach you by")));
    }
    let key = SecretKey::generate();
    let taken = |e: String| Error::Argument(format!("{bind} cannot be listened at: {e}"));
    let builder = endpoint().secret_key(key.clone()).clear_ip_transports();
    let builder = builder.bind_addr(bind).map_err(|e| taken(e.to_string()))?;
    let endpoint = waited(builder.bind())?.map_err(|e| taken(e.to_string()))?;
    let sockets = endpoint.bound_sockets().into_iter().filter(|at| at.ip() == bind.ip()).collect();
    let ticket = Ticket::new(key.public(), sockets, lives);
    let server = server(device, ticket.credential(), ticket.expires())?;
    let protocol = server.into_protocol(&endpoint).map_err(|e| unfit(device, &e))?;
    // Routers start tasks, which is done within a runtime.
    let _within = runtime()?.enter();
    let router = Router::builder(endpoint).accept(BURN_REMOTE_ALPN, protocol).spawn();
    Ok(Lent { name: ticket.to_string(), serving: Serving::Iroh(router) })
}

/// [`serve`] over web sockets, for clients that have no Iroh: in the clear, so on loopback alone.
///
/// # Errors
/// As [`serve`]; an address beyond this machine.
pub fn serve_web_socket(device: &Device, bind: SocketAddr, lives: Duration) -> Result<Lent> {
    check_loopback(bind)?;
    let taken = |e: std::io::Error| Error::Argument(format!("{bind} cannot be listened at: {e}"));
    let listener = TcpListener::bind(bind).map_err(taken)?;
    let at = listener.local_addr().map_err(taken)?;
    let credential = BASE32_NOPAD.encode(&credential()).to_ascii_lowercase();
    let server = server(device, credential.as_bytes(), SystemTime::now() + lives)?;
    let runtime = runtime()?;
    let serving = runtime.spawn(server.serve_async(WebSocketTransport::from_listener(listener)));
    // A device that cannot be lent says so at once.
    std::thread::sleep(Duration::from_millis(50));
    match serving.is_finished() {
        false => Ok(Lent { name: format!("ws://{credential}@{at}"), serving: Serving::WebSocket(Task(serving)) }),
        true => match waited(serving)? {
            Ok(Err(e)) => Err(unfit(device, &e)),
            _ => Err(Error::Argument(format!("serving at {at} ended at once"))),
        },
    }
}

fn server(device: &Device, credential: &[u8], until: SystemTime) -> Result<RemoteServer> {
    let token = TokenAuthorizer::new(credential).map_err(|e| Error::Argument(e.to_string()))?;
    Ok(RemoteServer::new([device.clone().inner()]).with_authorizer(Holders { token, until }))
}

fn unfit(device: &Device, error: &ServeError) -> Error {
    Error::Argument(format!("{} cannot be lent: {error}", title(device)))
}

/// Those who have the credential, while it is good.
struct Holders {
    token: TokenAuthorizer,
    until: SystemTime,
}

impl PeerAuthorizer for Holders {
    fn authorize(&self, request: AuthorizationRequest<'_>) -> Result<(), String> {
        let client = request.client;
        let answer = match SystemTime::now() < self.until {
            true => self.token.authorize(request),
            false => Err(format!("{client} came with a ticket that has expired")),
        };
        match &answer {
            Ok(()) => tracing::info!("{client} computes here"),
            Err(reason) => tracing::warn!("refused: {reason}"),
        }
        answer
    }
}

impl Lent {
    /// The device's name for those who may use it, [`device::parse`](crate::device::parse) knows what to do
    /// with it. It holds the credential.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lends until the process is told to stop (Ctrl-C), and takes leave of the clients.
    ///
    /// # Errors
    /// If signals cannot be waited for, or the server fails.
    pub fn wait(self) -> Result<()> {
        let failed = |e: String| Error::Argument(format!("the device is no longer lent: {e}"));
        match self.serving {
            Serving::Iroh(router) => waited(async {
                let stopped = tokio::signal::ctrl_c().await;
                let closed = router.shutdown().await;
                stopped.map_err(|e| failed(e.to_string())).and(closed.map_err(|e| failed(e.to_string())))
            })?,
            Serving::WebSocket(mut serving) => waited(async {
                tokio::select! {
                    stopped = tokio::signal::ctrl_c() => stopped.map_err(|e| failed(e.to_string())),
                    ended = &mut serving.0 => match ended {
                        Ok(Ok(())) => Ok(()),
                        Ok(Err(e)) => Err(failed(e.to_string())),
                        Err(e) => Err(failed(e.to_string())),
                    },
                }
            })?,
        }
    }
}
