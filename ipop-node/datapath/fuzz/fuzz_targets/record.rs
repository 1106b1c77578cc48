//! Any datagrams to a receiver whose peer seals records: what is opened is what was sealed, once,
//! however records are cut, lengthened, changed, repeated or put in another order.
//!
//! No fuzzer finds keys, so that an input is a list of things to do to true records, and bytes
//! that are no record.
#![no_main]

use ipop_datapath::envelope::{ENVELOPE, Envelope, Kind};
use ipop_datapath::fragment::{Fragments, MAX_PIECES, PATH_CONTENT};
use ipop_datapath::generation::Generation;
use ipop_datapath::record::{ContentType, RecordHeader};
use ipop_datapath::secret::{Secret, Side, Suite};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&options, input)) = input.split_first() else {
        return;
    };
    let suite = match options & 1 {
        0 => Suite::Aes128Gcm,
        _ => Suite::ChaCha20Poly1305,
    };
    let mut link = Link::new(suite);
    for (step, bytes) in steps(input) {
        link.take(step, bytes);
    }
});

/// Steps: what to do, and with which bytes, of which there are as many as the second byte says.
fn steps(mut input: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[step, len], rest) = input.split_first_chunk()?;
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(len)));
        input = rest;
        Some((step, bytes))
    })
}

struct Link {
    sender: Generation,
    receiver: Generation,
    sent: Vec<Sent>,
    fragments: Fragments,
}

struct Sent {
    record: Vec<u8>,
    content: Vec<u8>,
    is_opened: bool,
}

impl Link {
    fn new(suite: Suite) -> Self {
        let secret = Secret {
            suite,
            master: [7; 48],
            client_random: [1; 32],
            server_random: [2; 32],
        };
        let keys = |side| Generation::new(&secret, side).expect("keys");
        Self {
            sender: keys(Side::Client),
            receiver: keys(Side::Server),
            sent: Vec::new(),
            fragments: Fragments::default(),
        }
    }

    fn take(&mut self, step: u8, bytes: &[u8]) {
        if step & 7 == 0 {
            return self.seal(bytes);
        }
        if step & 7 == 1 {
            return assert_eq!(self.deliver(bytes), 0);
        }
        let Some((&[which, at], rest)) = bytes.split_first_chunk() else {
            return;
        };
        let Some(which) = usize::from(which).checked_rem(self.sent.len()) else {
            return;
        };
        let Sent {
            record, is_opened, ..
        } = &self.sent[which];
        let is_new = usize::from(!is_opened);
        let mut datagram = record.clone();
        let at = usize::from(at) % datagram.len();
        match step & 7 {
            2 => assert_eq!(self.deliver(&datagram), is_new),
            3 => {
                datagram.truncate(at);
                assert_eq!(self.deliver(&datagram), 0);
            }
            4 => {
                datagram.extend_from_slice(rest);
                assert_eq!(self.deliver(&datagram), is_new);
            }
            5 => {
                let change = rest.first().copied().unwrap_or_default().max(1);
                datagram[at] ^= change;
                assert_eq!(self.deliver(&datagram), 0);
            }
            6 => {
                // Seen twice in one datagram.
                datagram.extend_from_within(..);
                assert_eq!(self.deliver(&datagram), is_new);
            }
            _ => {
                // To the one that sent it.
                let header = RecordHeader::read(&datagram).expect("its own record");
                assert!(self.sender.open(&header, &mut datagram).is_err());
            }
        }
    }

    fn seal(&mut self, content: &[u8]) {
        let mut record = vec![0; self.sender.overhead() + content.len()];
        let prefix = self.sender.prefix();
        record[prefix..][..content.len()].copy_from_slice(content);
        let mut number = self.sender.reserve(1).expect("a number");
        self.sender
            .seal(ContentType::ApplicationData, &mut number, &mut record)
            .expect("sealed");
        self.sent.push(Sent {
            record,
            content: content.to_vec(),
            is_opened: false,
        });
    }

    /// Opens the records of a datagram until one is refused, and says how many it opened.
    fn deliver(&mut self, datagram: &[u8]) -> usize {
        let mut datagram = datagram.to_vec();
        let mut rest = &mut datagram[..];
        let mut opened = 0;
        while let Some(header) = RecordHeader::read(rest) {
            assert!(header.len <= rest.len());
            let (record, after) = rest.split_at_mut(header.len);
            let Ok(range) = self.receiver.open(&header, record) else {
                break;
            };
            let content = &record[range];
            let sent = self.sent.iter_mut().find(|sent| {
                RecordHeader::read(&sent.record)
                    .expect("its own record")
                    .sequence
                    == header.sequence
            });
            let sent = sent.expect("a record that was sealed");
            assert_eq!(content, sent.content);
            assert!(!std::mem::replace(&mut sent.is_opened, true));
            unwrap(&self.fragments, header.sequence, content);
            opened += 1;
            rest = after;
        }
        opened
    }
}

/// What a peer puts into its records may be anything as well.
fn unwrap(fragments: &Fragments, sequence: u64, content: &[u8]) {
    let Some(envelope) = Envelope::read(content) else {
        return;
    };
    assert_eq!(content[..ENVELOPE], envelope.bytes());
    if envelope.kind != Kind::Fragment {
        return;
    }
    if let Ok(Some(whole)) = fragments.take(sequence, &content[ENVELOPE..]) {
        assert!(whole.len() <= MAX_PIECES * PATH_CONTENT);
    }
}
