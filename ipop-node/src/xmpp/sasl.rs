//! Authentication (RFC 6120 section 6) by SCRAM (RFC 5802, 7677), never by anything weaker.
//!
//! The library's own log-in is not used: it falls back to PLAIN, and it does not look at the
//! server's signature, which proves that the server knows the password too.

use std::collections::BTreeSet;

use futures::{SinkExt, StreamExt};
use sasl::client::Mechanism;
use sasl::client::mechanisms::Scram;
use sasl::common::scram::{Sha1, Sha256};
use sasl::common::{ChannelBinding, Credentials};
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::sasl::{Auth, Mechanism as MechanismName, Nonza, Response};
use tokio_xmpp::parsers::sasl_cb::Type as BindingType;
use tokio_xmpp::parsers::stream_features::StreamFeatures;
use tokio_xmpp::xmlstream::{FallibleStreamElement, ReadError, XmppStream, XmppStreamElement};

use super::connect::SignInError;

/// Rounds of PBKDF2: fewer make a captured proof cheap to guess from (RFC 7677 section 4), and a
/// server that asks for more wants to keep us busy.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;

/// What to authenticate with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    sha256: bool,
    binding: ChannelBinding,
}

impl Choice {
    /// The strongest mechanism that works: `exporter` is the channel's `tls-exporter` value
    /// (RFC 9266) when there is one.
    ///
    /// A -PLUS mechanism needs a channel binding type that both sides have, which the server tells
    /// by XEP-0440. One that offers -PLUS without saying so may mean `tls-unique`, which TLS 1.3
    /// does not have; there we say that we have no channel binding (`n`). To a server without any
    /// -PLUS we say that we would have used it (`y`), so that it notices when somebody in between
    /// took its offer away.
    pub fn of(features: &StreamFeatures, exporter: Option<Vec<u8>>) -> Result<Self, SignInError> {
        let offered = &features.sasl_mechanisms;
        let has = |name: &str| offered.contains(name);
        let plus = has("SCRAM-SHA-256-PLUS") || has("SCRAM-SHA-1-PLUS");
        let server_binds = features
            .sasl_cb
            .as_ref()
            .is_some_and(|cb| cb.types.contains(&BindingType::TlsExporter));
        match exporter {
            Some(exporter) if plus && server_binds => Ok(Self {
                sha256: has("SCRAM-SHA-256-PLUS"),
                binding: ChannelBinding::TlsExporter(exporter),
            }),
            exporter if has("SCRAM-SHA-256") || has("SCRAM-SHA-1") => Ok(Self {
                sha256: has("SCRAM-SHA-256"),
                binding: match exporter {
                    Some(_) if !plus => ChannelBinding::Unsupported,
                    _ => ChannelBinding::None,
                },
            }),
            _ => Err(SignInError::NoMechanism {
                offered: join(offered),
            }),
        }
    }

    /// The mechanism's name as the server knows it.
    pub fn name(&self) -> MechanismName {
        let plus = matches!(self.binding, ChannelBinding::TlsExporter(_));
        match (self.sha256, plus) {
            (true, true) => MechanismName::ScramSha256Plus,
            (true, false) => MechanismName::ScramSha256,
            (false, true) => MechanismName::ScramSha1Plus,
            (false, false) => MechanismName::ScramSha1,
        }
    }

    fn mechanism(
        self,
        user: &str,
        password: &str,
    ) -> Result<Box<dyn Mechanism + Send>, SignInError> {
        let credentials = Credentials::default()
            .with_username(user.replace('=', "=3D").replace(',', "=2C"))
            .with_password(password)
            .with_channel_binding(self.binding);
        let mechanism: Result<Box<dyn Mechanism + Send>, _> = if self.sha256 {
            Scram::<Sha256>::from_credentials(credentials).map(|m| Box::new(m) as _)
        } else {
            Scram::<Sha1>::from_credentials(credentials).map(|m| Box::new(m) as _)
        };
        mechanism.map_err(|e| SignInError::Sasl(e.to_string()))
    }
}

