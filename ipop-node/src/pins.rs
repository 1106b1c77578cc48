//! Where a node keeps whom its owner has approved.

use std::io;
use std::path::{Path, PathBuf};

use ipop_proto::pinning::Pins;

use crate::file::{self, SECRET};
use crate::settings::SettingsError;

/// The file, `pinning.keep`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinFile(pub PathBuf);

impl PinFile {
    /// Who was approved. Without a file nobody was, who then has no link.
    ///
    /// # Errors
    ///
    /// When there is a file that cannot be read, or has anything else in it.
    pub fn load(&self) -> Result<Pins, SettingsError> {
        let Self(path) = self;
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Pins::default()),
            Err(source) => {
                return Err(SettingsError::Read {
                    what: "file of approved peers",
                    path: path.clone(),
                    source,
                });
            }
        };
        Pins::parse(&String::from_utf8_lossy(&text)).map_err(|source| SettingsError::Pins {
            path: path.clone(),
            source,
        })
    }

    /// Writes down who was approved, in the place of what was there.
    ///
    /// # Errors
    ///
    /// Those of writing a file.
    pub fn keep(&self, pins: &Pins) -> io::Result<()> {
        file::replace(&self.0, &pins.text()?, SECRET)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use ipop_proto::authority::Claim;
    use ipop_proto::pinning::Pin;
    use ipop_proto::signal::Fingerprint;

    use super::*;
    use crate::cli::{CliError, Exit};

    fn pins() -> Pins {
        let pin = Pin {
            account: "b@demo.ipop".to_owned(),
            claim: Claim {
                name: "b".to_owned(),
                ipv4: [10, 73, 0, 2].into(),
                ipv6: "fd5a::2".parse().expect("valid"),
            },
            fingerprint: Fingerprint([7; 32]),
        };
        Pins::default().with(pin).expect("the first")
    }

    #[test]
    fn what_is_kept_is_there_again_and_for_nobody_else_to_read() {
        let dir = tempfile::tempdir().expect("directory");
        let file = PinFile(dir.path().join("pins.json"));
        assert_eq!(file.load().expect("none yet"), Pins::default());
        for pins in [pins(), Pins::default(), pins()] {
            file.keep(&pins).expect("kept");
            assert_eq!(file.load().expect("kept"), pins);
            let mode = file.path().metadata().expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, SECRET);
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 1);
    }

    #[test]
    fn a_damaged_file_is_named_and_is_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().expect("directory");
        let file = PinFile(dir.path().join("pins.json"));
        file.keep(&pins()).expect("kept");
        let whole = std::fs::read_to_string(file.path()).expect("there");
        for damaged in ["", "{}", &whole[..whole.len() / 2]] {
            std::fs::write(file.path(), damaged).expect("written");
            let error = CliError::from(file.load().expect_err("damaged"));
            assert_eq!(error.exit, Exit::Config);
            let text = error.to_string();
            let begin = format!(
                "error: unusable file of approved peers {}",
                file.0.display()
            );
            assert!(text.starts_with(&begin), "{text}");
            assert!(text.contains("hint: "), "{text}");
        }
    }
}
