//! Which hello resumes a session, on the server's side.

use crate::handshake::Context;
use crate::hello::{ClientHello, Extensions};
use crate::ticket::{Check, Ticket, check};

/// What must be the same in the hello that resumes: the server name (RFC 6066 3) and the fragment length (RFC 6066 4).
pub(crate) fn terms(extensions: &Extensions<'_>) -> Check {
    let length = extensions.max_fragment_length.unwrap_or_default();
    check(&[&[length], extensions.server_name.unwrap_or_default()].concat())
}

/// The session that a hello asks for, if it is to be had: the ticket is ours and has not come to its end, its suite is
/// offered (RFC 5246 7.4.1.2) and still taken, and the terms are the same. Otherwise a full handshake follows.
pub(crate) fn ticket(hello: &ClientHello<'_>, context: &mut Context<'_>) -> Option<Ticket> {
    let config = context.config;
    let sealed = hello
        .extensions
        .session_ticket
        .filter(|ticket| !ticket.is_empty())?;
    if hello.start.session_id.is_empty() {
        // The client would have to guess from what follows (RFC 5077 3.4).
        return None;
    }
    let (random, now) = (&mut *context.random, context.now);
    let tickets = context.tickets.as_deref_mut()?;
    let ticket = tickets.open(sealed, random, config.ticket_lifetime?, now)?;
    let is_possible = hello.offers(ticket.suite)
        && config.suites.contains(&ticket.suite)
        && ticket.terms == terms(&hello.extensions);
    is_possible.then_some(ticket)
}