/// Authenticates on `stream`, which has to be reset afterwards.
pub(super) async fn authenticate<Io: AsyncBufRead + AsyncWrite + Unpin>(
    stream: &mut XmppStream<Io>,
    choice: Choice,
    user: &str,
    password: &str,
) -> Result<(), SignInError> {
    let name = choice.name();
    let mut mechanism = choice.mechanism(user, password)?;
    let failed = |e: sasl::client::MechanismError| SignInError::Sasl(e.to_string());
    let initial = mechanism.initial();
    let nonce = field(&String::from_utf8_lossy(&initial), "r=")?.to_owned();
    let auth = Auth {
        mechanism: name,
        data: initial,
    };
    stream
        .send(&XmppStreamElement::Sasl(Nonza::Auth(auth)))
        .await?;
    loop {
        match next(stream).await? {
            Nonza::Challenge(challenge) => {
                check_challenge(&challenge.data, &nonce)?;
                let data = mechanism.response(&challenge.data).map_err(failed)?;
                stream
                    .send(&XmppStreamElement::Sasl(Nonza::Response(Response { data })))
                    .await?;
            }
            Nonza::Success(success) => return mechanism.success(&success.data).map_err(failed),
            Nonza::Failure(failure) => {
                let condition = Element::from(failure.defined_condition).name().to_owned();
                return Err(match condition.as_str() {
                    "temporary-auth-failure" => SignInError::TemporaryAuthFailure,
                    _ => SignInError::Refused { condition },
                });
            }
            _ => return Err(SignInError::Unexpected("authentication")),
        }
    }
}

async fn next<Io: AsyncBufRead + AsyncWrite + Unpin>(
    stream: &mut XmppStream<Io>,
) -> Result<Nonza, SignInError> {
    loop {
        return match stream.next().await {
            Some(Ok(FallibleStreamElement::Ok(XmppStreamElement::Sasl(nonza)))) => Ok(nonza),
            Some(Err(ReadError::SoftTimeout)) => continue,
            Some(Ok(FallibleStreamElement::Ok(XmppStreamElement::StreamError(e)))) => {
                Err(SignInError::Stream(e.to_string()))
            }
            Some(Ok(_)) => Err(SignInError::Unexpected("authentication")),
            Some(Err(e)) => Err(SignInError::Stream(e.to_string())),
            None => Err(SignInError::Closed),
        };
    }
}

/// Checks what the library does not in the server's first message: its nonce must be ours and
/// something of its own (RFC 5802 section 5.1), and the iteration count in bounds.
fn check_challenge(challenge: &[u8], nonce: &str) -> Result<(), SignInError> {
    let text = String::from_utf8_lossy(challenge);
    let own = field(&text, "r=")?.strip_prefix(nonce);
    if own.is_none_or(str::is_empty) {
        let problem = "the server's SCRAM nonce does not begin with ours";
        return Err(SignInError::Sasl(problem.to_owned()));
    }
    match field(&text, "i=")?.parse() {
        Ok(iterations) if ITERATIONS.contains(&iterations) => Ok(()),
        _ => Err(SignInError::Sasl(
            "unusable SCRAM iteration count".to_owned(),
        )),
    }
}

/// The one field of a SCRAM message that begins with `name`.
fn field<'a>(message: &'a str, name: &str) -> Result<&'a str, SignInError> {
    let mut fields = message
        .split(',')
        .filter_map(|field| field.strip_prefix(name));
    match (fields.next(), fields.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(SignInError::Sasl(format!(
            "not exactly one `{name}` in a SCRAM message"
        ))),
    }
}

