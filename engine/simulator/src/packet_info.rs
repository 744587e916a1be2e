//! Datagrams of a socket that has many addresses: `IP_PKTINFO` says where one came to and where one leaves from.

#![allow(
    unsafe_code,
    reason = "neither this option nor its control messages have safe wrappers; each block states why it holds"
)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::ptr;

use socket2::Socket;

/// Length of a `cmsghdr`, and of one with its `in_pktinfo`; no padding follows.
const HEAD: usize = size_of::<libc::cmsghdr>();
const LENGTH: usize = HEAD + size_of::<libc::in_pktinfo>();
const ROOM: usize = LENGTH.next_multiple_of(size_of::<usize>());

/// Room for a control message, aligned as its header wants it.
#[repr(C, align(8))]
struct Control([u8; ROOM]);

/// Asks for the address with each datagram that is received.
///
/// # Errors
/// What the system says.
pub fn ask(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int; pointer and length are those of one that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_PKTINFO,
            ptr::from_ref(&on).cast(),
            length(size_of::<libc::c_int>()),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends a datagram from one of our addresses.
///
/// # Errors
/// What the system says.
pub fn send(socket: &Socket, from: Ipv4Addr, to: SocketAddrV4, datagram: &[u8]) -> io::Result<()> {
    let mut name = name_of(to);
    let mut control = leaving(from);
    let mut part = libc::iovec {
        iov_base: datagram.as_ptr().cast_mut().cast(),
        iov_len: datagram.len(),
    };
    let header = header(&mut name, &mut part, &mut control);
    // SAFETY: `header` points to a name, an iovec and a control message that outlive the call, the iovec to a borrowed
    // datagram. The kernel only reads through them when it sends, so that one pointer comes from a shared borrow does
    // no harm.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Takes the next datagram: its length, who sent it, and our address that it came to.
///
/// # Errors
/// What the system says, also that nothing waits.
pub fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4, Option<Ipv4Addr>)> {
    let mut name = name_of(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    let mut control = Control([0; ROOM]);
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut header = header(&mut name, &mut part, &mut control);
    // SAFETY: `header` points to a name, an iovec and room for a control message that outlive the call, the iovec to a
    // unique borrow of the buffer, each with its length; the kernel writes no further.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let sender = SocketAddrV4::new(
        Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)),
        u16::from_be(name.sin_port),
    );
    Ok((received, sender, reached(&control.0)))
}

fn header(name: &mut libc::sockaddr_in, part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: `msghdr` is integers and pointers, for which all-zero bytes are a value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = ptr::from_mut(name).cast();
    header.msg_namelen = length(size_of::<libc::sockaddr_in>());
    header.msg_iov = part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = ROOM;
    header
}

fn name_of(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or(0),
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*address.ip()).to_be(),
        },
        sin_zero: [0; 8],
    }
}

fn length(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).unwrap_or(0)
}

/// The control message that lets a datagram leave from this address (`ipi_spec_dst`).
fn leaving(from: Ipv4Addr) -> Control {
    let mut control = Control([0; ROOM]);
    let length = LENGTH.to_ne_bytes();
    let fields = [
        length.as_slice(),
        &libc::IPPROTO_IP.to_ne_bytes(),
        &libc::IP_PKTINFO.to_ne_bytes(),
        &[0; 4],
        &from.octets(),
    ];
    for (to, from) in control.0.iter_mut().zip(fields.into_iter().flatten()) {
        *to = *from;
    }
    control
}

/// The address that the datagram was sent to (`ipi_addr`), out of the control message that came with it.
fn reached(control: &[u8]) -> Option<Ipv4Addr> {
    let (length, rest) = control.split_first_chunk()?;
    let (level, rest) = rest.split_first_chunk()?;
    let (kind, rest) = rest.split_first_chunk()?;
    let is_it = usize::from_ne_bytes(*length) == LENGTH
        && libc::c_int::from_ne_bytes(*level) == libc::IPPROTO_IP
        && libc::c_int::from_ne_bytes(*kind) == libc::IP_PKTINFO;
    let address: &[u8; 4] = rest.get(8..)?.first_chunk()?;
    is_it.then(|| Ipv4Addr::from(*address))
}
