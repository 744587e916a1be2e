//! Deadlines in order. An owner has at most one entry, so the set is bounded by its owners.

use std::collections::BTreeSet;

use crate::time::Instant;

/// Who waits for a deadline, and under which id one of them owns a Message ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// A request, observation or push of ours.
    Call(u64),
    /// A request or observation of a peer.
    Exchange(u64),
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    set: BTreeSet<(Instant, Owner)>,
}

impl Timers {
    /// Wakes `owner` at `at` or before: an earlier entry stays, which spares a transfer a set operation each block.
    pub(crate) fn arm(&mut self, owner: Owner, armed: &mut Option<Instant>, at: Instant) {
        match *armed {
            Some(earlier) if earlier <= at => return,
            Some(later) => {
                self.set.remove(&(later, owner));
            }
            None => {}
        }
        self.set.insert((at, owner));
        *armed = Some(at);
    }

    pub(crate) fn disarm(&mut self, owner: Owner, armed: &mut Option<Instant>) {
        if let Some(at) = armed.take() {
            self.set.remove(&(at, owner));
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.set.first().map(|(at, _)| *at)
    }

    /// Takes out one owner whose time has come; the owner must forget that it is armed.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Owner> {
        let (at, _) = self.set.first()?;
        if *at > now {
            return None;
        }
        self.set.pop_first().map(|(_, owner)| owner)
    }

    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }
}
