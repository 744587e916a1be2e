//! UDP sockets in batches: `recvmmsg` and `sendmmsg`, so that a system call is shared by many datagrams.

#![allow(
    unsafe_code,
    reason = "recvmmsg has no safe wrapper in rustix; each block states why it holds"
)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Most datagrams moved by one system call.
const BATCH: usize = 64;
/// Room that a call to receive has at least.
const FEW: usize = 8;
/// Largest datagram taken; `CoAP` expects 1152 (RFC 7252 4.6), real clients send a little more.
const MAX_DATAGRAM: usize = 4096;
/// Wanted kernel buffers in bytes: some thousand datagrams, for bursts of devices that wake together.
const KERNEL_BUFFER: usize = 8 << 20;
/// How long a full send buffer may hold the engine up before the rest counts as lost.
const SEND_PATIENCE: Duration = Duration::from_millis(2);

/// Opens a non-blocking UDP socket.
///
/// # Errors
/// What the system says: address in use, not available, no permission.
pub fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // The system cuts these to its limits without an error; smaller buffers only lose datagrams sooner.
    socket.set_recv_buffer_size(KERNEL_BUFFER)?;
    socket.set_send_buffer_size(KERNEL_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Room for one batch of received datagrams.
pub struct Inbox {
    buffers: Vec<[u8; MAX_DATAGRAM]>,
    names: Vec<libc::sockaddr_storage>,
    received: Vec<(SocketAddr, usize)>,
    /// What the next call may take: to prepare for many costs as much as to take one.
    room: usize,
}

impl Inbox {
    /// Allocates the room once.
    pub fn new() -> Self {
        Self {
            buffers: vec![[0; MAX_DATAGRAM]; BATCH],
            // SAFETY: `sockaddr_storage` is plain integers, for which all-zero bytes are a value (AF_UNSPEC).
            names: vec![unsafe { zeroed() }; BATCH],
            received: Vec::with_capacity(BATCH),
            room: BATCH,
        }
    }

    /// Takes what waits, as far as there is room; returns how many datagrams came, those over the size included, and
    /// whether there may be more.
    ///
    /// # Errors
    /// What the socket reports; that nothing waits is not an error.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<(usize, bool)> {
        self.received.clear();
        let room = self.room;
        let (mut parts, mut headers) = ([NO_PART; BATCH], [no_header(); BATCH]);
        let places = self.buffers.iter_mut().zip(&mut self.names);
        for (header, (part, (buffer, name))) in
            headers.iter_mut().zip(parts.iter_mut().zip(places)).take(room)
        {
            part.iov_base = buffer.as_mut_ptr().cast();
            part.iov_len = buffer.len();
            *header = self::header(
                ptr::from_mut(name).cast(),
                size_of::<libc::sockaddr_storage>(),
                part,
            );
        }
        // SAFETY: the first `room` of `headers` are valid; each points to a name and an iovec that outlive the call,
        // and each iovec to its own buffer of `self.buffers`. The pointers were taken from unique borrows, nothing else
        // touches that memory before the call returns, and the kernel writes no further than the given lengths.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                libc::c_uint::try_from(room).unwrap_or(0),
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock {
                Ok((0, false))
            } else {
                Err(error)
            };
        };
        for (index, header) in headers.iter().take(count).enumerate() {
            let name = self.names.get(index).and_then(parse_name);
            let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            if let (Some(address), true) = (name, whole) {
                let length = usize::try_from(header.msg_len).unwrap_or(0);
                self.received
                    .push((address, index << 16 | length.min(MAX_DATAGRAM)));
            }
        }
        self.room = (2 * count).clamp(FEW, BATCH);
        Ok((count, count == room))
    }

    /// The datagrams of the last `receive` with their senders.
    pub fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.received.iter().filter_map(|&(address, place)| {
            Some((address, self.buffers.get(place >> 16)?.get(..place & 0xffff)?))
        })
    }
}

