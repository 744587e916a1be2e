//! The client's side of a handshake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coap::Instant;
use zeroize::Zeroizing;

use crate::alert::{Alert, Failure};
use crate::certificate::{self, PeerKey};
use crate::cid::ConnectionId;
use crate::config::Config;
use crate::event::{Answer, Identity, Role};
use crate::handshake::{Context, Core, Kind, Machine, Step};
use crate::hello::{CertificateType, Offer, ServerHello, parse_hello_verify_request};
use crate::keys::{Ephemeral, SigningKey};
use crate::message::{
    ClientKeyExchange, EcdheParams, encode_chain, encode_raw_public_key, parse_certificate_request,
    parse_chain, parse_hint, parse_new_session_ticket, parse_raw_public_key, put_signature,
};
use crate::prf::{psk_premaster, sha256};
use crate::reassembly::Message;
use crate::server_handshake::draw_cid;
use crate::suite::{KeyExchange, MacOrder, Suite};
use crate::ticket::{MAX_KEPT, Resumable};
use crate::transcript::Transcript;
use crate::wire::{MAX_CONTENT, handshake};

/// Cookies that are taken before giving up: a server may have changed its secret meanwhile.
const MAX_COOKIES: u32 = 3;

/// The message that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Hello,
    Certificate,
    /// `ServerKeyExchange`; without ECDHE also what comes after it.
    KeyExchange,
    /// `CertificateRequest` or what comes after it.
    CertificateRequest,
    HelloDone,
    /// `NewSessionTicket`, which the server's hello has promised.
    Ticket,
    Finished,
    Done,
}

#[derive(Debug)]
pub(crate) struct ClientHandshake {
    pub(crate) core: Core,
    state: State,
    suites: Vec<Suite>,
    cookies: u32,
    server_type: CertificateType,
    client_type: CertificateType,
    /// The server's ephemeral point.
    point: Vec<u8>,
    certificate_requested: bool,
    /// The session that is to be resumed, and the session id that tells whether it is (RFC 5077 3.4).
    resuming: Option<(Resumable, [u8; 16])>,
    /// The server's hello has promised a ticket.
    ticket_promised: bool,
    /// Lifetime and ticket.
    ticket: Option<(Duration, Vec<u8>)>,
    /// What is left of the validity of the server's certificates.
    valid_for: Duration,
}

impl ClientHandshake {
    /// Sends the first hello.
    pub(crate) fn start(
        address: SocketAddr,
        resumable: Option<Resumable>,
        context: &mut Context<'_>,
    ) -> Result<Self, Failure> {
        let config = context.config;
        let mut core = Core::new(Role::Client, address, 0, config, context.now);
        core.client_random = context.random.array().ok_or(Alert::InternalError)?;
        if config.connection_ids.is_some() {
            core.own_cid = draw_cid(context)?;
        }
        let has_trust = !config.trust.is_empty() || config.accept_raw_public_keys;
        let suites = config.suites.iter().copied().filter(|suite| {
            if suite.key_exchange().has_psk() {
                config.psk.is_some()
            } else {
                has_trust
            }
        });
        let suites: Vec<_> = suites.collect();
        if suites.is_empty() {
            return Err(Failure::new(Alert::InternalError, "no-credentials"));
        }
        let now = context.now;
        let resumable = resumable.filter(|session| {
            let is_good = session.server == address && now < session.end;
            is_good && suites.contains(&session.suite) && is_taken(&session.identity, context)
        });
        let session_id = context.random.array::<16>().ok_or(Alert::InternalError)?;
        let mut client = Self {
            core,
            state: State::Hello,
            suites,
            cookies: 0,
            server_type: CertificateType::X509,
            client_type: CertificateType::X509,
            point: Vec::new(),
            certificate_requested: false,
            resuming: resumable.map(|session| (session, session_id)),
            ticket_promised: false,
            ticket: None,
            valid_for: Duration::MAX,
        };
        client.hello(&[], context);
        Ok(client)
    }

