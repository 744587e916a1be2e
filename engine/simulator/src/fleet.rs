//! A fleet: sources, one CoAP stack keyed by device number, and the life of each device.

mod firmware;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coap::{
    Code, Config, Delivery, Event, Exchange, Handle, Instant, Local, Message, Reply, Request, Response,
    Stack, Verdict,
};

use crate::device::{Device, Fate};
use crate::links::{Links, News, endpoint};
use crate::random::Random;
use crate::security::Security;
use crate::sockets::{self, Sockets};

const BLOCK: u16 = 1024;
/// Time a device takes to restart.
const RESTART: Duration = Duration::from_millis(500);
/// Time until a failed registration is tried again; doubles up to the maximum.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);
const DATAGRAM: usize = 2048;
/// Datagrams taken from one socket before timers and others get their turn.
const BURST: usize = 16;

/// What fleet to make.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// The LwM2M server.
    pub server: SocketAddr,
    /// Number of devices.
    pub count: usize,
    /// Endpoint names are this and a number.
    pub prefix: String,
    /// Lifetime in seconds.
    pub lifetime: u32,
    /// Firmware version that the devices start with.
    pub version: String,
    /// Share of the devices that fail to install: 0 to 1.
    pub failing: f64,
    /// Share of the devices that never come back from an installation: 0 to 1.
    pub vanishing: f64,
    /// First registrations are spread over this time.
    pub spread: Duration,
    /// Determines fates, spread and message ids.
    pub seed: u64,
    /// How traffic is secured; plain CoAP without.
    pub security: Option<Arc<Security>>,
}

/// What the devices have done so far, and where they stand now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Devices.
    pub devices: u64,
    /// Devices registered now.
    pub registered: u64,
    /// Registrations accepted.
    pub registrations: u64,
    /// Updates accepted.
    pub updates: u64,
    /// Registrations and updates that failed.
    pub failures: u64,
    /// Requests answered.
    pub requests: u64,
    /// Bytes of packages taken.
    pub bytes: u64,
    /// Packages received in full.
    pub downloads: u64,
    /// Restarts into another version.
    pub installed: u64,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Handshakes that failed.
    pub refused: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    Registering,
    Updating,
}

struct Fetch {
    path: Vec<String>,
    handle: Option<Handle>,
}

/// One device with what connects it to its server.
struct Member {
    device: Device,
    location: Vec<String>,
    doing: Option<(Handle, Doing)>,
    fetch: Option<Fetch>,
    observers: Vec<(Exchange, Request)>,
    due: Instant,
    retry: Duration,
    restarting: bool,
}

/// Hands the blocks of a package to the device one by one.
struct Streams;

impl Local<u32> for Streams {
    fn request(&mut self, _: u32, request: &Message<'_>, _: &mut Reply<'_>) -> Verdict {
        if request.options.path_is(&["5", "0", "0"]) {
            Verdict::PassStreamed
        } else {
            Verdict::Pass
        }
    }
}

/// Devices that live until the fleet is dropped.
pub struct Fleet {
    sockets: Sockets,
    /// Without them datagrams go out as they are, each device from its own source.
    links: Option<Links>,
    stack: Stack<u32>,
    members: Vec<Member>,
    due: BinaryHeap<Reverse<(Instant, u32)>>,
    started: std::time::Instant,
    counts: Counts,
    random: Random,
}

