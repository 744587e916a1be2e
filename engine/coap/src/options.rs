//! Option numbers, formats and the critical/elective rules (RFC 7252 5.4, 5.10; RFC 7641 2; RFC 7959 2, 4).

use crate::block::Block;

/// Option numbers.
pub mod number {
    #![allow(missing_docs)]
    pub const IF_MATCH: u16 = 1;
    pub const URI_HOST: u16 = 3;
    pub const ETAG: u16 = 4;
    pub const IF_NONE_MATCH: u16 = 5;
    pub const OBSERVE: u16 = 6;
    pub const URI_PORT: u16 = 7;
    pub const LOCATION_PATH: u16 = 8;
    pub const URI_PATH: u16 = 11;
    pub const CONTENT_FORMAT: u16 = 12;
    pub const MAX_AGE: u16 = 14;
    pub const URI_QUERY: u16 = 15;
    pub const ACCEPT: u16 = 17;
    pub const LOCATION_QUERY: u16 = 20;
    pub const BLOCK2: u16 = 23;
    pub const BLOCK1: u16 = 27;
    pub const SIZE2: u16 = 28;
    pub const PROXY_URI: u16 = 35;
    pub const PROXY_SCHEME: u16 = 39;
    pub const SIZE1: u16 = 60;
}

/// Options with an odd number are critical (RFC 7252 5.4.6).
#[must_use]
pub const fn is_critical(number: u16) -> bool {
    number & 1 == 1
}

/// What the core knows of an option: length of its value, whether it may repeat, whether it is text.
struct Format {
    min: usize,
    max: usize,
    repeatable: bool,
    text: bool,
}

/// The format of a known option (RFC 7252 table 4, RFC 7641 table 1, RFC 7959 tables 1 and 2).
const fn format(number: u16) -> Option<Format> {
    let (min, max, repeatable, text) = match number {
        number::IF_MATCH => (0, 8, true, false),
        number::URI_HOST | number::PROXY_SCHEME => (1, 255, false, true),
        number::ETAG => (1, 8, true, false),
        number::IF_NONE_MATCH => (0, 0, false, false),
        number::OBSERVE | number::BLOCK1 | number::BLOCK2 => (0, 3, false, false),
        number::URI_PORT | number::CONTENT_FORMAT | number::ACCEPT => (0, 2, false, false),
        number::LOCATION_PATH | number::URI_PATH | number::URI_QUERY | number::LOCATION_QUERY => {
            (0, 255, true, true)
        }
        number::MAX_AGE | number::SIZE1 | number::SIZE2 => (0, 4, false, false),
        number::PROXY_URI => (1, 1034, false, true),
        _ => return None,
    };
    Some(Format {
        min,
        max,
        repeatable,
        text,
    })
}

/// A uint option value (RFC 7252 3.2); zero length is 0. Values above four bytes keep the last four.
#[must_use]
pub fn uint(value: &[u8]) -> u32 {
    value.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

/// The options of a message: numbers and flags decoded, the repeatable ones iterated over on demand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    raw: &'a [u8],
    /// Observe (RFC 7641 2).
    pub observe: Option<u32>,
    /// Content-Format; real devices send any value, 65535 included.
    pub content_format: Option<u16>,
    /// Max-Age in seconds.
    pub max_age: Option<u32>,
    /// Accept.
    pub accept: Option<u16>,
    /// Block2 (RFC 7959 2.2).
    pub block2: Option<Block>,
    /// Block1 (RFC 7959 2.2).
    pub block1: Option<Block>,
    /// Size2 in bytes (RFC 7959 4).
    pub size2: Option<u32>,
    /// Size1 in bytes (RFC 7959 4).
    pub size1: Option<u32>,
    /// If-None-Match is present.
    pub if_none_match: bool,
    /// Proxy-Uri or Proxy-Scheme is present.
    pub proxied: bool,
    /// The first critical option that is unknown, out of range or repeated against its format (RFC 7252 5.4.1).
    pub unknown_critical: Option<u16>,
}

