//! Who may download which blob under which path, and how far each download has come.

use std::collections::HashMap;
use std::sync::Arc;

use coap::{Code, Message, Reply, Served};

use crate::blob::{Blob, Digest};
use crate::event::Download;
use crate::event::Remote;
use crate::key::{PeerKey, Principal};

/// application/octet-stream
const OCTET_STREAM: u16 = 42;
/// Downloads followed at one time; further ones are served all the same, without progress.
const MAX_DOWNLOADS: usize = 1 << 18;
/// Seconds of silence after which a download is no longer followed.
const DOWNLOAD_IDLE: u32 = 900;
/// Seconds between searches for such downloads.
const SWEEP_PERIOD: u32 = 60;

struct Offer {
    /// None after the blob was removed.
    blob: Option<Arc<Blob>>,
    digest: Digest,
    count: u32,
}

struct Place {
    number: u32,
    path: Arc<[String]>,
    owners: HashMap<Principal, Offer>,
}

/// State of one peer's download; compact because a campaign has many at a time.
#[derive(Clone, Copy)]
struct Progress {
    /// End of the furthest block served.
    furthest: u32,
    reported: u32,
    repeated: u32,
    /// Engine seconds of the last block.
    seen: u32,
    /// Message ID of the last request: the same again is a retransmission.
    mid: u16,
}

/// What a GET came to.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing is offered under this path.
    Unknown,
    /// Answered; there may be progress to report.
    Answered(Option<Download>),
}

/// The table of offers and the downloads under way.
pub struct Offers {
    places: HashMap<Box<[u8]>, Place>,
    downloads: HashMap<(Principal, u32), Progress>,
    next_number: u32,
    swept: u32,
    progress_bytes: u32,
    block_size: u16,
    key: Vec<u8>,
    count: usize,
    /// Blocks served since the start.
    pub blocks: u64,
}

/// A path as one key: each segment behind its length.
fn write_key<'a>(key: &mut Vec<u8>, path: impl Iterator<Item = &'a str>) {
    key.clear();
    for segment in path {
        key.extend_from_slice(&u32::try_from(segment.len()).unwrap_or(u32::MAX).to_be_bytes());
        key.extend_from_slice(segment.as_bytes());
    }
}

impl Offers {
    /// An empty table; progress is reported each `progress_bytes`, blocks have at most `block_size` bytes.
    pub fn new(progress_bytes: u64, block_size: u16) -> Self {
        Self {
            places: HashMap::new(),
            downloads: HashMap::new(),
            next_number: 0,
            swept: 0,
            progress_bytes: u32::try_from(progress_bytes).unwrap_or(u32::MAX),
            block_size,
            key: Vec::new(),
            count: 0,
            blocks: 0,
        }
    }

    /// Number of (path, owner) pairs with an offer.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Number of downloads followed.
    pub fn downloads(&self) -> usize {
        self.downloads.len()
    }

    /// Lets the owner GET the blob under this path, once more.
    pub fn offer(&mut self, path: Vec<String>, blob: Arc<Blob>, owner: Principal) {
        write_key(&mut self.key, path.iter().map(String::as_str));
        let number = self.next_number;
        let place = self
            .places
            .entry(self.key.as_slice().into())
            .or_insert_with(|| Place {
                number,
                path: path.into(),
                owners: HashMap::new(),
            });
        if place.number == number {
            self.next_number = number.wrapping_add(1);
        }
        let digest = *blob.digest();
        let offer = place.owners.entry(owner).or_insert(Offer {
            blob: None,
            digest,
            count: 0,
        });
        offer.blob = Some(blob);
        offer.digest = digest;
        self.count += usize::from(offer.count == 0);
        offer.count = offer.count.saturating_add(1);
    }

    /// Takes one offer back.
    pub fn withdraw(&mut self, path: &[String], owner: Principal) {
        write_key(&mut self.key, path.iter().map(String::as_str));
        let Some(place) = self.places.get_mut(self.key.as_slice()) else {
            return;
        };
        if let Some(offer) = place.owners.get_mut(&owner) {
            offer.count = offer.count.saturating_sub(1);
            if offer.count == 0 {
                place.owners.remove(&owner);
                self.count -= 1;
            }
        }
        if place.owners.is_empty() {
            self.places.remove(self.key.as_slice());
        }
    }

