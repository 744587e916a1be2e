//! A request of ours: what is known of it, and its messages (RFC 7252 5.4, 5.10).

use crate::block::Block;
use crate::code::{Code, Kind, Token};
use crate::codec::Encoder;
use crate::download::Download;
use crate::event::RequestError;
use crate::message::{Delivery, Request};
use crate::observe::Observing;
use crate::options::number;
use crate::reliability::Backoff;
use crate::time::Instant;
use crate::upload::Upload;

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Plain,
    /// Observe 0 is asked, or accepted.
    Observation,
    Push,
    /// The later blocks of a representation that an observation brought.
    Fetch {
        observation: u64,
    },
    /// Observe 1 under the token of a cancelled observation; nobody waits for the answer.
    Deregister,
}

/// One request, observation or push.
#[derive(Debug)]
pub(crate) struct Call<P> {
    pub(crate) peer: P,
    pub(crate) request: Request,
    pub(crate) delivery: Delivery,
    pub(crate) role: Role,
    pub(crate) token: Option<Token>,
    pub(crate) mid: Option<u16>,
    /// The message in flight.
    pub(crate) datagram: Vec<u8>,
    pub(crate) backoff: Option<Backoff>,
    /// First transmission of this datagram.
    pub(crate) sent_at: Instant,
    /// It counts against NSTART.
    pub(crate) slot: bool,
    /// A non-confirmable request stops counting then.
    pub(crate) release_at: Option<Instant>,
    /// Its end, or the end of a pause.
    pub(crate) deadline: Option<Instant>,
    pub(crate) paused: bool,
    pub(crate) armed: Option<Instant>,
    pub(crate) upload: Option<Box<Upload>>,
    pub(crate) download: Option<Box<Download>>,
    pub(crate) observing: Option<Observing>,
}

/// What becomes of a call after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Keep,
    End,
}

impl<P> Call<P> {
    pub(crate) fn new(peer: P, request: Request, delivery: Delivery, role: Role) -> Self {
        Self {
            peer,
            request,
            delivery,
            role,
            token: None,
            mid: None,
            datagram: Vec::new(),
            backoff: None,
            sent_at: Instant::ZERO,
            slot: false,
            release_at: None,
            deadline: None,
            paused: false,
            armed: None,
            upload: None,
            download: None,
            observing: None,
        }
    }

    pub(crate) fn wake(&self) -> Option<Instant> {
        let backoff = self.backoff.as_ref().map(|backoff| backoff.at);
        [backoff, self.release_at, self.deadline]
            .into_iter()
            .flatten()
            .min()
    }

    /// A transfer in blocks keeps its peer to itself until it is complete, since real devices answer 5.03 to all
    /// else meanwhile; a push, which may take hours, lets others in between its blocks.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.role != Role::Push && (self.upload.is_some() || self.download.is_some())
    }

    /// Encodes the message for the present step.
    pub(crate) fn encode(&mut self, mid: u16, token: Token) {
        let request = &self.request;
        let kind = if self.delivery.confirmable {
            Kind::Confirmable
        } else {
            Kind::NonConfirmable
        };
        self.datagram.clear();
        let mut encoder = Encoder::new(&mut self.datagram, kind, request.code, mid, token);
        let download = self.download.as_ref();
        let upload = self.upload.as_ref().map(|upload| upload.part());
        encoder.each(number::IF_MATCH, &request.if_match);
        if let Some(host) = &request.host {
            encoder.option(number::URI_HOST, host.as_bytes());
        }
        if download.is_none() {
            encoder.each(number::ETAG, &request.etags);
        }
        if request.if_none_match {
            encoder.option(number::IF_NONE_MATCH, &[]);
        }
        match self.role {
            // The later blocks of an answer are fetched without it (RFC 7959 2.6).
            _ if download.is_some() => {}
            Role::Observation => encoder.uint(number::OBSERVE, 0),
            Role::Deregister => encoder.uint(number::OBSERVE, 1),
            _ => encoder.maybe(number::OBSERVE, request.observe),
        }
        encoder.each(number::URI_PATH, &request.path);
        // The body belongs to the later requests of a FETCH too: it says what is fetched (RFC 8132 2.1).
        let has_body = download.is_none() || request.code == Code::FETCH;
        if has_body {
            encoder.maybe(number::CONTENT_FORMAT, request.content_format);
        }
        encoder.each(number::URI_QUERY, &request.query);
        encoder.maybe(number::ACCEPT, request.accept);
        let block2 = match download {
            Some(download) => Some(download.next()),
            None => request
                .block2
                .filter(|_| upload.as_ref().is_none_or(|part| !part.block.more)),
        };
        encoder.maybe(number::BLOCK2, block2.map(Block::to_uint));
        if let Some(part) = upload {
            // A body of one block needs no Block1, and so no peer that knows it.
            if part.block.more || part.block.num > 0 {
                encoder.block(number::BLOCK1, part.block);
                encoder.maybe(number::SIZE1, part.size1);
            }
            encoder.payload(part.payload);
        } else if has_body {
            encoder.payload(&request.payload);
        }
    }
}

/// Text of a path or query must fit its option (RFC 7252 5.10.1).
pub(crate) fn check(request: &Request) -> Result<(), RequestError> {
    if !request.code.is_request() {
        return Err(RequestError::Invalid("the code is not a method"));
    }
    let texts = request.path.iter().chain(&request.query);
    if texts.chain(&request.host).any(|text| text.len() > 255) {
        return Err(RequestError::Invalid(
            "a segment of path or query is above 255 bytes",
        ));
    }
    let options: usize = request
        .path
        .iter()
        .chain(&request.query)
        .map(|text| text.len() + 3)
        .sum();
    if options > 2048 {
        return Err(RequestError::Invalid("path and query are above 2048 bytes"));
    }
    let tags = request.etags.iter().chain(&request.if_match);
    if tags.clone().count() > 16
        || tags.clone().any(|tag| tag.len() > 8)
        || request.etags.iter().any(Vec::is_empty)
    {
        return Err(RequestError::Invalid(
            "an ETag has 1 to 8 bytes, and at most 16 may be given",
        ));
    }
    Ok(())
}
