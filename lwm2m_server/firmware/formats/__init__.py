"""Parsers of firmware images. Pure: a view of the bytes in, facts or one `ImageRefused` out.

- `mcuboot`, `esp_idf`: images that boot loaders take; hash, checksum and signatures are verified.
- `containers`: UF2, Intel HEX and ELF, which hold an image; told apart, and flattened where that is unambiguous.
- `keys`: public keys that images may be signed with.
- `facts`, `refused`, `view`: what is found, why not, and bounded reading.

Work is linear in the size of the file: each byte is hashed at most twice, counts are bounded by the format or here.
"""
