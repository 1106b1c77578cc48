//! Passwords nobody chose.

use rand::TryRng;
use rand::rngs::SysRng;

use crate::secret::Secret;

/// 32 bytes of the operating system's randomness as 64 hex digits: safe in XML, JSON, YAML and
/// through SASLprep (RFC 4013) unchanged.
pub fn generate() -> std::io::Result<Secret<String>> {
    let mut bytes = [0u8; 32];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(std::io::Error::other)?;
    Ok(Secret::new(
        bytes.iter().map(|b| format!("{b:02x}")).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_passwords_differ_and_have_256_bits() {
        let (a, b) = (generate().expect("entropy"), generate().expect("entropy"));
        assert_ne!(a.expose(), b.expose());
        assert_eq!(a.expose().len(), 64);
        assert!(a.expose().bytes().all(|c| c.is_ascii_hexdigit()));
    }
}
