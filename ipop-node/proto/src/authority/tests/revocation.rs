//! Revocation lists: what is taken, and what it does to certificates.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber,
};

use super::{DAY, Office, subject, verdict};
use crate::authority::issue::{IssueError, Issuer};
use crate::authority::{Authority, ListError, MAX_LIST, Refused, RevocationList, Serial};
use crate::link::Identity;

/// A list of an authority that forgets what should be there, or adds what should not.
fn params(serials: &[&[u8]]) -> CertificateRevocationListParams {
    CertificateRevocationListParams {
        this_update: Office::today().into(),
        next_update: (Office::today() + DAY).into(),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: serials
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial),
                revocation_time: Office::today().into(),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

fn list(
    office: &Office,
    params: &CertificateRevocationListParams,
) -> Result<RevocationList, ListError> {
    let signed = params.signed_by(office.issuer.issuer()).expect("signed");
    RevocationList::from_der(signed.der())
}

fn a(office: &Office) -> Identity {
    office.identity(&subject("a", "demo", 1))
}

#[test]
fn a_certificate_on_the_list_is_refused_and_no_other_is() {
    let office = Office::new();
    let (authority, gone, stays) = (office.authority("demo"), a(&office), a(&office));
    let list = office.revoke(None, &gone);
    assert_eq!(list.number(), 1);
    verdict(&authority, &gone).expect("good so far");
    let taken = authority
        .take(list)
        .expect("the authority's")
        .expect("newer");
    assert_eq!(verdict(&authority, &gone), Err(Refused::Revoked));
    verdict(&authority, &stays).expect("not on it");
    // Not even when all the rest would be fine for a long time.
    let next = office.revoke(Some(&taken), &stays);
    assert_eq!((next.number(), next.revoked().len()), (2, 2));
    authority.take(next).expect("newer");
    for identity in [&gone, &stays] {
        assert_eq!(verdict(&authority, identity), Err(Refused::Revoked));
    }
}

#[test]
fn a_list_is_the_same_after_both_forms_and_others_are_passed_over() {
    let office = Office::new();
    let first = office.revoke(None, &a(&office));
    let second = office.revoke(Some(&first), &a(&office));
    let text = [office.pem(), first.pem(), second.pem()].concat();
    let read = RevocationList::from_pem(&text).expect("two lists");
    assert_eq!(read.len(), 2);
    for (read, list) in read.iter().zip([&first, &second]) {
        assert_eq!(read.der(), list.der());
        assert_eq!(read.revoked(), list.revoked());
    }
    assert!(
        RevocationList::from_pem(&office.pem())
            .expect("none")
            .is_empty()
    );
}

#[test]
fn there_is_no_way_back_to_an_older_list() {
    let office = Office::new();
    let authority = office.authority("demo");
    let (one, two) = (a(&office), a(&office));
    let first = office.revoke(None, &one);
    let second = office.revoke(Some(&first), &two);
    // Another list that has the second one's number.
    let other = office.revoke(Some(&first), &a(&office));
    let again = RevocationList::from_der(second.der()).expect("itself");
    assert!(authority.take(second).expect("newer").is_some());
    assert!(authority.take(again).expect("known").is_none());
    assert!(
        authority
            .take(other)
            .expect("its number is known")
            .is_none()
    );
    let error = authority.take(first).expect_err("older");
    assert_eq!(error, ListError::Old { number: 1, held: 2 });
    assert_eq!(error.to_string(), "its number is 1, and 2 is known");
    assert_eq!(verdict(&authority, &two), Err(Refused::Revoked));
}

#[test]
fn a_list_that_somebody_else_signed_or_that_was_changed_is_not_taken() {
    let (office, stranger) = (Office::new(), Office::new());
    let authority = office.authority("demo");
    let identity = a(&office);
    // The name is the same, and the serial number is right.
    let serial = office.issuer.serial_of(&identity.to_pem().expect("PEM"));
    let serial = serial.expect("its own");
    let forged = list(&stranger, &params(&[serial.octets()])).expect("a list");
    assert_eq!(authority.take(forged).err(), Some(ListError::Stranger));
    let good = office.revoke(None, &a(&office));
    let der = good.der();
    let on_it = good.revoked().keys().next().expect("one").octets();
    let at = der.windows(on_it.len()).position(|part| part == on_it);
    let mut changed = der.to_vec();
    changed[at.expect("there")] ^= 1;
    let changed = RevocationList::from_der(&changed).expect("a list still");
    assert_eq!(authority.take(changed).err(), Some(ListError::Stranger));
    // The key is the right one, and the name is another's.
    let key = KeyPair::from_pem(&office.issuer.key_pem()).expect("the key");
    let mut other = CertificateParams::default();
    other.key_usages = vec![KeyUsagePurpose::CrlSign];
    let renamed = params(&[serial.octets()]).signed_by(&rcgen::Issuer::new(other, key));
    let renamed = RevocationList::from_der(renamed.expect("signed").der()).expect("a list");
    assert_eq!(authority.take(renamed).err(), Some(ListError::Stranger));
    verdict(&authority, &identity).expect("nobody has revoked it");
}

#[test]
fn an_authority_whose_certificate_does_not_let_it_has_no_list() {
    let key = KeyPair::generate().expect("a key");
    let authority = |usages: Vec<KeyUsagePurpose>| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = usages;
        let certificate = params.self_signed(&key).expect("signed");
        (rcgen::Issuer::new(params, &key), certificate.pem())
    };
    let (both, _) = authority(vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]);
    let signed = params(&[&[1]]).signed_by(&both).expect("signed");
    for (usages, may) in [
        (vec![KeyUsagePurpose::KeyCertSign], false),
        (
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign],
            true,
        ),
        (vec![], true),
    ] {
        let (_, pem) = authority(usages);
        let list = RevocationList::from_der(signed.der()).expect("a list");
        let authority = Authority::from_pem(&pem, "demo").expect("an authority");
        assert_eq!(authority.take(list).is_ok(), may);
    }
}

