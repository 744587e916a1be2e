//! The server's answer to a hello: a full handshake, or an abbreviated one for a session with a ticket of ours.

use std::sync::Arc;

use crate::alert::{Alert, Failure};
use crate::cid::ConnectionId;
use crate::config::Config;
use crate::event::{Answer, Identity, LookUp};
use crate::handshake::{Context, Core, Step};
use crate::hello::{CertificateType, ClientHello, Extensions, ServerHello};
use crate::reassembly::Message;
use crate::server_handshake::{ServerHandshake, State, draw_cid};
use crate::suite::{KeyExchange, MacOrder, Suite};
use crate::ticket::{Check, Ticket, check};
use crate::wire::{MAX_CONTENT, handshake};

impl ServerHandshake {
    pub(crate) fn hello(&mut self, message: Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        let hello = ClientHello::parse(&message.body)?;
        let extensions = &hello.extensions;
        if extensions.renegotiation_info.is_some_and(|info| !info.is_empty()) {
            return Err(Failure::new(Alert::HandshakeFailure, "renegotiation"));
        }
        let has_secret = extensions.extended_master_secret;
        if context.config.require_extended_master_secret && !has_secret {
            return Err(Failure::new(Alert::HandshakeFailure, "no-extended-master-secret"));
        }
        let Some(ticket) = ticket(&hello, context) else {
            return self.full(&message, &hello, context);
        };
        if !has_secret {
            // RFC 7627 5.3: the session had it.
            return Err(Failure::new(Alert::HandshakeFailure, "no-extended-master-secret"));
        }
        let identity = Arc::clone(&ticket.identity);
        let (is_taken, look_up) = match &*identity {
            Identity::Psk(name) => match context.handler.psk(name) {
                Answer::Known(keys) => (ticket.is_of(&keys), None),
                Answer::Unknown => (false, None),
                Answer::Later => (false, Some(LookUp::Psk(Arc::clone(&identity)))),
            },
            _ => match context.handler.peer(&identity, &[]) {
                Answer::Known(()) => (true, None),
                Answer::Unknown => (false, None),
                Answer::Later => {
                    let (identity, der) = (Arc::clone(&identity), Box::default());
                    let verified = true; // or known by itself: that was settled at the full handshake
                    (
                        false,
                        Some(LookUp::Peer {
                            identity,
                            der,
                            verified,
                        }),
                    )
                }
            },
        };
        if look_up.is_some() {
            self.core.look_up = look_up;
            self.core.pending = true;
            self.core.identity = Some(identity);
            self.resuming = Some(Box::new((message, ticket)));
            return Ok(Step::Nothing);
        }
        if is_taken {
            self.resume(&message, &hello, ticket, context)
        } else {
            self.full(&message, &hello, context)
        }
    }

    /// After the answer about the identity of a session that is to be resumed.
    pub(crate) fn resume_or_not(
        &mut self,
        (message, ticket): (Message, Ticket),
        is_taken: bool,
        context: &mut Context<'_>,
    ) -> Result<Step, Failure> {
        self.core.pending = false;
        self.core.identity = None;
        let hello = ClientHello::parse(&message.body)?;
        if is_taken {
            self.resume(&message, &hello, ticket, context)
        } else {
            self.full(&message, &hello, context)
        }
    }

    /// A full handshake: our hello and what follows it.
    fn full(
        &mut self,
        message: &Message,
        hello: &ClientHello<'_>,
        context: &mut Context<'_>,
    ) -> Result<Step, Failure> {
        let extensions = &hello.extensions;
        let types = certificate_types(context.config, extensions);
        let suites = context.config.suites.iter();
        let core = &mut self.core;
        let suite = suites
            .copied()
            .find(|suite| hello.offers(*suite) && is_possible(*suite, extensions, types))
            .ok_or(Failure::new(Alert::HandshakeFailure, "no-common-suite"))?;
        core.suite = suite;
        // RFC 7366 2: in suites with a MAC only.
        let encrypt_then_mac = suite.is_cbc() && extensions.encrypt_then_mac;
        if encrypt_then_mac {
            core.mac_order = MacOrder::EncryptThenMac;
        }
        let exchange = suite.key_exchange();
        let (address, now) = (core.address, context.now);
        if let Some(budget) = context.budget.as_deref_mut().filter(|_| exchange.has_ecdhe())
            && !budget.take(address, context.config, now)
        {
            return Ok(Step::Shed);
        }
        let with_certificates = exchange == KeyExchange::EcdheEcdsa;
        let types = types.filter(|_| with_certificates);
        if !with_certificates {
            core.transcript.has_no_signature();
        }
        let echo = |wanted: Option<&[u8]>, kind: Option<CertificateType>| {
            wanted.and(kind).map(|kind| vec![kind as u8])
        };
        let client_type = echo(extensions.client_certificate_type, types.map(|types| types.0));
        let server_type = echo(extensions.server_certificate_type, types.map(|types| types.1));
        self.terms = extensions
            .session_ticket
            .filter(|_| context.config.ticket_lifetime.is_some() && extensions.extended_master_secret)
            .filter(|_| !suite.is_cbc())
            .map(|_| terms(extensions));
        let special = Extensions {
            encrypt_then_mac,
            session_ticket: self.terms.map(|_| [].as_slice()),
            ec_point_formats: (exchange.has_ecdhe() && extensions.ec_point_formats.is_some()).then_some(&[0]),
            client_certificate_type: client_type.as_deref(),
            server_certificate_type: server_type.as_deref(),
            ..Extensions::default()
        };
        self.answer(message, hello, &[], special, context)?;
        self.client_type = types.map_or(CertificateType::X509, |types| types.0);
        self.key_exchange(types.map(|types| types.1), context)?;
        self.core.say(handshake::SERVER_HELLO_DONE, Vec::new());
        self.core.send(context, true);
        self.state = if with_certificates {
            State::Certificate
        } else {
            State::KeyExchange
        };
        Ok(Step::Nothing)
    }

