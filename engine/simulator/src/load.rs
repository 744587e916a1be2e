//! Closed-loop load: each socket has one request under way and sends the next when the answer is there.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use coap::codec::Encoder;
use coap::options::number;
use coap::{Block, Code, Kind, Message, Token};

use crate::device::Device;
use crate::sockets::Sockets;

/// Time after which an unanswered request is sent again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Tries of one request before it counts as an error.
const TRIES: u32 = 5;
const DATAGRAM: usize = 2048;

/// What was measured, times in microseconds from the first transmission to the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Requests answered with success.
    pub answered: u64,
    /// Requests answered with an error, or never.
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

/// One request under way on a socket.
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

/// Load from a number of sockets at one server.
pub struct Load {
    sockets: Sockets,
    lanes: Vec<Lane>,
    /// Location of each registered device, by number.
    locations: Vec<Vec<String>>,
}

/// What to ask, and what to make of the answer.
trait Task {
    /// Appends options and payload of item `item`; the code is [`Task::CODE`].
    fn write(&self, item: usize, encoder: &mut Encoder<'_>);
    /// Takes the answer; false when it is not the expected one.
    fn accept(&mut self, item: usize, answer: &Message<'_>) -> bool;
    /// Method.
    const CODE: Code;
}

struct Register<'a> {
    prefix: &'a str,
    lifetime: u32,
    locations: &'a mut Vec<Vec<String>>,
}

impl Task for Register<'_> {
    const CODE: Code = Code::POST;

    fn write(&self, item: usize, encoder: &mut Encoder<'_>) {
        encoder.option(number::URI_PATH, b"rd");
        encoder.uint(number::CONTENT_FORMAT, 40);
        encoder.option(
            number::URI_QUERY,
            format!("ep={}{item:06}", self.prefix).as_bytes(),
        );
        encoder.option(number::URI_QUERY, format!("lt={}", self.lifetime).as_bytes());
        encoder.option(number::URI_QUERY, b"lwm2m=1.1");
        encoder.option(number::URI_QUERY, b"b=U");
        encoder.payload(Device::links());
    }

    fn accept(&mut self, item: usize, answer: &Message<'_>) -> bool {
        let location: Vec<String> = answer.options.location_path().map(str::to_owned).collect();
        let created = answer.code == Code::CREATED && !location.is_empty();
        if let Some(slot) = self.locations.get_mut(item) {
            *slot = location;
        }
        created
    }
}

struct Update<'a> {
    locations: &'a [Vec<String>],
}

impl Task for Update<'_> {
    const CODE: Code = Code::POST;

    fn write(&self, item: usize, encoder: &mut Encoder<'_>) {
        let location = self.locations.get(item % self.locations.len().max(1));
        for segment in location.into_iter().flatten() {
            encoder.option(number::URI_PATH, segment.as_bytes());
        }
    }

    fn accept(&mut self, _: usize, answer: &Message<'_>) -> bool {
        answer.code == Code::CHANGED
    }
}

struct Get<'a> {
    path: &'a [String],
    /// Blocks of the resource; 0 asks without Block2.
    blocks: u32,
    lanes: usize,
    bytes: u64,
}

impl Task for Get<'_> {
    const CODE: Code = Code::GET;

    fn write(&self, item: usize, encoder: &mut Encoder<'_>) {
        for segment in self.path {
            encoder.option(number::URI_PATH, segment.as_bytes());
        }
        if self.blocks > 0 {
            let turn = u32::try_from(item / self.lanes).unwrap_or_default();
            encoder.block(number::BLOCK2, Block::new(turn % self.blocks, false, 1024));
        }
    }

    fn accept(&mut self, _: usize, answer: &Message<'_>) -> bool {
        self.bytes += answer.payload.len() as u64;
        answer.code == Code::CONTENT
    }
}

