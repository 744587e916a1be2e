//! The value of a Block1 or Block2 option (RFC 7959 2.2).

/// Number, more flag and size exponent of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Block {
    /// Block number, below 2^20.
    pub num: u32,
    /// More blocks follow (or, in a Block1 answer, the whole is not processed yet).
    pub more: bool,
    /// Size exponent 0 to 6; 7 is reserved on UDP.
    pub szx: u8,
}

/// Largest block number: 20 bits.
pub const MAX_NUM: u32 = (1 << 20) - 1;

/// The reserved size exponent.
pub const RESERVED_SZX: u8 = 7;

impl Block {
    /// A block by number and size in bytes; the size is rounded down to a legal one.
    #[must_use]
    pub const fn new(num: u32, more: bool, size: u16) -> Self {
        Self {
            num,
            more,
            szx: szx(size),
        }
    }

    /// From the value of the option; bits above 24 are dropped.
    #[must_use]
    pub const fn from_uint(value: u32) -> Self {
        let value = value & 0x00ff_ffff;
        Self {
            num: value >> 4,
            more: value & 8 != 0,
            szx: (value & 7) as u8,
        }
    }

    /// The value of the option.
    #[must_use]
    pub const fn to_uint(self) -> u32 {
        (self.num & MAX_NUM) << 4 | (self.more as u32) << 3 | (self.szx & 7) as u32
    }

    /// Bytes in a full block; the reserved exponent counts as 1024.
    #[must_use]
    pub const fn size(self) -> usize {
        size(self.szx)
    }

    /// Position of its first byte in the body.
    #[must_use]
    pub const fn offset(self) -> usize {
        self.num as usize * self.size()
    }

    /// The block of at most `szx` that starts at the same byte (RFC 7959 2.4).
    #[must_use]
    pub const fn at_most(self, szx: u8) -> Self {
        let (from, to) = (
            if self.szx > 6 { 6 } else { self.szx },
            if szx > 6 { 6 } else { szx },
        );
        if from <= to {
            return self;
        }
        Self {
            num: self.num << (from - to),
            more: self.more,
            szx: to,
        }
    }

    /// Its number has more than 20 bits: no option can name it.
    #[must_use]
    pub const fn is_beyond_numbers(self) -> bool {
        self.num > MAX_NUM
    }
}

/// Bytes of a block of this exponent.
#[must_use]
pub const fn size(szx: u8) -> usize {
    if szx > 6 { 1024 } else { 16 << szx }
}

/// The largest exponent whose blocks are not above `size` bytes; at least 0 (16 bytes).
#[must_use]
pub const fn szx(size: u16) -> u8 {
    match size {
        0..=31 => 0,
        32..=63 => 1,
        64..=127 => 2,
        128..=255 => 3,
        256..=511 => 4,
        512..=1023 => 5,
        _ => 6,
    }
}