    /// An abbreviated handshake (RFC 5246 7.3): our hello, `ChangeCipherSpec` and Finished. The client keeps its ticket,
    /// whose end stays.
    fn resume(
        &mut self,
        message: &Message,
        hello: &ClientHello<'_>,
        ticket: Ticket,
        context: &mut Context<'_>,
    ) -> Result<Step, Failure> {
        self.core.suite = ticket.suite;
        self.core.transcript.has_no_signature();
        // RFC 5077 3.4: the session id that came with the ticket tells that it was taken.
        self.answer(
            message,
            hello,
            hello.start.session_id,
            Extensions::default(),
            context,
        )?;
        self.core.resume(ticket.master);
        self.core.identity = Some(ticket.identity);
        let prf = self.core.prf()?;
        self.core.finish(&prf);
        self.core.send(context, true);
        self.state = State::Finished;
        Ok(Step::Nothing)
    }

    /// Our hello, with what both kinds of handshake negotiate.
    fn answer(
        &mut self,
        message: &Message,
        hello: &ClientHello<'_>,
        session_id: &[u8],
        special: Extensions<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let core = &mut self.core;
        let extensions = &hello.extensions;
        core.client_random = *hello.start.random;
        core.server_random = context.random.array().ok_or(Alert::InternalError)?;
        core.has_extended_master_secret = extensions.extended_master_secret;
        let limit = extensions.limit()?;
        core.flight.limit = limit.unwrap_or(MAX_CONTENT);
        let is_mfl = extensions.record_size_limit.is_none();
        core.receive_limit = limit.filter(|_| is_mfl).unwrap_or(MAX_CONTENT);
        let has_cid = negotiate_cid(core, extensions.connection_id, context)?;
        core.note(message.kind, message.seq, &message.body);
        let own_cid = core.own_cid;
        let answer = ServerHello {
            random: &core.server_random,
            session_id,
            suite: None,
            extensions: Extensions {
                extended_master_secret: extensions.extended_master_secret,
                renegotiation_info: (hello.has_scsv() || extensions.renegotiation_info.is_some())
                    .then_some(&[]),
                connection_id: has_cid.then_some(own_cid.as_bytes()),
                max_fragment_length: extensions.max_fragment_length.filter(|_| is_mfl),
                record_size_limit: extensions.record_size_limit.map(|_| 1 << 14),
                ..special
            },
        };
        let answer = answer.encode(core.suite);
        core.say(handshake::SERVER_HELLO, answer);
        Ok(())
    }
}

/// Certificate types of client and server, the client's preference first; `None` when there is no common pair.
fn certificate_types(
    config: &Config,
    extensions: &Extensions<'_>,
) -> Option<(CertificateType, CertificateType)> {
    let pick = |offered: Option<&[u8]>, x509: bool, raw: bool| {
        let has = |kind: CertificateType| match kind {
            CertificateType::X509 => x509,
            CertificateType::RawPublicKey => raw,
        };
        let kinds = offered.unwrap_or(&[0]).iter();
        kinds
            .filter_map(|code| CertificateType::from_code(*code))
            .find(|kind| has(*kind))
    };
    let client = pick(
        extensions.client_certificate_type,
        !config.trust.is_empty() || config.accept_pinned_certificates,
        config.accept_raw_public_keys,
    )?;
    let server = pick(
        extensions.server_certificate_type,
        config.certificate.is_some(),
        config.raw_public_key.is_some(),
    )?;
    Some((client, server))
}

fn is_possible(
    suite: Suite,
    extensions: &Extensions<'_>,
    types: Option<(CertificateType, CertificateType)>,
) -> bool {
    match suite.key_exchange() {
        KeyExchange::Psk => true,
        KeyExchange::EcdhePsk => extensions.has_group(),
        KeyExchange::EcdheEcdsa => {
            types.is_some() && extensions.has_group() && extensions.has_signature_algorithm()
        }
    }
}

/// Each side states the id that it wants to receive (RFC 9146 3). One that is too long for us is as none.
fn negotiate_cid(
    core: &mut Core,
    offered: Option<&[u8]>,
    context: &mut Context<'_>,
) -> Result<bool, Failure> {
    let peer = offered.and_then(ConnectionId::new);
    let (Some(peer), Some(_)) = (peer, context.config.connection_ids) else {
        return Ok(false);
    };
    core.peer_cid = peer;
    core.own_cid = draw_cid(context)?;
    Ok(true)
}

/// What must be the same in the hello that resumes: the server name (RFC 6066 3) and the fragment length (RFC 6066 4).
fn terms(extensions: &Extensions<'_>) -> Check {
    let length = extensions.max_fragment_length.unwrap_or_default();
    check(&[&[length], extensions.server_name.unwrap_or_default()].concat())
}

/// The session that a hello asks for, if it is to be had: the ticket is ours, of the present settings, and has not come
/// to its end, its suite is offered (RFC 5246 7.4.1.2), and the terms are the same. Otherwise a full handshake follows.
fn ticket(hello: &ClientHello<'_>, context: &mut Context<'_>) -> Option<Ticket> {
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
    let is_possible = hello.offers(ticket.suite) && ticket.terms == terms(&hello.extensions);
    is_possible.then_some(ticket)
}