/// A batch of datagrams for one socket, collected without copying.
pub struct Outbox<'a> {
    /// Empty, lent for its memory.
    names: &'a mut Vec<SockAddr>,
    datagrams: [&'a [u8]; BATCH],
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams that it refused: no route, buffer full for too long. `CoAP` treats them as lost.
    pub lost: u64,
}

impl Sent {
    /// Counts another batch.
    pub fn add(&mut self, more: Self) {
        self.datagrams += more.datagrams;
        self.bytes += more.bytes;
        self.lost += more.lost;
    }
}

impl<'a> Outbox<'a> {
    /// An empty box.
    pub fn new(names: &'a mut Vec<SockAddr>) -> Self {
        names.clear();
        Self {
            names,
            datagrams: [&[]; BATCH],
        }
    }

    /// Adds a datagram; there is room for [`BATCH`].
    pub fn push(&mut self, address: SocketAddr, datagram: &'a [u8]) {
        if let Some(place) = self.datagrams.get_mut(self.names.len()) {
            *place = datagram;
            self.names.push(address.into());
        }
    }

    /// True when a call must be made before more is added.
    pub fn is_full(&self) -> bool {
        self.names.len() >= BATCH
    }

    /// Sends all and empties the box.
    pub fn send(&mut self, socket: &Socket) -> Sent {
        let mut sent = Sent::default();
        let mut start = 0;
        let mut waited = false;
        while start < self.names.len() {
            match self.send_from(socket, start) {
                Ok(count) => {
                    let taken = self.datagrams.iter().skip(start).take(count);
                    sent.bytes += taken.map(|datagram| datagram.len() as u64).sum::<u64>();
                    sent.datagrams += count as u64;
                    start += count.max(1);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !waited => {
                    wait_writable(socket.as_fd());
                    waited = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sent.lost += (self.names.len() - start) as u64;
                    break;
                }
                Err(_) => {
                    // The error is that of the first datagram; the others may go.
                    sent.lost += 1;
                    start += 1;
                }
            }
        }
        self.names.clear();
        sent
    }

    fn send_from(&self, socket: &Socket, start: usize) -> io::Result<usize> {
        let (mut parts, mut headers) = ([NO_PART; BATCH], [no_header(); BATCH]);
        let mut count: libc::c_uint = 0;
        let datagrams = self.names.iter().zip(self.datagrams).skip(start);
        for (header, (part, (name, datagram))) in headers.iter_mut().zip(parts.iter_mut().zip(datagrams)) {
            part.iov_base = datagram.as_ptr().cast_mut().cast();
            part.iov_len = datagram.len();
            *header = self::header(name.as_ptr().cast_mut().cast(), name.len() as usize, part);
            count += 1;
        }
        // SAFETY: each of the first `count` headers points to a name in `self.names` and an iovec in `parts`, each of
        // these to a borrowed datagram; all outlive the call. The kernel only reads through msg_name and msg_iov when
        // it sends, so that the pointers come from shared borrows does no harm. It writes msg_len of `headers`, which
        // is ours.
        let count = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

// Lists for a call stand on the stack: they would be the largest allocations of a turn by far.

const NO_PART: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};

fn no_header() -> libc::mmsghdr {
    header(ptr::null_mut(), 0, ptr::null_mut())
}

fn header(name: *mut libc::c_void, name_len: usize, part: *mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: `mmsghdr` is integers and pointers, for which all-zero bytes are a value.
    let mut header: libc::mmsghdr = unsafe { zeroed() };
    header.msg_hdr.msg_name = name;
    header.msg_hdr.msg_namelen = libc::socklen_t::try_from(name_len).unwrap_or(0);
    header.msg_hdr.msg_iov = part;
    header.msg_hdr.msg_iovlen = 1;
    header
}

fn parse_name(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: `sockaddr_storage` is at least as large and as aligned as any address, and the family says
            // that the kernel stored a `sockaddr_in`.
            let v4 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, with `sockaddr_in6`.
            let v6 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddr::V6(SocketAddrV6::new(
                ip,
                u16::from_be(v6.sin6_port),
                0,
                v6.sin6_scope_id,
            )))
        }
        _ => None,
    }
}

