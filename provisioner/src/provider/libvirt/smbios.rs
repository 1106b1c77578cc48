//! A node's personal data as one SMBIOS structure, in the form QEMU's `-smbios file=` takes.
//!
//! systemd reads credentials from "OEM strings", SMBIOS type 11 (systemd.system-credentials(7),
//! DMTF DSP0134 section 7.12). Given as values they would be on QEMU's command line for all users
//! of the host to see; as a file they are readable by QEMU's user alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::bundle::Bundle;

/// SMBIOS structure type of OEM strings.
const OEM_STRINGS: u8 = 11;
/// Length of the structure without its strings: type, length, handle, count.
const HEADER_LEN: u8 = 5;
/// The handle QEMU gives to its own type 11 structure, which ours replaces.
const HANDLE: u16 = 0x0E00;
/// QEMU's table has 64 KiB with the old entry point; the rest is for its other structures.
pub const MAX_LEN: usize = 60 * 1024;

/// Why a bundle does not fit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SmbiosError {
    /// The string count is one byte.
    #[error("{0} credentials, at most 255 fit into one SMBIOS structure")]
    TooMany(usize),
    /// See [`MAX_LEN`].
    #[error("credentials take {0} bytes encoded, at most {MAX_LEN} fit into SMBIOS")]
    TooLong(usize),
}

/// The structure with one string a credential: `io.systemd.credential.binary:NAME=BASE64`.
pub fn structure(bundle: &Bundle) -> Result<Vec<u8>, SmbiosError> {
    let count = bundle.credentials.len();
    let count = u8::try_from(count).map_err(|_| SmbiosError::TooMany(count))?;
    let mut out = vec![OEM_STRINGS, HEADER_LEN];
    out.extend(HANDLE.to_le_bytes());
    out.push(count);
    for (name, content) in &bundle.credentials {
        out.extend(b"io.systemd.credential.binary:");
        out.extend(name.as_bytes());
        out.push(b'=');
        out.extend(STANDARD.encode(content.expose()).bytes());
        out.push(0);
    }
    // The string set ends with an empty string; a set without strings is two zero bytes.
    if count == 0 {
        out.push(0);
    }
    out.push(0);
    if out.len() > MAX_LEN {
        return Err(SmbiosError::TooLong(out.len()));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_credential_becomes_one_terminated_string() {
        let mut bundle = Bundle::default();
        bundle.set("ipop.ca", "pem\n");
        bundle.set("ipop.password", "p'<&");
        assert_eq!(
            structure(&bundle).unwrap(),
            b"\x0b\x05\x00\x0e\x02\
              io.systemd.credential.binary:ipop.ca=cGVtCg==\0\
              io.systemd.credential.binary:ipop.password=cCc8Jg==\0\0"
        );
    }

    #[test]
    fn an_empty_bundle_is_a_structure_without_strings() {
        assert_eq!(
            structure(&Bundle::default()).unwrap(),
            b"\x0b\x05\x00\x0e\x00\0\0"
        );
    }

    #[test]
    fn a_bundle_larger_than_the_table_is_refused() {
        let mut bundle = Bundle::default();
        bundle.set("ipop.ca", vec![0; MAX_LEN]);
        assert!(matches!(structure(&bundle), Err(SmbiosError::TooLong(n)) if n > MAX_LEN));
    }
}
