//! Every interleaving of threads that publish and read, and of threads that take numbers.
//!
//! `scripts/loom` runs them; without `--cfg loom` there is nothing here.
#![cfg(loom)]

use ipop_datapath::published::{Published, Reader};
use loom::thread;
use std::sync::Arc;

#[test]
fn a_reader_never_goes_back_and_ends_with_the_newest() {
    loom::model(|| {
        let source = Arc::new(Published::new(0));
        let mut reader = Reader::new(source.clone());
        let writer = thread::spawn({
            let source = source.clone();
            move || {
                source.publish(1);
                source.publish(2);
            }
        });
        let mut last = **reader.get();
        for _ in 0..2 {
            reader.refresh();
            let now = **reader.get();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
        writer.join().expect("no panic");
        reader.refresh();
        assert_eq!(**reader.get(), 2);
        assert!(!reader.refresh(), "nothing is newer");
    });
}

#[test]
fn of_two_writers_one_wins_and_every_reader_agrees() {
    loom::model(|| {
        let source = Arc::new(Published::new(0));
        let mut one = Reader::new(source.clone());
        let writers = [1, 2].map(|value| {
            let source = source.clone();
            thread::spawn(move || source.publish(value))
        });
        one.refresh();
        for writer in writers {
            writer.join().expect("no panic");
        }
        one.refresh();
        let other = Reader::new(source);
        assert_eq!(one.get(), other.get());
        assert_ne!(**one.get(), 0);
    });
}
