//! Closed-loop load: each source has one request under way and sends the next when the answer is there.

mod tasks;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coap::codec::Encoder;
use coap::{Code, Kind, Message, Token};

use crate::links::{Links, News};
use crate::security::Security;
use crate::sockets::Sockets;
use tasks::{Get, Register, Shake, Task, Update};

/// Time after which an unanswered request is sent again for the first time; it doubles (RFC 7252 4.2).
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two looks at what waits.
const LOOK: Duration = Duration::from_millis(500);
/// Tries of one request before it counts as an error.
const TRIES: u32 = 5;
const DATAGRAM: usize = 2048;
/// Datagrams taken from one socket before timers and others get their turn.
const BURST: usize = 64;

/// What was measured, times in microseconds from the first transmission to the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Requests answered with success, or handshakes completed.
    pub answered: u64,
    /// Requests answered with an error, or never, and handshakes that failed.
    pub errors: u64,
    /// Requests sent again.
    pub repeated: u64,
    /// Bytes of payload received.
    pub bytes: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest.
    pub max: f64,
}

/// One request under way from a source.
struct Lane {
    /// Items of this lane that were started: item `n` of lane `l` is number `l + n * lanes`.
    started: usize,
    waiting: bool,
    mid: u16,
    sent: Instant,
    first_sent: Instant,
    tries: u32,
    datagram: Vec<u8>,
}

/// A run of one task over all lanes.
struct Run<'a, T> {
    task: &'a mut T,
    count: usize,
    report: Report,
    times: Vec<Duration>,
    /// Lanes that have something under way.
    open: usize,
}

/// Load from a number of sources at one server.
pub struct Load {
    server: SocketAddr,
    sockets: Sockets,
    lanes: Vec<Lane>,
    /// Location of each registered device, by number.
    locations: Vec<Vec<String>>,
    security: Option<Arc<Security>>,
    /// Links of the devices that were made last.
    links: Option<Links>,
    /// Why a handshake failed last.
    failure: Option<&'static str>,
    began: Instant,
}

impl Load {
    /// Opens `sources` sources to the server: addresses on the loopback network, sockets else.
    ///
    /// # Errors
    /// When they can't be had.
    pub fn new(server: SocketAddr, sources: usize, security: Option<Arc<Security>>) -> io::Result<Self> {
        let sockets = Sockets::open(server, sources.max(1))?;
        let now = Instant::now();
        let lanes = (0..sockets.len())
            .map(|_| Lane {
                started: 0,
                waiting: false,
                mid: 0,
                sent: now,
                first_sent: now,
                tries: 0,
                datagram: Vec::with_capacity(256),
            })
            .collect();
        Ok(Self {
            server,
            sockets,
            lanes,
            locations: Vec::new(),
            security,
            links: None,
            failure: None,
            began: now,
        })
    }

