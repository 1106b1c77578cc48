use super::*;
use crate::record::HEADER;

fn secret(suite: Suite, byte: u8) -> Secret {
    Secret {
        suite,
        master: [byte; 48],
        client_random: [1; 32],
        server_random: [2; 32],
    }
}

fn pair(suite: Suite) -> (Generation, Generation) {
    let secret = secret(suite, 7);
    let side = |side| Generation::new(&secret, side).expect("keys");
    (side(Side::Client), side(Side::Server))
}

fn sealed(generation: &Generation, content: &[u8]) -> Vec<u8> {
    let mut record = vec![0; generation.overhead() + content.len()];
    let prefix = generation.prefix();
    record[prefix..prefix + content.len()].copy_from_slice(content);
    let mut numbers = generation.reserve(1).expect("numbers");
    generation
        .seal(ContentType::ApplicationData, &mut numbers, &mut record)
        .expect("sealed");
    record
}

fn opened(generation: &Generation, record: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut record = record.to_vec();
    let header = RecordHeader::read(&record).ok_or(Refused::Bad)?;
    let content = generation.open(&header, &mut record)?;
    Ok(record[content].to_vec())
}

const SUITES: [Suite; 2] = [Suite::Aes128Gcm, Suite::ChaCha20Poly1305];

#[test]
fn what_one_side_seals_the_other_opens_once() {
    for suite in SUITES {
        let (client, server) = pair(suite);
        for (from, to) in [(&client, &server), (&server, &client)] {
            for content in [&b""[..], b"a", &[9; 1400]] {
                let record = sealed(from, content);
                assert_eq!(opened(to, &record).as_deref(), Ok(content));
                assert_eq!(opened(to, &record), Err(Refused::Replayed));
            }
        }
    }
}

#[test]
fn records_overtake_each_other() {
    let (client, server) = pair(Suite::Aes128Gcm);
    let records: Vec<_> = (0..100_u8).map(|n| sealed(&client, &[n])).collect();
    for (n, record) in (0_u8..100).zip(&records).rev() {
        assert_eq!(opened(&server, record), Ok(vec![n]));
    }
}

#[test]
fn a_forged_record_is_refused_and_does_not_take_the_number_of_a_true_one() {
    for suite in SUITES {
        let (client, server) = pair(suite);
        let record = sealed(&client, b"content");
        for at in 0..record.len() {
            let mut forged = record.clone();
            forged[at] ^= 1;
            assert_eq!(opened(&server, &forged), Err(Refused::Bad), "byte {at}");
        }
        for len in 0..record.len() {
            assert_eq!(opened(&server, &record[..len]), Err(Refused::Bad));
        }
        assert_eq!(opened(&server, &record).as_deref(), Ok(&b"content"[..]));
    }
}

#[test]
fn a_record_cannot_be_reflected_to_its_sender() {
    let (client, _) = pair(Suite::Aes128Gcm);
    let record = sealed(&client, b"content");
    assert_eq!(opened(&client, &record), Err(Refused::Bad));
}

#[test]
fn the_generation_of_a_record_is_seen_without_keys() {
    let old = Generation::new(&secret(Suite::Aes128Gcm, 1), Side::Client).expect("keys");
    let new = Generation::new(&secret(Suite::Aes128Gcm, 2), Side::Client).expect("keys");
    assert_ne!(old.tag(), new.tag());
    let record = sealed(&old, b"x");
    let header = RecordHeader::read(&record).expect("a record");
    assert!(old.owns(header.sequence) && !new.owns(header.sequence));
}

#[test]
fn no_number_is_given_twice_and_none_beyond_the_limit() {
    let (client, _) = pair(Suite::Aes128Gcm);
    let mut first = client.reserve(3).expect("numbers");
    let mut second = client.reserve(2).expect("numbers");
    let mut taken: Vec<_> = std::iter::from_fn(|| first.take()).collect();
    taken.extend(std::iter::from_fn(|| second.take()));
    let base = u64::from(client.tag()) << 32;
    assert_eq!(taken, (base..base + 5).collect::<Vec<_>>());
    client.sealed.store(RENEW_AFTER - 1, Ordering::Relaxed);
    assert!(!client.is_worn());
    client.reserve(1).expect("numbers");
    assert!(client.is_worn());
    client.sealed.store(LIMIT, Ordering::Relaxed);
    assert!(client.reserve(1).is_none());
}

#[test]
fn more_records_than_numbers_are_not_sealed() {
    let (client, _) = pair(Suite::Aes128Gcm);
    let mut numbers = client.reserve(1).expect("numbers");
    let mut record = vec![0; client.overhead()];
    let mut seal = || client.seal(ContentType::ApplicationData, &mut numbers, &mut record);
    assert_eq!(seal(), Ok(()));
    assert_eq!(seal(), Err(BadRecord));
}

#[test]
fn the_form_of_a_record_is_that_of_dtls() {
    let (client, _) = pair(Suite::Aes128Gcm);
    let record = sealed(&client, b"abc");
    assert_eq!(record[..5], [23, 254, 253, 0, 1]);
    assert_eq!(record[5..7], client.tag().to_be_bytes());
    assert_eq!(
        usize::from(u16::from_be_bytes([record[11], record[12]])),
        record.len() - HEADER
    );
    assert_eq!(record[3..11], record[13..21], "explicit nonce");
    assert_eq!(record.len(), 3 + 37);
}
