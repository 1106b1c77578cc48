//! What is believed of certificates, and what not.

mod revocation;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    SanType,
};

use super::issue::{IssueError, Issuer, Subject};
use super::{Authority, AuthorityError, Claim, Refused, RevocationList, Serial, Validity, groups};
use crate::link::Identity;

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// An authority for tests, on one fixed day.
pub(crate) struct Office {
    issuer: Issuer,
}

impl Office {
    /// When it signs.
    pub(crate) fn today() -> SystemTime {
        UNIX_EPOCH + 20_000 * DAY
    }

    pub(crate) fn new() -> Self {
        Self::valid(Self::today() - 365 * DAY, 3650)
    }

    fn valid(not_before: SystemTime, days: u32) -> Self {
        let validity = Validity {
            not_before,
            not_after: not_before + days * DAY,
        };
        let issuer = Issuer::generate("office", validity, [7; 16]).expect("an authority");
        Self { issuer }
    }

    /// What nodes of an overlay believe.
    pub(crate) fn authority(&self, overlay: &str) -> Authority {
        Authority::from_pem(&self.pem(), overlay).expect("its own certificate")
    }

    /// Its certificate, as PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.certificate_pem().to_owned()
    }

    /// The list that follows `previous`, with the certificate of `identity` on it.
    pub(crate) fn revoke(
        &self,
        previous: Option<&RevocationList>,
        identity: &Identity,
    ) -> RevocationList {
        self.revoke_among(previous, identity, 0)
    }

    /// The same, with so many others on it.
    pub(crate) fn revoke_among(
        &self,
        previous: Option<&RevocationList>,
        identity: &Identity,
        others: u32,
    ) -> RevocationList {
        let pem = identity.to_pem().expect("PEM");
        let serial = |n: u32| Serial::new(&[&[0xff; 12][..], &n.to_be_bytes()].concat());
        let mut serials: Vec<_> = (0..others).filter_map(serial).collect();
        serials.push(self.issuer.serial_of(&pem).expect("its own"));
        let list = self.issuer.revoke(previous, &serials, Self::today());
        list.expect("a list")
    }

    /// A new identity of a node, valid from today on.
    pub(crate) fn identity(&self, subject: &Subject) -> Identity {
        self.identity_from(subject, Self::today(), 90)
    }

    pub(crate) fn identity_from(
        &self,
        subject: &Subject,
        not_before: SystemTime,
        days: u32,
    ) -> Identity {
        let identity = Identity::generate().expect("an identity");
        let validity = Validity {
            not_before,
            not_after: not_before + days * DAY,
        };
        let pem = sign(&self.issuer, subject, &identity, validity).expect("signed");
        identity.certified(&pem).expect("its own key")
    }
}

/// A node with the addresses that end in `last`.
pub(crate) fn subject(name: &str, overlay: &str, last: u8) -> Subject {
    Subject {
        name: name.to_owned(),
        overlay: overlay.to_owned(),
        addrs: addrs(last).to_vec(),
        role: None,
        groups: BTreeSet::new(),
    }
}

pub(crate) fn claim(name: &str, last: u8) -> Claim {
    Claim {
        name: name.to_owned(),
        ipv4: [10, 73, 0, last].into(),
        ipv6: format!("fd5a::{last:x}").parse().expect("an address"),
    }
}

fn addrs(last: u8) -> [IpAddr; 2] {
    let Claim { ipv4, ipv6, .. } = claim("", last);
    [ipv4.into(), ipv6.into()]
}

fn sign(
    issuer: &Issuer,
    subject: &Subject,
    identity: &Identity,
    validity: Validity,
) -> Result<String, IssueError> {
    let request = subject.request(identity)?;
    let (mut asked, key) = Subject::of_request(&request)?;
    asked.groups.clone_from(&subject.groups);
    assert_eq!(asked, *subject);
    // Another one for each key.
    let serial = *identity.fingerprint().0.first_chunk().expect("longer");
    Ok(issuer.sign(&asked, &key, validity, serial)?.0)
}

/// What a node of overlay `demo` says today of an identity that claims to be `a` with address 1.
fn verdict(authority: &Authority, identity: &Identity) -> Result<(), Refused> {
    verdict_at(authority, identity, Office::today())
}

fn verdict_at(authority: &Authority, identity: &Identity, now: SystemTime) -> Result<(), Refused> {
    let certified = authority.certify(identity.chain(), now)?;
    certified.grants(&claim("a", 1))
}

