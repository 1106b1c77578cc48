//! From nothing to a bound stream: TCP, STARTTLS, TLS, authentication, resource binding
//! (RFC 6120 sections 3 to 7).

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::io::BufStream;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ProtocolVersion;
use tokio_xmpp::Stanza;
use tokio_xmpp::jid::FullJid;
use tokio_xmpp::parsers::bind::{BindQuery, BindResponse};
use tokio_xmpp::parsers::iq::Iq;
use tokio_xmpp::parsers::{ns, starttls};
use tokio_xmpp::xmlstream::{
    FallibleStreamElement, ReadError, RecvFeaturesError, StreamHeader, Timeouts, XmppStream,
    XmppStreamElement, initiate_stream,
};

use super::account::Login;
use super::pending::condition;
use super::sasl::{self, Choice};
use super::{CLOSE, Timing};

/// An authenticated stream.
pub(super) type Stream = XmppStream<BufStream<TlsStream<TcpStream>>>;

/// Signing in did not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignInError {
    #[error("cannot connect")]
    Tcp(#[source] io::Error),
    #[error("{0:?} passed without an answer")]
    Timeout(Duration),
    #[error("no STARTTLS offered; the password is never sent in the clear")]
    NoStartTls,
    #[error("STARTTLS refused")]
    StartTlsRefused,
    #[error("TLS failed")]
    Tls(#[source] io::Error),
    #[error("no SCRAM mechanism offered, only `{offered}`")]
    NoMechanism { offered: String },
    #[error("authentication failed: {0}")]
    Sasl(String),
    #[error("the server cannot authenticate anybody right now")]
    TemporaryAuthFailure,
    /// The server refuses this account; trying again at once makes no sense.
    #[error("refused: {condition}")]
    Refused { condition: String },
    #[error("the server refuses to change the password: {0}")]
    Enrolment(String),
    #[error("`{issuer}` answered `{why}`")]
    Certificate { issuer: String, why: String },
    #[error("resource not bound: {0}")]
    Bind(String),
    #[error("unexpected element during {0}")]
    Unexpected(&'static str),
    #[error("stream broken: {0}")]
    Stream(String),
    #[error("stream broken")]
    Io(#[from] io::Error),
    #[error("stream closed by the server")]
    Closed,
}

impl From<RecvFeaturesError> for SignInError {
    fn from(error: RecvFeaturesError) -> Self {
        match error {
            RecvFeaturesError::Io(error) => Self::Io(error),
            RecvFeaturesError::StreamError(error) => Self::Stream(error.to_string()),
        }
    }
}

/// No server could be signed in to.
#[derive(Debug)]
pub(super) struct ConnectError {
    /// One line naming each server and what is wrong with it.
    pub text: String,
    /// The condition when it was the account that was refused.
    pub refused: Option<String>,
}

/// Signs in to the first of the account's servers that lets us.
pub(super) async fn connect(
    login: &Login,
    timing: &Timing,
) -> Result<(Stream, FullJid), ConnectError> {
    let mut text = Vec::new();
    for server in login.servers.iter().copied() {
        match try_server(login, timing, server).await {
            Ok(bound) => return Ok(bound),
            Err(error) => {
                tracing::debug!(
                    %server,
                    error = &error as &dyn std::error::Error,
                    "not signed in"
                );
                text.push(format!("{server}: {}", chain(&error)));
                if let Some(condition) = refusal(error) {
                    return Err(ConnectError {
                        text: text.join("; "),
                        refused: Some(condition),
                    });
                }
            }
        }
    }
    Err(ConnectError {
        text: text.join("; "),
        refused: None,
    })
}

/// The condition to report when the account, and not the network, is the trouble.
fn refusal(error: SignInError) -> Option<String> {
    match error {
        SignInError::Refused { condition } => Some(condition),
        SignInError::NoMechanism { .. } => Some("invalid-mechanism".to_owned()),
        _ => None,
    }
}

async fn try_server(
    login: &Login,
    timing: &Timing,
    server: SocketAddr,
) -> Result<(Stream, FullJid), SignInError> {
    let tcp = timeout(timing.tcp, TcpStream::connect(server))
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
        .map_err(SignInError::Tcp)?;
    // Signals are small and somebody waits for each.
    tcp.set_nodelay(true)?;
    timeout(timing.sign_in, sign_in(login, timing, tcp))
        .await
        .unwrap_or(Err(SignInError::Timeout(timing.sign_in)))
}

async fn sign_in(
    login: &Login,
    timing: &Timing,
    tcp: TcpStream,
) -> Result<(Stream, FullJid), SignInError> {
    let timeouts = Timeouts {
        read_timeout: timing.ping_after,
        response_timeout: timing.ping_reply,
    };
    let tls = start_tls(login, timeouts, tcp).await?;
    let exporter = exporter(&tls)?;
    let stream = initiate_stream(
        BufStream::new(tls),
        ns::JABBER_CLIENT,
        header(login),
        timeouts,
    )
    .await?;
    let (features, mut stream) = stream.recv_features::<FallibleStreamElement>().await?;

    let choice = Choice::of(&features, exporter)?;
    tracing::debug!(mechanism = ?choice.name(), "authenticating");
    sasl::authenticate(&mut stream, choice, &login.user, login.password.expose()).await?;

    let stream = stream.initiate_reset().send_header(header(login)).await?;
    let (_, mut stream) = stream.recv_features().await?;
    let jid = bind(&mut stream, &login.resource).await?;
    Ok((stream, jid))
}

/// The header, which names our domain so that the server picks its certificate by it.
pub(super) fn header(login: &Login) -> StreamHeader<'_> {
    StreamHeader {
        to: Some(Cow::Borrowed(login.domain())),
        from: None,
        id: None,
    }
}

/// STARTTLS or nothing. What came in the clear, features included, is forgotten.
pub(super) async fn start_tls(
    login: &Login,
    timeouts: Timeouts,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, SignInError> {
    let stream = initiate_stream(
        BufStream::new(tcp),
        ns::JABBER_CLIENT,
        header(login),
        timeouts,
    )
    .await?;
    let (features, mut stream) = stream.recv_features::<FallibleStreamElement>().await?;
    if !features.can_starttls() {
        return Err(SignInError::NoStartTls);
    }
    let request = starttls::Nonza::Request(starttls::Request);
    stream.send(&XmppStreamElement::Starttls(request)).await?;
    match element(&mut stream, "STARTTLS").await? {
        XmppStreamElement::Starttls(starttls::Nonza::Proceed(_)) => {}
        XmppStreamElement::Starttls(_) => return Err(SignInError::StartTlsRefused),
        _ => return Err(SignInError::Unexpected("STARTTLS")),
    }
    // Bytes buffered after <proceed/> came in the clear; they are dropped with the buffer.
    let tcp = stream.into_inner().into_inner();
    TlsConnector::from(login.tls.clone())
        .connect(login.server_name.clone(), tcp)
        .await
        .map_err(SignInError::Tls)
}

/// The channel binding of RFC 9266; TLS 1.2 has none that we could use.
fn exporter(tls: &TlsStream<TcpStream>) -> Result<Option<Vec<u8>>, SignInError> {
    let (_, connection) = tls.get_ref();
    if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Ok(None);
    }
    connection
        .export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", None)
        .map(Some)
        .map_err(|error| SignInError::Tls(io::Error::other(error)))
}

/// Binds `resource`; should it be taken on a server that protects the older session, one that
/// begins with it.
async fn bind(stream: &mut Stream, resource: &str) -> Result<FullJid, SignInError> {
    match try_bind(stream, resource).await? {
        Ok(jid) => Ok(jid),
        Err(condition) if condition == "conflict" => {
            let other = format!("{resource}-{:08x}", rand::random::<u32>());
            try_bind(stream, &other).await?.map_err(SignInError::Bind)
        }
        Err(condition) => Err(SignInError::Bind(condition)),
    }
}

async fn try_bind(
    stream: &mut Stream,
    resource: &str,
) -> Result<Result<FullJid, String>, SignInError> {
    let query = Iq::from_set("bind", BindQuery::new(Some(resource.to_owned())));
    stream
        .send(&XmppStreamElement::Stanza(query.into()))
        .await?;
    match element(stream, "resource binding").await? {
        XmppStreamElement::Stanza(Stanza::Iq(Iq::Result {
            payload: Some(payload),
            ..
        })) => BindResponse::try_from(payload)
            .map(|response| Ok(response.jid))
            .map_err(|_| SignInError::Unexpected("resource binding")),
        XmppStreamElement::Stanza(Stanza::Iq(Iq::Error { error, .. })) => {
            Ok(Err(condition(&error)))
        }
        _ => Err(SignInError::Unexpected("resource binding")),
    }
}

/// The next element of a negotiation.
pub(super) async fn element<Io: tokio::io::AsyncBufRead + tokio::io::AsyncWrite + Unpin>(
    stream: &mut XmppStream<Io>,
    during: &'static str,
) -> Result<XmppStreamElement, SignInError> {
    loop {
        return match stream.next().await {
            Some(Ok(FallibleStreamElement::Ok(XmppStreamElement::StreamError(error)))) => {
                Err(SignInError::Stream(error.to_string()))
            }
            Some(Ok(FallibleStreamElement::Ok(element))) => Ok(element),
            Some(Ok(FallibleStreamElement::Err(_))) => Err(SignInError::Unexpected(during)),
            // The whole of it has a deadline.
            Some(Err(ReadError::SoftTimeout)) => continue,
            Some(Err(error)) => Err(SignInError::Stream(error.to_string())),
            None => Err(SignInError::Closed),
        };
    }
}

/// Closes a stream that was for one purpose.
pub(super) async fn close(mut stream: Stream) {
    if timeout(CLOSE, stream.shutdown()).await.is_err() {
        tracing::debug!("the server did not close the stream in time");
    }
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