impl<'a> Options<'a> {
    pub(crate) fn set_raw(&mut self, raw: &'a [u8]) {
        self.raw = raw;
    }

    /// Takes note of one option in wire order; `repeated` says that its predecessor has the same number.
    pub(crate) fn note(&mut self, number: u16, value: &'a [u8], repeated: bool) {
        if !accepts(number, value, repeated) {
            if is_critical(number) && self.unknown_critical.is_none() {
                self.unknown_critical = Some(number);
            }
            return;
        }
        match number {
            number::OBSERVE => self.observe = Some(uint(value)),
            number::CONTENT_FORMAT => self.content_format = Some(short(value)),
            number::MAX_AGE => self.max_age = Some(uint(value)),
            number::ACCEPT => self.accept = Some(short(value)),
            number::BLOCK2 => self.block2 = Some(Block::from_uint(uint(value))),
            number::BLOCK1 => self.block1 = Some(Block::from_uint(uint(value))),
            number::SIZE2 => self.size2 = Some(uint(value)),
            number::SIZE1 => self.size1 = Some(uint(value)),
            number::IF_NONE_MATCH => self.if_none_match = true,
            number::PROXY_URI | number::PROXY_SCHEME => self.proxied = true,
            _ => {}
        }
    }

    /// All options in wire order as (number, value), also unknown ones.
    pub fn iter(&self) -> OptionIter<'a> {
        OptionIter {
            raw: self.raw,
            number: 0,
        }
    }

    fn texts(&self, number: u16) -> impl Iterator<Item = &'a str> + use<'a> {
        self.values(number)
            .filter_map(|value| std::str::from_utf8(value).ok())
    }

    fn values(&self, number: u16) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.iter()
            .skip_while(move |(found, _)| *found < number)
            .take_while(move |(found, _)| *found == number)
            .map(|(_, value)| value)
    }

    /// Segments of the Uri-Path.
    pub fn path(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.texts(number::URI_PATH)
    }

    /// True when the Uri-Path has exactly these segments.
    #[must_use]
    pub fn path_is(&self, segments: &[&str]) -> bool {
        self.path().eq(segments.iter().copied())
    }

    /// Arguments of the Uri-Query.
    pub fn query(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.texts(number::URI_QUERY)
    }

    /// `ETag` values.
    pub fn etags(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.values(number::ETAG)
            .filter(|value| (1..=8).contains(&value.len()))
    }

    /// If-Match values; an empty one means "exists".
    pub fn if_match(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.values(number::IF_MATCH)
    }

    /// Segments of the Location-Path.
    pub fn location_path(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.texts(number::LOCATION_PATH)
    }

    /// Arguments of the Location-Query.
    pub fn location_query(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.texts(number::LOCATION_QUERY)
    }

    /// Uri-Host.
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        self.texts(number::URI_HOST).next()
    }
}

/// An option that breaks its format counts as unrecognized (RFC 7252 5.4.3, 5.4.5).
fn accepts(number: u16, value: &[u8], repeated: bool) -> bool {
    format(number).is_some_and(|format| {
        (format.min..=format.max).contains(&value.len())
            && (format.repeatable || !repeated)
            && (!format.text || std::str::from_utf8(value).is_ok())
    })
}

fn short(value: &[u8]) -> u16 {
    u16::try_from(uint(value)).unwrap_or(u16::MAX)
}

impl<'a> IntoIterator for &Options<'a> {
    type Item = (u16, &'a [u8]);
    type IntoIter = OptionIter<'a>;

    fn into_iter(self) -> OptionIter<'a> {
        self.iter()
    }
}

/// Iterates over the options of a message that has been parsed.
#[derive(Clone, Debug)]
pub struct OptionIter<'a> {
    raw: &'a [u8],
    number: u16,
}

impl<'a> Iterator for OptionIter<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (delta, value, rest) = crate::codec::split_option(self.raw)?;
        self.number = self.number.checked_add(delta)?;
        self.raw = rest;
        Some((self.number, value))
    }
}
