//! Many connected UDP sockets behind one epoll.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that the process needs besides the sockets.
const SPARE_DESCRIPTORS: u64 = 256;
/// Networks of 256 addresses on the loopback interface that are used.
const LOOPBACK_NETWORKS: usize = 250 << 8;

/// Where socket `number` sends from. On the loopback network each comes from another /24, as devices in the field do:
/// the server's bounds for one network would else be what is measured.
fn local(server: SocketAddr, number: usize) -> SocketAddr {
    match server.ip() {
        IpAddr::V4(address) if address.is_loopback() => {
            let [.., high, low] = (number % LOOPBACK_NETWORKS).to_be_bytes();
            (Ipv4Addr::new(127, high.saturating_add(1), low, 1), 0).into()
        }
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Sockets that this process can still open.
pub fn limit() -> usize {
    let maximum = getrlimit(Resource::Nofile).maximum;
    maximum.map_or(usize::MAX, |maximum| {
        usize::try_from(maximum.saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(usize::MAX)
    })
}

/// Sockets by number.
pub struct Sockets {
    epoll: OwnedFd,
    sockets: Vec<UdpSocket>,
}

impl Sockets {
    /// Opens `count` sockets to one server.
    ///
    /// # Errors
    /// When the system refuses, most often because the limit of open files is too low.
    pub fn open(server: SocketAddr, count: usize) -> io::Result<Self> {
        raise_limit(count as u64 + SPARE_DESCRIPTORS)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut sockets = Vec::with_capacity(count);
        for number in 0..count {
            let socket = UdpSocket::bind(local(server, number))?;
            socket.connect(server)?;
            socket.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&epoll, &socket, data, epoll::EventFlags::IN)?;
            sockets.push(socket);
        }
        Ok(Self { epoll, sockets })
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Sends; what the system won't take is lost as on a network.
    pub fn send(&self, number: usize, datagram: &[u8]) {
        if let Some(socket) = self.sockets.get(number) {
            let _ = socket.send(datagram);
        }
    }

    /// The next datagram of a socket.
    pub fn receive<'a>(&self, number: usize, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let socket = self.sockets.get(number)?;
        loop {
            match socket.recv(buffer) {
                Ok(len) => return buffer.get(..len),
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