impl Fleet {
    /// Opens the sockets; nothing is sent before [`Fleet::run`].
    ///
    /// # Errors
    /// When the sockets can't be had, or the credentials are too few.
    pub fn new(options: &FleetOptions) -> io::Result<Self> {
        let security = options.security.as_ref();
        // Connection ids tell devices apart that share a source.
        let may_share = security.is_some_and(|security| security.connection_ids);
        let count = if may_share {
            options.count.min(sockets::limit(options.server))
        } else {
            options.count
        };
        let links = security.map(|security| {
            let security = Arc::clone(security);
            Links::new(security, options.server, &options.prefix, options.count, count)
        });
        let links = links.transpose()?;
        let sockets = Sockets::open(options.server, count)?;
        let mut random = Random::new(options.seed);
        let mut due = BinaryHeap::with_capacity(options.count);
        let members = (0..u32::try_from(options.count).map_err(io::Error::other)?)
            .map(|number| {
                let draw = random.fraction();
                let fate = if draw < options.failing {
                    Fate::Fails
                } else if draw < options.failing + options.vanishing {
                    Fate::Vanishes
                } else {
                    Fate::Succeeds
                };
                let start = Instant::ZERO + options.spread.mul_f64(random.fraction());
                due.push(Reverse((start, number)));
                let endpoint = endpoint(&options.prefix, number as usize);
                Member {
                    device: Device::new(endpoint, options.lifetime, &options.version, fate),
                    location: Vec::new(),
                    doing: None,
                    fetch: None,
                    observers: Vec::new(),
                    due: start,
                    retry: RETRY,
                    restarting: false,
                }
            })
            .collect();
        Ok(Self {
            sockets,
            links,
            stack: Stack::new(
                Config {
                    block_size: BLOCK,
                    ..Config::default()
                },
                options.seed,
            ),
            members,
            due,
            started: std::time::Instant::now(),
            counts: Counts {
                devices: options.count as u64,
                ..Counts::default()
            },
            random,
        })
    }

    /// What has happened so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Lets the devices live for this time.
    ///
    /// # Errors
    /// When the system fails.
    pub fn run(&mut self, time: Duration) -> io::Result<Counts> {
        let end = self.now() + time;
        let mut ready = Vec::with_capacity(256);
        let mut buffer = [0; DATAGRAM];
        let mut opened = Vec::new();
        loop {
            let now = self.now();
            if now >= end {
                return Ok(self.counts);
            }
            self.sockets.wait(self.patience(now, end), &mut ready)?;
            let now = self.now();
            for &socket in &ready {
                for _ in 0..BURST {
                    let Some((source, datagram)) = self.sockets.receive(socket, &mut buffer) else {
                        break;
                    };
                    if let Some(links) = &mut self.links {
                        links.receive(source, datagram, &self.sockets, now, &mut opened);
                        for (peer, payload) in opened.drain(..) {
                            self.stack.receive_datagram(peer, &payload, now, &mut Streams);
                        }
                    } else if let Ok(peer) = u32::try_from(source) {
                        self.stack.receive_datagram(peer, datagram, now, &mut Streams);
                    }
                }
            }
            self.stack.handle_timeout(now);
            self.wake(now);
            while let Some(event) = self.stack.poll_event() {
                self.handle(event, now);
            }
            self.transmit(now);
        }
    }

    fn transmit(&mut self, now: Instant) {
        let Some(links) = &mut self.links else {
            while let Some(transmit) = self.stack.poll_transmit() {
                self.sockets.send(transmit.peer as usize, transmit.datagram);
            }
            return;
        };
        while let Some(transmit) = self.stack.poll_transmit() {
            links.send(transmit.peer, transmit.datagram, &self.sockets, now);
        }
        links.handle_timeout(&self.sockets, now);
        while let Some(news) = links.poll() {
            match news {
                News::Established(_) => self.counts.handshakes += 1,
                // CoAP goes on to send the request again, which begins another one.
                News::Failed(..) => self.counts.refused += 1,
            }
        }
    }

    /// The next request of the device begins with a handshake.
    fn disconnect(&mut self, number: u32, now: Instant) {
        if let Some(links) = &mut self.links {
            links.forget(number, &self.sockets, now);
        }
    }

    fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn patience(&self, now: Instant, end: Instant) -> Duration {
        let due = self.due.peek().map(|Reverse((at, _))| *at);
        let links = self.links.as_ref().and_then(Links::next_timeout);
        [self.stack.next_timeout(), due, links]
            .into_iter()
            .flatten()
            .fold(end, Instant::min)
            .since(now)
    }

    fn plan(&mut self, number: u32, at: Instant) {
        if let Some(member) = self.members.get_mut(number as usize) {
            member.due = at;
            self.due.push(Reverse((at, number)));
        }
    }

