//! Message types, codes and tokens (RFC 7252 3, 5.2, 5.3.1, 12.1; RFC 7959 2.9; RFC 8132).

use std::fmt;

/// Message type (RFC 7252 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// CON
    Confirmable,
    /// NON
    NonConfirmable,
    /// ACK
    Acknowledgement,
    /// RST
    Reset,
}

impl Kind {
    /// The two bits of the header.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// From the two bits of the header; higher bits are ignored.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Confirmable,
            1 => Self::NonConfirmable,
            2 => Self::Acknowledgement,
            _ => Self::Reset,
        }
    }
}

/// Method or response code: class × 32 + detail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u8);

macro_rules! codes {
    ($($name:ident = $class:literal . $detail:literal;)*) => {
        impl Code {
            $(
                #[doc = concat!(stringify!($class), ".", stringify!($detail))]
                pub const $name: Self = Self($class << 5 | $detail);
            )*
        }
    };
}

codes! {
    EMPTY = 0 . 0;
    GET = 0 . 1;
    POST = 0 . 2;
    PUT = 0 . 3;
    DELETE = 0 . 4;
    FETCH = 0 . 5;
    PATCH = 0 . 6;
    IPATCH = 0 . 7;
    CREATED = 2 . 1;
    DELETED = 2 . 2;
    VALID = 2 . 3;
    CHANGED = 2 . 4;
    CONTENT = 2 . 5;
    CONTINUE = 2 . 31;
    BAD_REQUEST = 4 . 0;
    UNAUTHORIZED = 4 . 1;
    BAD_OPTION = 4 . 2;
    FORBIDDEN = 4 . 3;
    NOT_FOUND = 4 . 4;
    METHOD_NOT_ALLOWED = 4 . 5;
    NOT_ACCEPTABLE = 4 . 6;
    REQUEST_ENTITY_INCOMPLETE = 4 . 8;
    PRECONDITION_FAILED = 4 . 12;
    REQUEST_ENTITY_TOO_LARGE = 4 . 13;
    UNSUPPORTED_CONTENT_FORMAT = 4 . 15;
    INTERNAL_SERVER_ERROR = 5 . 0;
    NOT_IMPLEMENTED = 5 . 1;
    SERVICE_UNAVAILABLE = 5 . 3;
    PROXYING_NOT_SUPPORTED = 5 . 5;
}

impl Code {
    /// 0 request, 2 success, 4 client error, 5 server error; 1, 6 and 7 are reserved.
    #[must_use]
    pub const fn class(self) -> u8 {
        self.0 >> 5
    }

    /// The part behind the dot.
    #[must_use]
    pub const fn detail(self) -> u8 {
        self.0 & 31
    }

    /// 0.01 to 0.31.
    #[must_use]
    pub const fn is_request(self) -> bool {
        self.class() == 0 && self.0 != 0
    }

    /// Class 2, 4 or 5.
    #[must_use]
    pub const fn is_response(self) -> bool {
        matches!(self.class(), 2 | 4 | 5)
    }

    /// Class 2. The unassigned 2.00 counts too, because real devices send it for any success.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.class() == 2
    }

    /// Methods whose repetition changes nothing by definition and asks for no state: GET and FETCH.
    #[must_use]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::GET | Self::FETCH)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.class(), self.detail())
    }
}

/// A token: 0 to 8 bytes (RFC 7252 5.3.1).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    bytes: [u8; 8],
    len: u8,
}

impl Token {
    /// The zero-length token.
    pub const EMPTY: Self = Self {
        bytes: [0; 8],
        len: 0,
    };

    /// A token from at most 8 bytes; `None` when there are more.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut token = Self::EMPTY;
        token.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        token.len = u8::try_from(bytes.len()).ok()?;
        Some(token)
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(")?;
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}