    /// Why a handshake failed last, if one did.
    pub const fn failure(&self) -> Option<&'static str> {
        self.failure
    }

    /// Makes `count` devices that are not connected.
    fn connectable(&mut self, count: usize, prefix: &str) -> io::Result<()> {
        if let Some(security) = &self.security {
            let security = Arc::clone(security);
            self.links = Some(Links::new(
                security,
                self.server,
                prefix,
                count,
                self.lanes.len(),
            )?);
        }
        Ok(())
    }

    /// Shakes hands for `count` new devices, spread over the sources; with as many sources all at once.
    ///
    /// # Errors
    /// When the system fails, or the load is not secured, or there are too few credentials.
    pub fn handshake(&mut self, count: usize, prefix: &str) -> io::Result<Report> {
        if self.security.is_none() {
            return Err(io::Error::other("a load without security has no handshakes"));
        }
        self.connectable(count, prefix)?;
        self.run(count, &mut Shake)
    }

    /// Registers `count` new devices, spread over the sources; secured ones shake hands first.
    ///
    /// # Errors
    /// When the system fails, or there are too few credentials.
    pub fn register(&mut self, count: usize, prefix: &str, lifetime: u32) -> io::Result<Report> {
        self.connectable(count, prefix)?;
        let mut locations = vec![Vec::new(); count];
        let mut task = Register {
            prefix,
            lifetime,
            locations: &mut locations,
        };
        let report = self.run(count, &mut task)?;
        self.locations = locations;
        Ok(report)
    }

    /// Sends `rounds` bare Updates for each registered device, from the source that registered it.
    ///
    /// # Errors
    /// When the system fails, or the devices don't divide evenly over the sources.
    pub fn update(&mut self, rounds: usize) -> io::Result<Report> {
        let count = self.locations.len();
        if !count.is_multiple_of(self.lanes.len()) {
            return Err(io::Error::other(
                "the number of devices must be a multiple of the number of sources",
            ));
        }
        let locations = std::mem::take(&mut self.locations);
        let report = self.run(
            count * rounds,
            &mut Update {
                locations: &locations,
            },
        );
        self.locations = locations;
        report
    }

    /// Gets a resource `count` times; with `blocks` above 0 block after block of 1024 bytes. Secured sources ask as
    /// the device of their own number.
    ///
    /// # Errors
    /// When the system fails, or there is no secured device for each source.
    pub fn get(&mut self, path: &[String], blocks: u32, count: usize) -> io::Result<Report> {
        let devices = self.links.as_ref().map_or(0, Links::len);
        if self.security.is_some() && devices < self.lanes.len() {
            return Err(io::Error::other(
                "a device for each source must shake hands or register first",
            ));
        }
        let mut task = Get {
            path,
            blocks,
            lanes: self.lanes.len(),
            bytes: 0,
        };
        let mut report = self.run(count, &mut task)?;
        report.bytes = task.bytes;
        Ok(report)
    }

    fn run<T: Task>(&mut self, count: usize, task: &mut T) -> io::Result<Report> {
        let start = Instant::now();
        let mut run = Run {
            task,
            count,
            report: Report::default(),
            times: Vec::with_capacity(count),
            open: 0,
        };
        for number in 0..self.lanes.len() {
            if let Some(lane) = self.lanes.get_mut(number) {
                lane.started = 0;
            }
            run.open += usize::from(self.start(number, &run));
        }
        let mut ready = Vec::with_capacity(256);
        let mut buffer = [0; DATAGRAM];
        let mut opened = Vec::new();
        let mut looked = start;
        while run.open > 0 {
            self.sockets.wait(self.patience(), &mut ready)?;
            for &socket in &ready {
                for _ in 0..BURST {
                    let Some((number, datagram)) = self.sockets.receive(socket, &mut buffer) else {
                        break;
                    };
                    if let Some(links) = &mut self.links {
                        let now = dtls_time(self.began);
                        links.receive(number, datagram, &self.sockets, now, &mut opened);
                        for (_, payload) in opened.drain(..) {
                            self.receive(number, &payload, &mut run);
                        }
                        self.shaken(&mut run);
                    } else {
                        self.receive(number, datagram, &mut run);
                    }
                }
            }
            if let Some(links) = &mut self.links {
                links.handle_timeout(&self.sockets, dtls_time(self.began));
                self.shaken(&mut run);
            }
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                self.repeat(&mut run);
            }
        }
        run.report.seconds = start.elapsed().as_secs_f64();
        Ok(run.sum())
    }

    fn patience(&self) -> Duration {
        let due = self.links.as_ref().and_then(Links::next_timeout);
        due.map_or(LOOK, |due| due.since(dtls_time(self.began)).min(LOOK))
    }

    /// Starts the next item of a lane; false when there is none.
    fn start<T: Task>(&mut self, number: usize, run: &Run<'_, T>) -> bool {
        let lanes = self.lanes.len();
        let Some(lane) = self.lanes.get_mut(number) else {
            return false;
        };
        let item = number + lane.started * lanes;
        if item >= run.count {
            lane.waiting = false;
            return false;
        }
        lane.started += 1;
        lane.waiting = true;
        lane.tries = 1;
        lane.first_sent = Instant::now();
        lane.sent = lane.first_sent;
        let device = u32::try_from(run.task.device(item)).unwrap_or(u32::MAX);
        let Some(code) = T::CODE else {
            if let Some(links) = &mut self.links {
                links.connect(device, &self.sockets, dtls_time(self.began));
            }
            return true;
        };
        lane.mid = lane.mid.wrapping_add(1);
        lane.datagram.clear();
        let token = Token::new(&lane.mid.to_be_bytes()).unwrap_or_default();
        let mut encoder = Encoder::new(&mut lane.datagram, Kind::Confirmable, code, lane.mid, token);
        run.task.write(item, &mut encoder);
        self.send(number, device);
        true
    }

    fn send(&mut self, number: usize, device: u32) {
        let Some(lane) = self.lanes.get(number) else {
            return;
        };
        match &mut self.links {
            Some(links) => links.send(device, &lane.datagram, &self.sockets, dtls_time(self.began)),
            None => self.sockets.send(number, &lane.datagram),
        }
    }

    /// Ends what a lane waits for, and starts the next.
    fn end<T: Task>(&mut self, number: usize, success: bool, run: &mut Run<'_, T>) {
        if let Some(lane) = self.lanes.get(number) {
            run.report.answered += u64::from(success);
            run.report.errors += u64::from(!success);
            run.times.extend(success.then(|| lane.first_sent.elapsed()));
            run.open -= usize::from(!self.start(number, run));
        }
    }

    /// Handshakes that have ended. One that fails ends the item, one that succeeds only where nothing is asked.
    fn shaken<T: Task>(&mut self, run: &mut Run<'_, T>) {
        while let Some(news) = self.links.as_mut().and_then(Links::poll) {
            let (device, success) = match news {
                News::Established(device) => (device, true),
                News::Failed(device, reason) => {
                    self.failure = Some(reason);
                    (device, false)
                }
            };
            let number = device as usize % self.lanes.len();
            let is_waiting = self.lanes.get(number).is_some_and(|lane| lane.waiting);
            if is_waiting && !(success && T::CODE.is_some()) {
                self.end(number, success, run);
            }
        }
    }

    /// Takes a datagram; one that isn't the awaited answer changes nothing.
    fn receive<T: Task>(&mut self, number: usize, datagram: &[u8], run: &mut Run<'_, T>) {
        let lanes = self.lanes.len();
        let Ok(message) = Message::parse(datagram) else {
            return;
        };
        let Some(lane) = self.lanes.get_mut(number) else {
            return;
        };
        let item = number + lane.started.saturating_sub(1) * lanes;
        if message.kind == Kind::Confirmable {
            let answer = reply(&message);
            let device = u32::try_from(run.task.device(item)).unwrap_or(u32::MAX);
            match &mut self.links {
                Some(links) => links.send(device, &answer, &self.sockets, dtls_time(self.began)),
                None => self.sockets.send(number, &answer),
            }
        }
        if lane.waiting && message.code.is_response() && message.token.as_bytes() == lane.mid.to_be_bytes() {
            lane.waiting = false;
            let success = run.task.accept(item, &message);
            self.end(number, success, run);
        }
    }

    /// Sends again what waits too long; a handshake does that by itself.
    fn repeat<T: Task>(&mut self, run: &mut Run<'_, T>) {
        let lanes = self.lanes.len();
        for number in 0..lanes {
            let Some(lane) = self.lanes.get_mut(number) else {
                continue;
            };
            if !lane.waiting || lane.sent.elapsed() < PATIENCE * (1 << lane.tries.saturating_sub(1)) {
                continue;
            }
            let item = number + lane.started.saturating_sub(1) * lanes;
            let device = u32::try_from(run.task.device(item)).unwrap_or(u32::MAX);
            let links = self.links.as_ref();
            if T::CODE.is_none() || links.is_some_and(|links| links.is_connecting(device)) {
                lane.sent = Instant::now();
            } else if lane.tries < TRIES {
                lane.tries += 1;
                lane.sent = Instant::now();
                run.report.repeated += 1;
                self.send(number, device);
            } else {
                self.end(number, false, run);
            }
        }
    }
}

