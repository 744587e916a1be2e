//! The messages of a handshake as its keys, Finished messages and signatures cover them.

use std::fmt;

use ring::digest::{self, SHA256};

/// Hashed as they come; kept beside only as long as a signature over them may be wanted, as that takes the whole.
pub(crate) struct Transcript {
    hash: digest::Context,
    messages: Option<Vec<u8>>,
}

impl fmt::Debug for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transcript")
    }
}

impl Transcript {
    pub(crate) fn new() -> Self {
        Self {
            hash: digest::Context::new(&SHA256),
            messages: Some(Vec::new()),
        }
    }

    /// No signature over it will be made or verified.
    pub(crate) fn has_no_signature(&mut self) {
        self.messages = None;
    }

    pub(crate) fn push(&mut self, header: &[u8], body: &[u8]) {
        for part in [header, body] {
            self.hash.update(part);
            if let Some(messages) = &mut self.messages {
                messages.extend_from_slice(part);
            }
        }
    }

    /// The hash of the messages so far.
    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.hash.clone().finish().as_ref());
        hash
    }

    /// The messages so far; nothing once it was said that there is no signature.
    pub(crate) fn messages(&self) -> Option<&[u8]> {
        self.messages.as_deref()
    }
}
