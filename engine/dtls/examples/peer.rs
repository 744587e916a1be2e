//! A DTLS peer on UDP, for trying other implementations by hand and in the interop tests.
//!
//! `peer serve ADDRESS OPTION…` sends every datagram back; `peer call ADDRESS TEXT OPTION…` sends one and prints the
//! answer. Options: `psk IDENTITY KEY-HEX`, `suites NAME,…`, `cert CHAIN-DER,… KEY-PKCS8-DER`, `ca DER`,
//! `rpk KEY-PKCS8-DER`, `name SERVER-NAME`, `coap`, `cid LENGTH|off`, `mtu BYTES`, `again` (a client says goodbye and comes
//! back with its ticket). A line is printed for each event.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dtls::{
    Answer, Association, AssociationId, CertifiedKey, Client, Config, ConnectionIds, Event, Handler,
    Identity, Instant, PreSharedKey, PskKeys, Secret, Server, SigningKey, Suite, SystemRandom, Trust,
};

#[derive(Default)]
struct Echo {
    keys: HashMap<Vec<u8>, Vec<u8>>,
    received: Vec<(AssociationId, Vec<u8>)>,
}

impl Handler for Echo {
    fn psk(&mut self, identity: &[u8]) -> Answer<PskKeys> {
        self.keys.get(identity).map_or(Answer::Unknown, |key| {
            Answer::Known(PskKeys::new(Secret::new(key.clone())))
        })
    }

    fn peer(&mut self, _identity: &Identity, _der: &[u8]) -> Answer<()> {
        Answer::Known(())
    }

    fn unix_time(&mut self) -> u64 {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |age| age.as_secs())
    }

    fn datagram(&mut self, from: &Association<'_>, payload: &[u8]) {
        self.received.push((from.id, payload.to_vec()));
    }
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex"))
        .collect()
}

struct Options {
    config: Config,
    echo: Echo,
    is_coap: bool,
    is_again: bool,
}

fn options(mut words: impl Iterator<Item = String>, is_server: bool) -> Options {
    let mut config = Config {
        initial_timeout: Duration::from_secs(1),
        ..Config::default()
    };
    let mut echo = Echo::default();
    let (mut is_coap, mut is_again) = (false, false);
    while let Some(word) = words.next() {
        let mut next = || words.next().expect("a value");
        match word.as_str() {
            "psk" => {
                let (identity, key) = (next().into_bytes(), hex(&next()));
                if is_server {
                    echo.keys.insert(identity, key);
                } else {
                    let key = Secret::new(key);
                    config.psk = Some(PreSharedKey { identity, key });
                }
            }
            "suites" => {
                let names = next();
                config.suites = names
                    .split(',')
                    .map(|name| {
                        let found = Suite::ALL.iter().find(|suite| suite.as_str() == name);
                        *found.expect("a suite's name")
                    })
                    .collect();
            }
            "cert" => {
                let chain = next().split(',').map(read).collect();
                let key = SigningKey::from_pkcs8(&read(&next())).expect("a P-256 key");
                config.certificate = Some(Arc::new(CertifiedKey::new(chain, key).expect("a pair")));
            }
            "ca" => config.trust = Arc::new(Trust::new(&[read(&next())]).expect("a certificate")),
            "rpk" => {
                let key = SigningKey::from_pkcs8(&read(&next())).expect("a P-256 key");
                config.raw_public_key = Some(Arc::new(key));
                config.accept_raw_public_keys = true;
            }
            "coap" => is_coap = true,
            "again" => is_again = true,
            "cid" => {
                config.connection_ids = next()
                    .parse()
                    .ok()
                    .map(|length| ConnectionIds { length, node: None });
            }
            "name" => config.server_name = Some(next()),
            "mtu" => config.mtu = next().parse().expect("a number"),
            other => panic!("unknown option {other}"),
        }
    }
    Options {
        config,
        echo,
        is_coap,
        is_again,
    }
}

/// GET of a path.
fn coap_request(path: &str) -> Vec<u8> {
    let mut request = Vec::new();
    let token = coap::Token::EMPTY;
    let mut encoder = coap::Encoder::new(&mut request, coap::Kind::Confirmable, coap::Code::GET, 1, token);
    encoder.option(coap::number::URI_PATH, path.as_bytes());
    request
}