impl<T> Run<'_, T> {
    fn sum(mut self) -> Report {
        self.times.sort_unstable();
        let at = |share: usize| {
            let index = (self.times.len() * share / 1000).min(self.times.len().saturating_sub(1));
            self.times
                .get(index)
                .map_or(0.0, |time: &Duration| time.as_secs_f64() * 1e6)
        };
        (self.report.p50, self.report.p99, self.report.max) = (at(500), at(990), at(1000));
        self.report
    }
}

/// What a device that only asks says to a confirmable message: an empty ACK to a separate response, 4.04 to a request,
/// which also tells a restarted server that the device is there, and an RST to everything else.
fn reply(message: &Message<'_>) -> Vec<u8> {
    let (kind, code, token) = if message.code.is_response() {
        (Kind::Acknowledgement, Code::EMPTY, Token::EMPTY)
    } else if message.code.is_request() {
        (Kind::Acknowledgement, Code::NOT_FOUND, message.token)
    } else {
        (Kind::Reset, Code::EMPTY, Token::EMPTY)
    };
    let mut answer = Vec::new();
    Encoder::new(&mut answer, kind, code, message.mid, token);
    answer
}

/// The time in the clock of the DTLS clients.
fn dtls_time(began: Instant) -> coap::Instant {
    coap::Instant::from_micros(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_with_its_token_a_response_acknowledged_and_a_ping_reset() {
        let ask = |code, token: &[u8]| {
            let mut asked = Vec::new();
            let token = Token::new(token).unwrap();
            Encoder::new(&mut asked, Kind::Confirmable, code, 0x1234, token);
            reply(&Message::parse(&asked).unwrap())
        };
        assert_eq!(ask(Code::GET, b"ab"), [0x62, 0x84, 0x12, 0x34, b'a', b'b']);
        assert_eq!(ask(Code::CONTENT, b"ab"), [0x60, 0, 0x12, 0x34]);
        assert_eq!(ask(Code::EMPTY, b""), [0x70, 0, 0x12, 0x34]);
    }
}
