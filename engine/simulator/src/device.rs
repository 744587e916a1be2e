//! One light device without I/O: objects 1, 3 and 5 (version 1.0), answers to requests, and the firmware it has.

use std::fmt::Write as _;

use coap::{Code, Request, Response};

use crate::tlv;

const TEXT: u16 = 0;
const LINKS: u16 = 40;
const TLV: u16 = 11542;
const MCUBOOT_MAGIC: [u8; 4] = [0x3d, 0xb8, 0xf3, 0x96];
/// Bytes of an image that tell its version.
pub const HEAD: usize = 64;

/// State of object 5, with the registry's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing under way.
    Idle = 0,
    /// A package is coming.
    Downloading = 1,
    /// A package is here.
    Downloaded = 2,
    /// Until the restart.
    Updating = 3,
}

/// What happens to this device when it is told to install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It comes back with the new version.
    Succeeds,
    /// It comes back with the old version and Update Result 8.
    Fails,
    /// It never comes back.
    Vanishes,
}

/// What the fleet has to do after a request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// State or Result has changed: notify.
    Changed,
    /// Fetch the package from this URI.
    Fetch(String),
    /// Stop fetching.
    Stop,
    /// Go away and come back as [`Device::restart`] says.
    Restart,
    /// Send an Update now.
    Update,
}

/// A device: what it is and what it knows.
#[derive(Debug)]
pub struct Device {
    /// Endpoint name.
    pub endpoint: String,
    /// Lifetime in seconds.
    pub lifetime: u32,
    version: String,
    fate: Fate,
    state: State,
    result: u8,
    head: Vec<u8>,
    received: u64,
}

impl Device {
    /// A device as it leaves the factory.
    pub fn new(endpoint: String, lifetime: u32, version: &str, fate: Fate) -> Self {
        Self {
            endpoint,
            lifetime,
            version: version.to_owned(),
            fate,
            state: State::Idle,
            result: 0,
            head: Vec::new(),
            received: 0,
        }
    }

