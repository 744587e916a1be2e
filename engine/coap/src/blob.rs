//! Serving constant bytes by Block2 without any state of the peer (RFC 7959 2.4, RFC 7252 5.10.6).

use crate::block::{self, Block, RESERVED_SZX};
use crate::code::Code;
use crate::codec::Message;
use crate::local::Reply;
use crate::options::number;

/// Constant bytes under a name that changes with them.
#[derive(Clone, Copy, Debug)]
pub struct Blob<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// 1 to 8 bytes, the same for the same bytes.
    pub etag: &'a [u8],
    /// Content-Format of the answer.
    pub content_format: Option<u16>,
}

/// What was written as the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// 2.05 with the bytes from `offset` to `end`.
    Block {
        /// First byte.
        offset: usize,
        /// One past the last byte.
        end: usize,
    },
    /// 2.03: the client holds these bytes.
    Valid,
    /// 4.00: past the end, or a reserved block size.
    Refused,
}

impl Blob<'_> {
    /// Answers a GET for the whole or for one block, in blocks of at most `max_size` bytes.
    ///
    /// The size asked for is honoured when it is smaller, also in mid-transfer; Size2 is given when asked for and
    /// with the first block of several.
    pub fn serve(&self, request: &Message<'_>, max_size: u16, reply: &mut Reply<'_>) -> Served {
        let options = &request.options;
        if options.block2.is_none_or(|block| block.num == 0) && options.etags().any(|etag| etag == self.etag)
        {
            reply.code(Code::VALID);
            reply.option(number::ETAG, self.etag);
            return Served::Valid;
        }
        let max_szx = block::szx(max_size);
        let asked = options.block2.unwrap_or(Block {
            num: 0,
            more: false,
            szx: max_szx,
        });
        let cut = asked.at_most(max_szx);
        let (offset, len) = (cut.offset(), self.bytes.len());
        if asked.szx == RESERVED_SZX || (offset >= len && offset > 0) || cut.is_beyond_numbers() {
            reply.code(Code::BAD_REQUEST);
            return Served::Refused;
        }
        let end = len.min(offset + cut.size());
        let whole = offset == 0 && end == len;
        reply.code(Code::CONTENT);
        reply.option(number::ETAG, self.etag);
        if let Some(format) = self.content_format {
            reply.uint(number::CONTENT_FORMAT, format.into());
        }
        if options.block2.is_some() || !whole {
            reply.block(
                number::BLOCK2,
                Block {
                    more: end < len,
                    ..cut
                },
            );
        }
        if options.size2.is_some() || (offset == 0 && !whole) {
            reply.uint(number::SIZE2, u32::try_from(len).unwrap_or(u32::MAX));
        }
        reply.payload(self.bytes.get(offset..end).unwrap_or_default());
        Served::Block { offset, end }
    }
}