#[test]
fn what_is_no_whole_list_with_a_number_is_not_read() {
    let office = Office::new();
    let good = params(&[&[1]]);
    list(&office, &good).expect("this is the form");
    let huge = CertificateRevocationListParams {
        crl_number: SerialNumber::from_slice(&[1; 9]),
        ..good.clone()
    };
    assert_eq!(list(&office, &huge).err(), Some(ListError::NoNumber));
    let part = CertificateRevocationListParams {
        issuing_distribution_point: Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: vec!["http://192.0.2.1/".to_owned()],
            },
            scope: None,
        }),
        ..good.clone()
    };
    assert_eq!(list(&office, &part).err(), Some(ListError::Partial));
    let signed = good.signed_by(office.issuer.issuer()).expect("signed");
    let der = signed.der();
    for defective in [&[][..], &der[..der.len() - 1], &[der, &[0][..]].concat()] {
        let error = RevocationList::from_der(defective).expect_err("defective");
        assert!(matches!(error, ListError::Unreadable(_)), "{error}");
    }
    let error = RevocationList::from_der(&vec![0; MAX_LIST + 1]).expect_err("too large");
    assert_eq!(error, ListError::TooLarge(MAX_LIST + 1));
}

#[test]
fn more_than_a_thousand_certificates_have_room_and_the_bound_is_said() {
    let office = Office::new();
    let serial = |n: u32| {
        let octets = [&[0xff; 12][..], &n.to_be_bytes()].concat();
        Serial::new(&octets).expect("a number")
    };
    let many = |count| (0..count).map(serial).collect::<Vec<_>>();
    let made = |count: u32| office.issuer.revoke(None, &many(count), Office::today());
    let list = made(1700).expect("there is room");
    assert_eq!(list.revoked().len(), 1700);
    let authority = office.authority("demo");
    authority.take(list).expect("taken");
    let error = made(2000).expect_err("no room");
    assert!(
        matches!(error, IssueError::List(ListError::TooLarge(_))),
        "{error:?}"
    );
}

