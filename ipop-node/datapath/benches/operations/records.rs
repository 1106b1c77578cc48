//! What is done to records.

use std::hint::black_box;

use ipop_datapath::envelope::ENVELOPE;
use ipop_datapath::generation::Generation;
use ipop_datapath::record::{ContentType, RecordHeader};
use ipop_datapath::replay::ReplayWindow;
use ipop_datapath::secret::{Secret, Side, Suite};

use super::{Operation, PACKET, STRIDE, TRAIN, operation};

/// A train of packets, each sealed where it stands with a number of its own.
pub fn seal(name: &'static str, suite: Suite) -> Operation {
    let mut train = Train::new(suite);
    operation(name, TRAIN, move || train.seal())
}

/// Opening uses a record up, so that each is sealed first: [`seal`] is to be taken off.
pub fn seal_and_open(name: &'static str, suite: Suite) -> Operation {
    let mut train = Train::new(suite);
    operation(name, TRAIN, move || {
        train.seal();
        train.open();
    })
}

/// Records that come in order.
pub fn replay(name: &'static str) -> Operation {
    let mut window = ReplayWindow::default();
    let mut next = 0;
    operation(name, TRAIN, move || {
        for _ in 0..TRAIN {
            let sequence = black_box(next);
            black_box(window.is_new(sequence) && window.accept(sequence));
            next += 1;
        }
    })
}

/// Room for the records of a train, and both ends' keys.
struct Train {
    sealing: Generation,
    opening: Generation,
    buffer: Vec<u8>,
    record_len: usize,
}

impl Train {
    fn new(suite: Suite) -> Self {
        let secret = Secret {
            suite,
            master: [7; 48],
            client_random: [1; 32],
            server_random: [2; 32],
        };
        let keys = |side| Generation::new(&secret, side).expect("keys");
        let sealing = keys(Side::Client);
        Self {
            record_len: sealing.overhead() + ENVELOPE + PACKET,
            opening: keys(Side::Server),
            sealing,
            buffer: vec![7; STRIDE * TRAIN],
        }
    }

    fn seal(&mut self) {
        for record in self.buffer.chunks_exact_mut(STRIDE) {
            let mut number = self.sealing.reserve(1).expect("a number");
            let record = black_box(&mut record[..self.record_len]);
            self.sealing
                .seal(ContentType::ApplicationData, &mut number, record)
                .expect("sealed");
        }
    }

    fn open(&mut self) {
        for record in self.buffer.chunks_exact_mut(STRIDE) {
            let record = black_box(&mut record[..self.record_len]);
            let header = RecordHeader::read(record).expect("a record");
            black_box(self.opening.open(&header, record).expect("opened"));
        }
    }
}
