//! HTTP of the Portal REST API: one call, its deadline, its redirect, its errors.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use ureq::http;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::api::Refusal;
use super::config::CloudlabSite;
use super::error::ApiError;
use super::token::TokenSource;
use crate::error::{CliError, ExitCode};
use crate::secret::Secret;

/// Longest that one call may take; the portal needs seconds.
const CALL: Duration = Duration::from_secs(60);
/// Longest answer taken, in bytes.
const MAX_ANSWER: u64 = 16 << 20;

/// A client of one portal. Nothing is connected or read before the first call.
#[derive(Debug)]
pub struct Client {
    base: String,
    ca_file: Option<std::path::PathBuf>,
    source: TokenSource,
    agent: Mutex<Option<ureq::Agent>>,
    token: Mutex<Option<Secret<String>>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// The server's clock, when it says it.
    pub date: Option<SystemTime>,
    body: Vec<u8>,
}

impl Answer {
    /// The body, read as JSON.
    pub fn json<A: DeserializeOwned>(&self) -> Result<A, ApiError> {
        serde_json::from_slice(&self.body)
            .map_err(|e| ApiError::Strange(format!("the answer is not the API's: {e}")))
    }
}

impl Client {
    /// A client with the site's portal and token.
    pub fn new(site: &CloudlabSite) -> Self {
        Self {
            base: site.api.trim_end_matches('/').to_owned(),
            ca_file: site.ca_file.clone(),
            source: TokenSource::of(site),
            agent: Mutex::new(None),
            token: Mutex::new(None),
        }
    }

    /// Its address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Where its token comes from.
    pub fn source(&self) -> &TokenSource {
        &self.source
    }

    /// Calls without a body.
    pub fn call(&self, method: http::Method, path: &str, by: Instant) -> Result<Answer, ApiError> {
        self.send(method, path, None, by)
    }

    /// Calls with a body.
    pub fn call_with(
        &self,
        method: http::Method,
        path: &str,
        body: &impl Serialize,
        by: Instant,
    ) -> Result<Answer, ApiError> {
        let body = serde_json::to_vec(body).map_err(|e| ApiError::Strange(e.to_string()))?;
        self.send(method, path, Some(&body), by)
    }

    fn send(
        &self,
        method: http::Method,
        path: &str,
        body: Option<&[u8]>,
        by: Instant,
    ) -> Result<Answer, ApiError> {
        let by = by.min(Instant::now() + CALL);
        let mut path = path.to_owned();
        for last in [false, true] {
            let (answer, location) = self.once(&method, &path, body, by)?;
            match answer.status {
                200..300 => return Ok(answer),
                // Only the slash is followed, and never to another host: the token goes along.
                307 | 308 if !last => match with_slash(&path, location.as_deref()) {
                    Some(other) => path = other,
                    None => {
                        let to = location.unwrap_or_default();
                        return Err(ApiError::Strange(format!("redirected to `{to}`")));
                    }
                },
                307 | 308 => return Err(ApiError::Strange("redirected twice".into())),
                status => {
                    if status == 401 {
                        // A command may print another one next time.
                        *lock(&self.token) = None;
                    }
                    return Err(ApiError::Refused {
                        status,
                        refusal: refusal(&answer.body),
                    });
                }
            }
        }
        Err(ApiError::Strange("redirected twice".into()))
    }