impl Load {
    /// Opens `sockets` sockets to the server.
    ///
    /// # Errors
    /// When they can't be had.
    pub fn new(server: SocketAddr, sockets: usize) -> io::Result<Self> {
        let sockets = Sockets::open(server, sockets.max(1))?;
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
            sockets,
            lanes,
            locations: Vec::new(),
        })
    }

    /// Registers `count` devices, spread over the sockets.
    ///
    /// # Errors
    /// When the system fails.
    pub fn register(&mut self, count: usize, prefix: &str, lifetime: u32) -> io::Result<Report> {
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

    /// Sends `rounds` bare Updates for each registered device, from the socket that registered it.
    ///
    /// # Errors
    /// When the system fails, or the devices don't divide evenly over the sockets.
    pub fn update(&mut self, rounds: usize) -> io::Result<Report> {
        let count = self.locations.len();
        if !count.is_multiple_of(self.lanes.len()) {
            return Err(io::Error::other(
                "the number of devices must be a multiple of the number of sockets",
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

    /// Gets a resource `count` times; with `blocks` above 0 block after block of 1024 bytes.
    ///
    /// # Errors
    /// When the system fails.
    pub fn get(&mut self, path: &[String], blocks: u32, count: usize) -> io::Result<Report> {
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
        let mut report = Report::default();
        let mut times = Vec::with_capacity(count);
        let mut open = 0_usize;
        for number in 0..self.lanes.len() {
            if let Some(lane) = self.lanes.get_mut(number) {
                lane.started = 0;
            }
            open += usize::from(self.start(number, count, task));
        }
        let mut ready = Vec::with_capacity(256);
        let mut buffer = [0; DATAGRAM];
        let mut checked = start;
        while open > 0 {
            self.sockets.wait(PATIENCE / 4, &mut ready)?;
            for &number in &ready {
                while let Some(datagram) = self.sockets.receive(number, &mut buffer) {
                    let Some(outcome) = self.receive(number, datagram, task) else {
                        continue;
                    };
                    report.answered += u64::from(outcome.is_ok());
                    report.errors += u64::from(outcome.is_err());
                    times.extend(outcome);
                    open -= usize::from(!self.start(number, count, task));
                }
            }
            if checked.elapsed() > PATIENCE / 4 {
                checked = Instant::now();
                open -= self.repeat(count, task, &mut report);
            }
        }
        report.seconds = start.elapsed().as_secs_f64();
        times.sort_unstable();
        let at = |share: usize| {
            let index = (times.len() * share / 1000).min(times.len().saturating_sub(1));
            times
                .get(index)
                .map_or(0.0, |time: &Duration| time.as_secs_f64() * 1e6)
        };
        (report.p50, report.p99, report.max) = (at(500), at(990), at(1000));
        Ok(report)
    }

    /// Starts the next item of a lane; false when there is none.
    fn start<T: Task>(&mut self, number: usize, count: usize, task: &T) -> bool {
        let lanes = self.lanes.len();
        let Some(lane) = self.lanes.get_mut(number) else {
            return false;
        };
        let item = number + lane.started * lanes;
        if item >= count {
            lane.waiting = false;
            return false;
        }
        lane.started += 1;
        lane.mid = lane.mid.wrapping_add(1);
        lane.datagram.clear();
        let token = Token::new(&lane.mid.to_be_bytes()).unwrap_or_default();
        let mut encoder = Encoder::new(&mut lane.datagram, Kind::Confirmable, T::CODE, lane.mid, token);
        task.write(item, &mut encoder);
        lane.waiting = true;
        lane.tries = 1;
        lane.first_sent = Instant::now();
        lane.sent = lane.first_sent;
        self.sockets.send(number, &lane.datagram);
        true
    }

    /// `None` when the datagram isn't the awaited answer.
    fn receive<T: Task>(
        &mut self,
        number: usize,
        datagram: &[u8],
        task: &mut T,
    ) -> Option<Result<Duration, ()>> {
        let lanes = self.lanes.len();
        let message = Message::parse(datagram).ok()?;
        let lane = self.lanes.get_mut(number)?;
        if message.kind == Kind::Confirmable {
            let [high, low] = message.mid.to_be_bytes();
            // An empty ACK for a separate response, an RST for everything else.
            let kind = if message.code.is_response() {
                Kind::Acknowledgement
            } else {
                Kind::Reset
            };
            self.sockets
                .send(number, &[1 << 6 | kind.bits() << 4, 0, high, low]);
        }
        if !lane.waiting || !message.code.is_response() || message.token.as_bytes() != lane.mid.to_be_bytes()
        {
            return None;
        }
        lane.waiting = false;
        let item = number + (lane.started - 1) * lanes;
        let time = lane.first_sent.elapsed();
        Some(if task.accept(item, &message) {
            Ok(time)
        } else {
            Err(())
        })
    }

    /// Sends again what waits too long; returns how many lanes have ended by that.
    fn repeat<T: Task>(&mut self, count: usize, task: &T, report: &mut Report) -> usize {
        let mut ended = 0;
        for number in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(number) else {
                continue;
            };
            if !lane.waiting || lane.sent.elapsed() < PATIENCE {
                continue;
            }
            if lane.tries < TRIES {
                lane.tries += 1;
                lane.sent = Instant::now();
                report.repeated += 1;
                self.sockets.send(number, &lane.datagram);
            } else {
                report.errors += 1;
                ended += usize::from(!self.start(number, count, task));
            }
        }
        ended
    }
}
