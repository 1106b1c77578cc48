//! The certificate of a node that has none yet: asked for after the account has its password, and
//! before the node is seen by anybody, on a stream of its own.

use futures::SinkExt;
use ipop_proto::stanza::certificate;
use tokio::time::timeout;
use tokio_xmpp::Stanza;
use tokio_xmpp::jid::Jid;
use tokio_xmpp::parsers::iq::{Iq, IqHeader, IqPayload};
use tokio_xmpp::xmlstream::XmppStreamElement;

use super::Timing;
use super::account::Login;
use super::connect::{ConnectError, SignInError, Stream, chain, close, connect, element};
use super::pending::condition;
use crate::requester::Requester;

/// Identifier of the one request.
const REQUEST: &str = "certificate";

/// Asks for the certificate and keeps it.
pub(super) async fn obtain(
    requester: &Requester,
    login: &Login,
    timing: &Timing,
) -> Result<(), ConnectError> {
    let failed = |error: &dyn std::error::Error| ConnectError {
        text: format!("no certificate yet: {}", chain(error)),
        refused: None,
    };
    let request = requester.request().map_err(|error| failed(&error))?;
    let (mut stream, _) = connect(login, timing).await?;
    let asked = ask(&mut stream, requester.issuer(), &request);
    let answer = timeout(timing.reply, asked)
        .await
        .unwrap_or(Err(SignInError::Timeout(timing.reply)));
    close(stream).await;
    let certificate = answer.map_err(|error| failed(&error))?;
    requester
        .take(&certificate)
        .map_err(|error| failed(&error))?;
    tracing::info!(issuer = requester.issuer(), "certificate obtained");
    Ok(())
}

async fn ask(
    stream: &mut Stream,
    issuer: &str,
    request: &certificate::CertificateRequest,
) -> Result<String, SignInError> {
    let refused = |why: String| SignInError::Certificate {
        issuer: issuer.to_owned(),
        why,
    };
    let header = IqHeader {
        from: None,
        to: Some(Jid::new(issuer).map_err(|error| refused(error.to_string()))?),
        id: REQUEST.to_owned(),
    };
    let iq = header.assemble(IqPayload::Set(certificate::to_element(request)));
    stream.send(&XmppStreamElement::Stanza(iq.into())).await?;
    loop {
        match element(stream, "the request for a certificate").await? {
            XmppStreamElement::Stanza(Stanza::Iq(Iq::Result { id, payload, .. }))
                if id == REQUEST =>
            {
                let answer = certificate::from_answer(payload.as_ref());
                return answer.map_err(|error| refused(error.to_string()));
            }
            XmppStreamElement::Stanza(Stanza::Iq(Iq::Error { id, error, .. })) if id == REQUEST => {
                return Err(refused(condition(&error)));
            }
            // The server may ask for our version or the like; it can do without an answer.
            _ => {}
        }
    }
}