    fn hello(&mut self, cookie: &[u8], context: &mut Context<'_>) {
        let config = context.config;
        let (x509, raw) = (CertificateType::X509, CertificateType::RawPublicKey);
        let types = |has_x509: bool, has_raw: bool| {
            let raw = has_raw.then_some(raw);
            let x509 = has_x509.then_some(x509);
            raw.into_iter().chain(x509).collect::<Vec<_>>()
        };
        let (session_id, ticket) = match &self.resuming {
            Some((session, id)) => (id.as_slice(), session.ticket.as_slice()),
            None => ([].as_slice(), [].as_slice()),
        };
        let offer = Offer {
            random: &self.core.client_random,
            session_id,
            cookie,
            suites: &self.suites,
            session_ticket: config.ticket_lifetime.map(|_| ticket),
            connection_id: config.connection_ids.map(|_| self.core.own_cid.as_bytes()),
            max_fragment_length: fragment_length_code(config),
            server_name: config.server_name.as_deref(),
            client_types: &types(config.certificate.is_some(), config.raw_public_key.is_some()),
            server_types: &types(!config.trust.is_empty(), config.accept_raw_public_keys),
        };
        let body = offer.encode();
        // The hello without a cookie and its answer are not part of the transcript.
        self.core.transcript = Transcript::new();
        self.core.flight.begin(config);
        self.core.say(handshake::CLIENT_HELLO, body);
        self.core.send(context, true);
    }

    fn verify_request(&mut self, message: &Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        let cookie = parse_hello_verify_request(&message.body)?;
        self.cookies += 1;
        if self.cookies > MAX_COOKIES {
            return Err(Failure::new(Alert::HandshakeFailure, "too-many-cookies"));
        }
        self.hello(cookie, context);
        Ok(Step::Nothing)
    }

    fn server_hello(&mut self, message: &Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        let config = context.config;
        let hello = ServerHello::parse(&message.body)?;
        let extensions = &hello.extensions;
        let offered = |suite: &Suite| self.suites.contains(suite);
        self.core.suite = hello.suite.filter(offered).ok_or(Alert::IllegalParameter)?;
        self.core.server_random = *hello.random;
        self.core.has_extended_master_secret = extensions.extended_master_secret;
        if config.require_extended_master_secret && !extensions.extended_master_secret {
            return Err(Failure::new(Alert::HandshakeFailure, "no-extended-master-secret"));
        }
        let unasked = extensions.has_unknown
            || extensions.record_size_limit.is_some()
            || extensions.encrypt_then_mac && !self.core.suite.is_cbc()
            || extensions.session_ticket.is_some() && config.ticket_lifetime.is_none()
            || extensions.connection_id.is_some() && config.connection_ids.is_none()
            || extensions.max_fragment_length.is_some() && fragment_length_code(config).is_none();
        if unasked {
            return Err(Alert::UnsupportedExtension.into());
        }
        if extensions.renegotiation_info.is_some_and(|info| !info.is_empty()) {
            return Err(Failure::new(Alert::HandshakeFailure, "renegotiation"));
        }
        if extensions.max_fragment_length.is_some() {
            if extensions.max_fragment_length != fragment_length_code(config) {
                return Err(Alert::IllegalParameter.into());
            }
            let limit = extensions.limit()?.unwrap_or(MAX_CONTENT);
            self.core.flight.limit = limit;
            self.core.receive_limit = limit;
        }
        if let Some(cid) = extensions.connection_id {
            self.core.peer_cid = ConnectionId::new(cid).ok_or(Alert::IllegalParameter)?;
        } else {
            self.core.own_cid = ConnectionId::default();
        }
        if extensions.encrypt_then_mac {
            self.core.mac_order = MacOrder::EncryptThenMac;
        }
        self.ticket_promised = extensions.session_ticket.is_some();
        let resuming = self.resuming.take();
        if let Some((session, _)) = resuming.filter(|(_, id)| *id == *hello.session_id) {
            if hello.suite != Some(session.suite) {
                return Err(Alert::IllegalParameter.into());
            }
            if !extensions.extended_master_secret {
                // RFC 7627 5.3: the session had it.
                return Err(Failure::new(Alert::HandshakeFailure, "no-extended-master-secret"));
            }
            self.core.note(message.kind, message.seq, &message.body);
            self.core.identity = Some(session.identity);
            self.core.resume(session.master);
            self.ticket = Some((session.end.since(context.now), session.ticket));
            self.state = self.before_finished();
            return Ok(Step::Nothing);
        }
        let kind = |chosen: Option<&[u8]>| match chosen {
            None => Ok(CertificateType::X509),
            Some(codes) => codes
                .first()
                .and_then(|code| CertificateType::from_code(*code))
                .ok_or(Failure::from(Alert::UnsupportedCertificate)),
        };
        self.server_type = kind(extensions.server_certificate_type)?;
        self.client_type = kind(extensions.client_certificate_type)?;
        let exchange = self.core.suite.key_exchange();
        if exchange != KeyExchange::EcdheEcdsa {
            self.core.transcript.has_no_signature();
        }
        self.core.note(message.kind, message.seq, &message.body);
        self.state = match exchange {
            KeyExchange::EcdheEcdsa => State::Certificate,
            KeyExchange::Psk | KeyExchange::EcdhePsk => State::KeyExchange,
        };
        Ok(Step::Nothing)
    }

