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
use crate::hello::CertificateType;
use crate::keys::Ephemeral;
use crate::message::{
    ClientKeyExchange, EcdheParams, encode_certificate_request, encode_chain, encode_new_session_ticket,
    encode_raw_public_key, parse_certificate_verify, parse_chain, parse_raw_public_key, put_signature,
};
use crate::prf::{psk_premaster, sha256};
use crate::reassembly::Message;
use crate::suite::KeyExchange;
use crate::ticket::{Check, Ticket, check};
use crate::wire::{handshake, put_u16};

/// The message that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
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
    pub(crate) state: State,
    pub(crate) client_type: CertificateType,
    /// The ECDH secret while the pre-shared key is looked up.
    shared: Option<Zeroizing<[u8; 32]>>,
    /// The hello and its ticket while the identity is looked up.
    pub(crate) resuming: Option<Box<(Message, Ticket)>>,
    /// A ticket has been promised, for a session on these terms.
    pub(crate) terms: Option<Check>,
    /// Of the present and the former pre-shared key.
    key_checks: [Check; 2],
    /// What is left of the validity of the client's certificates.
    valid_for: Duration,
    /// The client's certificate has a path to an authority, as far as one is needed.
    verified: bool,
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
            verified: true,
            begun_by,
        }
    }

    /// `Certificate`, `ServerKeyExchange` and `CertificateRequest`, as far as the suite has them.
    pub(crate) fn key_exchange(
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
        core.ephemeral = Some(Box::new(ephemeral));
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
                let is_alone_enough = context.config.accept_pinned_certificates;
                let (identity, verified) = trust.verify_client(&chain, time, is_alone_enough)?;
                self.verified = verified;
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
        let verified = self.verified;
        let answer = if verified {
            context.handler.peer(&identity, key.der())
        } else {
            context.handler.unverified(&identity, key.der())
        };
        let der = Box::from(key.der());
        self.core.identity = Some(Arc::clone(&identity));
        self.core.peer_key = Some(key);
        self.core.note(message.kind, message.seq, &message.body);
        self.state = State::KeyExchange;
        match answer {
            Answer::Known(()) => Ok(Step::Nothing),
            Answer::Unknown => Err(self.refused()),
            Answer::Later => {
                self.core.pending = true;
                self.core.look_up = Some(LookUp::Peer {
                    identity,
                    der,
                    verified,
                });
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
        let claimed = Arc::new(Identity::Psk(Box::from(identity)));
        self.core.identity = Some(Arc::clone(&claimed));
        match context.handler.psk(identity) {
            Answer::Known(keys) => self.set_psk(Some(&keys), context),
            Answer::Unknown => self.set_psk(None, context),
            Answer::Later => {
                self.core.pending = true;
                self.core.look_up = Some(LookUp::Psk(claimed));
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
            Err(self.refused())
        }
    }

    fn refused(&self) -> Failure {
        if self.verified {
            Failure::new(Alert::CertificateUnknown, "unknown-peer")
        } else {
            certificate::unknown_authority()
        }
    }

    fn finished(&mut self, message: &Message, context: &mut Context<'_>) -> Result<Step, Failure> {
        let prf = self.core.prf()?;
        self.core.check_finished(message, &prf, context)?;
        self.core.flight.begin(context.config);
        self.state = State::Done;
        if self.core.kind == Kind::Abbreviated {
            return Ok(Step::Done);
        }
        if let Some(terms) = self.terms {
            let ticket = self.ticket(terms, context).unwrap_or_default();
            self.core.say(handshake::NEW_SESSION_TICKET, ticket);
        }
        self.core.finish(&prf);
        self.core.send(context, false);
        Ok(Step::Done)
    }

    /// The body of a `NewSessionTicket`. What was promised has to come, if empty (RFC 5077 3.3).
    fn ticket(&self, terms: Check, context: &mut Context<'_>) -> Result<Vec<u8>, Failure> {
        let lifetime = context.config.ticket_lifetime.unwrap_or_default();
        let good_for = lifetime.min(self.valid_for);
        let master = self.core.master.clone().ok_or(Alert::InternalError)?;
        let identity = self.core.identity.clone().ok_or(Alert::InternalError)?;
        let ticket = Ticket {
            suite: self.core.suite,
            master,
            identity,
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
        let resumes = self.resuming.as_deref().map(|(_, ticket)| &*ticket.identity);
        resumes.map_or(
            self.core.pending && self.state == State::Finished && self.core.keys.is_none(),
            |identity| matches!(identity, Identity::Psk(_)),
        )
    }
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
                let signed = self.core.transcript.messages().ok_or(Alert::InternalError)?;
                key.verify(signed, signature)?;
                self.core.note(message.kind, message.seq, &message.body);
                self.state = State::Finished;
                Ok(Step::Nothing)
            }
            (State::Finished, handshake::FINISHED) => self.finished(&message, context),
            _ => Err(Alert::UnexpectedMessage.into()),
        }
    }
}
