//! Where the devices send from: sources by number, behind one epoll.
//!
//! Towards a server on the IPv4 loopback network a source is an address, and a thousand of them share a socket, so that
//! a fleet of any size needs few files. For any other server each source is a socket.

use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use crate::packet_info;

/// Descriptors that the process needs besides the sockets.
const SPARE_DESCRIPTORS: u64 = 256;
/// Networks of 256 addresses on the loopback interface that are used, and addresses in each of them.
const LOOPBACK_NETWORKS: usize = 250 << 8;
const LOOPBACK_HOSTS: usize = 250;
/// Addresses that share a socket.
const SHARING: usize = 1000;
/// Wanted kernel buffers of a shared socket in bytes; the system cuts them to its limits.
const SHARED_BUFFER: usize = 4 << 20;

/// The address that source `number` sends from. Neighbours come from different networks (/24), as devices in the field
/// do: the server's bounds for one network would else be what is measured.
fn loopback_address(number: usize) -> Ipv4Addr {
    let [.., high, low] = (number % LOOPBACK_NETWORKS).to_be_bytes();
    let [.., host] = (number / LOOPBACK_NETWORKS).to_be_bytes();
    Ipv4Addr::new(127, high.saturating_add(1), low, host.saturating_add(1))
}

/// The number of the source that has this address.
fn source_of(address: Ipv4Addr) -> Option<usize> {
    let [_, high, low, host] = address.octets();
    let network = usize::from(high.checked_sub(1)?) << 8 | usize::from(low);
    Some(usize::from(host.checked_sub(1)?) * LOOPBACK_NETWORKS + network)
}

fn shared(server: SocketAddr) -> Option<SocketAddrV4> {
    match server {
        SocketAddr::V4(address) if address.ip().is_loopback() => Some(address),
        _ => None,
    }
}