    fn certificate(&mut self, message: &Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        let config = context.config;
        let (key, identity) = match self.server_type {
            CertificateType::X509 => {
                let chain = parse_chain(&message.body)?;
                let time = context.handler.unix_time();
                let name = config.server_name.as_deref();
                let identity = config.trust.verify(&chain, time, Role::Server, name)?;
                self.valid_for = certificate::valid_for(&chain, time);
                let end_entity = chain.first().copied().unwrap_or_default();
                (PeerKey::Certificate(end_entity.to_vec()), identity)
            }
            CertificateType::RawPublicKey if config.accept_raw_public_keys => {
                let spki = parse_raw_public_key(&message.body)?;
                (PeerKey::raw(spki)?, Identity::RawPublicKey(sha256(spki)))
            }
            CertificateType::RawPublicKey => return Err(Alert::UnsupportedCertificate.into()),
        };
        if context.handler.peer(&identity, key.der()) != Answer::Known(()) {
            return Err(Failure::new(Alert::CertificateUnknown, "unknown-peer"));
        }
        self.core.identity = Some(Arc::new(identity));
        self.core.peer_key = Some(key);
        self.core.note(message.kind, message.seq, &message.body);
        self.state = State::KeyExchange;
        Ok(Step::Nothing)
    }

    fn server_key_exchange(&mut self, message: &Message) -> Result<Step, Failure> {
        let exchange = self.core.suite.key_exchange();
        match exchange {
            KeyExchange::Psk => {
                parse_hint(&message.body)?;
            }
            KeyExchange::EcdhePsk => {
                self.point = EcdheParams::parse_hinted(&message.body)?.point.to_vec();
            }
            KeyExchange::EcdheEcdsa => {
                let (params, signature) = EcdheParams::parse_signed(&message.body)?;
                let core = &self.core;
                let signed = [
                    core.client_random.as_slice(),
                    core.server_random.as_slice(),
                    params.params,
                ]
                .concat();
                let key = core.peer_key.as_ref().ok_or(Alert::InternalError)?;
                key.verify(&signed, signature)?;
                self.point = params.point.to_vec();
            }
        }
        self.core.note(message.kind, message.seq, &message.body);
        self.state = if exchange == KeyExchange::EcdheEcdsa {
            State::CertificateRequest
        } else {
            State::HelloDone
        };
        Ok(Step::Nothing)
    }

    fn hello_done(&mut self, message: &Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        if !message.body.is_empty() {
            return Err(Alert::DecodeError.into());
        }
        self.core.note(message.kind, message.seq, &message.body);
        self.core.flight.begin(context.config);
        let config = context.config;
        let exchange = self.core.suite.key_exchange();
        let mut signing: Option<&SigningKey> = None;
        if self.certificate_requested {
            let body = match (self.client_type, &config.certificate, &config.raw_public_key) {
                (CertificateType::X509, Some(certified), _) => {
                    signing = Some(&certified.key);
                    encode_chain(&certified.chain)
                }
                (CertificateType::RawPublicKey, _, Some(key)) => {
                    signing = Some(key);
                    encode_raw_public_key(key.public_key())
                }
                _ => encode_chain(&[]),
            };
            self.core.say(handshake::CERTIFICATE, body);
        }
        let mut shared = None;
        let mut own_point = None;
        if exchange.has_ecdhe() {
            let ephemeral = Ephemeral::generate().ok_or(Alert::InternalError)?;
            own_point = Some(ephemeral.point);
            shared = Some(ephemeral.agree(&self.point).ok_or(Alert::IllegalParameter)?);
        }
        let psk = config.psk.as_ref().filter(|_| exchange.has_psk());
        let body = ClientKeyExchange {
            identity: psk.map(|psk| psk.identity.as_slice()),
            point: own_point.as_ref().map(<[u8; 65]>::as_slice),
        };
        self.core.say(handshake::CLIENT_KEY_EXCHANGE, body.encode());
        let shared = shared.as_ref().map(|shared| shared.as_slice());
        let premaster = match psk {
            Some(psk) => {
                // Nothing else proves the server's identity than that it knows the key.
                self.core.identity = Some(Arc::new(Identity::Psk(psk.identity.as_slice().into())));
                psk_premaster(shared, &psk.key)
            }
            None => Zeroizing::new(shared.ok_or(Alert::InternalError)?.to_vec()),
        };
        self.core.derive(&premaster);
        if let Some(key) = signing {
            let signed = self.core.transcript.messages().ok_or(Alert::InternalError)?;
            let signature = key.sign(signed).ok_or(Alert::InternalError)?;
            let mut body = Vec::new();
            put_signature(&mut body, &signature);
            self.core.say(handshake::CERTIFICATE_VERIFY, body);
        }
        let prf = self.core.prf()?;
        self.core.finish(&prf);
        self.core.send(context, true);
        self.state = self.before_finished();
        Ok(Step::Nothing)
    }

