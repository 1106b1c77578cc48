//! Asks a running node.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Answer, Request};

/// Longest wait for the answer.
const LIMIT: Duration = Duration::from_secs(10);

/// The node did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No node listens there, or we may not ask it.
    #[error("no ipop-node answers on {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the ipop-node on {} gave no answer", path.display())]
    Talk {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The answer is not one.
    #[error("unreadable answer from the ipop-node on {}", path.display())]
    Unreadable {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The node does not do that.
    #[error("the ipop-node on {} refused: {message}", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What it said.
        message: String,
    },
}

/// Sends one request and waits for its answer.
pub fn ask(path: &Path, request: &Request) -> Result<Answer, ClientError> {
    let path = path.to_owned();
    let stream = UnixStream::connect(&path).map_err(|source| ClientError::Connect {
        path: path.clone(),
        source,
    })?;
    let line = talk(&stream, request).map_err(|source| ClientError::Talk {
        path: path.clone(),
        source,
    })?;
    match serde_json::from_str(&line) {
        Ok(Answer::Error { message }) => Err(ClientError::Refused { path, message }),
        Ok(answer) => Ok(answer),
        Err(source) => Err(ClientError::Unreadable { path, source }),
    }
}

fn talk(mut stream: &UnixStream, request: &Request) -> io::Result<String> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut text = serde_json::to_string(request)?;
    text.push('\n');
    stream.write_all(text.as_bytes())?;
    let mut line = String::new();
    match BufReader::new(stream).read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line),
    }
}