    /// Lets go of a blob: its offers answer 4.04 from now on.
    pub fn remove_blob(&mut self, digest: &Digest) {
        let offers = self
            .places
            .values_mut()
            .flat_map(|place| place.owners.values_mut());
        offers
            .filter(|offer| offer.digest == *digest)
            .for_each(|offer| offer.blob = None);
    }

    /// Answers a GET, if something is offered under its path: 2.05, 2.03, or 4.03 to those without an offer.
    pub fn answer(
        &mut self,
        peer: PeerKey,
        request: &Message<'_>,
        seconds: u32,
        reply: &mut Reply<'_>,
    ) -> Outcome {
        if self.places.is_empty() || request.code != Code::GET {
            return Outcome::Unknown;
        }
        write_key(&mut self.key, request.options.path());
        let Some(place) = self.places.get(self.key.as_slice()) else {
            return Outcome::Unknown;
        };
        let Some(offer) = place.owners.get(&peer.owner()) else {
            reply.code(Code::FORBIDDEN);
            return Outcome::Answered(None);
        };
        let Some(blob) = &offer.blob else {
            reply.code(Code::NOT_FOUND);
            return Outcome::Answered(None);
        };
        let representation = coap::Blob {
            bytes: blob.as_ref().as_ref(),
            etag: blob.etag(),
            content_format: Some(OCTET_STREAM),
        };
        let Served::Block { offset, end } = representation.serve(request, self.block_size, reply) else {
            return Outcome::Answered(None);
        };
        self.blocks += 1;
        let block = (
            u32::try_from(offset).unwrap_or(u32::MAX),
            u32::try_from(end).unwrap_or(u32::MAX),
        );
        let size = u32::try_from(blob.size()).unwrap_or(u32::MAX);
        let (number, path, digest) = (place.number, Arc::clone(&place.path), offer.digest);
        let progress = self.follow((peer.principal(), number), block, size, request.mid, seconds);
        Outcome::Answered(progress.map(|progress| Download {
            peer: Remote::of_key(peer),
            path,
            digest,
            offset: progress.furthest.into(),
            size: size.into(),
            repeated: progress.repeated.into(),
        }))
    }

    /// Notes a block that was served; returns the progress when it is time to report it.
    fn follow(
        &mut self,
        key: (Principal, u32),
        (offset, end): (u32, u32),
        size: u32,
        mid: u16,
        seconds: u32,
    ) -> Option<Progress> {
        self.sweep(seconds);
        if self.downloads.len() >= MAX_DOWNLOADS && !self.downloads.contains_key(&key) {
            return None;
        }
        let fresh = Progress {
            furthest: 0,
            reported: 0,
            repeated: 0,
            seen: seconds,
            mid: mid.wrapping_sub(1),
        };
        let progress = self.downloads.entry(key).or_insert(fresh);
        let retransmission = progress.mid == mid;
        progress.mid = mid;
        progress.seen = seconds;
        if offset == 0 && progress.furthest >= size && !retransmission {
            // It had all of it and begins anew.
            (progress.furthest, progress.reported, progress.repeated) = (0, 0, 0);
        }
        if end <= progress.furthest {
            progress.repeated = progress.repeated.saturating_add(u32::from(!retransmission));
            return None;
        }
        progress.furthest = end;
        let due = end == size || end.saturating_sub(progress.reported) >= self.progress_bytes;
        if due {
            progress.reported = end;
        }
        due.then_some(*progress)
    }

    /// Stops to follow downloads that went silent, so that the state is bounded by what is alive.
    fn sweep(&mut self, seconds: u32) {
        if seconds.saturating_sub(self.swept) >= SWEEP_PERIOD {
            self.swept = seconds;
            self.downloads
                .retain(|_, progress| seconds.saturating_sub(progress.seen) < DOWNLOAD_IDLE);
        }
    }
}
