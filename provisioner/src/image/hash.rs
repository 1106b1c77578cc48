//! SHA-256 of fields and files, as lower-case hex.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};

/// Hashes a sequence of fields so that no two sequences collide by concatenation.
pub struct Hasher(Context);

impl Hasher {
    /// Begins; `domain` keeps hashes of different kinds apart.
    pub fn new(domain: &str) -> Self {
        let mut hasher = Self(Context::new(&SHA256));
        hasher.field(domain.as_bytes());
        hasher
    }

    /// Adds a field.
    pub fn field(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// The hash, 64 hex digits.
    pub fn finish(self) -> String {
        hex(self.0)
    }
}

/// Plain SHA-256 of a file's content, as `sha256sum` prints it.
pub fn sha256_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(context)),
            n => context.update(&buffer[..n]),
        }
    }
}

fn hex(context: Context) -> String {
    context
        .finish()
        .as_ref()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_hashes_as_sha256sum_prints_it() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "abc").expect("writable");
        assert_eq!(
            sha256_file(file.path()).expect("readable"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