    fn before_finished(&self) -> State {
        if self.ticket_promised {
            State::Ticket
        } else {
            State::Finished
        }
    }

    fn new_session_ticket(&mut self, message: &Message, context: &Context<'_>) -> Result<Step, Failure> {
        let (seconds, ticket) = parse_new_session_ticket(&message.body)?;
        let longest = context.config.ticket_lifetime.unwrap_or_default();
        let lifetime = match seconds {
            0 => longest,
            seconds => longest.min(Duration::from_secs(seconds.into())),
        };
        if !ticket.is_empty() && ticket.len() <= MAX_KEPT {
            self.ticket = Some((lifetime.min(self.valid_for), ticket.to_vec()));
        }
        self.core.note(message.kind, message.seq, &message.body);
        self.state = State::Finished;
        Ok(Step::Nothing)
    }

    fn finished(&mut self, message: &Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        let prf = self.core.prf()?;
        self.core.check_finished(message, &prf, context)?;
        self.core.flight.begin(context.config);
        if self.core.kind == Kind::Abbreviated {
            self.core.finish(&prf);
            self.core.send(context, false);
        }
        self.state = State::Done;
        Ok(Step::Done)
    }

    /// What the next handshake with this server may resume with: only with the extended master secret (RFC 7627 5.3).
    pub(crate) fn resumable(&mut self, now: Instant) -> Option<Resumable> {
        let (lifetime, ticket) = self.ticket.take()?;
        let core = &self.core;
        let may = core.has_extended_master_secret && !core.suite.is_cbc();
        may.then_some(Resumable {
            server: core.address,
            ticket,
            suite: core.suite,
            master: core.master.clone()?,
            identity: core.identity.clone()?,
            end: now + lifetime,
        })
    }
}

/// The server of a session is still taken.
fn is_taken(identity: &Identity, context: &mut Context<'_>) -> bool {
    match identity {
        Identity::Psk(_) => true,
        _ => context.handler.peer(identity, &[]) == Answer::Known(()),
    }
}

/// The code of [`Config::max_fragment_length`].
fn fragment_length_code(config: &Config) -> Option<u8> {
    match config.max_fragment_length? {
        512 => Some(1),
        1024 => Some(2),
        2048 => Some(3),
        4096 => Some(4),
        _ => None,
    }
}

impl Machine for ClientHandshake {
    fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    fn takes_change(&self) -> bool {
        self.state == State::Finished
    }

    fn message(&mut self, message: Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        // A server key exchange is left out without a hint, a certificate request when none is wanted.
        let may_end = match self.state {
            State::KeyExchange => self.core.suite.key_exchange() == KeyExchange::Psk,
            State::CertificateRequest | State::HelloDone => true,
            _ => false,
        };
        match (self.state, message.kind) {
            (State::Hello, handshake::HELLO_VERIFY_REQUEST) => self.verify_request(&message, context),
            (State::Hello, handshake::SERVER_HELLO) => self.server_hello(&message, context),
            (State::Certificate, handshake::CERTIFICATE) => self.certificate(&message, context),
            (State::KeyExchange, handshake::SERVER_KEY_EXCHANGE) => self.server_key_exchange(&message),
            (State::CertificateRequest, handshake::CERTIFICATE_REQUEST) => {
                parse_certificate_request(&message.body)?;
                self.core.note(message.kind, message.seq, &message.body);
                self.certificate_requested = true;
                self.state = State::HelloDone;
                Ok(Step::Nothing)
            }
            (_, handshake::SERVER_HELLO_DONE) if may_end => self.hello_done(&message, context),
            (State::Ticket, handshake::NEW_SESSION_TICKET) => self.new_session_ticket(&message, context),
            (State::Finished, handshake::FINISHED) => self.finished(&message, context),
            _ => Err(Alert::UnexpectedMessage.into()),
        }
    }
}
