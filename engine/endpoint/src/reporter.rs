//! Collects the events of one turn of the engine's thread, and keeps the classes that have a bound within it.
//!
//! Answers and failures of Python's own handles are never dropped: there are no more of them than handles. Of
//! notifications and progress only the latest counts (RFC 7641 1.3), so when Python has fallen behind, one for each
//! handle or download is held back, and a newer one takes its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::event::{Event, SecurityEvent, SessionExport};
use crate::key::PeerKey;
use crate::shared::Shared;

/// Reports of liveness that may wait; the table keeps what is not reported yet.
const MAX_ALIVE_WAITING: usize = 4;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Subject {
    Handle(u64),
    Download(PeerKey, Arc<[String]>),
}

fn subject(event: &Event) -> Option<Subject> {
    match event {
        Event::Notification { handle, .. } | Event::Progress { handle, .. } => Some(Subject::Handle(*handle)),
        Event::Download(download) => Some(Subject::Download(download.peer.key, Arc::clone(&download.path))),
        _ => None,
    }
}

/// The thread's end of the event queue.
pub struct Reporter {
    shared: Arc<Shared>,
    batch: Vec<Event>,
    /// Exports that are not in `batch` yet.
    exports: Vec<SessionExport>,
    held_back: HashMap<Subject, Event>,
    max_news: usize,
    /// News in `batch`.
    news: usize,
    /// News of DTLS in `batch`.
    security: usize,
    /// Requests in `batch`.
    pub requests: usize,
    /// News that gave way to newer ones.
    pub superseded: u64,
}

impl Reporter {
    pub fn new(shared: Arc<Shared>, max_news: usize) -> Self {
        let batch = Vec::new();
        Self {
            shared,
            batch,
            exports: Vec::new(),
            held_back: HashMap::new(),
            max_news,
            news: 0,
            security: 0,
            requests: 0,
            superseded: 0,
        }
    }

    fn has_room(&self) -> bool {
        self.news + self.shared.depths.news.load(Ordering::Relaxed) < self.max_news
    }

    /// Adds an event.
    pub fn emit(&mut self, event: Event) {
        match &event {
            Event::Request { .. } => self.requests += 1,
            // A session that ends after its export stays ended.
            Event::Security(SecurityEvent::SessionGone { .. }) => {
                self.add_exports();
                self.security += 1;
            }
            Event::Security(_) => self.security += 1,
            Event::Response { handle, .. } | Event::Failure { handle, .. } if !self.held_back.is_empty() => {
                let last = self.held_back.remove(&Subject::Handle(*handle));
                self.batch.extend(last);
            }
            _ => {}
        }
        let Some(subject) = subject(&event) else {
            self.batch.push(event);
            return;
        };
        if !self.has_room() || self.held_back.contains_key(&subject) {
            self.superseded += u64::from(self.held_back.insert(subject, event).is_some());
        } else {
            self.news += 1;
            self.batch.push(event);
        }
    }

    /// Adds an export; those of a turn are one event.
    pub fn export(&mut self, export: SessionExport) {
        self.exports.push(export);
    }

    fn add_exports(&mut self) {
        if !self.exports.is_empty() {
            let exports = std::mem::take(&mut self.exports);
            self.emit(Event::Security(SecurityEvent::SessionExports(exports)));
        }
    }

    /// How much news of DTLS waits for Python.
    pub fn security(&self) -> usize {
        self.security + self.shared.depths.security.load(Ordering::Relaxed)
    }

    /// How many more reports of liveness may wait.
    pub fn room_for_alive(&self) -> usize {
        MAX_ALIVE_WAITING.saturating_sub(self.shared.depths.alive.load(Ordering::Relaxed))
    }

    /// Hands everything over, and what was held back as far as there is room.
    pub fn publish(&mut self) {
        self.add_exports();
        if !self.held_back.is_empty() {
            let room = self
                .max_news
                .saturating_sub(self.shared.depths.news.load(Ordering::Relaxed) + self.news);
            let subjects: Vec<Subject> = self.held_back.keys().take(room).cloned().collect();
            let released = subjects
                .iter()
                .filter_map(|subject| self.held_back.remove(subject));
            self.batch.extend(released);
        }
        self.shared
            .holding_back
            .store(!self.held_back.is_empty(), Ordering::Relaxed);
        self.shared.publish(&mut self.batch);
        self.news = 0;
        self.security = 0;
        self.requests = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Remote;

    fn progress(handle: u64, offset: u64) -> Event {
        Event::Progress {
            handle,
            offset,
            size: 100,
            repeated: 0,
        }
    }

    fn failure(handle: u64) -> Event {
        let key = PeerKey::new(0, ([192, 0, 2, 1], 1).into());
        Event::Failure {
            handle,
            peer: Remote::of_key(key),
            reason: "timeout",
            detail: "",
            offset: 0,
        }
    }

    fn texts(shared: &Shared) -> Vec<String> {
        let events = shared.drain(usize::MAX);
        let text = |event: &Event| match event {
            Event::Progress { handle, offset, .. } => format!("{handle}@{offset}"),
            Event::Failure { handle, .. } => format!("{handle} failed"),
            _ => unreachable!("not used here"),
        };
        events.iter().map(text).collect()
    }

    #[test]
    fn above_the_bound_the_latest_news_of_each_handle_waits() {
        let shared = Arc::new(Shared::new(1).unwrap());
        let mut reporter = Reporter::new(Arc::clone(&shared), 2);
        for offset in 1..=4 {
            reporter.emit(progress(7, offset));
        }
        reporter.publish();
        assert!(shared.holding_back.load(Ordering::Relaxed));
        assert_eq!(texts(&shared), ["7@1", "7@2"]);
        reporter.publish();
        assert_eq!(texts(&shared), ["7@4"]);
        assert_eq!(reporter.superseded, 1);
        assert!(!shared.holding_back.load(Ordering::Relaxed));
    }

    #[test]
    fn a_session_ends_after_the_export_that_came_before() {
        let shared = Arc::new(Shared::new(1).unwrap());
        let mut reporter = Reporter::new(Arc::clone(&shared), 1);
        let export = |record| SessionExport {
            record,
            generation: 0,
            mark: 1,
            sealed: vec![],
        };
        reporter.export(export(1));
        reporter.export(export(2));
        reporter.emit(Event::Security(SecurityEvent::SessionGone { record: 1 }));
        reporter.export(export(3));
        reporter.publish();
        let events = shared.drain(usize::MAX);
        let records = |event: &Event| match event {
            Event::Security(SecurityEvent::SessionExports(exports)) => {
                exports.iter().map(|export| export.record).collect()
            }
            Event::Security(SecurityEvent::SessionGone { .. }) => vec![],
            _ => unreachable!("not used here"),
        };
        let order: Vec<Vec<u64>> = events.iter().map(records).collect();
        assert_eq!(order, [vec![1, 2], vec![], vec![3]]);
    }

    #[test]
    fn an_end_is_never_held_back_and_comes_last() {
        let shared = Arc::new(Shared::new(1).unwrap());
        let mut reporter = Reporter::new(Arc::clone(&shared), 1);
        reporter.emit(progress(1, 1));
        reporter.emit(progress(2, 1));
        reporter.emit(progress(2, 2));
        reporter.emit(failure(2));
        reporter.publish();
        assert_eq!(texts(&shared), ["1@1", "2@2", "2 failed"]);
    }
}
