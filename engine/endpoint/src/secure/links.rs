//! Our client role: one association with each server that is asked for something, opened on demand.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use coap::Instant;
use dtls::{Answer, Association, Client, Config, Event, Handler, Identity, PskKeys, SystemRandom};

use crate::key::PeerKey;

/// Datagrams of one server that wait for its handshake, and their bytes.
const MAX_WAITING: usize = 64;
const MAX_WAITING_BYTES: usize = 64 << 10;
/// Servers that are remembered, with what resumes their session.
const MAX_LINKS: usize = 256;

/// One server.
struct Link {
    client: Client,
    key: PeerKey,
    is_connecting: bool,
    waiting: VecDeque<Box<[u8]>>,
    waiting_bytes: usize,
}

/// What became of an association with a server.
pub enum News {
    /// The handshake failed; a kebab-case word.
    Failed(PeerKey, &'static str),
    /// It is over.
    Closed(PeerKey),
}

/// A handshake that begins asks for nothing.
struct Nobody;

impl Handler for Nobody {
    fn psk(&mut self, _: &[u8]) -> Answer<PskKeys> {
        Answer::Unknown
    }

    fn peer(&mut self, _: &Identity, _: &[u8]) -> Answer<()> {
        Answer::Unknown
    }

    fn unix_time(&mut self) -> u64 {
        0
    }

    fn datagram(&mut self, _: &Association<'_>, _: &[u8]) {}
}

/// All of them.
#[derive(Default)]
pub struct Links {
    by_address: HashMap<(u16, SocketAddr), Link>,
    /// Handshakes that could not even begin.
    failed: Vec<News>,
    /// Datagrams that found no room or no association.
    pub lost: u64,
}

impl Links {
    /// Credentials from the next handshake on.
    pub fn reconfigure(&mut self, config: &Arc<Config>) {
        for link in self.by_address.values_mut() {
            link.client.set_config(Arc::clone(config));
        }
    }

    pub fn knows(&self, listener: u16, address: SocketAddr) -> bool {
        self.by_address.contains_key(&(listener, address))
    }

    /// Takes a datagram from a server.
    pub fn receive(
        &mut self,
        listener: u16,
        address: SocketAddr,
        datagram: &[u8],
        now: Instant,
        handler: &mut dyn Handler,
    ) {
        if let Some(link) = self.by_address.get_mut(&(listener, address)) {
            link.client.receive_datagram(address, datagram, now, handler);
        }
    }

    /// Sends to a server, now or when the handshake is done.
    pub fn send(
        &mut self,
        (key, address): (PeerKey, SocketAddr),
        datagram: &[u8],
        config: &Arc<Config>,
        now: Instant,
    ) {
        let place = (key.listener(), address);
        if !self.by_address.contains_key(&place) {
            self.make_room();
        }
        let link = self.by_address.entry(place).or_insert_with(|| Link {
            client: Client::new(Arc::clone(config), Box::new(SystemRandom)),
            key,
            is_connecting: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        });
        if link.client.is_established() {
            self.lost += u64::from(link.client.send(datagram).is_err());
            return;
        }
        if link.waiting.len() >= MAX_WAITING || link.waiting_bytes + datagram.len() > MAX_WAITING_BYTES {
            self.lost += 1;
        } else {
            link.waiting_bytes += datagram.len();
            link.waiting.push_back(datagram.into());
        }
        if !link.is_connecting {
            link.is_connecting = true;
            if let Err(failure) = link.client.connect(address, now, &mut Nobody) {
                link.give_up();
                self.failed.push(News::Failed(key, failure.reason));
            }
        }
    }

    fn make_room(&mut self) {
        if self.by_address.len() >= MAX_LINKS {
            self.by_address
                .retain(|_, link| link.is_connecting || link.client.is_established());
        }
    }

    /// What has happened since the last call.
    pub fn news(&mut self) -> Vec<News> {
        let mut news = std::mem::take(&mut self.failed);
        for link in self.by_address.values_mut() {
            while let Some(event) = link.client.poll_event() {
                match event {
                    Event::Established { .. } => self.lost += link.flush(),
                    Event::Failed { reason, .. } => {
                        link.give_up();
                        news.push(News::Failed(link.key, reason));
                    }
                    Event::Closed { .. } => news.push(News::Closed(link.key)),
                    _ => {}
                }
            }
        }
        news
    }

    /// Says goodbye to a server; the next datagram for it shakes hands anew.
    pub fn forget(&mut self, key: PeerKey, address: SocketAddr) {
        if let Some(link) = self.by_address.get_mut(&(key.listener(), address)) {
            link.client.close();
            // The end was wished for: it is no news for what comes after.
            while link.client.poll_event().is_some() {}
            link.give_up();
        }
    }

    /// Says goodbye to all.
    pub fn close(&mut self) {
        for link in self.by_address.values_mut() {
            link.client.close();
        }
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.by_address
            .values()
            .filter_map(|link| link.client.next_timeout())
            .min()
    }

    pub fn timeout(&mut self, now: Instant) {
        for link in self.by_address.values_mut() {
            link.client.handle_timeout(now);
        }
    }

    /// Hands over what is to be sent, with the listener to send by; `send` says how much was done with.
    pub fn transmit(&mut self, mut send: impl FnMut(u16, &Client) -> usize) {
        for ((listener, _), link) in &mut self.by_address {
            let count = send(*listener, &link.client);
            link.client.sent(count);
        }
    }

    pub fn len(&self) -> usize {
        self.by_address
            .values()
            .filter(|link| link.client.is_established())
            .count()
    }
}

impl Link {
    /// Sends what has waited; returns how much of it was lost.
    fn flush(&mut self) -> u64 {
        self.is_connecting = false;
        self.waiting_bytes = 0;
        let client = &mut self.client;
        let lost = self
            .waiting
            .drain(..)
            .filter(|datagram| client.send(datagram).is_err());
        lost.count() as u64
    }

    fn give_up(&mut self) {
        self.is_connecting = false;
        self.waiting.clear();
        self.waiting_bytes = 0;
    }
}
