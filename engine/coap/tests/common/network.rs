//! Two stacks over a link that loses, duplicates, delays and reorders by a seeded generator.

use std::collections::BTreeMap;
use std::time::Duration;

use coap::{Config, Event, Instant, PassAll, Stack};

pub const CLIENT: u8 = 0;
pub const SERVER: u8 = 1;

/// Faults of the link, as fractions of all datagrams.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub loss: f64,
    pub duplication: f64,
    /// Longest ordinary delay; each datagram has its own, so they overtake each other.
    pub delay: Duration,
}

pub struct Network {
    pub client: Stack<u8>,
    pub server: Stack<u8>,
    pub now: Instant,
    pub seed: u64,
    /// Events of the client that the test has not looked at.
    pub events: Vec<Event<u8>>,
    link: Link,
    random: u64,
    under_way: BTreeMap<(Instant, u64), (u8, Vec<u8>)>,
    count: u64,
}

impl Network {
    pub fn new(seed: u64, link: Link, config: &Config) -> Self {
        Self {
            client: Stack::new(config.clone(), seed),
            server: Stack::new(config.clone(), seed.wrapping_add(1)),
            now: Instant::from_micros(50_000_000),
            seed,
            events: Vec::new(),
            link,
            random: seed,
            under_way: BTreeMap::new(),
            count: 0,
        }
    }

    pub fn fraction(&mut self) -> f64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.random >> 33).expect("31 bits")) / f64::from(1_u32 << 31)
    }

    fn launch(&mut self, from: u8, datagram: &[u8]) {
        let copies = 1 + usize::from(self.fraction() < self.link.duplication);
        for _ in 0..copies {
            if self.fraction() < self.link.loss {
                continue;
            }
            // One in twenty is much later than the others.
            let stretch = if self.fraction() < 0.05 { 10.0 } else { 1.0 };
            let delay = self.link.delay.mul_f64(self.fraction() * stretch);
            self.count += 1;
            self.under_way
                .insert((self.now + delay, self.count), (from, datagram.to_vec()));
        }
    }

    fn collect(&mut self) {
        for from in [CLIENT, SERVER] {
            let stack = if from == CLIENT {
                &mut self.client
            } else {
                &mut self.server
            };
            let sent: Vec<_> = stack
                .transmits()
                .map(|transmit| transmit.datagram.to_vec())
                .collect();
            stack.sent(sent.len());
            for datagram in &sent {
                self.launch(from, datagram);
            }
        }
    }

    /// Runs until nothing is left to happen before `end`. `app` is asked about each event of the server.
    pub fn run(&mut self, end: Instant, mut app: impl FnMut(&mut Stack<u8>, Event<u8>, Instant)) {
        let mut steps = 0_u32;
        loop {
            while let Some(event) = self.server.poll_event() {
                app(&mut self.server, event, self.now);
            }
            self.events
                .extend(std::iter::from_fn(|| self.client.poll_event()));
            self.collect();
            let arrival = self.under_way.first_key_value().map(|((at, _), _)| *at);
            let timers = [self.client.next_timeout(), self.server.next_timeout()];
            let Some(next) = timers
                .into_iter()
                .chain([arrival])
                .flatten()
                .min()
                .filter(|at| *at <= end)
            else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self
                .under_way
                .first_entry()
                .filter(|entry| entry.key().0 <= self.now)
            {
                let (from, datagram) = entry.remove();
                let (stack, peer) = if from == CLIENT {
                    (&mut self.server, CLIENT)
                } else {
                    (&mut self.client, SERVER)
                };
                stack.receive_datagram(peer, &datagram, self.now, &mut PassAll);
            }
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
            steps += 1;
            assert!(steps < 2_000_000, "seed {}: time does not go on", self.seed);
        }
        self.now = self.now.max(end);
    }

    /// Nothing is kept once all lifetimes are over.
    pub fn assert_clean(&self) {
        for stack in [&self.client, &self.server] {
            let left = stack.statistics();
            let sizes = [
                left.calls,
                left.peers,
                left.exchanges,
                left.seen,
                left.assemblies,
                left.answers,
                left.timers,
            ];
            assert_eq!(sizes, [0; 7], "seed {}: {left:?}", self.seed);
        }
    }
}
