//! Lending a device: anyone with the issued name may compute on it, until it expires.

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
use crate::select::title;
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

/// A server's task; it is aborted on drop.
struct Task(JoinHandle<Result<(), ServeError>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Lends `device` to holders of a new ticket, for the duration `lives`, at the address `bind`; port 0 means any free
/// port.
///
/// The address is the one that others dial, `127.0.0.1` for this machine only. Each call has its own key, so an old
/// ticket does not work for a new peer at the same address. A session opened in time continues after the ticket
/// expires.
///
/// # Errors
/// An address that cannot be dialled or is in use; a device that cannot be lent (LibTorch's, a peer's).
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
    // Routers start tasks, which requires being within a runtime.
    let _within = runtime()?.enter();
    let router = Router::builder(endpoint).accept(BURN_REMOTE_ALPN, protocol).spawn();
    Ok(Lent { name: ticket.to_string(), serving: Serving::Iroh(router) })
}

/// [`serve`] over web sockets, for clients without Iroh: unencrypted, so on loopback only.
///
/// # Errors
/// As [`serve`]; an address outside this machine.
pub fn serve_web_socket(device: &Device, bind: SocketAddr, lives: Duration) -> Result<Lent> {
    check_loopback(bind)?;
    let taken = |e: std::io::Error| Error::Argument(format!("{bind} cannot be listened at: {e}"));
    let listener = TcpListener::bind(bind).map_err(taken)?;
    let at = listener.local_addr().map_err(taken)?;
    let credential = BASE32_NOPAD.encode(&credential()).to_ascii_lowercase();
    let server = server(device, credential.as_bytes(), SystemTime::now() + lives)?;
    let runtime = runtime()?;
    let serving = runtime.spawn(server.serve_async(WebSocketTransport::from_listener(listener)));
    // A device that cannot be lent fails at once.
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

/// Accepts holders of the credential, until it expires.
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
    /// The device's name for those who may use it, which [`parse`](crate::select::parse) accepts. It contains the
    /// credential.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lends until the process is stopped (Ctrl-C), then disconnects the clients.
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

#[cfg(feature = "flex")]
#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use burn::tensor::Tensor;

    use super::*;
    use crate::pool::DevicePool;
    use crate::remote::ticket::Ticket;
    use crate::select::{is_peer, parse, probe};

    const HERE: &str = "127.0.0.1:0";

    fn lent(lives: u64) -> Lent {
        serve(&Device::flex(), HERE.parse().unwrap(), Duration::from_secs(lives)).unwrap()
    }

    fn refused(name: &str) -> String {
        let said = parse(name).unwrap_err().to_string();
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    }

    #[test]
    fn a_peer_computes_for_whoever_has_the_ticket() {
        let lent = lent(60);
        let device = parse(lent.name()).unwrap();
        probe("a peer", &device).unwrap();
        assert!(is_peer(&device) && is_peer(&device.clone().autodiff()));
        assert!(title(&device).starts_with("peer ") && !lent.name().contains(&title(&device)));
        let x = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0]], &device.autodiff()).require_grad();
        let gradient = x.grad(&(x.clone() * x.clone()).sum().backward()).unwrap();
        assert_eq!(gradient.into_data().iter::<f32>().collect::<Vec<_>>(), [2.0, 4.0, 6.0, 8.0]);
        // Parsed again, it is the same device.
        assert_eq!(parse(lent.name()).unwrap(), parse(lent.name()).unwrap());
    }

    #[test]
    fn others_are_refused_and_so_is_an_expired_ticket() {
        let lent = lent(3);
        let ticket: Ticket = lent.name().parse().unwrap();
        let (forged, late) = (ticket.forged(), ticket.clone().prolonged(600));
        assert!(refused(&forged.to_string()).contains("refuses the credential"));
        parse(lent.name()).unwrap();
        std::thread::sleep(Duration::from_secs(4));
        assert!(refused(lent.name()).contains("expired"));
        // A ticket with a forged expiry is rejected there: with another credential, as sessions are shared.
        assert!(refused(&late.forged().to_string()).contains("refuses the credential"));
    }

    #[test]
    fn a_peer_that_is_gone_or_another_in_its_place_is_not_taken_for_it() {
        let first = lent(60);
        let (old, at) = (first.name().to_string(), first.name().parse::<Ticket>().unwrap().addresses()[0]);
        drop(first);
        assert!(refused(&old).contains("is not at 127.0.0.1:"));
        let _second = serve(&Device::flex(), at, Duration::from_secs(60)).unwrap();
        assert!(refused(&old).contains("is not at 127.0.0.1:"));
    }

    #[test]
    fn web_sockets_stay_on_this_machine() {
        let lent = serve_web_socket(&Device::flex(), HERE.parse().unwrap(), Duration::from_secs(60)).unwrap();
        probe("a peer", &parse(lent.name()).unwrap()).unwrap();
        let (_, at) = lent.name().split_once('@').unwrap();
        assert!(refused(&format!("ws://{at}")).contains("refuses the credential"));
        assert!(refused("ws://192.0.2.1:80").contains("loopback only"));
        let beyond = serve_web_socket(&Device::flex(), "192.0.2.1:0".parse().unwrap(), Duration::from_secs(1));
        assert!(beyond.is_err_and(|e| e.to_string().contains("loopback only")));
    }

    #[test]
    fn what_answers_something_else_is_no_peer() {
        let listener = TcpListener::bind(HERE).unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n");
        });
        assert!(refused(&format!("ws://{at}")).contains("is no peer"));
    }

    #[test]
    fn a_pool_goes_on_without_a_peer_that_dies() {
        let (staying, leaving) = (lent(60), std::sync::Mutex::new(Some(lent(60))));
        let names = [staying.name().to_string(), leaving.lock().unwrap().as_ref().unwrap().name().to_string()];
        let devices = names.each_ref().map(|name| parse(name).unwrap());
        let lost = std::sync::Mutex::new(Vec::new());
        let tell = |line: &str| lost.lock().unwrap().push(line.to_string());
        let pool = DevicePool::new(&devices, |_| 1).with_tell(&tell);
        let sums = pool.run::<_, Error>(6, |device, piece| {
            // The second peer disappears while it processes a piece.
            if *device == devices[1] {
                drop(leaving.lock().unwrap().take());
            }
            Ok(Tensor::<1>::full([4], piece as f32, device).sum().into_scalar::<f32>())
        });
        assert_eq!(sums.unwrap(), [0.0, 4.0, 8.0, 12.0, 16.0, 20.0]);
        assert_eq!(lost.lock().unwrap().len(), 1);
        assert_eq!(pool.workers(), 1);
        drop(staying);
        // It ends in parallel to this thread: the first requests may still be answered.
        let said = (0..100).find_map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            pool.run::<_, Error>(1, |device, _| Ok(Tensor::<1>::ones([4], device).sum().into_scalar::<f32>())).err()
        });
        assert!(said.expect("no device is left").to_string().contains("every device"));
    }

    #[test]
    fn what_cannot_be_lent_says_so() {
        let says = |bind: &str| {
            let lent = serve(&Device::flex(), bind.parse().unwrap(), Duration::from_secs(1));
            lent.map(|_| ()).unwrap_err().to_string()
        };
        assert!(says("0.0.0.0:0").contains("no address to dial"));
        assert!(says("192.0.2.1:0").contains("cannot be listened at"));
        let lent = lent(60);
        let peer = parse(lent.name()).unwrap();
        let again = serve(&peer, HERE.parse().unwrap(), Duration::from_secs(1)).map(|_| ()).unwrap_err();
        assert!(again.to_string().contains("cannot be lent"), "{again}");
    }
}
