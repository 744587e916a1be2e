//! The server's side of a handshake, from the hello that carried a valid cookie.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coap::Instant;
use zeroize::Zeroizing;

use crate::alert::{Alert, Failure};
use crate::certificate::{self, PeerKey};
use crate::cid::ConnectionId;
use crate::config::Config;
use crate::event::{Answer, Identity, LookUp, PskKeys, Role};
use crate::handshake::{Context, Core, Kind, Machine, Step};
use crate::hello::{CertificateType, ClientHello, Extensions, ServerHello};
use crate::keys::Ephemeral;
use crate::message::{
    ClientKeyExchange, EcdheParams, encode_certificate_request, encode_chain, encode_new_session_ticket,
    encode_raw_public_key, parse_certificate_verify, parse_chain, parse_raw_public_key, put_signature,
};
use crate::prf::{psk_premaster, sha256};
use crate::reassembly::Message;
use crate::resumption;
use crate::suite::{KeyExchange, Suite};
use crate::ticket::{Check, Ticket, check};
use crate::wire::{MAX_CONTENT, handshake, put_u16};

/// The message that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Hello,
    Certificate,
    KeyExchange,
    CertificateVerify,
    Finished,
    Done,
}

#[derive(Debug)]
pub(crate) struct ServerHandshake {
    pub(crate) core: Core,
    state: State,
    client_type: CertificateType,
    /// The ECDH secret while the pre-shared key is looked up.
    shared: Option<Zeroizing<[u8; 32]>>,
    /// The hello and its ticket while the identity is looked up.
    resuming: Option<Box<(Message, Ticket)>>,
    /// A ticket has been promised, for a session on these terms.
    terms: Option<Check>,
    /// Of the present and the former pre-shared key.
    key_checks: [Check; 2],
    /// What is left of the validity of the client's certificates.
    valid_for: Duration,
    /// The random of the hello that began it.
    pub(crate) begun_by: [u8; 32],
}

impl ServerHandshake {
    /// `seq` and `record` number the hello: our first message and record take the same numbers (RFC 6347 4.2.1).
    pub(crate) fn new(
        address: SocketAddr,
        begun_by: [u8; 32],
        seq: u16,
        record: u64,
        config: &Config,
        now: Instant,
    ) -> Self {
        let mut core = Core::new(Role::Server, address, seq, config, now);
        core.flight.next_seq = seq;
        core.flight.record_seq = record;
        Self {
            core,
            state: State::Hello,
            client_type: CertificateType::X509,
            shared: None,
            resuming: None,
            terms: None,
            key_checks: [[0; 16]; 2],
            valid_for: Duration::MAX,
            begun_by,
        }
    }

