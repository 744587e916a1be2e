//! The endpoint as its caller sees it.

use crate::config::Config;
use crate::event::{Event, Exchange, Handle, Peer, Push, RequestError, Transmit, UnknownExchange};
use crate::local::Local;
use crate::message::{Delivery, Request, Response};
use crate::time::Instant;

/// Counters since the start, and the present size of each table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Datagrams taken in.
    pub received: u64,
    /// Datagrams put out.
    pub sent: u64,
    /// Datagrams dropped because [`Config::max_output`] was reached.
    pub dropped: u64,
    /// Datagrams that were not a message, or a message that made no sense.
    pub malformed: u64,
    /// Duplicates that were recognized.
    pub duplicates: u64,
    /// Retransmissions of ours.
    pub retransmissions: u64,
    /// Requests of peers that were refused with 5.03.
    pub refused: u64,
    /// Requests of peers answered by [`Local`].
    pub local: u64,
    /// Blocks of pushes acknowledged.
    pub pushed_blocks: u64,
    /// Requests, observations and pushes of ours now.
    pub calls: usize,
    /// Peers with state for requests of ours now.
    pub peers: usize,
    /// Requests of peers waiting, and observations of peers, now.
    pub exchanges: usize,
    /// Message ids remembered now.
    pub seen: usize,
    /// Request bodies in assembly now.
    pub assemblies: usize,
    /// Large answers kept now.
    pub answers: usize,
    /// Timers armed now.
    pub timers: usize,
    /// Events waiting now.
    pub events: usize,
}

/// One CoAP endpoint, client and server at once.
pub struct Stack<P> {
    config: Config,
    peer: std::marker::PhantomData<P>,
}

impl<P: Peer> Stack<P> {
    /// An endpoint; `seed` determines message ids, tokens, back-off and hash order.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        let _ = seed;
        Self {
            config,
            peer: std::marker::PhantomData,
        }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes in one datagram. `local` is asked about each new request before anything is stored.
    pub fn receive_datagram(&mut self, peer: P, datagram: &[u8], now: Instant, local: &mut impl Local<P>) {
        let _ = (peer, datagram, now, local);
    }

    /// The datagrams that wait to be sent, oldest first, for a batch (`sendmmsg`); then call [`Stack::sent`].
    pub fn transmits(&self) -> impl Iterator<Item = Transmit<'_, P>> {
        std::iter::empty()
    }

    /// The first `count` of [`Stack::transmits`] have been sent (or dropped); their buffer is used again.
    pub fn sent(&mut self, count: usize) {
        let _ = count;
    }

    /// The next datagram to be sent, one at a time; it counts as sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_, P>> {
        None
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event<P>> {
        None
    }

    /// When [`Stack::handle_timeout`] wants to be called; calling it earlier or later does no harm.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// Answers a request of a peer. A body above one block is cut and kept for the following Block2 requests.
    /// With `response.observe` set and Observe 0 in the request the exchange stays open for [`Stack::notify`].
    ///
    /// # Errors
    /// [`UnknownExchange`] when nobody waits for it any more.
    pub fn respond(
        &mut self,
        exchange: Exchange,
        response: Response,
        now: Instant,
    ) -> Result<(), UnknownExchange> {
        let _ = (response, now);
        Err(UnknownExchange).inspect_err(|_| drop(exchange))
    }

    /// Notifies the observer behind an exchange (RFC 7641 4.2). An error code ends the observation. While a
    /// confirmable notification is under way only the newest later one is kept.
    ///
    /// # Errors
    /// [`UnknownExchange`] when the observation has ended.
    pub fn notify(
        &mut self,
        exchange: Exchange,
        response: Response,
        confirmable: bool,
        now: Instant,
    ) -> Result<(), UnknownExchange> {
        let _ = (exchange, response, confirmable, now);
        Err(UnknownExchange)
    }

    /// Sends a request, or queues it behind others to this peer. A large body goes by Block1, a large answer is
    /// fetched by Block2; `request.observe = Some(0)` starts an observation.
    ///
    /// # Errors
    /// [`RequestError`] when a bound is reached or the request is not one.
    pub fn request(
        &mut self,
        peer: P,
        request: Request,
        delivery: Delivery,
        now: Instant,
    ) -> Result<Handle, RequestError> {
        let _ = (peer, request, delivery, now);
        Err(RequestError::TooMany)
    }

    /// Starts a Block1 transfer. Requests to the same peer may go out between its blocks.
    ///
    /// # Errors
    /// [`RequestError`] when a bound is reached or the push is not one.
    pub fn push(&mut self, peer: P, push: Push, now: Instant) -> Result<Handle, RequestError> {
        let _ = (peer, push, now);
        Err(RequestError::TooMany)
    }

    /// Ends a request or a push at once; ends an observation actively by a GET with Observe 1 (RFC 7641 3.6).
    /// `Failure` with [`crate::Reason::Cancelled`] follows. False when the handle is not known.
    pub fn cancel(&mut self, handle: Handle, now: Instant) -> bool {
        let _ = (handle, now);
        false
    }

    /// Ends a request, a push or an observation without a word to the peer: the next notification gets a RST.
    /// `Failure` with [`crate::Reason::Cancelled`] follows. False when the handle is not known.
    pub fn forget(&mut self, handle: Handle, now: Instant) -> bool {
        let _ = (handle, now);
        false
    }

    /// Drops all that concerns a peer. Its handles end with [`crate::Reason::PeerGone`], its observations with
    /// [`Event::Cancelled`].
    pub fn forget_peer(&mut self, peer: P, now: Instant) {
        let _ = (peer, now);
    }

    /// Counters and table sizes.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics::default()
    }
}