    /// State of object 5.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The firmware version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The payload of a Register.
    pub const fn links() -> &'static [u8] {
        b"</>;rt=\"oma.lwm2m\";ct=11542,</1/0>,</3/0>,</5/0>"
    }

    /// The restart that Execute asked for; false when this device never comes back.
    pub fn restart(&mut self) -> bool {
        if self.state == State::Updating {
            match (self.fate, version_of(&self.head)) {
                (Fate::Vanishes, _) => return false,
                (Fate::Succeeds, Some(version)) => {
                    self.version = version;
                    self.result = 1;
                }
                _ => self.result = 8,
            }
        }
        self.state = State::Idle;
        self.head.clear();
        self.received = 0;
        true
    }

    /// Takes a block of the package at `offset`; false when it is not the next one.
    pub fn take(&mut self, offset: u64, bytes: &[u8]) -> bool {
        if offset == 0 {
            self.received = 0;
            self.head.clear();
        }
        if offset != self.received {
            return false;
        }
        let missing = HEAD.saturating_sub(self.head.len());
        self.head.extend(bytes.iter().take(missing));
        self.received += bytes.len() as u64;
        true
    }

    /// Bytes of the package that are here.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// The package is complete.
    pub const fn complete(&mut self) {
        self.state = State::Downloaded;
    }

    /// The package did not come; `result` is an Update Result.
    pub fn abandon(&mut self, result: u8) {
        self.state = State::Idle;
        self.result = result;
        self.received = 0;
        self.head.clear();
    }

    /// Answers a request of the server.
    pub fn answer(&mut self, request: &Request) -> (Response, Effect) {
        let mut path = [0_u16; 3];
        let depth = request.path.len();
        let parsed = request
            .path
            .iter()
            .zip(&mut path)
            .all(|(segment, slot)| segment.parse().map(|number| *slot = number).is_ok());
        if !parsed || depth == 0 || depth > 3 || !matches!(path, [1 | 3 | 5, 0, _]) {
            return (Response::new(Code::NOT_FOUND), Effect::None);
        }
        let [object, _, resource] = path;
        match (request.code, depth) {
            (Code::GET, 1 | 2) if request.accept == Some(LINKS) => (discover(object), Effect::None),
            (Code::GET, 2) => (self.read_instance(object, request.accept), Effect::None),
            (Code::GET, 3) => (self.read_resource(object, resource, request.accept), Effect::None),
            (Code::PUT | Code::POST, 2 | 3) if object == 5 && (depth == 2 || resource <= 1) => {
                self.write_package(resource, depth, request)
            }
            (Code::PUT | Code::POST, 3) if (object, resource) == (1, 1) => self.write_lifetime(request),
            (Code::POST, 3) => self.execute(object, resource),
            _ => (Response::new(Code::METHOD_NOT_ALLOWED), Effect::None),
        }
    }

    fn values(&self, object: u16) -> Vec<(u16, Value)> {
        match object {
            1 => vec![
                (0, Value::Integer(1)),
                (1, Value::Integer(i64::from(self.lifetime))),
                (7, Value::Text("U".into())),
            ],
            3 => vec![
                (0, Value::Text("Simulated".into())),
                (1, Value::Text("Light".into())),
                (2, Value::Text(self.endpoint.clone())),
                (3, Value::Text(self.version.clone())),
                (16, Value::Text("U".into())),
            ],
            _ => vec![
                (1, Value::Text(String::new())),
                (3, Value::Integer(self.state as i64)),
                (5, Value::Integer(i64::from(self.result))),
                (9, Value::Integer(2)),
            ],
        }
    }

    fn read_instance(&self, object: u16, accept: Option<u16>) -> Response {
        if !matches!(accept, None | Some(TLV)) {
            return Response::new(Code::NOT_ACCEPTABLE);
        }
        let mut payload = Vec::new();
        for (id, value) in self.values(object) {
            tlv::resource(&mut payload, id, &value.tlv());
        }
        content(TLV, payload)
    }

    fn read_resource(&self, object: u16, resource: u16, accept: Option<u16>) -> Response {
        let Some((_, value)) = self.values(object).into_iter().find(|(id, _)| *id == resource) else {
            return Response::new(Code::NOT_FOUND);
        };
        match accept {
            None | Some(TEXT) => content(TEXT, value.text().into_bytes()),
            Some(TLV) => {
                let mut payload = Vec::new();
                tlv::resource(&mut payload, resource, &value.tlv());
                content(TLV, payload)
            }
            Some(_) => Response::new(Code::NOT_ACCEPTABLE),
        }
    }

    fn write_package(&mut self, resource: u16, depth: usize, request: &Request) -> (Response, Effect) {
        if self.state == State::Updating {
            return (Response::new(Code::METHOD_NOT_ALLOWED), Effect::None);
        }
        if depth == 3 && resource == 0 {
            return self.write_block(request);
        }
        let uri = match request.content_format {
            Some(TLV) => tlv::find(&request.payload, 1),
            None | Some(TEXT) if depth == 3 => Some(request.payload.as_slice()),
            _ => return (Response::new(Code::UNSUPPORTED_CONTENT_FORMAT), Effect::None),
        };
        match uri.map(std::str::from_utf8) {
            Some(Ok("")) => {
                self.abandon(0);
                (Response::new(Code::CHANGED), Effect::Stop)
            }
            Some(Ok(uri)) if self.state == State::Idle => {
                self.abandon(0);
                self.state = State::Downloading;
                (Response::new(Code::CHANGED), Effect::Fetch(uri.to_owned()))
            }
            _ => (Response::new(Code::BAD_REQUEST), Effect::None),
        }
    }

    /// A block of a push; the whole thing may also come in one message.
    fn write_block(&mut self, request: &Request) -> (Response, Effect) {
        let block = request.block1.unwrap_or_default();
        if request.block1.is_none() && request.payload == [0] {
            self.abandon(0);
            return (Response::new(Code::CHANGED), Effect::Stop);
        }
        let offset = block.offset() as u64;
        let expected = match self.state {
            State::Idle => 0,
            State::Downloading => self.received,
            State::Downloaded | State::Updating => return (Response::new(Code::BAD_REQUEST), Effect::None),
        };
        if offset != 0 && offset != expected {
            return (Response::new(Code::REQUEST_ENTITY_INCOMPLETE), Effect::None);
        }
        let began = self.state == State::Idle;
        if began {
            self.result = 0;
        }
        self.state = State::Downloading;
        self.take(offset, &request.payload);
        let mut response = Response::new(if block.more { Code::CONTINUE } else { Code::CHANGED });
        response.block1 = request.block1;
        if block.more {
            return (response, if began { Effect::Changed } else { Effect::None });
        }
        self.complete();
        (response, Effect::Changed)
    }

    fn write_lifetime(&mut self, request: &Request) -> (Response, Effect) {
        let seconds = match request.content_format {
            Some(TLV) => tlv::find(&request.payload, 1)
                .map(|value| value.iter().fold(0_u32, |sum, &byte| sum << 8 | u32::from(byte))),
            _ => std::str::from_utf8(&request.payload)
                .ok()
                .and_then(|text| text.parse().ok()),
        };
        match seconds {
            Some(seconds) if seconds > 0 => {
                self.lifetime = seconds;
                (Response::new(Code::CHANGED), Effect::Update)
            }
            _ => (Response::new(Code::BAD_REQUEST), Effect::None),
        }
    }

    fn execute(&mut self, object: u16, resource: u16) -> (Response, Effect) {
        let effect = match (object, resource, self.state) {
            (5, 2, State::Downloaded) => {
                self.state = State::Updating;
                Effect::Restart
            }
            (3, 4, _) => Effect::Restart,
            (1, 8, _) => Effect::Update,
            _ => return (Response::new(Code::METHOD_NOT_ALLOWED), Effect::None),
        };
        (Response::new(Code::CHANGED), effect)
    }
}

