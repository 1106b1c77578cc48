//! Self-signed certificates for tunnels that pin them.

use std::path::Path;
use std::process::Command;

use crate::failure::{Result, run};

/// Makes `NAME.crt` and `NAME.key` in `dir`, an ECDSA key on P-256, and gives the certificate's
/// SHA-256 fingerprint: upper-case hexadecimal, a colon after each byte but the last.
pub fn make(dir: &Path, name: &str) -> Result<String> {
    let openssl = |words: &str| {
        let mut command = Command::new("openssl");
        run(command.args(words.split(' ')).current_dir(dir))
    };
    openssl(&format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
         -subj /CN={name} -keyout {name}.key -out {name}.crt"
    ))?;
    let text = openssl(&format!("x509 -in {name}.crt -noout -fingerprint -sha256"))?;
    Ok(text
        .trim()
        .rsplit_once('=')
        .map_or("", |(_, hex)| hex)
        .to_owned())
}
