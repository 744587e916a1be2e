//! Observe as the observed server (RFC 7641 4): sequence numbers, confirmable notifications, the end of interest.

use std::time::Duration;

use crate::code::{Code, Kind};
use crate::event::{Exchange, Peer, UnknownExchange};
use crate::exchange::{Open, State};
use crate::message::Response;
use crate::receive::Received;
use crate::stack::Stack;
use crate::time::Instant;
use crate::timers::Owner;

/// At least one notification in this time is confirmable (RFC 7641 4.5).
const CONFIRM_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Non-confirmable notifications that a RST can still be matched with.
const RECENT: usize = 4;

/// One accepted observation.
#[derive(Debug)]
pub(crate) struct Observer {
    sequence: u32,
    /// The newest state, while an older notification waits for its ACK.
    pending: Option<(Response, bool)>,
    confirmed_at: Instant,
    recent: [Option<u16>; RECENT],
    next_recent: usize,
}

impl Observer {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            sequence: 0,
            pending: None,
            confirmed_at: now,
            recent: [None; RECENT],
            next_recent: 0,
        }
    }

    /// Follows the time (30 a second, so that 2^23 steps take days) and always grows (RFC 7641 4.4).
    pub(crate) fn next_sequence(&mut self, now: Instant) -> u32 {
        let [a, b, c, ..] = (now.as_micros() >> 15).to_le_bytes();
        let clock = u32::from_le_bytes([a, b, c, 0]);
        let ahead = clock.wrapping_sub(self.sequence) & 0x00ff_ffff;
        self.sequence = if self.sequence == 0 || (1..1 << 22).contains(&ahead) {
            clock.max(1)
        } else {
            (self.sequence + 1) & 0x00ff_ffff
        };
        self.sequence
    }

    /// Notes a non-confirmable notification; gives the Message ID that is matched no longer.
    pub(crate) fn sent(&mut self, mid: u16) -> Option<u16> {
        let slot = self.recent.get_mut(self.next_recent)?;
        self.next_recent = (self.next_recent + 1) % RECENT;
        slot.replace(mid)
    }

    pub(crate) fn recent(&self) -> impl Iterator<Item = u16> {
        self.recent.iter().filter_map(|mid| *mid)
    }
}

impl<P: Peer> Stack<P> {
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
        let id = exchange.0;
        let mut open = self.exchanges.remove(&id).ok_or(UnknownExchange)?;
        let sending = open.sending.is_some();
        let State::Observing(observer) = &mut open.state else {
            self.exchanges.insert(id, open);
            return Err(UnknownExchange);
        };
        if !response.code.is_success() {
            self.last_notification(id, open, response, confirmable, now);
            return Ok(());
        }
        if sending {
            observer.pending = Some((response, confirmable));
        } else {
            self.send_notification(id, &mut open, response, confirmable, now);
        }
        self.keep_exchange(id, open);
        Ok(())
    }

    fn last_notification(
        &mut self,
        id: u64,
        mut open: Box<Open<P>>,
        response: Response,
        confirmable: bool,
        now: Instant,
    ) {
        self.stop_sending(&mut open);
        let kind = if confirmable {
            Kind::Confirmable
        } else {
            Kind::NonConfirmable
        };
        self.send_response(id, &mut open, response, kind, None, now);
        if !confirmable {
            return self.drop_exchange(id, open, now);
        }
        if let State::Observing(observer) = std::mem::replace(&mut open.state, State::Closing) {
            observer.recent().for_each(|mid| {
                self.mids.remove(&(open.peer, mid));
            });
        }
        if self.observers.get(&(open.peer, open.token)) == Some(&id) {
            self.observers.remove(&(open.peer, open.token));
        }
        self.keep_exchange(id, open);
    }

    fn send_notification(
        &mut self,
        id: u64,
        open: &mut Open<P>,
        response: Response,
        confirmable: bool,
        now: Instant,
    ) {
        let State::Observing(observer) = &mut open.state else {
            return;
        };
        let confirmable = confirmable || now.since(observer.confirmed_at) >= CONFIRM_EVERY;
        if confirmable {
            observer.confirmed_at = now;
        }
        let sequence = observer.next_sequence(now);
        let kind = if confirmable {
            Kind::Confirmable
        } else {
            Kind::NonConfirmable
        };
        let mid = self.send_response(id, open, response, kind, Some(sequence), now);
        if !confirmable {
            self.note_unconfirmed(id, open, mid);
        }
    }

    /// Makes a RST to this non-confirmable message find the observation.
    pub(crate) fn note_unconfirmed(&mut self, id: u64, open: &mut Open<P>, mid: u16) {
        let State::Observing(observer) = &mut open.state else {
            return;
        };
        let key = (open.peer, mid);
        if let Some(old) = observer.sent(mid)
            && self.mids.get(&(open.peer, old)) == Some(&Owner::Exchange(id))
        {
            self.mids.remove(&(open.peer, old));
        }
        self.mids.insert(key, Owner::Exchange(id));
    }

    /// The confirmable notification has been acknowledged: a newer state goes out now.
    pub(crate) fn notify_pending(&mut self, id: u64, open: &mut Open<P>, now: Instant) {
        let State::Observing(observer) = &mut open.state else {
            return;
        };
        if let Some((response, confirmable)) = observer.pending.take() {
            self.send_notification(id, open, response, confirmable, now);
        }
    }

    /// In the place of a retransmission the newest state is sent, with the back-off going on (RFC 7641 4.5.2).
    pub(crate) fn replace_notification(&mut self, id: u64, open: &mut Open<P>, now: Instant) -> bool {
        let State::Observing(observer) = &mut open.state else {
            return false;
        };
        let Some((response, _)) = observer.pending.take() else {
            return false;
        };
        let backoff = open.sending.as_ref().map(|sending| sending.backoff);
        self.stop_sending(open);
        self.send_notification(id, open, response, true, now);
        if let (Some(sending), Some(backoff)) = (&mut open.sending, backoff) {
            sending.backoff = backoff;
        }
        true
    }

    /// A request with Observe 1 ends the observation under its token (RFC 7641 4.1); the request itself goes on.
    pub(crate) fn deregistered(&mut self, received: &Received<'_, P>) {
        let key = (received.peer, received.message.token);
        let observed = matches!(received.message.code, Code::GET | Code::FETCH);
        if observed && let Some(id) = self.observers.get(&key).copied() {
            self.lose_exchange(id, received.now);
        }
    }

    /// The application no longer serves an observation and says nothing to its peer; no event follows.
    pub fn release(&mut self, exchange: Exchange, now: Instant) {
        if let Some(open) = self.exchanges.remove(&exchange.0) {
            self.drop_exchange(exchange.0, open, now);
        }
    }
}
