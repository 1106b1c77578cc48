//! Nanoseconds for each operation, and packets a second. What is measured is the processor time of
//! the thread, so that figures from a busy machine may be compared as well.

mod operations;

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};

struct ThreadTime;

impl Measurement for ThreadTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn speed(criterion: &mut Criterion<ThreadTime>) {
    let mut group = criterion.benchmark_group("datapath");
    for mut operation in operations::all() {
        group.throughput(Throughput::Elements(operation.packets));
        group.bench_function(operation.name, |bencher| bencher.iter(&mut operation.run));
    }
    group.finish();
}

/// AES-128-GCM of a packet by the two libraries, one of which is chosen (`src/aead.rs`).
fn aead(criterion: &mut Criterion<ThreadTime>) {
    const PACKET: usize = 1400;
    let key = [7; 16];
    let mut group = criterion.benchmark_group("aead");
    group.throughput(Throughput::Bytes(PACKET as u64));
    group.bench_function("aws-lc", |bencher| {
        use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).expect("16 bytes"));
        let mut body = [0; PACKET];
        bencher.iter(|| {
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            key.seal_in_place_separate_tag(nonce, Aad::from([0; 13]), &mut body)
        });
    });
    group.bench_function("ring", |bencher| {
        use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).expect("16 bytes"));
        let mut body = [0; PACKET];
        bencher.iter(|| {
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            key.seal_in_place_separate_tag(nonce, Aad::from([0; 13]), &mut body)
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(ThreadTime);
    targets = speed, aead
}
criterion_main!(benches);
