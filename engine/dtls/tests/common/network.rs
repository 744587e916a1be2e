//! A client and a server over a link that loses, duplicates, delays and reorders by a seeded generator.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use dtls::{Client, Config, Event, Instant, Server};

use super::{Keeper, Seeded, arc};

pub fn server_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 5684))
}

pub fn client_address() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], 40_000))
}

/// Faults of the link, in thousandths of all datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    pub loss: u64,
    pub duplication: u64,
    /// Longest delay; each datagram has its own, so they overtake each other.
    pub delay: Duration,
}

pub struct Network {
    pub client: Client,
    pub server: Server,
    pub client_handler: Keeper,
    pub server_handler: Keeper,
    pub client_address: SocketAddr,
    pub now: Instant,
    pub client_events: Vec<Event>,
    pub server_events: Vec<Event>,
    /// All datagrams launched, with their sender.
    pub log: Vec<(bool, Vec<u8>)>,
    pub random: Seeded,
    pub link: Link,
    under_way: BTreeMap<(Instant, u64), (SocketAddr, bool, Vec<u8>)>,
    count: u64,
}

impl Network {
    pub fn new(seed: u64, link: Link, client: &Config, server: &Config) -> Self {
        let mut random = Seeded(seed);
        let source = |random: &mut Seeded| Box::new(Seeded(random.next()));
        Self {
            client: Client::new(arc(client), source(&mut random)),
            server: Server::new(arc(server), source(&mut random)),
            client_handler: Keeper::new(),
            server_handler: Keeper::new(),
            client_address: client_address(),
            now: Instant::from_micros(50_000_000),
            client_events: Vec::new(),
            server_events: Vec::new(),
            log: Vec::new(),
            random,
            link,
            under_way: BTreeMap::new(),
            count: 0,
        }
    }

    pub fn perfect(client: &Config, server: &Config) -> Self {
        Self::new(1, Link::default(), client, server)
    }

    pub fn connect(&mut self) {
        self.client
            .connect(server_address(), self.now, &mut self.client_handler)
            .expect("credentials are there");
    }

    fn launch(&mut self, from: SocketAddr, to_server: bool, datagram: &[u8]) {
        self.log.push((to_server, datagram.to_vec()));
        let copies = 1 + u64::from(self.random.chance(self.link.duplication));
        for _ in 0..copies {
            if self.random.chance(self.link.loss) {
                continue;
            }
            let span = u64::try_from(self.link.delay.as_micros()).expect("short") + 1;
            let delay = Duration::from_micros(self.random.below(span));
            self.count += 1;
            self.under_way.insert(
                (self.now + delay, self.count),
                (from, to_server, datagram.to_vec()),
            );
        }
    }

    /// Datagrams that wait in the client.
    pub fn take_from_client(&mut self) -> Vec<Vec<u8>> {
        let sent: Vec<_> = self
            .client
            .transmits()
            .map(|transmit| transmit.datagram.to_vec())
            .collect();
        self.client.sent(sent.len());
        sent
    }

    /// Datagrams that wait in the server.
    pub fn take_from_server(&mut self) -> Vec<Vec<u8>> {
        let sent: Vec<_> = self
            .server
            .transmits()
            .map(|transmit| transmit.datagram.to_vec())
            .collect();
        self.server.sent(sent.len());
        sent
    }

    pub fn give_server(&mut self, datagram: &[u8]) {
        let address = self.client_address;
        self.server
            .receive_datagram(address, datagram, self.now, &mut self.server_handler);
        self.poll();
    }

    pub fn give_client(&mut self, datagram: &[u8]) {
        self.client
            .receive_datagram(server_address(), datagram, self.now, &mut self.client_handler);
        self.poll();
    }

    fn poll(&mut self) {
        self.client_events
            .extend(std::iter::from_fn(|| self.client.poll_event()));
        self.server_events
            .extend(std::iter::from_fn(|| self.server.poll_event()));
    }

    fn collect(&mut self) {
        let address = self.client_address;
        for datagram in self.take_from_client() {
            self.launch(address, true, &datagram);
        }
        for datagram in self.take_from_server() {
            self.launch(server_address(), false, &datagram);
        }
    }

    /// Runs until nothing is left to happen before `end`.
    pub fn run_until(&mut self, end: Instant) {
        for step in 0.. {
            assert!(step < 1_000_000, "time does not go on");
            self.poll();
            self.collect();
            let arrival = self.under_way.first_key_value().map(|((at, _), _)| *at);
            let timers = [self.client.next_timeout(), self.server.next_timeout()];
            let next = timers.into_iter().chain([arrival]).flatten().min();
            let Some(next) = next.filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self
                .under_way
                .first_entry()
                .filter(|entry| entry.key().0 <= self.now)
            {
                let (from, to_server, datagram) = entry.remove();
                if to_server {
                    self.server
                        .receive_datagram(from, &datagram, self.now, &mut self.server_handler);
                } else {
                    self.give_client(&datagram);
                }
            }
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
        }
        self.now = self.now.max(end);
        self.poll();
    }

    pub fn run(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    /// One side said that it is established, or both.
    pub fn established(&self) -> (usize, usize) {
        let count = |events: &[Event]| {
            events
                .iter()
                .filter(|event| matches!(event, Event::Established { .. }))
                .count()
        };
        (count(&self.client_events), count(&self.server_events))
    }

    /// The server's association.
    pub fn association(&self) -> dtls::AssociationId {
        let found = self.server_events.iter().rev().find_map(|event| match event {
            Event::Established { association, .. } => Some(*association),
            _ => None,
        });
        found.expect("established")
    }

    /// Shakes hands over whatever the link is.
    pub fn shake_hands(&mut self) {
        self.connect();
        self.run(Duration::from_secs(5));
        assert_eq!(
            self.established(),
            (1, 1),
            "{:?} {:?}",
            self.client_events,
            self.server_events
        );
    }

    /// Shakes hands once more.
    pub fn shake_hands_again(&mut self) {
        let before = self.established();
        self.connect();
        self.run(Duration::from_secs(5));
        assert_eq!(self.established(), (before.0 + 1, before.1 + 1));
    }

    /// A datagram each way arrives.
    pub fn exchange(&mut self) {
        self.client.send(b"ping").expect("established");
        self.run(Duration::from_secs(1));
        let association = self.association();
        self.server.send(association, b"pong").expect("established");
        self.run(Duration::from_secs(1));
        assert_eq!(
            self.server_handler.payloads().last().copied(),
            Some(b"ping".as_slice())
        );
        assert_eq!(
            self.client_handler.payloads().last().copied(),
            Some(b"pong".as_slice())
        );
    }

    /// No handshake has left anything behind.
    pub fn assert_no_half_open(&self) {
        let statistics = self.server.statistics();
        assert_eq!(
            (
                statistics.half_open,
                statistics.half_open_index,
                statistics.reassembly_bytes
            ),
            (0, 0, 0)
        );
    }
}
