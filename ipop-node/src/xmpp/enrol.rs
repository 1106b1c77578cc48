//! Enrolment: a single-use token is exchanged for a password that only this node knows.
//!
//! The token is the account's first password. The node makes one of its own, writes it down, signs
//! in with the token and changes the password (XEP-0077 section 3.3). What is written down is there
//! before the server knows of it, so that whenever the node is killed one of the two is valid: the
//! next start tries the new one first, and the token after it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use futures::SinkExt;
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::time::timeout;
use tokio_xmpp::Stanza;
use tokio_xmpp::jid::{BareJid, Jid};
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::iq::{Iq, IqHeader, IqPayload};
use tokio_xmpp::xmlstream::{XmppStream, XmppStreamElement};

use super::Timing;
use super::account::{Login, Password};
use super::connect::{ConnectError, SignInError, Stream, close, connect, element};
use super::pending::condition;
use crate::fault;
use crate::file::{self, SECRET, sync_folder};

/// Namespace of XEP-0077.
const NS_REGISTER: &str = "jabber:iq:register";
/// Identifier of the one request.
const REQUEST: &str = "enrol";

/// How an account that has a token gets its password.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The account's first password.
    pub token: Password,
    /// Where the node's own password is kept, mode 0600. The folder must exist.
    pub password_file: PathBuf,
}

/// The password of an account that enrols: from the file, or exchanged for the token now.
pub(super) async fn password(
    enrolment: &Enrolment,
    login: &Login,
    timing: &Timing,
) -> Result<Password, ConnectError> {
    let file = |error: io::Error| ConnectError {
        text: format!("{}: {error}", enrolment.password_file.display()),
        refused: None,
    };
    if let Some(password) = read(&enrolment.password_file).map_err(file)? {
        return Ok(password);
    }
    let pending = enrolment.pending_file();
    let with = |password: &Password| Login {
        password: password.clone(),
        ..login.clone()
    };
    let password = match read(&pending).map_err(file)? {
        None => {
            let password = generate();
            file::replace(&pending, password.expose(), SECRET).map_err(file)?;
            password
        }
        Some(password) => {
            // Killed before the server's answer: it may have taken the change.
            match connect(&with(&password), timing).await {
                Ok((stream, _)) => {
                    close(stream).await;
                    enrolment.confirm().map_err(file)?;
                    tracing::info!("enrolled already");
                    return Ok(password);
                }
                Err(error) if error.refused.is_none() => return Err(error),
                Err(_) => password,
            }
        }
    };
    fault::point("enrol-written");
    let (mut stream, _) = connect(&with(&enrolment.token), timing)
        .await
        .map_err(of_token)?;
    let changed = timeout(timing.reply, change(&mut stream, login, &password))
        .await
        .unwrap_or(Err(SignInError::Timeout(timing.reply)));
    changed.map_err(|error| ConnectError {
        text: format!("the enrolment token was not exchanged: {error}"),
        refused: None,
    })?;
    fault::point("enrol-changed");
    close(stream).await;
    enrolment.confirm().map_err(file)?;
    tracing::info!("enrolled");
    Ok(password)
}

impl Enrolment {
    /// Where the password lies that the server may not know yet.
    fn pending_file(&self) -> PathBuf {
        let mut name = self
            .password_file
            .file_name()
            .unwrap_or_default()
            .to_owned();
        name.push(".new");
        self.password_file.with_file_name(name)
    }

    /// The server has taken the password.
    fn confirm(&self) -> io::Result<()> {
        fs::rename(self.pending_file(), &self.password_file)?;
        sync_folder(&self.password_file)
    }
}

/// Changes the password of the account that `stream` is signed in as.
async fn change(stream: &mut Stream, login: &Login, new: &Password) -> Result<(), SignInError> {
    register(
        stream,
        login,
        [
            ("username", login.user.as_str()),
            ("password", new.expose()),
        ],
    )
    .await
}

/// Sends a request of XEP-0077 and reads the answer to it.
async fn register<Io: AsyncBufRead + AsyncWrite + Unpin>(
    stream: &mut XmppStream<Io>,
    login: &Login,
    fields: impl IntoIterator<Item = (&str, &str)>,
) -> Result<(), SignInError> {
    let field = |(name, text): (&str, &str)| {
        Element::builder(name, NS_REGISTER)
            .append(text.to_owned())
            .build()
    };
    let query = Element::builder("query", NS_REGISTER)
        .append_all(fields.into_iter().map(field))
        .build();
    let header = IqHeader {
        from: None,
        to: Some(Jid::from(BareJid::from_parts(None, login.jid.domain()))),
        id: REQUEST.to_owned(),
    };
    let request = header.assemble(IqPayload::Set(query));
    stream
        .send(&XmppStreamElement::Stanza(request.into()))
        .await?;
    loop {
        match element(stream, "enrolment").await? {
            XmppStreamElement::Stanza(Stanza::Iq(Iq::Result { id, .. })) if id == REQUEST => {
                return Ok(());
            }
            XmppStreamElement::Stanza(Stanza::Iq(Iq::Error { id, error, .. })) if id == REQUEST => {
                return Err(SignInError::Enrolment(condition(&error)));
            }
            // The server may ask for our version or the like; it can do without an answer.
            _ => {}
        }
    }
}

/// A refusal of the token, said as such: the account itself may be in order.
fn of_token(error: ConnectError) -> ConnectError {
    ConnectError {
        text: error.text,
        refused: error.refused.map(|condition| {
            format!(
                "{condition}: the enrolment token was used already, has expired, or is not this \
                 account's"
            )
        }),
    }
}

/// 32 random bytes as hex: unchanged by SASLprep (RFC 4013).
fn generate() -> Password {
    let mut text = String::new();
    for byte in rand::random::<[u8; 32]>() {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Password::new(text)
}

/// The password in a file; none when there is no file, or when it was cut short by a crash.
fn read(path: &Path) -> io::Result<Option<Password>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let text = text.trim_end_matches(['\r', '\n']);
            Ok((!text.is_empty()).then(|| Password::new(text)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
