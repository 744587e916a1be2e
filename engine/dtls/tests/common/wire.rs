//! Records written and read by hand, against the crate's own reading of them.

pub const FINISHED: u8 = 20;

/// A record in the clear, or one of another epoch that nobody encrypted.
pub fn plain(kind: u8, epoch: u16, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 0xfe, 0xfd];
    record.extend_from_slice(&epoch.to_be_bytes());
    record.extend_from_slice(&sequence.to_be_bytes()[2..]);
    record.extend_from_slice(&u16::try_from(body.len()).expect("short").to_be_bytes());
    record.extend_from_slice(body);
    record
}

fn u24(value: usize) -> [u8; 3] {
    let [_, bytes @ ..] = u32::try_from(value).expect("short").to_be_bytes();
    bytes
}

/// A fragment of a handshake message.
pub fn fragment(kind: u8, total: usize, seq: u16, offset: usize, body: &[u8]) -> Vec<u8> {
    let mut fragment = vec![kind];
    fragment.extend_from_slice(&u24(total));
    fragment.extend_from_slice(&seq.to_be_bytes());
    fragment.extend_from_slice(&u24(offset));
    fragment.extend_from_slice(&u24(body.len()));
    fragment.extend_from_slice(body);
    fragment
}

/// Each record of plain form in a datagram of its own.
pub fn records(datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    for datagram in datagrams {
        let mut rest = datagram.as_slice();
        while rest.len() >= 13 {
            let length = 13 + usize::from(u16::from_be_bytes([rest[11], rest[12]]));
            let (record, others) = rest.split_at(length);
            records.push(record.to_vec());
            rest = others;
        }
    }
    records
}

/// A record with a whole `ClientHello` or `ServerHello`, without one of its extensions.
pub fn without_extension(record: &[u8], kind: u16) -> Vec<u8> {
    let mut record = record.to_vec();
    let number = |record: &[u8], at: usize| usize::from(u16::from_be_bytes([record[at], record[at + 1]]));
    let is_client = record[13] == 1;
    // Version, random, session id.
    let mut at = 25 + 34;
    at += 1 + usize::from(record[at]);
    if is_client {
        at += 1 + usize::from(record[at]);
        at += 2 + number(&record, at);
        at += 1 + usize::from(record[at]);
    } else {
        at += 3;
    }
    let list = at;
    let end = list + 2 + number(&record, list);
    at += 2;
    while at < end {
        let length = 4 + number(&record, at + 2);
        if number(&record, at) == usize::from(kind) {
            record.drain(at..at + length);
            // Lengths of the list, the record, the message, and its fragment; the latter two have three bytes.
            for place in [list, 11, 13 + 2, 13 + 10] {
                let less = u16::try_from(number(&record, place) - length).expect("short");
                record[place..place + 2].copy_from_slice(&less.to_be_bytes());
            }
            return record;
        }
        at += length;
    }
    record
}
