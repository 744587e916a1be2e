//! DTLS in the engine: the associations of devices with our listeners, and ours with servers.

mod associations;
mod inward;
mod keys;
mod links;

use std::net::SocketAddr;

use coap::Instant;
use dtls::{Client, Exported, HandshakeId, Server, Statistics};

use crate::key::{MAX_LISTENERS, PeerKey, Route};
use crate::security::Secured;

pub use associations::{Associations, Probe};
pub use inward::{Found, Inward, Side, psk_keys};
pub use keys::Keys;
pub use links::{Links, News};

/// Bits of a handshake's number for Python that are its number at its listener.
const HANDSHAKE_BITS: u32 = 48;

/// What the datagrams of a listener go through.
pub enum Gate {
    /// They are `CoAP`.
    Plain,
    /// DTLS, for our client role alone.
    Servers,
    /// DTLS of devices, and of our client role.
    Devices(Box<Devices>),
}

/// The associations of one listener.
pub struct Devices {
    pub server: Server,
    place: Place,
}

/// Where a listener is, told from others after a restart: its address family and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place([u8; 3]);

impl Place {
    /// The place of an address.
    pub fn of(address: SocketAddr) -> Self {
        let [high, low] = address.port().to_be_bytes();
        Self([if address.is_ipv6() { 6 } else { 4 }, high, low])
    }

    /// Takes the place off an export.
    pub fn split(export: &[u8]) -> Option<(Self, &[u8])> {
        let (place, sealed) = export.split_first_chunk()?;
        Some((Self(*place), sealed))
    }

    /// The same family; the port may have been set anew.
    pub fn is_like(self, other: Self) -> bool {
        self.0.first() == other.0.first()
    }
}

impl Devices {
    pub fn new(server: Server, address: SocketAddr) -> Self {
        let place = Place::of(address);
        Self { server, place }
    }

    pub fn place(&self) -> Place {
        self.place
    }

    /// An export with the place of this listener.
    pub fn placed(&self, exported: &Exported) -> Vec<u8> {
        [self.place.0.as_slice(), &exported.sealed].concat()
    }
}

/// Everything that the engine knows of DTLS.
pub struct Secure {
    /// By listener.
    pub gates: Vec<Gate>,
    pub links: Links,
    pub associations: Associations,
    pub keys: Keys,
    pub secured: Option<Secured>,
    pub found: Found,
    /// Flights that were not listened to, because Python has fallen behind.
    pub shed: u64,
    /// Datagrams that an association did not take.
    pub unsent: u64,
}

impl Secure {
    pub fn new(max_look_ups: usize) -> Self {
        Self {
            gates: Vec::new(),
            links: Links::default(),
            associations: Associations::default(),
            keys: Keys::new(max_look_ups),
            secured: None,
            found: Found::default(),
            shed: 0,
            unsent: 0,
        }
    }

    /// The devices of a listener.
    pub fn devices(&mut self, listener: u16) -> Option<&mut Devices> {
        match self.gates.get_mut(usize::from(listener)) {
            Some(Gate::Devices(devices)) => Some(devices),
            _ => None,
        }
    }

    pub fn is_secure(&self, listener: u16) -> bool {
        !matches!(self.gates.get(usize::from(listener)), None | Some(Gate::Plain))
    }

    /// The numbers of listeners that devices come in by.
    pub fn listeners(&self) -> Vec<u16> {
        let numbers = (0..MAX_LISTENERS).zip(&self.gates);
        numbers
            .filter_map(|(number, gate)| matches!(gate, Gate::Devices(_)).then_some(number))
            .collect()
    }

    /// Sends a datagram of the stack.
    pub fn send(&mut self, key: PeerKey, datagram: &[u8], now: Instant) {
        match key.route() {
            Route::Association(id) => {
                let sent = self
                    .devices(key.listener())
                    .is_some_and(|devices| devices.server.send(id, datagram).is_ok());
                self.unsent += u64::from(!sent);
            }
            Route::Server(address) => {
                if let Some(secured) = &self.secured {
                    self.links.send((key, address), datagram, &secured.client, now);
                }
            }
            Route::Plain(_) => {}
        }
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        let devices = self.gates.iter().filter_map(|gate| match gate {
            Gate::Devices(devices) => devices.server.next_timeout(),
            Gate::Plain | Gate::Servers => None,
        });
        devices.chain(self.links.next_timeout()).min()
    }

    /// Hands over what is to be sent, listener by listener; `send` says how much was done with.
    pub fn transmit(&mut self, mut send: impl FnMut(u16, Outgoing<'_>) -> usize) {
        for (number, gate) in (0..MAX_LISTENERS).zip(&mut self.gates) {
            if let Gate::Devices(devices) = gate {
                let count = send(number, Outgoing::Devices(&devices.server));
                devices.server.sent(count);
            }
        }
        self.links
            .transmit(|number, client| send(number, Outgoing::Server(client)));
    }

    /// Counters and table sizes by name.
    pub fn statistics(&self, into: &mut Vec<(&'static str, u64)>) {
        let mut sum = Statistics::default();
        for gate in &self.gates {
            if let Gate::Devices(devices) = gate {
                let each = devices.server.statistics();
                sum.established += each.established;
                sum.failed += each.failed;
                sum.half_open += each.half_open;
                sum.sessions += each.sessions;
                sum.cookies += each.cookies;
                sum.shed += each.shed;
                sum.forged += each.forged;
                sum.replayed += each.replayed;
                sum.foreign += each.foreign;
                sum.dropped += each.dropped;
            }
        }
        into.extend([
            ("dtls_handshakes", sum.established),
            ("dtls_failed", sum.failed),
            ("dtls_half_open", sum.half_open as u64),
            ("dtls_sessions", sum.sessions as u64),
            ("dtls_cookies", sum.cookies),
            ("dtls_shed", sum.shed + self.shed),
            ("dtls_forged", sum.forged),
            ("dtls_replayed", sum.replayed),
            ("dtls_foreign", sum.foreign),
            ("dtls_dropped", sum.dropped + self.unsent + self.links.lost),
            ("dtls_keys", self.keys.len() as u64),
            ("dtls_servers", self.links.len() as u64),
        ]);
    }
}

/// Who has datagrams to send.
pub enum Outgoing<'a> {
    /// A listener.
    Devices(&'a Server),
    /// Our client role.
    Server(&'a Client),
}

/// The number of a handshake among those of all listeners.
pub fn handshake_number(listener: u16, handshake: HandshakeId) -> u64 {
    u64::from(listener) << HANDSHAKE_BITS | handshake.0
}

/// The listener and handshake of a number.
pub fn handshake_of(number: u64) -> (u16, HandshakeId) {
    let listener = u16::try_from(number >> HANDSHAKE_BITS).unwrap_or(u16::MAX);
    (listener, HandshakeId(number & ((1 << HANDSHAKE_BITS) - 1)))
}

/// True for a flight of a handshake under way that is not encrypted: it may lead to a question. Its client sends it again
/// soon; one whose hello is dropped waits longer each time, so hellos are left to the bound of handshakes.
pub fn may_ask(datagram: &[u8]) -> bool {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    datagram.first() == Some(&HANDSHAKE)
        && datagram.get(3..5) == Some(&[0, 0])
        && datagram.get(13) != Some(&CLIENT_HELLO)
}