    /// Whose time has come: restart, register or update.
    fn wake(&mut self, now: Instant) {
        while let Some(&Reverse((at, number))) = self.due.peek() {
            if at > now {
                return;
            }
            self.due.pop();
            let Some(member) = self.members.get_mut(number as usize) else {
                continue;
            };
            // A plan that was replaced by another one.
            if member.due != at || member.doing.is_some() {
                continue;
            }
            if member.restarting {
                member.restarting = false;
                let before = member.device.version().to_owned();
                if !member.device.restart() {
                    continue;
                }
                self.counts.installed += u64::from(before != member.device.version());
                self.disconnect(number, now);
            }
            if self.members[number as usize].location.is_empty() {
                self.register(number, now);
            } else {
                self.update(number, now);
            }
        }
    }

    fn register(&mut self, number: u32, now: Instant) {
        let Some(member) = self.members.get(number as usize) else {
            return;
        };
        let mut request = Request::new(Code::POST, &["rd"]);
        request.query = vec![
            format!("ep={}", member.device.endpoint),
            format!("lt={}", member.device.lifetime),
            "lwm2m=1.1".to_owned(),
            "b=U".to_owned(),
        ];
        request.content_format = Some(40);
        request.payload = Device::links().to_vec();
        self.ask(number, request, Doing::Registering, now);
    }

    fn update(&mut self, number: u32, now: Instant) {
        let Some(member) = self.members.get(number as usize) else {
            return;
        };
        let request = Request {
            code: Code::POST,
            path: member.location.clone(),
            ..Request::default()
        };
        self.ask(number, request, Doing::Updating, now);
    }

    fn ask(&mut self, number: u32, request: Request, doing: Doing, now: Instant) {
        match self.stack.request(number, request, Delivery::default(), now) {
            Ok(handle) => {
                if let Some(member) = self.members.get_mut(number as usize) {
                    member.doing = Some((handle, doing));
                }
            }
            Err(_) => self.plan(number, now + RETRY),
        }
    }

    fn handle(&mut self, event: Event<u32>, now: Instant) {
        match event {
            Event::Request {
                exchange,
                peer,
                request,
            } => self.answer(peer, exchange, &request, now),
            Event::Response {
                handle,
                peer,
                response,
            } => self.answered(peer, handle, Some(&response), now),
            Event::Failure { handle, peer, .. } => self.answered(peer, handle, None, now),
            Event::Cancelled { exchange, peer } => {
                if let Some(member) = self.members.get_mut(peer as usize) {
                    member.observers.retain(|(observer, _)| *observer != exchange);
                }
            }
            Event::Notification { .. } | Event::Progress { .. } => {}
        }
    }

    fn answered(&mut self, number: u32, handle: Handle, response: Option<&Response>, now: Instant) {
        let Some(member) = self.members.get_mut(number as usize) else {
            return;
        };
        if member
            .fetch
            .as_ref()
            .is_some_and(|fetch| fetch.handle == Some(handle))
        {
            self.fetched(number, response, now);
            return;
        }
        let Some((_, doing)) = member.doing.take_if(|(asked, _)| *asked == handle) else {
            return;
        };
        let success = response.filter(|response| response.code.is_success());
        let half = Duration::from_secs(u64::from(member.device.lifetime)) / 2;
        match (doing, success) {
            (Doing::Registering, Some(response)) => {
                member.location.clone_from(&response.location_path);
                member.retry = RETRY;
                self.counts.registrations += 1;
                self.counts.registered += 1;
                self.plan(number, now + half);
            }
            (Doing::Updating, Some(_)) => {
                self.counts.updates += 1;
                self.plan(number, now + half);
            }
            (_, None) => {
                let is_silent = response.is_none();
                self.counts.failures += 1;
                self.counts.registered -= u64::from(!member.location.is_empty());
                member.location.clear();
                let wait = member.retry.mul_f64(0.5 + self.random.fraction());
                member.retry = (member.retry * 2).min(RETRY_MAX);
                self.plan(number, now + wait);
                if is_silent {
                    // The server may have lost the association.
                    self.disconnect(number, now);
                }
            }
        }
    }
}
