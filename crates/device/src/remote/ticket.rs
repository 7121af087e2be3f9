//! Tickets: everything needed to compute on a peer's device, in one word.
//!
//! A ticket is `remote:` and, in base 32, a version, the peer's public key (32 bytes), when it expires
//! (seconds since 1970, 8 bytes), a random credential (16 bytes), the addresses to dial, and a checksum.
//! Whoever has it may compute on the peer until it expires; it is a secret.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE32_NOPAD;
use iroh::{EndpointAddr, EndpointId, SecretKey};

use crate::{Error, Result};

/// The prefix of a ticket, and of a device's name.
pub const PREFIX: &str = "remote:";

const VERSION: u8 = 1;
const CREDENTIAL: usize = 16;

/// Permission to compute on a peer.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    key: EndpointId,
    expires: u64,
    credential: [u8; CREDENTIAL],
    addresses: Vec<SocketAddr>,
}

impl Ticket {
    /// A ticket with a new credential, valid for `lives` from now, for the peer with that key at these addresses.
    pub(super) fn new(key: EndpointId, addresses: Vec<SocketAddr>, lives: Duration) -> Self {
        Self { key, expires: now().saturating_add(lives.as_secs().max(1)), credential: credential(), addresses }
    }

    /// The peer's key and addresses.
    pub(super) fn address(&self) -> EndpointAddr {
        self.addresses.iter().fold(EndpointAddr::new(self.key), |peer, address| peer.with_ip_addr(*address))
    }

    /// The credential that the peer requires.
    pub(super) fn credential(&self) -> &[u8] {
        &self.credential
    }

    /// When the peer will reject it.
    pub(super) fn expires(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.expires)
    }

    /// The addresses to dial.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The peer by the first digits of its key: a name that can be shown.
    pub fn peer(&self) -> String {
        self.key.fmt_short().to_string()
    }

    /// Rejects a ticket that has expired by this machine's clock.
    ///
    /// # Errors
    /// If it has; the message says how long ago.
    pub fn check_time(&self) -> Result<()> {
        match now().checked_sub(self.expires) {
            None => Ok(()),
            Some(ago) => {
                let ago = if ago < 120 { format!("{ago} s") } else { format!("{} min", ago / 60) };
                Err(Error::Argument(format!("the ticket to peer {} expired {ago} ago; ask for a new one", self.peer())))
            }
        }
    }
}

#[cfg(test)]
impl Ticket {
    /// For the same peer with another credential.
    pub(super) fn forged(&self) -> Self {
        Self { credential: credential(), ..self.clone() }
    }

    /// With another expiry time.
    pub(super) fn prolonged(self, seconds: u64) -> Self {
        Self { expires: now() + seconds, ..self }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

/// Random bytes of the operating system, taken from a newly generated key.
pub(super) fn credential() -> [u8; CREDENTIAL] {
    let mut bytes = [0; CREDENTIAL];
    bytes.copy_from_slice(&SecretKey::generate().to_bytes()[..CREDENTIAL]);
    bytes
}

/// FNV-1a, against typing errors only.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    bytes.iter().fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)).to_le_bytes()
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION];
        bytes.extend(self.key.as_bytes());
        bytes.extend(self.expires.to_le_bytes());
        bytes.extend(self.credential);
        for address in &self.addresses {
            match address.ip() {
                IpAddr::V4(ip) => bytes.extend([&[4], &ip.octets()[..]].concat()),
                IpAddr::V6(ip) => bytes.extend([&[6], &ip.octets()[..]].concat()),
            }
            bytes.extend(address.port().to_le_bytes());
        }
        bytes.extend(checksum(&bytes));
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

/// Without the credential: a ticket must not leak through a log.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("peer", &self.peer()).field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl FromStr for Ticket {
    type Err = Error;

    /// Parses a ticket, with its prefix or without.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let text = text.strip_prefix(PREFIX).unwrap_or(text);
        let garbage = |why: &str| Error::Argument(format!("the ticket is garbage: {why}"));
        let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes());
        let bytes = bytes.map_err(|_| garbage("a ticket is letters and digits, as `regrow serve` prints it"))?;
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or_else(|| garbage("it is too short"))?;
        if checksum(body) != *sum {
            return Err(garbage("its checksum is another; was a part of it lost?"));
        }
        let mut rest = Reader(body);
        match rest.take::<1>() {
            Some([VERSION]) => {}
            _ => return Err(garbage("it is of another version of Regrow")),
        }
        let read = rest.take::<32>().zip(rest.take::<8>()).zip(rest.take::<CREDENTIAL>());
        let ((key, expires), credential) = read.ok_or_else(|| garbage("it is too short"))?;
        let key = EndpointId::from_bytes(&key).map_err(|_| garbage("it holds no key"))?;
        let mut addresses = Vec::new();
        while !rest.0.is_empty() {
            addresses.push(rest.address().ok_or_else(|| garbage("it holds half an address"))?);
        }
        Ok(Self { key, expires: u64::from_le_bytes(expires), credential, addresses })
    }
}

/// The remaining bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let ip = match self.take()? {
            [4] => IpAddr::from(self.take::<4>()?),
            [6] => IpAddr::from(self.take::<16>()?),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_le_bytes(self.take()?)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket(addresses: &[&str], lives: u64) -> Ticket {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        Ticket::new(SecretKey::from_bytes(&[7; 32]).public(), addresses, Duration::from_secs(lives))
    }

    #[test]
    fn a_ticket_is_read_back() {
        let ticket = ticket(&["127.0.0.1:4433", "[2001:db8::7]:9"], 60);
        let text = ticket.to_string();
        assert!(text.starts_with(PREFIX) && !text.contains(','), "{text}");
        assert_eq!(text.parse::<Ticket>().unwrap(), ticket);
        assert_eq!(text[PREFIX.len()..].to_uppercase().parse::<Ticket>().unwrap(), ticket);
        assert_eq!(ticket.address().ip_addrs().count(), 2);
        ticket.check_time().unwrap();
    }

    #[test]
    fn credentials_are_new_each_time_and_stay_out_of_logs() {
        let (a, b) = (ticket(&[], 60), ticket(&[], 60));
        assert_ne!(a.credential(), b.credential());
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }

    #[test]
    fn an_expired_one_says_for_how_long() {
        let mut ticket = ticket(&[], 60);
        ticket.expires = now() - 300;
        let said = ticket.check_time().unwrap_err().to_string();
        assert!(said.contains("expired 5 min ago"), "{said}");
    }

    #[test]
    fn garbage_is_named() {
        for (text, why) in
            [("remote:", "too short"), ("remote:hello!", "letters and digits"), ("remote:mfrggzdfmztwq2lk", "checksum")]
        {
            let said = text.parse::<Ticket>().unwrap_err().to_string();
            assert!(said.starts_with("the ticket is garbage: ") && said.contains(why), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn no_part_of_a_ticket_and_no_altered_one_is_a_ticket(cut in 0usize..111, place in 0usize..111, to in "[a-z2-7]") {
            let text = ticket(&["127.0.0.1:4433"], 60).to_string();
            let body = &text[PREFIX.len()..];
            prop_assert!(body[..cut.min(body.len() - 1)].parse::<Ticket>().is_err());
            let mut altered = body.to_string();
            let place = place.min(body.len() - 2);
            altered.replace_range(place..place + 1, &to);
            prop_assert!(altered == body || altered.parse::<Ticket>().is_err());
        }
    }
}
