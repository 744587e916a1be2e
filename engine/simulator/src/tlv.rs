//! As much of OMA TLV (LwM2M Core 7.4.3) as a light device needs: single resources.

const RESOURCE: u8 = 0b1100_0000;

/// Appends a resource with value.
pub fn resource(out: &mut Vec<u8>, id: u16, value: &[u8]) {
    let wide = u8::from(id > 255) << 5;
    let [high, low] = id.to_be_bytes();
    let len = u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes();
    let (kind, skip) = match value.len() {
        0..=7 => (len[3], 4),
        8..=0xff => (1 << 3, 3),
        0x100..=0xffff => (2 << 3, 2),
        _ => (3 << 3, 1),
    };
    out.push(RESOURCE | wide | kind);
    if wide != 0 {
        out.push(high);
    }
    out.push(low);
    out.extend_from_slice(len.get(skip..).unwrap_or_default());
    out.extend_from_slice(value);
}

/// An integer in its shortest form.
pub fn integer(value: i64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    match value {
        -0x80..=0x7f => bytes[7..].to_vec(),
        -0x8000..=0x7fff => bytes[6..].to_vec(),
        -0x8000_0000..=0x7fff_ffff => bytes[4..].to_vec(),
        _ => bytes.to_vec(),
    }
}

/// The value of the first resource `id` on the top level.
pub fn find(mut tlv: &[u8], id: u16) -> Option<&[u8]> {
    loop {
        let (&kind, rest) = tlv.split_first()?;
        let (found, rest) = if kind & 0x20 == 0 {
            let (&low, rest) = rest.split_first()?;
            (u16::from(low), rest)
        } else {
            let (number, rest) = rest.split_first_chunk::<2>()?;
            (u16::from_be_bytes(*number), rest)
        };
        let (len, rest) = match kind >> 3 & 3 {
            0 => (usize::from(kind & 7), rest),
            bytes => {
                let (len, rest) = rest.split_at_checked(usize::from(bytes))?;
                (
                    len.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
                    rest,
                )
            }
        };
        let (value, rest) = rest.split_at_checked(len)?;
        if kind & RESOURCE == RESOURCE && found == id {
            return Some(value);
        }
        tlv = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_found(id in 0_u16..65535, value in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut out = Vec::new();
            resource(&mut out, id.wrapping_add(1), b"before");
            resource(&mut out, id, &value);
            prop_assert_eq!(find(&out, id), Some(value.as_slice()));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100), id in any::<u16>()) {
            let _ = find(&bytes, id);
        }
    }
}