enum Value {
    Integer(i64),
    Text(String),
}

impl Value {
    fn tlv(&self) -> Vec<u8> {
        match self {
            Self::Integer(value) => tlv::integer(*value),
            Self::Text(text) => text.clone().into_bytes(),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Integer(value) => value.to_string(),
            Self::Text(text) => text,
        }
    }
}

fn content(format: u16, payload: Vec<u8>) -> Response {
    Response {
        content_format: Some(format),
        payload,
        ..Response::new(Code::CONTENT)
    }
}

fn discover(object: u16) -> Response {
    let resources: &[u16] = match object {
        1 => &[0, 1, 7, 8],
        3 => &[0, 1, 2, 3, 4, 16],
        _ => &[0, 1, 2, 3, 5, 9],
    };
    let mut text = format!("</{object}>,</{object}/0>");
    for resource in resources {
        let _ = write!(text, ",</{object}/0/{resource}>");
    }
    content(LINKS, text.into_bytes())
}

/// The version that an image carries: in its MCUboot header, or in a first line `firmware-version: X`.
fn version_of(head: &[u8]) -> Option<String> {
    if head.starts_with(&MCUBOOT_MAGIC) {
        let [major, minor, low, high, ..] = *head.get(20..24)? else {
            return None;
        };
        return Some(format!("{major}.{minor}.{}", u16::from_le_bytes([low, high])));
    }
    let line = head.split(|&byte| byte == b'\n').next()?;
    let version = line.strip_prefix(b"firmware-version: ")?;
    String::from_utf8(version.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coap::Block;

    fn device() -> Device {
        Device::new("sim-1".into(), 300, "1.0.0", Fate::Succeeds)
    }

    fn request(code: Code, path: &[&str]) -> Request {
        Request::new(code, path)
    }

    fn block(num: u32, more: bool, payload: &[u8]) -> Request {
        Request {
            block1: Some(Block::new(num, more, 16)),
            payload: payload.to_vec(),
            ..request(Code::PUT, &["5", "0", "0"])
        }
    }

    #[test]
    fn a_pushed_image_is_installed_after_execute() {
        let mut device = device();
        let (answer, effect) = device.answer(&block(0, true, b"firmware-version"));
        assert_eq!((answer.code, effect), (Code::CONTINUE, Effect::Changed));
        device.answer(&block(1, true, b": 2.5.0\n........"));
        let (answer, effect) = device.answer(&block(2, false, b"end"));
        assert_eq!((answer.code, effect), (Code::CHANGED, Effect::Changed));
        assert_eq!(device.state(), State::Downloaded);
        let (answer, effect) = device.answer(&request(Code::POST, &["5", "0", "2"]));
        assert_eq!((answer.code, effect), (Code::CHANGED, Effect::Restart));
        assert!(device.restart());
        assert_eq!((device.version(), device.result), ("2.5.0", 1));
    }

    #[test]
    fn a_skipped_block_is_refused_and_changes_nothing() {
        let mut device = device();
        device.answer(&block(0, true, b"0123456789abcdef"));
        let (answer, _) = device.answer(&block(2, true, b"0123456789abcdef"));
        assert_eq!(answer.code, Code::REQUEST_ENTITY_INCOMPLETE);
        assert_eq!(device.received(), 16);
    }

    #[test]
    fn execute_is_refused_without_a_package() {
        let (answer, effect) = device().answer(&request(Code::POST, &["5", "0", "2"]));
        assert_eq!((answer.code, effect), (Code::METHOD_NOT_ALLOWED, Effect::None));
    }

    #[test]
    fn a_failing_device_keeps_its_version_and_reports_8() {
        let mut device = Device::new("sim-1".into(), 300, "1.0.0", Fate::Fails);
        device.answer(&block(0, false, b"firmware-version: 2.5.0\n"));
        device.answer(&request(Code::POST, &["5", "0", "2"]));
        assert!(device.restart());
        assert_eq!((device.version(), device.result), ("1.0.0", 8));
    }

    #[test]
    fn the_version_is_read_from_an_mcuboot_header() {
        let mut head = vec![0; 32];
        head[..4].copy_from_slice(&MCUBOOT_MAGIC);
        head[20..24].copy_from_slice(&[3, 1, 0x2c, 0x01]);
        assert_eq!(version_of(&head).as_deref(), Some("3.1.300"));
    }

    #[test]
    fn unknown_paths_are_not_found_and_unknown_formats_not_acceptable() {
        let mut device = device();
        for path in [&["7"][..], &["5", "1"], &["5", "0", "0", "0"], &["rd"]] {
            assert_eq!(device.answer(&request(Code::GET, path)).0.code, Code::NOT_FOUND);
        }
        let mut read = request(Code::GET, &["3", "0"]);
        read.accept = Some(112);
        assert_eq!(device.answer(&read).0.code, Code::NOT_ACCEPTABLE);
    }
}