fn join(mechanisms: &BTreeSet<String>) -> String {
    mechanisms
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use tokio_xmpp::parsers::sasl_cb::SaslChannelBinding;

    use super::*;

    fn features(mechanisms: &[&str], bindings: Option<&[BindingType]>) -> StreamFeatures {
        StreamFeatures {
            sasl_mechanisms: mechanisms.iter().map(|m| (*m).to_owned()).collect(),
            sasl_cb: bindings.map(|types| SaslChannelBinding {
                types: types.to_vec(),
            }),
            ..StreamFeatures::default()
        }
    }

    #[test]
    fn plus_needs_an_exporter_on_both_sides() {
        let all = [
            "SCRAM-SHA-1",
            "SCRAM-SHA-1-PLUS",
            "SCRAM-SHA-256",
            "SCRAM-SHA-256-PLUS",
        ];
        let exporter = || Some(vec![1; 32]);
        let bound = features(&all, Some(&[BindingType::TlsExporter]));
        let choice = Choice::of(&bound, exporter()).expect("a mechanism");
        assert_eq!(choice.name(), MechanismName::ScramSha256Plus);
        let choice = Choice::of(&bound, None).expect("a mechanism");
        assert_eq!(
            (choice.name(), choice.binding),
            (MechanismName::ScramSha256, ChannelBinding::None)
        );
        for bindings in [None, Some(&[BindingType::TlsUnique][..])] {
            let choice = Choice::of(&features(&all, bindings), exporter()).expect("a mechanism");
            assert_eq!(
                choice,
                Choice {
                    sha256: true,
                    binding: ChannelBinding::None
                }
            );
        }
    }

    #[test]
    fn a_server_without_plus_is_told_that_it_would_have_been_used() {
        let plain = features(&["PLAIN", "SCRAM-SHA-1"], None);
        let choice = Choice::of(&plain, Some(vec![1; 32])).expect("a mechanism");
        assert_eq!(
            choice,
            Choice {
                sha256: false,
                binding: ChannelBinding::Unsupported
            }
        );
    }

    #[test]
    fn weaker_mechanisms_are_never_chosen() {
        let weak = features(&["PLAIN", "DIGEST-MD5", "ANONYMOUS", "X-OAUTH2"], None);
        let error = Choice::of(&weak, None).expect_err("nothing to choose");
        assert_eq!(
            error.to_string(),
            "no SCRAM mechanism offered, only `ANONYMOUS DIGEST-MD5 PLAIN X-OAUTH2`"
        );
    }

    #[test]
    fn an_absurd_iteration_count_is_refused() {
        assert!(check_challenge(b"r=abc,s=AAAA,i=4096", "ab").is_ok());
        for challenge in [
            &b"r=abc,s=AAAA,i=4000000000"[..],
            b"r=abc,s=AAAA,i=2000000",
            b"r=abc,s=AAAA,i=4095",
            b"r=abc,s=AAAA,i=4096,i=1",
            b"r=abc",
            b"\xff",
        ] {
            assert!(check_challenge(challenge, "ab").is_err());
        }
    }

    #[test]
    fn a_nonce_that_is_not_ours_and_the_servers_is_refused() {
        for nonce in ["ab", "xabc", "", "abc,r=abd"] {
            let challenge = format!("r={nonce},s=AAAA,i=4096");
            assert!(
                check_challenge(challenge.as_bytes(), "ab").is_err(),
                "{nonce}"
            );
        }
    }

    #[test]
    fn our_nonce_is_found_in_the_first_message_of_every_mechanism() {
        for binding in [
            ChannelBinding::None,
            ChannelBinding::Unsupported,
            ChannelBinding::TlsExporter(vec![1; 32]),
        ] {
            let choice = Choice {
                sha256: true,
                binding,
            };
            let mut mechanism = choice.mechanism("r=a,r=b", "pw").expect("usable");
            let initial = String::from_utf8(mechanism.initial()).expect("text");
            assert!(field(&initial, "r=").expect("one").len() > 20, "{initial}");
        }
    }
}
