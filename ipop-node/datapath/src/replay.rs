//! The window that makes a record count once (RFC 6347 section 4.1.2.6).

/// Records the window looks back. Batches of 64 that overtake each other on a machine with many
/// queues stay well inside.
pub const WINDOW: u64 = (WORDS as u64 - 1) * 64;
const WORDS: usize = 64;

/// Which of the latest sequence numbers were seen.
///
/// A ring of words, of which the one ahead is cleared as the window moves (RFC 6479), so that
/// moving it does not shift anything.
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    /// One more than the highest number seen; 0 before the first.
    next: u64,
    words: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self {
            next: 0,
            words: [0; WORDS],
        }
    }
}

impl ReplayWindow {
    /// The number after the highest that was seen; 0 before the first.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Whether a record with this number may be new. Call it before the record is verified.
    pub fn is_new(&self, sequence: u64) -> bool {
        if sequence >= self.next {
            return true;
        }
        let (word, bit) = place(sequence);
        self.next - sequence <= WINDOW && self.words[word] & bit == 0
    }

    /// Marks the number of a record that was verified. Whether it was new.
    pub fn accept(&mut self, sequence: u64) -> bool {
        if !self.is_new(sequence) {
            return false;
        }
        if sequence >= self.next {
            let last = self.next.saturating_sub(1) / 64;
            let steps = (sequence / 64 - last).min(WORDS as u64);
            for step in 1..=steps {
                let at = (last + step) % WORDS as u64;
                self.words[usize::try_from(at).unwrap_or(0)] = 0;
            }
            self.next = sequence + 1;
        }
        let (word, bit) = place(sequence);
        self.words[word] |= bit;
        true
    }
}

fn place(sequence: u64) -> (usize, u64) {
    let word = sequence / 64 % WORDS as u64;
    (usize::try_from(word).unwrap_or(0), 1 << (sequence % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_counts_once() {
        let mut window = ReplayWindow::default();
        for n in [5, 0, 7, 6, 1 << 40, (1 << 40) + 1] {
            assert!(window.accept(n), "{n}");
            assert!(!window.is_new(n), "{n}");
            assert!(!window.accept(n), "{n}");
        }
    }

    #[test]
    fn what_is_behind_the_window_is_refused() {
        let mut window = ReplayWindow::default();
        assert!(window.accept(100_000));
        assert!(window.is_new(100_001 - WINDOW));
        assert!(!window.is_new(100_000 - WINDOW));
    }

    proptest! {
        /// Against a set that remembers everything.
        #[test]
        fn nothing_counts_twice_and_nothing_new_inside_the_window_is_lost(
            steps in prop::collection::vec((0_u64..200, any::<bool>(), 0_u64..9000), 1..400)
        ) {
            let mut window = ReplayWindow::default();
            let mut seen = HashSet::new();
            let mut highest = 0;
            for (step, back, far) in steps {
                let n = if back { u64::saturating_sub(highest, far) } else { highest + step };
                let inside = highest < WINDOW || n > highest - WINDOW;
                let new = inside && !seen.contains(&n);
                prop_assert_eq!(window.accept(n), new, "{} with highest {}", n, highest);
                seen.insert(n);
                highest = highest.max(n);
            }
        }
    }
}
