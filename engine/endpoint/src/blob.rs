//! Blobs: files mapped into memory and served or pushed by digest, their bytes never copied to the heap.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// One file. Transfers hold it by `Arc`: it stays mapped until the last one ends, also when it is removed meanwhile.
pub struct Blob {
    digest: Digest,
    map: Option<Mmap>,
}

impl Blob {
    /// Maps a file.
    ///
    /// The content is taken at its word: hashing it is up to the store, which names files by their digest.
    ///
    /// # Errors
    /// The file is missing, not readable, or not a regular file.
    #[allow(unsafe_code, reason = "memory-mapping")]
    pub fn open(digest: Digest, path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if metadata.len() == 0 {
            return Ok(Self { digest, map: None });
        }
        // SAFETY: the bytes of a map must not change while it lives. The file belongs to the content-addressed store,
        // which writes a file under another name, renames it when it is complete, and never opens it for writing
        // again; deleting it leaves the map intact. Somebody who truncates it by hand from outside ends the process
        // by SIGBUS at the next read behind the new end; altered bytes would be sent as they are, and the device's
        // digest check refuses them. Neither can break memory safety here: the bytes are only ever copied as `u8`.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self {
            digest,
            map: Some(map),
        })
    }

    /// The digest under which it was added.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The entity tag under which it is served: the first 8 bytes of the digest, so the same after a restart.
    #[must_use]
    pub fn etag(&self) -> &[u8] {
        self.digest.get(..8).unwrap_or_default()
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.as_ref().len() as u64
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_survives_removal_of_the_file() {
        let path = std::env::temp_dir().join(format!("endpoint-blob-{}", std::process::id()));
        std::fs::write(&path, b"image").unwrap();
        let blob = Blob::open([7; 32], &path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            (blob.as_ref(), blob.size(), blob.etag()),
            (&b"image"[..], 5, &[7; 8][..])
        );
    }

    #[test]
    fn a_directory_and_a_missing_file_are_refused() {
        assert!(Blob::open([0; 32], &std::env::temp_dir()).is_err());
        assert!(Blob::open([0; 32], Path::new("/nonexistent/blob")).is_err());
    }
}