/// Sources towards this server that the process can still have.
pub fn limit(server: SocketAddr) -> usize {
    if shared(server).is_some() {
        return LOOPBACK_NETWORKS * LOOPBACK_HOSTS;
    }
    let maximum = getrlimit(Resource::Nofile).maximum;
    maximum.map_or(usize::MAX, |maximum| {
        usize::try_from(maximum.saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(usize::MAX)
    })
}

/// The sources and their sockets.
pub struct Sockets {
    epoll: OwnedFd,
    files: Vec<Socket>,
    sources: usize,
    /// The server, when its sources share sockets.
    shared: Option<SocketAddrV4>,
}

impl Sockets {
    /// Opens `sources` sources to one server.
    ///
    /// # Errors
    /// When the system refuses, most often because the limit of open files is too low.
    pub fn open(server: SocketAddr, sources: usize) -> io::Result<Self> {
        if sources > limit(server) {
            return Err(io::Error::other(format!("{sources} are more than there can be")));
        }
        let shared = shared(server);
        let count = if shared.is_some() {
            sources.div_ceil(SHARING)
        } else {
            raise_limit(sources as u64 + SPARE_DESCRIPTORS)?;
            sources
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut files = Vec::with_capacity(count);
        for number in 0..count {
            let socket = if shared.is_some() {
                open_shared()?
            } else {
                open_own(server)?
            };
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&epoll, &socket, data, epoll::EventFlags::IN)?;
            files.push(socket);
        }
        Ok(Self {
            epoll,
            files,
            sources,
            shared,
        })
    }

    /// How many sources there are.
    pub const fn len(&self) -> usize {
        self.sources
    }

    /// Sends from a source; what the system won't take is lost as on a network.
    pub fn send(&self, source: usize, datagram: &[u8]) {
        let socket = if self.shared.is_some() {
            source / SHARING
        } else {
            source
        };
        let Some(socket) = self.files.get(socket) else {
            return;
        };
        let _ = match self.shared {
            Some(server) => packet_info::send(socket, loopback_address(source), server, datagram),
            None => socket.send(datagram).map(drop),
        };
    }

    /// The next datagram of a socket, with its source.
    pub fn receive<'a>(&self, socket: usize, buffer: &'a mut [u8]) -> Option<(usize, &'a [u8])> {
        let mut there = self.files.get(socket)?;
        loop {
            let received = match self.shared {
                Some(server) => packet_info::receive(there, buffer).map(|(length, sender, reached)| {
                    let source = reached.filter(|_| sender == server).and_then(source_of);
                    let is_here = |source: &usize| *source < self.sources && source / SHARING == socket;
                    (source.filter(is_here), length)
                }),
                None => there.read(buffer).map(|length| (Some(socket), length)),
            };
            match received {
                Ok((Some(source), length)) => return Some((source, buffer.get(..length)?)),
                // Somebody else's.
                Ok((None, _)) => {}
                // A port that is not open yet or any more; the server may come back.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionRefused | ErrorKind::Interrupted
                    ) => {}
                Err(_) => return None,
            }
        }
    }

    /// Waits at most `patience` and puts the numbers of readable sockets into `numbers`.
    ///
    /// # Errors
    /// When the system fails; an interruption is no failure.
    pub fn wait(&mut self, patience: Duration, numbers: &mut Vec<usize>) -> io::Result<()> {
        numbers.clear();
        let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
        let mut space = [const { MaybeUninit::uninit() }; 256];
        match epoll::wait(&self.epoll, &mut space, Some(&timeout)) {
            Ok((ready, _)) => {
                numbers.extend(
                    ready
                        .iter()
                        .filter_map(|event| usize::try_from(event.data.u64()).ok()),
                );
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A socket for all addresses of the loopback network.
fn open_shared() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(SHARED_BUFFER)?;
    socket.set_send_buffer_size(SHARED_BUFFER)?;
    socket.set_nonblocking(true)?;
    packet_info::ask(&socket)?;
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    socket.bind(&any.into())?;
    Ok(socket)
}

/// A socket for one source.
fn open_own(server: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, Some(Protocol::UDP))?;
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(&SocketAddr::from((any, 0)).into())?;
    socket.connect(&server.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn raise_limit(wanted: u64) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    let raised = Rlimit {
        current: Some(wanted),
        maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|error| {
        io::Error::new(
            io::Error::from(error).kind(),
            format!("{wanted} open files are needed; raise the limit with ulimit -n"),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::UdpSocket;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn each_source_has_an_address_of_its_own_and_neighbours_are_in_different_networks() {
        let numbers = [
            0,
            1,
            255,
            256,
            63_999,
            64_000,
            64_001,
            128_000,
            limit_of_loopback() - 1,
        ];
        for number in numbers {
            let address = loopback_address(number);
            assert!(address.is_loopback());
            assert_eq!(source_of(address), Some(number));
        }
        let networks: HashSet<[u8; 3]> = (0..64_000)
            .map(|number| {
                let [a, b, c, _] = loopback_address(number).octets();
                [a, b, c]
            })
            .collect();
        assert_eq!(networks.len(), 64_000);
        assert_eq!(source_of(Ipv4Addr::LOCALHOST), None);
    }

    fn limit_of_loopback() -> usize {
        limit(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
    }

    #[test]
    fn sources_that_share_a_socket_are_told_apart_by_address_both_ways() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("bound");
        server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut sockets = Sockets::open(server.local_addr().expect("bound"), 2001).expect("open");
        assert_eq!((sockets.len(), sockets.files.len()), (2001, 3));
        let mut buffer = [0; 64];
        for source in [0, 1, 999, 1000, 2000] {
            sockets.send(source, b"here");
            let (length, from) = server.recv_from(&mut buffer).expect("received");
            assert_eq!(
                (&buffer[..length], from.ip()),
                (b"here".as_slice(), loopback_address(source).into())
            );
            server.send_to(b"there", from).expect("sent");
            let mut ready = Vec::new();
            sockets.wait(PATIENCE, &mut ready).expect("ready");
            assert_eq!(ready, [source / SHARING]);
            assert_eq!(
                sockets.receive(ready[0], &mut buffer),
                Some((source, b"there".as_slice()))
            );
        }
    }

    #[test]
    fn a_stranger_is_not_taken_for_the_server() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("bound");
        server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let sockets = Sockets::open(server.local_addr().expect("bound"), 1).expect("open");
        let mut buffer = [0; 64];
        sockets.send(0, b"here");
        let (_, from) = server.recv_from(&mut buffer).expect("received");
        stranger.send_to(b"no server", from).expect("sent");
        server.send_to(b"server", from).expect("sent");
        assert_eq!(sockets.receive(0, &mut buffer), Some((0, b"server".as_slice())));
        assert_eq!(sockets.receive(0, &mut buffer), None);
    }
}