    fn once(
        &self,
        method: &http::Method,
        path: &str,
        body: Option<&[u8]>,
        by: Instant,
    ) -> Result<(Answer, Option<String>), ApiError> {
        let left = by.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ApiError::NoAnswer("there was no time left to ask".into()));
        }
        let agent = self.agent()?;
        let token = self.token()?;
        let mut token = http::HeaderValue::from_str(token.expose())
            .map_err(|_| ApiError::Strange("the token is no header value".into()))?;
        token.set_sensitive(true);
        let request = http::Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", self.base))
            .header("X-Api-Token", token)
            .header("X-Api-Elaborate", "true")
            .header("Accept", "application/json");
        let unusable = |e: http::Error| ApiError::Strange(format!("`api` cannot be used: {e}"));
        let answer = match body {
            Some(body) => {
                let request = request
                    .header("Content-Type", "application/json")
                    .body(body)
                    .map_err(unusable)?;
                agent.run(within(&agent, request, left))
            }
            None => agent.run(within(&agent, request.body(()).map_err(unusable)?, left)),
        };
        let mut answer = answer.map_err(lost)?;
        let header = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        let (location, date) = (header("location"), header("date"));
        let status = answer.status().as_u16();
        let body = answer
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_vec()
            .map_err(lost)?;
        tracing::debug!(%method, path, status, "portal");
        let date = date.as_deref().and_then(http_date);
        Ok((Answer { status, date, body }, location))
    }

    fn token(&self) -> Result<Secret<String>, ApiError> {
        let mut token = lock(&self.token);
        match &*token {
            Some(token) => Ok(token.clone()),
            None => {
                let read = self.source.read().map_err(ApiError::Token)?;
                *token = Some(read.clone());
                Ok(read)
            }
        }
    }

    fn agent(&self) -> Result<ureq::Agent, ApiError> {
        let mut agent = lock(&self.agent);
        if let Some(agent) = &*agent {
            return Ok(agent.clone());
        }
        let made = self.make_agent()?;
        *agent = Some(made.clone());
        Ok(made)
    }

    fn make_agent(&self) -> Result<ureq::Agent, ApiError> {
        let roots = match &self.ca_file {
            Some(path) => roots_of(path).map_err(ApiError::Token)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let roots: Vec<_> = roots
            .iter()
            .map(|der| Certificate::from_der(der).to_owned())
            .collect();
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(crypto)
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("ipop-provision/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(config.new_agent())
    }
}

fn within<S: ureq::AsSendBody>(
    agent: &ureq::Agent,
    request: http::Request<S>,
    left: Duration,
) -> http::Request<S> {
    agent
        .configure_request(request)
        .timeout_global(Some(left))
        .build()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn roots_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, CliError> {
    let defective = || {
        CliError::new(
            ExitCode::Config,
            format!("`{}` (ca_file) holds no usable certificate", path.display()),
        )
        .hint("it must be the CA's certificate in PEM")
    };
    let pem = std::fs::read(path).map_err(|e| CliError::file("read", path, e))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    all.ok().filter(|a| !a.is_empty()).ok_or_else(defective)
}

/// `path` with the slash that `location` adds to it, if that is all it does.
fn with_slash(path: &str, location: Option<&str>) -> Option<String> {
    let location = location?;
    let there = match location.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => location,
    };
    let (bare, query) = match path.split_once('?') {
        Some((bare, query)) => (bare, format!("?{query}")),
        None => (path, String::new()),
    };
    let wanted = format!("{bare}/{query}");
    (there == wanted).then_some(wanted)
}

fn refusal(body: &[u8]) -> Refusal {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(body);
        let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Refusal {
            // A proxy's page says nothing useful beyond its first words.
            error: text.chars().take(200).collect(),
            errors: Vec::new(),
        }
    })
}

fn lost(error: ureq::Error) -> ApiError {
    let text = error.to_string();
    match &error {
        ureq::Error::Rustls(rustls::Error::InvalidCertificate(_)) => ApiError::Certificate(text),
        ureq::Error::Io(e) if certificate(e) => ApiError::Certificate(text),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            ApiError::Strange(format!("`api` cannot be used: {text}"))
        }
        ureq::Error::Timeout(_) => ApiError::NoAnswer("no answer in time".into()),
        _ => ApiError::NoAnswer(text.into()),
    }
}

fn certificate(error: &std::io::Error) -> bool {
    error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>())
        .is_some_and(|e| matches!(e, rustls::Error::InvalidCertificate(_)))
}

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let words: Vec<_> = text.split_whitespace().collect();
    let [_, day, month, year, clock, "GMT"] = words[..] else {
        return None;
    };
    let month = MONTHS.iter().position(|m| *m == month)? + 1;
    super::experiment::time(&format!("{year}-{month:02}-{day}T{clock}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_slash_is_followed() {
        let cases = [
            ("/x", Some("/x/"), Some("/x/")),
            ("/x?a=1", Some("/x/?a=1"), Some("/x/?a=1")),
            ("/x", Some("http://portal/x/"), Some("/x/")),
            ("/x", Some("https://elsewhere/y/"), None),
            ("/x", Some("/login"), None),
            ("/x", Some("https://portal"), None),
            ("/x", None, None),
        ];
        for (path, location, wanted) in cases {
            assert_eq!(
                with_slash(path, location).as_deref(),
                wanted,
                "{path} {location:?}"
            );
        }
    }

    #[test]
    fn the_servers_clock_is_read() {
        let time = http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("read");
        assert_eq!(
            time,
            SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
        );
        assert_eq!(http_date("yesterday"), None);
    }

    #[test]
    fn a_refusal_that_is_a_page_is_shortened() {
        let page = format!("<html>\n  <h1>Bad Gateway</h1>{}", "x ".repeat(400));
        let read = refusal(page.as_bytes());
        assert!(read.error.starts_with("<html> <h1>Bad Gateway</h1>"));
        assert_eq!(read.error.chars().count(), 200);
    }
}
