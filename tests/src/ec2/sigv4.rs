//! Checking a request's signature (Signature Version 4), all of it: key, date, scope and content.

use std::time::{Duration, SystemTime};

use aws_lc_rs::{digest, hmac};

use super::clock;
use super::error::Refusal;
use super::http::Request;

/// How far a client's clock may be off.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// Who may call.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub access: String,
    pub secret: String,
    pub region: String,
}

impl Keys {
    /// Verifies that `request` is signed for `service`.
    pub fn verify(&self, request: &Request, service: &str) -> Result<(), Refusal> {
        let failure = |text: &str| Refusal::with_status(401, "AuthFailure", text);
        let Some(header) = request.header("authorization") else {
            let text = "Request must contain a signature that conforms to AWS standards";
            return Err(Refusal::with_status(
                403,
                "MissingAuthenticationToken",
                text,
            ));
        };
        let fields = header
            .strip_prefix("AWS4-HMAC-SHA256 ")
            .ok_or_else(|| failure("Unsupported signature algorithm"))?;
        let field = |name: &str| {
            fields
                .split(',')
                .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
                .ok_or_else(|| failure("Incomplete Authorization header"))
        };
        let (credential, signed) = (field("Credential")?, field("SignedHeaders")?);
        let date = request
            .header("x-amz-date")
            .ok_or_else(|| failure("No X-Amz-Date"))?;
        let at = clock::parse_basic(date).ok_or_else(|| failure("Unreadable X-Amz-Date"))?;
        let now = SystemTime::now();
        if at + SKEW < now || now + SKEW < at {
            return Err(Refusal::new("RequestExpired", "Request has expired."));
        }
        let scope = format!("{}/{}/{service}/aws4_request", &date[..8], self.region);
        if credential != format!("{}/{scope}", self.access) {
            let text = "AWS was not able to validate the provided access credentials";
            return Err(failure(text));
        }
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
            sha256_hex(canonical(request, signed)?.as_bytes())
        );
        if self.sign(&scope, &to_sign) != field("Signature")? {
            let text = "AWS was not able to validate the provided access credentials";
            return Err(failure(text));
        }
        Ok(())
    }

    fn sign(&self, scope: &str, to_sign: &str) -> String {
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in scope.split('/').chain([to_sign]) {
            let with = hmac::Key::new(hmac::HMAC_SHA256, &key);
            key = hmac::sign(&with, part.as_bytes()).as_ref().to_vec();
        }
        hex(&key)
    }
}

/// The canonical request. A body's hash must be right unless it is declared unsigned.
fn canonical(request: &Request, signed: &str) -> Result<String, Refusal> {
    let mismatch = |text: String| Refusal::with_status(403, "SignatureDoesNotMatch", text);
    let names: Vec<&str> = signed.split(';').collect();
    if !names.contains(&"host") || !names.contains(&"x-amz-date") {
        let text = "host and x-amz-date must be signed".to_owned();
        return Err(mismatch(text));
    }
    let mut headers = String::new();
    for name in &names {
        let value = request
            .header(name)
            .ok_or_else(|| mismatch(format!("The signed header {name} is missing")))?;
        headers.push_str(&format!("{name}:{value}\n"));
    }
    let body = sha256_hex(&request.body);
    let declared = request.header("x-amz-content-sha256").unwrap_or(&body);
    if declared != body && declared != "UNSIGNED-PAYLOAD" {
        return Err(mismatch("The body is not the one signed".to_owned()));
    }
    let mut query: Vec<&str> = request.query.split('&').filter(|q| !q.is_empty()).collect();
    query.sort_unstable();
    // Every part of the path is encoded once more for signing.
    let path = request.path.replace('%', "%25");
    Ok(format!(
        "{}\n{path}\n{}\n{headers}\n{signed}\n{declared}",
        request.method,
        query.join("&")
    ))
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys {
            access: "AKIA".to_owned(),
            secret: "secret".to_owned(),
            region: "us-west-2".to_owned(),
        }
    }

    /// A request of this age, signed.
    fn signed(age: Duration) -> Request {
        let iso = clock::iso(SystemTime::now() - age);
        let date = format!("{}Z", iso[..19].replace(['-', ':'], ""));
        let keys = keys();
        let scope = format!("{}/{}/ec2/aws4_request", &date[..8], keys.region);
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut request = Request {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            headers: vec![header("host", "localhost"), header("x-amz-date", &date)],
            body: b"Action=DescribeVpcs".to_vec(),
            ..Request::default()
        };
        let canonical = canonical(&request, "host;x-amz-date").expect("sound");
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
            sha256_hex(canonical.as_bytes())
        );
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders=host;x-amz-date, Signature={}",
            keys.access,
            keys.sign(&scope, &to_sign)
        );
        request
            .headers
            .push(header("authorization", &authorization));
        request
    }

    fn code(request: &Request, service: &str) -> String {
        let refusal = keys().verify(request, service).expect_err("unsound");
        refusal.code
    }

    #[test]
    fn a_request_is_taken_once_it_is_signed_lately_for_this_service_with_this_body() {
        let minute = Duration::from_secs(60);
        let mut request = signed(minute);
        keys().verify(&request, "ec2").expect("sound");
        assert_eq!(code(&request, "ebs"), "AuthFailure");
        assert_eq!(code(&signed(minute * 6), "ec2"), "RequestExpired");
        request.body.push(b'!');
        assert_eq!(code(&request, "ec2"), "AuthFailure");
        request.headers.pop();
        assert_eq!(code(&request, "ec2"), "MissingAuthenticationToken");
    }
}
