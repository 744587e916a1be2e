//! What devices do when the server asks them: answers, notifications, firmware by push and by pull.

use coap::{Block, Code, Delivery, Exchange, Instant, Request, Response};

use super::{BLOCK, Fetch, Fleet, RESTART};
use crate::device::{Effect, State};

impl Fleet {
    pub(super) fn answer(&mut self, number: u32, exchange: Exchange, request: &Request, now: Instant) {
        let Some(member) = self.members.get_mut(number as usize) else {
            return;
        };
        if member.restarting {
            // Switched off: no answer at all.
            return;
        }
        self.counts.requests += 1;
        let (mut response, effect) = member.device.answer(request);
        if request.code == Code::GET && request.observe == Some(0) && response.code.is_success() {
            response.observe = Some(0);
            member.observers.push((exchange, request.clone()));
        }
        if request.block1.is_some() && response.code.is_success() {
            self.counts.bytes += request.payload.len() as u64;
            self.counts.downloads += u64::from(response.code == Code::CHANGED);
        }
        // The asker may have given up meanwhile.
        let _ = self.stack.respond(exchange, response, now);
        self.apply(number, effect, now);
    }

    fn apply(&mut self, number: u32, effect: Effect, now: Instant) {
        match effect {
            Effect::None => {}
            Effect::Changed => self.notify(number, now),
            Effect::Fetch(uri) => {
                if let Some(member) = self.members.get_mut(number as usize) {
                    member.fetch = Some(Fetch {
                        path: path_of(&uri),
                        handle: None,
                    });
                }
                self.notify(number, now);
                self.fetch(number, now);
            }
            Effect::Stop => {
                if let Some(member) = self.members.get_mut(number as usize) {
                    member.fetch = None;
                }
                self.notify(number, now);
            }
            Effect::Update => self.plan(number, now),
            Effect::Restart => {
                self.notify(number, now);
                if let Some(member) = self.members.get_mut(number as usize) {
                    member.restarting = true;
                    member.observers.clear();
                    member.fetch = None;
                    self.counts.registered -= u64::from(!member.location.is_empty());
                    member.location.clear();
                    self.plan(number, now + RESTART);
                }
            }
        }
    }

    fn notify(&mut self, number: u32, now: Instant) {
        let Some(member) = self.members.get_mut(number as usize) else {
            return;
        };
        for (exchange, request) in &member.observers {
            if request.path.first().is_some_and(|object| object == "5") {
                let (response, _) = member.device.answer(request);
                let _ = self.stack.notify(*exchange, response, false, now);
            }
        }
    }

    fn fetch(&mut self, number: u32, now: Instant) {
        let Some(member) = self.members.get_mut(number as usize) else {
            return;
        };
        let Some(fetch) = &mut member.fetch else { return };
        let block = u32::try_from(member.device.received() / u64::from(BLOCK)).unwrap_or(u32::MAX);
        let request = Request {
            code: Code::GET,
            path: fetch.path.clone(),
            block2: Some(Block::new(block, false, BLOCK)),
            ..Request::default()
        };
        fetch.handle = self.stack.request(number, request, Delivery::default(), now).ok();
        if fetch.handle.is_none() {
            self.give_up(number, now);
        }
    }

    pub(super) fn fetched(&mut self, number: u32, response: Option<&Response>, now: Instant) {
        let Some(member) = self.members.get_mut(number as usize) else {
            return;
        };
        let Some(response) = response.filter(|response| response.code == Code::CONTENT) else {
            self.give_up(number, now);
            return;
        };
        let block = response.block2.unwrap_or_default();
        if !member.device.take(block.offset() as u64, &response.payload) {
            self.give_up(number, now);
            return;
        }
        self.counts.bytes += response.payload.len() as u64;
        if block.more {
            self.fetch(number, now);
            return;
        }
        member.fetch = None;
        member.device.complete();
        self.counts.downloads += 1;
        self.notify(number, now);
    }

    /// The connection was lost in the download (Update Result 4).
    fn give_up(&mut self, number: u32, now: Instant) {
        if let Some(member) = self.members.get_mut(number as usize) {
            member.fetch = None;
            if member.device.state() == State::Downloading {
                member.device.abandon(4);
            }
        }
        self.notify(number, now);
    }
}

/// The path of a URI reference; the authority is always this fleet's server.
fn path_of(uri: &str) -> Vec<String> {
    let path = uri
        .split_once("://")
        .map_or(uri, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_absolute_and_relative_references() {
        assert_eq!(path_of("coap://[::1]:5683/fw/ab"), ["fw", "ab"]);
        assert_eq!(path_of("/fw/ab"), ["fw", "ab"]);
        assert_eq!(path_of("coap://host"), [""; 0]);
    }
}
