//! The secured links of simulated devices: one DTLS client each, from sources that several of them may share.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use coap::Instant;
use dtls::{Client, Config, Event, SystemRandom};

use crate::security::{Keeper, Security};
use crate::sockets::Sockets;

/// Datagrams that wait for a handshake; CoAP sends again what is dropped.
const QUEUED: usize = 4;

/// The endpoint name of a device.
pub(crate) fn endpoint(prefix: &str, number: usize) -> String {
    format!("{prefix}{number:06}")
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The device may send.
    Established(u32),
    /// It may not, for this reason.
    Failed(u32, &'static str),
}

/// One device's side.
#[derive(Default)]
struct Link {
    client: Option<Box<Client>>,
    queue: Vec<Vec<u8>>,
    /// The next entry of it in the timers.
    due: Option<Instant>,
    is_waiting: bool,
}

/// One source's side. A server has one unfinished handshake an address, so devices take turns.
#[derive(Default)]
struct Lane {
    shaking: Option<u32>,
    waiting: VecDeque<u32>,
    /// Who has sent last: most answers are for it.
    active: Option<u32>,
}

/// The links of devices 0 and up; device n uses source n modulo the number of sources.
pub(crate) struct Links {
    security: Arc<Security>,
    idle: Arc<Config>,
    server: SocketAddr,
    prefix: String,
    devices: Vec<Link>,
    lanes: Vec<Lane>,
    timers: BinaryHeap<Reverse<(Instant, u32)>>,
    news: VecDeque<News>,
}

impl Links {
    /// Links that are not connected.
    ///
    /// # Errors
    /// When there are too few credentials, or devices would share a source without connection ids.
    pub(crate) fn new(
        security: Arc<Security>,
        server: SocketAddr,
        prefix: &str,
        devices: usize,
        sources: usize,
    ) -> io::Result<Self> {
        if let Some(capacity) = security.capacity().filter(|capacity| *capacity < devices) {
            return Err(io::Error::other(format!(
                "{devices} devices need {devices} keys, and there are {capacity}"
            )));
        }
        let is_shared = devices > sources;
        if is_shared && !security.connection_ids {
            return Err(io::Error::other(format!(
                "{devices} devices share {sources} sources, which needs connection ids"
            )));
        }
        Ok(Self {
            idle: Arc::new(security.idle(is_shared)),
            security,
            server,
            prefix: prefix.to_owned(),
            devices: (0..devices).map(|_| Link::default()).collect(),
            lanes: (0..sources).map(|_| Lane::default()).collect(),
            timers: BinaryHeap::new(),
            news: VecDeque::new(),
        })
    }

    /// How many devices there are.
    pub(crate) const fn len(&self) -> usize {
        self.devices.len()
    }

    /// Handshakes that have ended.
    pub(crate) fn poll(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// A handshake of the device is under way, or waits for its turn.
    pub(crate) fn is_connecting(&self, device: u32) -> bool {
        let link = self.devices.get(device as usize);
        link.is_some_and(|link| link.is_waiting) || self.lane(device).shaking == Some(device)
    }

    fn lane(&self, device: u32) -> &Lane {
        &self.lanes[device as usize % self.lanes.len()]
    }

    fn lane_mut(&mut self, device: u32) -> &mut Lane {
        let number = device as usize % self.lanes.len();
        &mut self.lanes[number]
    }

    /// Sends a datagram of a device; it waits for a handshake where there is no association.
    pub(crate) fn send(&mut self, device: u32, payload: &[u8], sockets: &Sockets, now: Instant) {
        let Some(link) = self.devices.get_mut(device as usize) else {
            return;
        };
        if let Some(client) = link.client.as_deref_mut()
            && client.send(payload).is_ok()
        {
            self.lane_mut(device).active = Some(device);
            self.drain(device, sockets);
            return;
        }
        if link.queue.len() < QUEUED {
            link.queue.push(payload.to_vec());
        }
        if !self.is_connecting(device) {
            self.connect(device, sockets, now);
        }
    }

    /// Begins a handshake, or puts the device into the queue for one.
    pub(crate) fn connect(&mut self, device: u32, sockets: &Sockets, now: Instant) {
        if let Some(link) = self.devices.get_mut(device as usize) {
            link.is_waiting = true;
            self.lane_mut(device).waiting.push_back(device);
            self.advance(device, sockets, now);
        }
    }

    /// Forgets the association of a device, as a loss of power does.
    pub(crate) fn forget(&mut self, device: u32, sockets: &Sockets, now: Instant) {
        if let Some(link) = self.devices.get_mut(device as usize) {
            link.client = None;
            link.queue.clear();
            let lane = self.lane_mut(device);
            lane.shaking.take_if(|shaking| *shaking == device);
            self.advance(device, sockets, now);
        }
    }

    /// Lets the next handshakes of a device's source begin.
    fn advance(&mut self, device: u32, sockets: &Sockets, now: Instant) {
        while self.lane(device).shaking.is_none() {
            let Some(next) = self.lane_mut(device).waiting.pop_front() else {
                return;
            };
            self.begin(next, now);
            self.drain(next, sockets);
        }
    }

    fn begin(&mut self, device: u32, now: Instant) {
        let number = device as usize;
        let endpoint = endpoint(&self.prefix, number);
        let config = self.security.config(&self.idle, number, &endpoint);
        let security = Arc::clone(&self.security);
        let Some(link) = self.devices.get_mut(number) else {
            return;
        };
        link.is_waiting = false;
        let Some(config) = config else {
            self.news.push_back(News::Failed(device, "unusable-key"));
            return;
        };
        let client = link.client.get_or_insert_with(|| {
            let idle = Arc::clone(&self.idle);
            Box::new(Client::new(idle, Box::new(SystemRandom)))
        });
        client.set_config(Arc::new(config));
        match client.connect(self.server, now, &mut Keeper::new(&security)) {
            Ok(()) => self.lane_mut(device).shaking = Some(device),
            Err(failure) => self.news.push_back(News::Failed(device, failure.reason)),
        }
    }

    /// Takes a datagram that came to a source; what it carries is added to `received` with its device.
    pub(crate) fn receive(
        &mut self,
        source: usize,
        datagram: &[u8],
        sockets: &Sockets,
        now: Instant,
        received: &mut Vec<(u32, Vec<u8>)>,
    ) {
        let Some(lane) = self.lanes.get(source) else {
            return;
        };
        let others = (source..self.devices.len())
            .step_by(self.lanes.len())
            .filter_map(|number| u32::try_from(number).ok());
        let first: Vec<u32> = lane.shaking.into_iter().chain(lane.active).collect();
        // A connection id that is not its own means nothing to a client.
        for device in first.into_iter().chain(others) {
            if self.take(device, datagram, sockets, now, received) {
                return;
            }
        }
    }

    /// Gives a datagram to a device; false when it made nothing of it.
    fn take(
        &mut self,
        device: u32,
        datagram: &[u8],
        sockets: &Sockets,
        now: Instant,
        received: &mut Vec<(u32, Vec<u8>)>,
    ) -> bool {
        let security = Arc::clone(&self.security);
        let mut keeper = Keeper::new(&security);
        let link = self.devices.get_mut(device as usize);
        let Some(client) = link.and_then(|link| link.client.as_deref_mut()) else {
            return false;
        };
        client.receive_datagram(self.server, datagram, now, &mut keeper);
        let mut took = !keeper.received.is_empty();
        received.extend(keeper.received.into_iter().map(|payload| (device, payload)));
        took |= self.drain(device, sockets);
        self.advance(device, sockets, now);
        took
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, sockets: &Sockets, now: Instant) {
        while let Some(&Reverse((at, device))) = self.timers.peek() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(link) = self.devices.get_mut(device as usize) else {
                continue;
            };
            // An entry that an earlier one has replaced.
            if link.due.take_if(|due| *due == at).is_none() {
                continue;
            }
            if let Some(client) = link.client.as_deref_mut() {
                client.handle_timeout(now);
            }
            self.drain(device, sockets);
            self.advance(device, sockets, now);
        }
    }

    /// When [`Links::handle_timeout`] wants to be called.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Sends and tells what a client has to say; false when that was nothing.
    fn drain(&mut self, device: u32, sockets: &Sockets) -> bool {
        let source = device as usize % self.lanes.len();
        let (Some(link), Some(lane)) = (self.devices.get_mut(device as usize), self.lanes.get_mut(source))
        else {
            return false;
        };
        let Some(client) = link.client.as_deref_mut() else {
            return false;
        };
        let mut any = flush(client, source, sockets);
        while let Some(event) = client.poll_event() {
            any = true;
            match event {
                Event::Established { .. } => {
                    client.set_config(Arc::clone(&self.idle));
                    (lane.shaking, lane.active) = (None, Some(device));
                    for payload in link.queue.drain(..) {
                        // CoAP sends again what does not go out.
                        let _ = client.send(&payload);
                    }
                    link.queue.shrink_to_fit();
                    self.news.push_back(News::Established(device));
                }
                Event::Failed { reason, .. } => {
                    client.set_config(Arc::clone(&self.idle));
                    lane.shaking = None;
                    link.queue = Vec::new();
                    self.news.push_back(News::Failed(device, reason));
                }
                _ => {}
            }
        }
        flush(client, source, sockets);
        match client.next_timeout() {
            Some(at) => {
                if link.due.is_none_or(|due| at < due) {
                    link.due = Some(at);
                    self.timers.push(Reverse((at, device)));
                }
            }
            None if client.is_established() => client.shrink(),
            None => link.client = None,
        }
        any
    }
}

fn flush(client: &mut Client, source: usize, sockets: &Sockets) -> bool {
    let mut any = false;
    while let Some(transmit) = client.poll_transmit() {
        any = true;
        sockets.send(source, transmit.datagram);
    }
    any
}
