//! Personal data of a cloud machine, from EC2's instance metadata service (IMDSv2).
//!
//! A session token is asked for with a PUT, which a forwarded or forged request cannot be; the user
//! data with that token. The form of the user data is strict: it decides what this machine is.

mod http;
mod user_data;

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::{Answer, Request};
pub use user_data::{UserDataError, parse};

/// Where the service answers on every instance.
pub const ENDPOINT: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254)),
    80,
);
/// How long a session token is to live: for one question.
const TOKEN_TTL_SECONDS: &str = "60";
/// A token is some dozens of characters.
const TOKEN_LIMIT: usize = 4096;
/// EC2 takes 16 KiB of user data.
const USER_DATA_LIMIT: usize = 64 * 1024;
/// For one connection, question and answer. A hop too many looks like silence.
const TRY: Duration = Duration::from_secs(3);
/// First pause between tries; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The personal data cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Nothing usable came back in time.
    #[error("the metadata service at {endpoint} gave no user data within {}", seconds(*.waited))]
    NoAnswer {
        /// Where it was looked for.
        endpoint: SocketAddr,
        /// How long.
        waited: Duration,
        /// The last failure.
        #[source]
        source: std::io::Error,
    },
    /// It answers, and will not give any.
    #[error("the metadata service refused {what}: status {status}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// HTTP status.
        status: u16,
    },
    /// The instance was started without user data.
    #[error("this instance has no user data")]
    Absent,
    /// The user data is not a node's personal data.
    #[error("the user data is not a node's personal data")]
    UserData(#[from] UserDataError),
    /// A credential cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Asks for the user data until it is there, at most for `limit`. Blocks.
pub fn fetch(endpoint: SocketAddr, limit: Duration) -> Result<Vec<u8>, MetadataError> {
    let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        let source = match attempt(endpoint) {
            Ok(user_data) => return Ok(user_data),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(error)) => error,
        };
        if began.elapsed() + pause > limit {
            return Err(MetadataError::NoAnswer {
                endpoint,
                waited: limit,
                source,
            });
        }
        tracing::debug!(%source, "no user data yet");
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Writes each credential of the user data to a file in `dir`, for root alone; those that were
/// there and are not any more go.
pub fn install(user_data: &[u8], dir: &Path) -> Result<usize, MetadataError> {
    let credentials = parse(user_data)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| MetadataError::Write { path, source }
    };
    // A unit that is started meanwhile sees all of the old or all of the new.
    let new = dir.with_extension("new");
    match std::fs::remove_dir_all(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(&new)(error));
        }
        _ => {}
    }
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&new)
        .map_err(failed(&new))?;
    for (name, content) in &credentials {
        let path = new.join(name);
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content))
            .map_err(failed(&path))?;
    }
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(dir)(error));
        }
        _ => {}
    }
    std::fs::rename(&new, dir).map_err(failed(dir))?;
    Ok(credentials.len())
}

enum Failure {
    /// The service is not up yet, the network is not, or it is busy.
    Passing(std::io::Error),
    Final(MetadataError),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Passing(error)
    }
}

fn attempt(endpoint: SocketAddr) -> Result<Vec<u8>, Failure> {
    let what = "a session token";
    let token = http::ask(
        endpoint,
        TRY,
        &Request {
            method: "PUT",
            path: "/latest/api/token",
            header: ("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_TTL_SECONDS),
            limit: TOKEN_LIMIT,
        },
    )?;
    let token = accepted(what, token)?;
    let token = std::str::from_utf8(&token)
        .ok()
        .filter(|token| !token.is_empty() && token.bytes().all(|c| c.is_ascii_graphic()))
        .ok_or_else(|| std::io::Error::other("the session token is not one"))?;
    let user_data = http::ask(
        endpoint,
        TRY,
        &Request {
            method: "GET",
            path: "/latest/user-data",
            header: ("X-aws-ec2-metadata-token", token),
            limit: USER_DATA_LIMIT,
        },
    )?;
    if user_data.status == 404 {
        return Err(Failure::Final(MetadataError::Absent));
    }
    accepted("the user data", user_data)
}

fn accepted(what: &'static str, answer: Answer) -> Result<Vec<u8>, Failure> {
    match answer.status {
        200 => Ok(answer.body),
        // 401: the token is not known (any more). 429, 5xx: too busy.
        401 | 429 | 500..=599 => Err(Failure::Passing(std::io::Error::other(format!(
            "{what} refused with status {}",
            answer.status
        )))),
        status => Err(Failure::Final(MetadataError::Refused { what, status })),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

#[cfg(test)]
mod tests;
