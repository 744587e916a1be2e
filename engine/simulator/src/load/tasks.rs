//! What a load asks for, and what it makes of the answers.

use coap::codec::Encoder;
use coap::options::number;
use coap::{Block, Code, Message};

use crate::device::Device;
use crate::links::endpoint;

/// What to ask, and what to make of the answer.
pub(super) trait Task {
    /// Method; `None` asks nothing, a handshake is all.
    const CODE: Option<Code>;
    /// Appends options and payload of item `item`.
    fn write(&self, item: usize, encoder: &mut Encoder<'_>);
    /// Takes the answer; false when it is not the expected one.
    fn accept(&mut self, item: usize, answer: &Message<'_>) -> bool;
    /// The device that asks for item `item`.
    fn device(&self, item: usize) -> usize;
}

pub(super) struct Shake;

impl Task for Shake {
    const CODE: Option<Code> = None;

    fn write(&self, _: usize, _: &mut Encoder<'_>) {}

    fn accept(&mut self, _: usize, _: &Message<'_>) -> bool {
        true
    }

    fn device(&self, item: usize) -> usize {
        item
    }
}

pub(super) struct Register<'a> {
    pub(super) prefix: &'a str,
    pub(super) lifetime: u32,
    pub(super) locations: &'a mut Vec<Vec<String>>,
}

impl Task for Register<'_> {
    const CODE: Option<Code> = Some(Code::POST);

    fn write(&self, item: usize, encoder: &mut Encoder<'_>) {
        encoder.option(number::URI_PATH, b"rd");
        encoder.uint(number::CONTENT_FORMAT, 40);
        encoder.option(
            number::URI_QUERY,
            format!("ep={}", endpoint(self.prefix, item)).as_bytes(),
        );
        encoder.option(number::URI_QUERY, format!("lt={}", self.lifetime).as_bytes());
        encoder.option(number::URI_QUERY, b"lwm2m=1.1");
        encoder.option(number::URI_QUERY, b"b=U");
        encoder.payload(Device::links());
    }

    fn accept(&mut self, item: usize, answer: &Message<'_>) -> bool {
        let location: Vec<String> = answer.options.location_path().map(str::to_owned).collect();
        let created = answer.code == Code::CREATED && !location.is_empty();
        if let Some(slot) = self.locations.get_mut(item) {
            *slot = location;
        }
        created
    }

    fn device(&self, item: usize) -> usize {
        item
    }
}

pub(super) struct Update<'a> {
    pub(super) locations: &'a [Vec<String>],
}

impl Task for Update<'_> {
    const CODE: Option<Code> = Some(Code::POST);

    fn write(&self, item: usize, encoder: &mut Encoder<'_>) {
        for segment in self.locations.get(self.device(item)).into_iter().flatten() {
            encoder.option(number::URI_PATH, segment.as_bytes());
        }
    }

    fn accept(&mut self, _: usize, answer: &Message<'_>) -> bool {
        answer.code == Code::CHANGED
    }

    fn device(&self, item: usize) -> usize {
        item % self.locations.len().max(1)
    }
}

pub(super) struct Get<'a> {
    pub(super) path: &'a [String],
    /// Blocks of the resource; 0 asks without Block2.
    pub(super) blocks: u32,
    pub(super) lanes: usize,
    pub(super) bytes: u64,
}

impl Task for Get<'_> {
    const CODE: Option<Code> = Some(Code::GET);

    fn write(&self, item: usize, encoder: &mut Encoder<'_>) {
        for segment in self.path {
            encoder.option(number::URI_PATH, segment.as_bytes());
        }
        if self.blocks > 0 {
            let turn = u32::try_from(item / self.lanes).unwrap_or_default();
            encoder.block(number::BLOCK2, Block::new(turn % self.blocks, false, 1024));
        }
    }

    fn accept(&mut self, _: usize, answer: &Message<'_>) -> bool {
        self.bytes += answer.payload.len() as u64;
        answer.code == Code::CONTENT
    }

    fn device(&self, item: usize) -> usize {
        item % self.lanes
    }
}
