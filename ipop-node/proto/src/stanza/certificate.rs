//! A node's question for its certificate: an IQ `set` to whoever signs for the overlay's authority, with
//!
//! ```text
//! <request xmlns='urn:ipop:certificate:0' proof='…'>PKCS#10, PEM</request>
//! ```
//!
//! answered with `<certificate xmlns='urn:ipop:certificate:0'>PEM</certificate>`. The proof is there
//! when the node asks for the first time ([`Proof`]); later its key is known.

use xmpp_parsers::minidom::Element;
use xmpp_parsers::minidom::rxml::xml_ncname;

use super::NS_CERTIFICATE;
use crate::authority::proof::Proof;

/// More text than this is not read, in bytes: a request or a certificate has about 1 KiB.
const MAX_BYTES: usize = 16 * 1024;

/// What a node asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    /// PKCS#10, PEM.
    pub request: String,
    /// That it comes from whom the owner expects.
    pub proof: Option<Proof>,
}

/// A question or an answer cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Another element, or no element.
    #[error("no element of {NS_CERTIFICATE} that is expected")]
    Absent,
    /// Too much to look at.
    #[error("text of {0} bytes, more than {MAX_BYTES}")]
    TooBig(usize),
    /// The proof is not Base64.
    #[error("unreadable proof")]
    Proof,
}

/// The question.
pub fn to_element(request: &CertificateRequest) -> Element {
    let proof = request.proof.as_ref().map(ToString::to_string);
    Element::builder("request", NS_CERTIFICATE)
        .attr(xml_ncname!("proof").to_owned(), proof)
        .append(request.request.as_str())
        .build()
}

/// Whether `payload` is the question.
pub fn is_request(payload: &Element) -> bool {
    payload.is("request", NS_CERTIFICATE)
}

/// Reads the question.
pub fn from_element(payload: &Element) -> Result<CertificateRequest, CertificateError> {
    if !is_request(payload) {
        return Err(CertificateError::Absent);
    }
    let proof = payload.attr("proof");
    Ok(CertificateRequest {
        request: text(payload)?,
        proof: match proof {
            None => None,
            Some(proof) => Some(Proof::parse(proof).ok_or(CertificateError::Proof)?),
        },
    })
}

/// The answer, with the certificate (PEM).
pub fn answer(certificate: &str) -> Element {
    Element::builder("certificate", NS_CERTIFICATE)
        .append(certificate)
        .build()
}

/// Reads the answer.
pub fn from_answer(payload: Option<&Element>) -> Result<String, CertificateError> {
    let payload = payload.filter(|p| p.is("certificate", NS_CERTIFICATE));
    text(payload.ok_or(CertificateError::Absent)?)
}

fn text(element: &Element) -> Result<String, CertificateError> {
    let bytes: usize = element.texts().map(str::len).sum();
    if bytes > MAX_BYTES {
        return Err(CertificateError::TooBig(bytes));
    }
    Ok(element.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_and_its_answer_are_read_as_they_were_written() {
        for proof in [None, Some(Proof::of("csr\n", "sesame"))] {
            let request = CertificateRequest {
                request: "csr\n".to_owned(),
                proof,
            };
            let text = String::from(&to_element(&request));
            assert!(!text.contains("sesame"));
            let element: Element = text.parse().expect("XML");
            assert_eq!(from_element(&element), Ok(request));
        }
        assert_eq!(from_answer(Some(&answer("pem"))).as_deref(), Ok("pem"));
    }

    #[test]
    fn what_is_neither_is_refused() {
        assert_eq!(from_answer(None), Err(CertificateError::Absent));
        let question = to_element(&CertificateRequest {
            request: "x".repeat(MAX_BYTES + 1),
            proof: None,
        });
        assert_eq!(from_answer(Some(&question)), Err(CertificateError::Absent));
        let too_big = from_element(&question);
        assert_eq!(too_big, Err(CertificateError::TooBig(MAX_BYTES + 1)));
        let other =
            Element::builder("request", NS_CERTIFICATE).attr(xml_ncname!("proof").to_owned(), "*");
        assert_eq!(from_element(&other.build()), Err(CertificateError::Proof));
        assert_eq!(from_element(&answer("x")), Err(CertificateError::Absent));
    }
}
