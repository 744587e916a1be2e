//! Connection ids (RFC 9146).

use std::fmt;

/// Longest connection id that we take from a peer or give out; a longer one of a peer is refused.
pub const MAX_CID: usize = 20;

/// A connection id; of zero length where records are to carry none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    length: u8,
    bytes: [u8; MAX_CID],
}

impl ConnectionId {
    /// The id of these bytes; `None` when they are more than [`MAX_CID`].
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut cid = Self::default();
        cid.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        cid.length = u8::try_from(bytes.len()).ok()?;
        Some(cid)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length.into()).unwrap_or_default()
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length.into()
    }

    /// Records carry none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