/// Index in what `SO_MEMINFO` answers (`SK_MEMINFO_DROPS` of `linux/sock_diag.h`), which ends with it.
const DROPS: usize = 8;

/// Datagrams that the kernel has thrown away at this socket since it is there, for want of room as a rule; 0 where it
/// does not tell.
pub fn dropped(socket: &Socket) -> u32 {
    let mut answer = [0_u32; DROPS + 1];
    let mut length = libc::socklen_t::try_from(size_of_val(&answer)).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes to `answer`, which has as many, and how many to `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            answer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { answer[DROPS] } else { 0 }
}

fn wait_writable(socket: BorrowedFd<'_>) {
    let patience = Timespec::try_from(SEND_PATIENCE).ok();
    // An error here means the same as no room: the next attempt decides.
    let _ = poll(
        &mut [PollFd::from_borrowed_fd(socket, PollFlags::OUT)],
        patience.as_ref(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(host: &str) -> (Socket, Socket, SocketAddr) {
        let any = SocketAddr::new(host.parse().unwrap(), 0);
        let (a, b) = (bind(any).unwrap(), bind(any).unwrap());
        let to = b.local_addr().unwrap().as_socket().unwrap();
        (a, b, to)
    }

    #[test]
    fn batches_arrive_whole_and_in_order_on_both_families() {
        for host in ["127.0.0.1", "::1"] {
            let (a, b, to) = pair(host);
            let bodies: Vec<Vec<u8>> = (0..BATCH)
                .map(|i| vec![u8::try_from(i).unwrap(); i + 1])
                .collect();
            let mut names = Vec::new();
            let mut outbox = Outbox::new(&mut names);
            for body in &bodies {
                outbox.push(to, body);
            }
            assert!(outbox.is_full());
            assert_eq!(outbox.send(&a).datagrams, BATCH as u64);
            let mut inbox = Inbox::new();
            assert_eq!(inbox.receive(&b).unwrap().0, BATCH);
            let from = a.local_addr().unwrap().as_socket().unwrap();
            let got: Vec<_> = inbox
                .datagrams()
                .map(|(sender, body)| (sender, body.to_vec()))
                .collect();
            assert_eq!(
                got,
                bodies.into_iter().map(|body| (from, body)).collect::<Vec<_>>()
            );
            assert_eq!(inbox.receive(&b).unwrap().0, 0);
        }
    }

    #[test]
    fn oversized_datagrams_are_counted_and_dropped() {
        let (a, b, to) = pair("127.0.0.1");
        a.send_to(&[1; MAX_DATAGRAM + 1], &to.into()).unwrap();
        a.send_to(&[2; MAX_DATAGRAM], &to.into()).unwrap();
        let mut inbox = Inbox::new();
        assert_eq!(inbox.receive(&b).unwrap().0, 2);
        assert_eq!(
            inbox.datagrams().map(|(_, body)| body.len()).collect::<Vec<_>>(),
            [MAX_DATAGRAM]
        );
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let (a, b, to) = pair("127.0.0.1");
        b.set_recv_buffer_size(4096).unwrap();
        for _ in 0..1000 {
            a.send_to(&[0; 100], &to.into()).unwrap();
        }
        let mut inbox = Inbox::new();
        let mut received = 0;
        while let (count @ 1.., _) = inbox.receive(&b).unwrap() {
            received += count;
        }
        assert!(received < 1000);
        assert_eq!(received + usize::try_from(dropped(&b)).unwrap(), 1000);
        assert_eq!(dropped(&a), 0);
    }

    #[test]
    fn a_refused_datagram_does_not_hold_up_the_others() {
        let (a, b, to) = pair("127.0.0.1");
        let mut names = Vec::new();
        let mut outbox = Outbox::new(&mut names);
        outbox.push(SocketAddr::new(to.ip(), 0), b"no port");
        outbox.push(to, b"fine");
        assert_eq!(
            outbox.send(&a),
            Sent {
                datagrams: 1,
                bytes: 4,
                lost: 1
            }
        );
        let mut inbox = Inbox::new();
        assert_eq!(inbox.receive(&b).unwrap().0, 1);
    }
}