/// The answer to a CoAP request: 2.05 with its own path back, piggybacked.
fn coap_answer(request: &[u8]) -> Vec<u8> {
    let Ok(message) = coap::Message::parse(request) else {
        return Vec::new();
    };
    let mut answer = Vec::new();
    let kind = if message.kind == coap::Kind::Confirmable {
        coap::Kind::Acknowledgement
    } else {
        coap::Kind::NonConfirmable
    };
    let code = if message.code == coap::Code::EMPTY {
        return Vec::new();
    } else {
        coap::Code::CONTENT
    };
    let mut encoder = coap::Encoder::new(&mut answer, kind, code, message.mid, message.token);
    let path: Vec<_> = message.options.path().collect();
    encoder.payload(path.join("/").as_bytes());
    answer
}

const LISTEN: &str = "serve";

/// One socket, and the time in steps of the crate's clock.
struct Link {
    socket: UdpSocket,
    start: std::time::Instant,
    buf: Vec<u8>,
}

impl Link {
    fn now(&self) -> Instant {
        let micros = u64::try_from(self.start.elapsed().as_micros()).expect("short");
        Instant::from_micros(1_000_000 + micros)
    }

    fn receive(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let (length, from) = self.socket.recv_from(&mut self.buf).ok()?;
        Some((from, self.buf[..length].to_vec()))
    }

    fn send(&self, address: SocketAddr, datagram: &[u8]) {
        // A peer that has gone is the business of its timers.
        self.socket.send_to(datagram, address).ok();
    }
}

fn serve(link: &mut Link, options: Options) {
    let Options {
        config,
        mut echo,
        is_coap,
        ..
    } = options;
    let mut server = Server::new(Arc::new(config), Box::new(SystemRandom));
    loop {
        let received = link.receive();
        let now = link.now();
        if let Some((from, datagram)) = received {
            server.receive_datagram(from, &datagram, now, &mut echo);
        }
        server.handle_timeout(now);
        for (association, payload) in echo.received.drain(..) {
            let answer = if is_coap { coap_answer(&payload) } else { payload };
            if !answer.is_empty() {
                server.send(association, &answer).expect("a short answer");
            }
        }
        while let Some(transmit) = server.poll_transmit() {
            link.send(transmit.address, transmit.datagram);
        }
        while let Some(event) = server.poll_event() {
            println!("{event:?}");
            if matches!(event, Event::Established { .. }) {
                println!("resumed {}", server.statistics().resumed);
            }
        }
    }
}

/// Sends one datagram, prints the answer, and says goodbye; an error after ten seconds.
fn call(link: &mut Link, client: &mut Client, address: SocketAddr, text: &[u8], echo: &mut Echo) -> bool {
    echo.received.clear();
    client.connect(address, link.now(), echo).expect("credentials");
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        while let Some(event) = client.poll_event() {
            println!("{event:?}");
            match event {
                Event::Established { .. } => client.send(text).expect("a short text"),
                Event::Failed { .. } => return false,
                _ => {}
            }
        }
        while let Some(transmit) = client.poll_transmit() {
            link.send(transmit.address, transmit.datagram);
        }
        let received = link.receive();
        let now = link.now();
        if let Some((from, datagram)) = received {
            client.receive_datagram(from, &datagram, now, echo);
        }
        client.handle_timeout(now);
        if let Some((_, payload)) = echo.received.first() {
            println!("received {}", String::from_utf8_lossy(payload));
            client.close();
            while let Some(transmit) = client.poll_transmit() {
                link.send(transmit.address, transmit.datagram);
            }
            return true;
        }
    }
    false
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let role = words.next().expect("serve or call");
    let address: SocketAddr = words
        .next()
        .and_then(|word| word.parse().ok())
        .expect("an address");
    let is_server = role == LISTEN;
    let local = if is_server {
        address
    } else {
        SocketAddr::from(([127, 0, 0, 1], 0))
    };
    let mut link = Link {
        socket: UdpSocket::bind(local).expect("bound"),
        start: std::time::Instant::now(),
        buf: vec![0; 65536],
    };
    link.socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout");
    if is_server {
        let options = options(words, true);
        println!("listening {}", link.socket.local_addr().expect("bound"));
        serve(&mut link, options);
        ExitCode::SUCCESS
    } else {
        let text = words.next().expect("a text");
        let mut options = options(words, false);
        let datagram = if options.is_coap {
            coap_request(&text)
        } else {
            format!("{text}\n").into_bytes()
        };
        let mut client = Client::new(Arc::new(options.config), Box::new(SystemRandom));
        let mut go = || call(&mut link, &mut client, address, &datagram, &mut options.echo);
        if go() && (!options.is_again || go()) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