#[test]
fn what_the_authority_signs_is_what_a_node_reads() {
    let office = Office::new();
    let asked = Subject {
        role: Some("frontend".to_owned()),
        groups: ["lake", "crew"].map(str::to_owned).into(),
        ..subject("a", "demo", 1)
    };
    let identity = office.identity(&asked);
    let (begins, ends) = (Office::today(), Office::today() + 90 * DAY);
    let second = Duration::from_secs(1);
    let at = |time| office.authority("demo").certify(identity.chain(), time);
    for time in [begins, begins + DAY, ends] {
        let said = at(time).expect("certified");
        assert_eq!(said.name, "a");
        assert_eq!(said.overlay, "demo");
        assert_eq!(said.addrs, addrs(1));
        assert_eq!(said.role.as_deref(), Some("frontend"));
        assert_eq!(said.groups, asked.groups);
        assert_eq!(
            (said.validity.not_before, said.validity.not_after),
            (begins, ends)
        );
        said.grants(&claim("a", 1)).expect("that is it");
    }
    let early = at(begins - second).expect_err("too early").to_string();
    assert!(
        early.starts_with("the certificate begins on Oct  4"),
        "{early}"
    );
    let late = at(ends + second).expect_err("too late").to_string();
    assert!(
        late.starts_with("the certificate ended on Jan  2"),
        "{late}"
    );
}

#[test]
fn a_certificate_that_says_something_else_is_refused_by_what_it_says() {
    let office = Office::new();
    let authority = office.authority("demo");
    let issued = |subject: Subject| office.identity(&subject);
    verdict(&authority, &issued(subject("a", "demo", 1))).expect("the one");
    for (identity, why) in [
        (
            Office::new().identity(&subject("a", "demo", 1)),
            "the certificate is not of this overlay's authority",
        ),
        (
            Identity::generate().expect("self-signed"),
            "the certificate is not of this overlay's authority",
        ),
        (
            issued(subject("a", "other", 1)),
            "the certificate is for overlay `other`, and this is `demo`",
        ),
        (
            issued(subject("b", "demo", 1)),
            "it calls itself a (10.73.0.1, fd5a::1), and the certificate says \
             b (10.73.0.1, fd5a::1)",
        ),
        (
            issued(Subject {
                addrs: vec![addrs(1)[0], addrs(2)[1]],
                ..subject("a", "demo", 1)
            }),
            "it claims the addresses of a (10.73.0.1, fd5a::1), and the certificate says \
             a (10.73.0.1, fd5a::2)",
        ),
        (
            issued(Subject {
                addrs: vec![addrs(2)[0], addrs(1)[1]],
                ..subject("a", "demo", 1)
            }),
            "it claims the addresses of a (10.73.0.1, fd5a::1), and the certificate says \
             a (10.73.0.2, fd5a::1)",
        ),
    ] {
        let error = verdict(&authority, &identity).expect_err(why);
        assert_eq!(error.to_string(), why);
    }
    let nothing: [&[u8]; 0] = [];
    let none = authority.certify(&nothing, Office::today());
    assert_eq!(none.expect_err("nothing"), Refused::None);
}