#[test]
fn two_authorities_of_one_name_have_a_list_each() {
    let (old, new) = (Office::new(), Office::new());
    let text = [old.pem(), new.pem()].concat();
    let both = Authority::from_pem(&text, "demo").expect("two certificates");
    let [gone, old_one, new_one] = [&old, &old, &new].map(a);
    both.take(old.revoke(None, &gone)).expect("the old one's");
    assert_eq!(verdict(&both, &gone), Err(Refused::Revoked));
    verdict(&both, &old_one).expect("not on it");
    verdict(&both, &new_one).expect("of the other one");
    // The number of the one says nothing about the other.
    both.take(new.revoke(None, &new_one))
        .expect("the new one's");
    assert_eq!(verdict(&both, &new_one), Err(Refused::Revoked));
    verdict(&both, &old_one).expect("still");
    let lists = both.lists();
    assert_eq!(lists.len(), 2);
    assert_ne!(lists[0].0, lists[1].0);
}

#[test]
fn one_key_has_one_list_whatever_its_certificates() {
    let office = Office::new();
    let text = [office.pem(), office.pem()].concat();
    let authority = Authority::from_pem(&text, "demo").expect("twice the same");
    let gone = a(&office);
    let taken = authority.take(office.revoke(None, &gone)).expect("taken");
    assert_eq!(verdict(&authority, &gone), Err(Refused::Revoked));
    let lists = authority.lists();
    assert_eq!(lists.len(), 1);
    assert!(taken.is_some_and(|list| Arc::ptr_eq(&list, &lists[0].1)));
}

#[test]
fn what_was_revoked_stays_so_in_every_list_that_follows() {
    let office = Office::new();
    let identity = a(&office);
    let first = office.revoke(None, &identity);
    let later = Office::today() + DAY;
    let serial = first.revoked().keys().next().expect("one").clone();
    let second = office.issuer.revoke(Some(&first), &[serial], later);
    let second = second.expect("a list");
    assert_eq!(second.number(), 2);
    assert_eq!(first.revoked(), second.revoked(), "with the time it had");
    let other = Office::new();
    let strange = other.revoke(None, &a(&other));
    let error = office.issuer.revoke(Some(&strange), &[], later);
    assert!(matches!(error, Err(IssueError::List(ListError::Stranger))));
}

#[test]
fn what_has_ended_leaves_the_list_and_the_number_rises_all_the_same() {
    let office = Office::new();
    let today = Office::today();
    let [old, new, next] = [1, 2, 3].map(|n| [Serial::new(&[n]).expect("a number")]);
    let first = office.issuer.revoke(None, &old, today).expect("made");
    let second = office.issuer.revoke(Some(&first), &new, today + DAY);
    let second = second.expect("made");
    let on = |list: &RevocationList| list.revoked().keys().cloned().collect::<Vec<_>>();
    let revise = |ended| {
        let revised = office
            .issuer
            .revise(Some(&second), &next, Some(ended), today + DAY);
        revised.expect("made")
    };
    let all = [old, new, next.clone()].concat();
    assert_eq!(on(&revise(today)), all);
    let list = revise(today + DAY);
    assert_eq!((list.number(), on(&list)), (3, all[1..].to_vec()));
}

#[test]
fn only_what_the_authority_signed_can_be_revoked_by_its_certificate() {
    let office = Office::new();
    let stranger = a(&Office::new());
    let of = |text: &str| office.issuer.serial_of(text).map_err(|e| e.to_string());
    let error = of(&stranger.to_pem().expect("PEM")).expect_err("another's");
    assert!(error.ends_with("it is not this authority's"), "{error}");
    assert!(of("").expect_err("nothing").ends_with("there is none"));
    let own = a(&office);
    let serial = of(&own.to_pem().expect("PEM")).expect("its own");
    let certified = office
        .authority("demo")
        .certify(own.chain(), Office::today());
    assert_eq!(certified.expect("certified").serial, serial);
    let issuer = Issuer::from_pem(&office.issuer.key_pem(), &office.pem());
    let again = issuer.expect("read").serial_of(&own.to_pem().expect("PEM"));
    assert_eq!(again.expect("the same"), serial);
}
