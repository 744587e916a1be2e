//! The server's side of a handshake, from the hello that carried a valid cookie.

use std::net::SocketAddr;
use std::sync::Arc;

use coap::Instant;
use zeroize::Zeroizing;

use crate::alert::{Alert, Failure};
use crate::certificate::PeerKey;
use crate::cid::ConnectionId;
use crate::config::Config;
use crate::event::{Answer, Identity, LookUp, PskKeys, Role};
use crate::handshake::{Context, Core, Machine, Step};
use crate::hello::{CertificateType, ClientHello, Extensions, ServerHello};
use crate::keys::Ephemeral;
use crate::message::{
    ClientKeyExchange, EcdheParams, encode_certificate_request, encode_chain, encode_raw_public_key,
    parse_certificate_verify, parse_chain, parse_raw_public_key, put_signature,
};
use crate::prf::{psk_premaster, sha256};
use crate::reassembly::Message;
use crate::suite::{KeyExchange, Suite};
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
            begun_by,
        }
    }

    fn hello(&mut self, message: &Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        let hello = ClientHello::parse(&message.body)?;
        let extensions = &hello.extensions;
        if extensions.renegotiation_info.is_some_and(|info| !info.is_empty()) {
            return Err(Failure::new(Alert::HandshakeFailure, "renegotiation"));
        }
        let core = &mut self.core;
        if context.config.require_extended_master_secret && !extensions.extended_master_secret {
            return Err(Failure::new(Alert::HandshakeFailure, "no-extended-master-secret"));
        }
        let types = certificate_types(context.config, extensions);
        let suites = context.config.suites.iter();
        core.suite = suites
            .copied()
            .find(|suite| hello.offers(*suite) && is_possible(*suite, extensions, types))
            .ok_or(Failure::new(Alert::HandshakeFailure, "no-common-suite"))?;
        let is_costly = core.suite.key_exchange().has_ecdhe();
        let (address, now) = (core.address, context.now);
        if let Some(budget) = context.budget.as_deref_mut().filter(|_| is_costly)
            && !budget.take(address, context.config, now)
        {
            return Ok(Step::Shed);
        }
        core.client_random = *hello.start.random;
        core.server_random = context.random.array().ok_or(Alert::InternalError)?;
        core.has_extended_master_secret = extensions.extended_master_secret;
        let limit = extensions.limit()?;
        core.flight.limit = limit.unwrap_or(MAX_CONTENT);
        let is_mfl = extensions.record_size_limit.is_none();
        core.receive_limit = limit.filter(|_| is_mfl).unwrap_or(MAX_CONTENT);
        let has_cid = negotiate_cid(core, extensions.connection_id, context)?;
        core.note(message.kind, message.seq, &message.body);

        let exchange = core.suite.key_exchange();
        let with_certificates = exchange == KeyExchange::EcdheEcdsa;
        let types = types.filter(|_| with_certificates);
        let echo = |wanted: Option<&[u8]>, kind: Option<CertificateType>| {
            wanted.and(kind).map(|kind| vec![kind as u8])
        };
        let client_type = echo(extensions.client_certificate_type, types.map(|types| types.0));
        let server_type = echo(extensions.server_certificate_type, types.map(|types| types.1));
        let own_cid = core.own_cid;
        let answer = ServerHello {
            random: &core.server_random,
            session_id: &[],
            suite: None,
            extensions: Extensions {
                extended_master_secret: extensions.extended_master_secret,
                renegotiation_info: (hello.has_scsv() || extensions.renegotiation_info.is_some())
                    .then_some(&[]),
                connection_id: has_cid.then_some(own_cid.as_bytes()),
                max_fragment_length: extensions.max_fragment_length.filter(|_| is_mfl),
                record_size_limit: extensions.record_size_limit.map(|_| 1 << 14),
                ec_point_formats: (exchange.has_ecdhe() && extensions.ec_point_formats.is_some())
                    .then_some(&[0]),
                client_certificate_type: client_type.as_deref(),
                server_certificate_type: server_type.as_deref(),
                ..Extensions::default()
            },
        };
        let answer = answer.encode(core.suite);
        core.say(handshake::SERVER_HELLO, answer);
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
            Answer::Known(keys) => self.set_psk(Some(&keys), context)?,
            Answer::Unknown => self.set_psk(None, context)?,
            Answer::Later => {
                self.core.pending = true;
                self.core.look_up = Some(LookUp::Psk(Box::from(identity)));
            }
        }
        Ok(Step::Nothing)
    }

    /// The keys of the identity. An unknown one goes on with a random key: on the wire that looks like a wrong key.
    pub(crate) fn set_psk(
        &mut self,
        keys: Option<&PskKeys>,
        context: &mut Context<'_>,
    ) -> Result<(), Failure> {
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
        self.core.pending = false;
        Ok(())
    }

    /// The caller takes the peer or not.
    pub(crate) fn set_verdict(&mut self, is_taken: bool) -> Result<(), Failure> {
        self.core.pending = false;
        if is_taken { Ok(()) } else { Err(refused()) }
    }

    fn finished(&mut self, message: &Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        self.core.check_finished(message, context)?;
        self.core.flight.begin(context.config);
        self.core.finish()?;
        self.core.send(context, false);
        self.state = State::Done;
        Ok(Step::Done)
    }

    pub(crate) fn is_waiting_for_psk(&self) -> bool {
        self.core.pending && self.state == State::Finished && self.core.keys.is_none()
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
            (State::Hello, handshake::CLIENT_HELLO) => self.hello(&message, context),
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