    fn hello(&mut self, message: Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        let hello = ClientHello::parse(&message.body)?;
        let extensions = &hello.extensions;
        if extensions.renegotiation_info.is_some_and(|info| !info.is_empty()) {
            return Err(Failure::new(Alert::HandshakeFailure, "renegotiation"));
        }
        let has_secret = extensions.extended_master_secret;
        if context.config.require_extended_master_secret && !has_secret {
            return Err(Failure::new(Alert::HandshakeFailure, "no-extended-master-secret"));
        }
        let Some(ticket) = resumption::ticket(&hello, context) else {
            return self.full(&message, &hello, context);
        };
        if !has_secret {
            // RFC 7627 5.3: the session had it.
            return Err(Failure::new(Alert::HandshakeFailure, "no-extended-master-secret"));
        }
        let identity = Arc::new(ticket.identity.clone());
        let (is_taken, look_up) = match &*identity {
            Identity::Psk(name) => match context.handler.psk(name) {
                Answer::Known(keys) => (ticket.is_of(&keys), None),
                Answer::Unknown => (false, None),
                Answer::Later => (false, Some(LookUp::Psk(name.clone()))),
            },
            _ => match context.handler.peer(&identity, &[]) {
                Answer::Known(()) => (true, None),
                Answer::Unknown => (false, None),
                Answer::Later => {
                    let (identity, der) = (Arc::clone(&identity), Box::default());
                    (false, Some(LookUp::Peer { identity, der }))
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
    fn resume_or_not(
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
        core.suite = suites
            .copied()
            .find(|suite| hello.offers(*suite) && is_possible(*suite, extensions, types))
            .ok_or(Failure::new(Alert::HandshakeFailure, "no-common-suite"))?;
        let exchange = core.suite.key_exchange();
        let (address, now) = (core.address, context.now);
        if let Some(budget) = context.budget.as_deref_mut().filter(|_| exchange.has_ecdhe())
            && !budget.take(address, context.config, now)
        {
            return Ok(Step::Shed);
        }
        let with_certificates = exchange == KeyExchange::EcdheEcdsa;
        let types = types.filter(|_| with_certificates);
        let echo = |wanted: Option<&[u8]>, kind: Option<CertificateType>| {
            wanted.and(kind).map(|kind| vec![kind as u8])
        };
        let client_type = echo(extensions.client_certificate_type, types.map(|types| types.0));
        let server_type = echo(extensions.server_certificate_type, types.map(|types| types.1));
        self.terms = extensions
            .session_ticket
            .filter(|_| context.config.ticket_lifetime.is_some() && extensions.extended_master_secret)
            .map(|_| resumption::terms(extensions));
        let special = Extensions {
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
        // RFC 5077 3.4: the session id that came with the ticket tells that it was taken.
        self.answer(
            message,
            hello,
            hello.start.session_id,
            Extensions::default(),
            context,
        )?;
        self.core.resume(ticket.master);
        self.core.identity = Some(Arc::new(ticket.identity));
        self.core.finish()?;
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

    /// `Certificate`, `ServerKeyExchange` and `CertificateRequest`, as far as the suite has them.
    fn key_exchange(
        &mut self,
        own_type: Option<CertificateType>,
        context: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let core = &mut self.core;
        let exchange = core.suite.key_exchange();
        if !exchange.has_ecdhe() {
            return Ok(());
        }
        let ephemeral = Ephemeral::generate().ok_or(Alert::InternalError)?;
        let params = EcdheParams::encode(&ephemeral.point);
        core.ephemeral = Some(ephemeral);
        if exchange == KeyExchange::EcdhePsk {
            // The hint is empty.
            let mut body = Vec::new();
            put_u16(&mut body, 0);
            body.extend_from_slice(&params);
            core.say(handshake::SERVER_KEY_EXCHANGE, body);
            return Ok(());
        }
        let (body, key) = match (
            own_type,
            &context.config.raw_public_key,
            &context.config.certificate,
        ) {
            (Some(CertificateType::RawPublicKey), Some(key), _) => {
                (encode_raw_public_key(key.public_key()), &**key)
            }
            (_, _, Some(certified)) => (encode_chain(&certified.chain), &certified.key),
            _ => return Err(Alert::InternalError.into()),
        };
        core.say(handshake::CERTIFICATE, body);
        let signed = [
            core.client_random.as_slice(),
            core.server_random.as_slice(),
            &params,
        ]
        .concat();
        let signature = key.sign(&signed).ok_or(Alert::InternalError)?;
        let mut body = params;
        put_signature(&mut body, &signature);
        core.say(handshake::SERVER_KEY_EXCHANGE, body);
        core.say(handshake::CERTIFICATE_REQUEST, encode_certificate_request());
        Ok(())
    }

    fn certificate(&mut self, message: &Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        let missing = Failure::new(Alert::HandshakeFailure, "no-client-certificate");
        let (key, identity) = match self.client_type {
            CertificateType::X509 => {
                let chain = parse_chain(&message.body)?;
                let end_entity = chain.first().ok_or(missing)?.to_vec();
                let time = context.handler.unix_time();
                let trust = &context.config.trust;
                let identity = trust.verify(&chain, time, Role::Client, None)?;
                self.valid_for = certificate::valid_for(&chain, time);
                (PeerKey::Certificate(end_entity), identity)
            }
            CertificateType::RawPublicKey => {
                let spki = parse_raw_public_key(&message.body)?;
                if spki.is_empty() {
                    return Err(missing);
                }
                (PeerKey::raw(spki)?, Identity::RawPublicKey(sha256(spki)))
            }
        };
        let identity = Arc::new(identity);
        let answer = context.handler.peer(&identity, key.der());
        let der = Box::from(key.der());
        self.core.identity = Some(Arc::clone(&identity));
        self.core.peer_key = Some(key);
        self.core.note(message.kind, message.seq, &message.body);
        self.state = State::KeyExchange;
        match answer {
            Answer::Known(()) => Ok(Step::Nothing),
            Answer::Unknown => Err(refused()),
            Answer::Later => {
                self.core.pending = true;
                self.core.look_up = Some(LookUp::Peer { identity, der });
                Ok(Step::Nothing)
            }
        }
    }

    fn client_key_exchange(&mut self, message: &Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        let exchange = self.core.suite.key_exchange();
        let parsed = ClientKeyExchange::parse(&message.body, exchange.has_psk(), exchange.has_ecdhe())?;
        self.core.note(message.kind, message.seq, &message.body);
        let shared = match parsed.point {
            Some(point) => {
                let ephemeral = self.core.ephemeral.take().ok_or(Alert::InternalError)?;
                Some(ephemeral.agree(point).ok_or(Alert::IllegalParameter)?)
            }
            None => None,
        };
        let Some(identity) = parsed.identity else {
            let shared = shared.ok_or(Alert::InternalError)?;
            self.core.derive(shared.as_slice());
            self.state = State::CertificateVerify;
            return Ok(Step::Nothing);
        };
        self.state = State::Finished;
        self.shared = shared;
        self.core.identity = Some(Arc::new(Identity::Psk(Box::from(identity))));
        match context.handler.psk(identity) {
            Answer::Known(keys) => self.set_psk(Some(&keys), context),
            Answer::Unknown => self.set_psk(None, context),
            Answer::Later => {
                self.core.pending = true;
                self.core.look_up = Some(LookUp::Psk(Box::from(identity)));
                Ok(Step::Nothing)
            }
        }
    }

    /// The keys of the identity. An unknown one goes on with a random key: on the wire that looks like a wrong key.
    pub(crate) fn set_psk(
        &mut self,
        keys: Option<&PskKeys>,
        context: &mut Context<'_>,
    ) -> Result<Step, Failure> {
        if let Some(resuming) = self.resuming.take() {
            let is_taken = keys.is_some_and(|keys| resuming.1.is_of(keys));
            return self.resume_or_not(*resuming, is_taken, context);
        }
        let random = Zeroizing::new(context.random.array::<16>().ok_or(Alert::InternalError)?);
        if keys.is_none() {
            self.core.hint = Some("unknown-identity");
        }
        let current = keys.map_or(random.as_slice(), |keys| keys.current.as_slice());
        let shared = self.shared.take();
        let shared = shared.as_ref().map(|shared| shared.as_slice());
        self.core.derive(&psk_premaster(shared, current));
        if let Some(former) = keys.and_then(|keys| keys.former.as_ref()) {
            self.core.derive_former(&psk_premaster(shared, former));
        }
        if let Some(keys) = keys.filter(|_| self.terms.is_some()) {
            self.key_checks =
                [Some(&keys.current), keys.former.as_ref()].map(|key| key.map_or([0; 16], |key| check(key)));
        }
        self.core.pending = false;
        Ok(Step::Nothing)
    }

    /// The caller takes the peer or not.
    pub(crate) fn set_verdict(&mut self, is_taken: bool, context: &mut Context<'_>) -> Result<Step, Failure> {
        if let Some(resuming) = self.resuming.take() {
            return self.resume_or_not(*resuming, is_taken, context);
        }
        self.core.pending = false;
        if is_taken {
            Ok(Step::Nothing)
        } else {
            Err(refused())
        }
    }

    fn finished(&mut self, message: &Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        self.core.check_finished(message, context)?;
        self.core.flight.begin(context.config);
        self.state = State::Done;
        if self.core.kind == Kind::Abbreviated {
            return Ok(Step::Done);
        }
        if let Some(terms) = self.terms {
            let ticket = self.ticket(terms, context).unwrap_or_default();
            self.core.say(handshake::NEW_SESSION_TICKET, ticket);
        }
        self.core.finish()?;
        self.core.send(context, false);
        Ok(Step::Done)
    }

    /// The body of a `NewSessionTicket`. What was promised has to come, if empty (RFC 5077 3.3).
    fn ticket(&self, terms: Check, context: &mut Context<'_>) -> Result<Vec<u8>, Failure> {
        let lifetime = context.config.ticket_lifetime.unwrap_or_default();
        let good_for = lifetime.min(self.valid_for);
        let master = self.core.master.clone().ok_or(Alert::InternalError)?;
        let identity = self.core.identity.as_deref().ok_or(Alert::InternalError)?;
        let ticket = Ticket {
            suite: self.core.suite,
            master,
            identity: identity.clone(),
            key: self.key_checks[usize::from(self.core.has_former())],
            terms,
            end: context.now + good_for,
        };
        let (random, now) = (&mut *context.random, context.now);
        let sealed = context
            .tickets
            .as_deref_mut()
            .and_then(|tickets| tickets.seal(&ticket, random, lifetime, now));
        let seconds = u32::try_from(good_for.as_secs()).unwrap_or(u32::MAX);
        Ok(encode_new_session_ticket(seconds, &sealed.unwrap_or_default()))
    }

    pub(crate) fn is_waiting_for_psk(&self) -> bool {
        let resumes = self.resuming.as_deref().map(|(_, ticket)| &ticket.identity);
        resumes.map_or(
            self.core.pending && self.state == State::Finished && self.core.keys.is_none(),
            |identity| matches!(identity, Identity::Psk(_)),
        )
    }
}

fn refused() -> Failure {
    Failure::new(Alert::CertificateUnknown, "unknown-peer")
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
        !config.trust.is_empty(),
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

/// A connection id for records to us.
pub(crate) fn draw_cid(context: &mut Context<'_>) -> Result<ConnectionId, Failure> {
    let mut bytes = context
        .random
        .array::<{ crate::cid::MAX_CID }>()
        .ok_or(Alert::InternalError)?;
    if let (Some(first), Some(node)) = (
        bytes.first_mut(),
        context.config.connection_ids.and_then(|ids| ids.node),
    ) {
        *first = node;
    }
    let length = context.config.cid_length();
    let cid = bytes.get(..length).and_then(ConnectionId::new);
    Ok(cid.unwrap_or_default())
}

impl Machine for ServerHandshake {
    fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    fn takes_change(&self) -> bool {
        self.state == State::Finished
    }

    fn message(&mut self, message: Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        if self.state != State::Hello && self.state != State::Finished {
            // The client answers our flight.
            self.core.flight.begin(context.config);
        }
        match (self.state, message.kind) {
            (State::Hello, handshake::CLIENT_HELLO) if self.resuming.is_none() => {
                self.hello(message, context)
            }
            (State::Certificate, handshake::CERTIFICATE) => self.certificate(&message, context),
            (State::KeyExchange, handshake::CLIENT_KEY_EXCHANGE) => {
                self.client_key_exchange(&message, context)
            }
            (State::CertificateVerify, handshake::CERTIFICATE_VERIFY) => {
                let signature = parse_certificate_verify(&message.body)?;
                let key = self.core.peer_key.take().ok_or(Alert::InternalError)?;
                key.verify(&self.core.transcript, signature)?;
                self.core.note(message.kind, message.seq, &message.body);
                self.state = State::Finished;
                Ok(Step::Nothing)
            }
            (State::Finished, handshake::FINISHED) => self.finished(&message, context),
            _ => Err(Alert::UnexpectedMessage.into()),
        }
    }
}