#[test]
fn a_certificate_that_is_not_of_the_form_is_refused_whoever_signed_it() {
    let office = Office::new();
    let authority = office.authority("demo");
    let key = KeyPair::generate().expect("a key");
    let name = |name: &str| SanType::DnsName(name.try_into().expect("a name"));
    let [v4, v6] = addrs(1).map(SanType::IpAddress);
    let good = || {
        let mut params = CertificateParams::default();
        params.not_before = Office::today().into();
        params.not_after = (Office::today() + DAY).into();
        params.subject_alt_names = vec![name("a.demo.ipop"), v4.clone(), v6.clone()];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params
    };
    let verdict = |params: CertificateParams| {
        let signed = params.signed_by(&key, office.issuer.issuer());
        let certified = authority.certify(&[signed.expect("signed").der()], Office::today());
        certified.map(|_| ()).map_err(|error| error.to_string())
    };
    verdict(good()).expect("this is the form");
    type Change<'a> = Box<dyn Fn(&mut CertificateParams) + 'a>;
    let names = |names: Vec<SanType>| -> Change<'_> {
        Box::new(move |params| params.subject_alt_names.clone_from(&names))
    };
    let directory = |value: Vec<u8>| -> Change<'_> {
        let extension = CustomExtension::from_oid_content(&groups::EXTENSION, value);
        Box::new(move |params| params.custom_extensions.push(extension.clone()))
    };
    let changes: Vec<(Change<'_>, &str)> = vec![
        (Box::new(|p| p.key_usages.clear()), "not for signatures"),
        (
            Box::new(|p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
            "not for signatures",
        ),
        (
            Box::new(|p| p.extended_key_usages.clear()),
            "not for both ends",
        ),
        (
            Box::new(|p| p.extended_key_usages.truncate(1)),
            "not for both ends",
        ),
        (
            Box::new(|p| p.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
            "cannot be used",
        ),
        (names(vec![]), "no subjectAltName"),
        (names(vec![v4.clone(), v6.clone()]), "no dNSName"),
        (
            names(vec![name("a.demo.ipop"), v4.clone()]),
            "both families",
        ),
        (
            names(vec![name("a.demo.ipop"), v6.clone()]),
            "both families",
        ),
        (
            names(vec![
                name("a.demo.ipop"),
                name("b.demo.ipop"),
                v4.clone(),
                v6.clone(),
            ]),
            "two dNSNames",
        ),
        (
            names(vec![name("a.demo.example"), v4.clone(), v6.clone()]),
            "`a.demo.example` is not NAME.OVERLAY.ipop",
        ),
        (
            names(vec![name("*.demo.ipop"), v4.clone(), v6.clone()]),
            "`*.demo.ipop` is not NAME.OVERLAY.ipop",
        ),
        (
            names(vec![
                name("a.demo.ipop"),
                v4.clone(),
                v6.clone(),
                SanType::Rfc822Name("a@b".try_into().expect("a name")),
            ]),
            "another name",
        ),
        (
            directory(vec![0x30, 0x03, 0x30]),
            "subjectDirectoryAttributes cannot be read",
        ),
        (
            directory(groups::write(&["a b".to_owned()].into())),
            "`a b` is no group",
        ),
    ];
    for (change, why) in changes {
        let mut params = good();
        change(&mut params);
        let error = verdict(params).expect_err(why);
        assert!(error.contains(why), "{error} instead of {why}");
    }
}

#[test]
fn while_one_authority_follows_another_both_are_believed_each_in_its_time() {
    let (old, new) = (
        Office::valid(Office::today() - 300 * DAY, 330),
        Office::new(),
    );
    let text = [&old, &new].map(|office| office.issuer.certificate_pem());
    let both = Authority::from_pem(&text.concat(), "demo").expect("two certificates");
    let identities = [&old, &new]
        .map(|office| office.identity_from(&subject("a", "demo", 1), Office::today(), 30));
    for identity in &identities {
        verdict(&both, identity).expect("of one of them");
    }
    let later = Office::today() + 31 * DAY;
    let identity = new.identity_from(&subject("a", "demo", 1), Office::today(), 60);
    verdict_at(&both, &identity, later).expect("of the new one");
    let old = old.authority("demo");
    let error = verdict_at(&old, &identities[0], later);
    assert_eq!(error.expect_err("ended"), Refused::NoAuthority);
}

#[test]
fn nothing_that_outlives_the_authority_is_signed() {
    let office = Office::valid(Office::today(), 30);
    let identity = Identity::generate().expect("an identity");
    let validity = Validity {
        not_before: Office::today(),
        not_after: Office::today() + 31 * DAY,
    };
    let signed = sign(
        &office.issuer,
        &subject("a", "demo", 1),
        &identity,
        validity,
    );
    let error = signed.expect_err("too long");
    assert!(matches!(error, IssueError::Useless(Refused::NoAuthority)));
}

#[test]
fn a_certificate_is_due_when_a_third_is_left() {
    let validity = Validity {
        not_before: Office::today(),
        not_after: Office::today() + 90 * DAY,
    };
    assert!(!validity.is_due(Office::today() + 59 * DAY));
    assert!(validity.is_due(Office::today() + 60 * DAY));
    assert_eq!(validity.left(Office::today() + 91 * DAY), Duration::ZERO);
}

#[test]
fn a_file_without_an_authority_is_named_defective() {
    let identity = Identity::generate().expect("an identity");
    let read = |text: &str| Authority::from_pem(text, "demo").expect_err("no authority");
    assert!(matches!(read(""), AuthorityError::Empty));
    let error = read(&identity.to_pem().expect("PEM")).to_string();
    assert!(
        error.contains("certificate 1 cannot be used: it is no authority's"),
        "{error}"
    );
}

#[test]
fn a_request_that_its_key_has_not_signed_is_refused() {
    let identity = Identity::generate().expect("an identity");
    let text = subject("a", "demo", 1)
        .request(&identity)
        .expect("a request");
    let mut request = pem::parse(&text).expect("PEM");
    let mut der = request.contents().to_vec();
    let at = der
        .windows(4)
        .position(|part| part == b"demo")
        .expect("there");
    der[at..at + 4].copy_from_slice(b"dema");
    request = pem::Pem::new(request.tag(), der);
    let error = Subject::of_request(&pem::encode(&request)).map(|_| ());
    assert!(matches!(error, Err(IssueError::Made { .. })), "{error:?}");
}

#[test]
fn a_request_for_what_no_node_may_be_is_refused() {
    let key = KeyPair::generate().expect("a key");
    for names in [
        vec!["a.demo.example"],
        vec!["a.demo.ipop", "b.demo.ipop"],
        vec![],
    ] {
        let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, "a");
        let request = params.serialize_request(&key).and_then(|r| r.pem());
        let refused = Subject::of_request(&request.expect("a request")).map(|_| ());
        assert!(
            matches!(refused, Err(IssueError::Request(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn no_certificate_is_signed_for_a_group_with_a_name_that_nobody_would_read() {
    let office = Office::new();
    let asked = Subject {
        groups: ["Lake".to_owned()].into(),
        ..subject("a", "demo", 1)
    };
    let identity = Identity::generate().expect("an identity");
    let validity = Validity {
        not_before: Office::today(),
        not_after: Office::today() + DAY,
    };
    let error = sign(&office.issuer, &asked, &identity, validity).expect_err("no group");
    assert!(error.to_string().contains("`Lake` is no group"), "{error}");
}
