//! What two owners read to each other.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256, Sha512};

use crate::authority::Claim;
use crate::signal::Fingerprint;

/// Groups of five digits.
const GROUPS: usize = 8;
const GROUP_DIGITS: usize = 5;
const GROUP_END: u64 = 100_000;
/// How often it is hashed: this many times as much work to look for two keys that give the same code. A node
/// makes one for each peer that waits whenever its status is asked for, on slow machines too.
const ROUNDS: usize = 256;

/// Forty digits that say which two nodes there are: made of both fingerprints, names and overlay addresses, and
/// the same on both sides.
///
/// Whoever stands between two nodes shows each of them a key of its own, and can look for two by which
/// both owners still read the same digits: among 2^66 certificates of each kind, the square root of what
/// forty digits can be, each hashed 256 times. That is the work of 2^74 hashes. To make a code that is
/// given already, which is what remains when one side is fixed, takes 2^140.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComparisonCode([u32; GROUPS]);

/// A text is no comparison code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no comparison code: {n} digits, in any groups", n = GROUPS * GROUP_DIGITS)]
pub struct CodeError(String);

impl ComparisonCode {
    /// Of two nodes, in any order.
    pub fn of(one: (&Claim, Fingerprint), other: (&Claim, Fingerprint)) -> Self {
        let mut sides = [side(one), side(other)];
        sides.sort_unstable();
        let both = sides.concat();
        let begin = Sha512::new()
            .chain_update("ipop comparison code")
            .chain_update(&both);
        let mut digest = begin.finalize();
        for _ in 0..ROUNDS {
            digest = Sha512::new()
                .chain_update(digest)
                .chain_update(&both)
                .finalize();
        }
        let mut groups = [0; GROUPS];
        for (group, bytes) in groups.iter_mut().zip(digest.chunks_exact(GROUP_DIGITS)) {
            let number = bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
            // Below 100 000.
            *group = (number % GROUP_END) as u32;
        }
        Self(groups)
    }
}

/// What one side is.
fn side((claim, fingerprint): (&Claim, Fingerprint)) -> [u8; 32] {
    // All before the name have a fixed length.
    Sha256::new()
        .chain_update("ipop comparison code, one side")
        .chain_update(fingerprint.0)
        .chain_update(claim.ipv4.octets())
        .chain_update(claim.ipv6.octets())
        .chain_update(&claim.name)
        .finalize()
        .into()
}

impl fmt::Display for ComparisonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, group) in self.0.iter().enumerate() {
            let gap = if at == 0 { "" } else { " " };
            write!(f, "{gap}{group:0width$}", width = GROUP_DIGITS)?;
        }
        Ok(())
    }
}

impl FromStr for ComparisonCode {
    type Err = CodeError;

    /// Blanks and hyphens between digits do not matter.
    fn from_str(text: &str) -> Result<Self, CodeError> {
        let error = || CodeError(text.chars().take(80).collect());
        let is_gap = |c: &char| c.is_whitespace() || *c == '-';
        let digits = text.chars().filter(|c| !is_gap(c)).map(|c| c.to_digit(10));
        let digits: Vec<u32> = digits.collect::<Option<_>>().ok_or_else(error)?;
        if digits.len() != GROUPS * GROUP_DIGITS {
            return Err(error());
        }
        let mut groups = [0; GROUPS];
        for (group, digits) in groups.iter_mut().zip(digits.chunks_exact(GROUP_DIGITS)) {
            *group = digits.iter().fold(0, |n, digit| n * 10 + digit);
        }
        Ok(Self(groups))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::pin;
    use super::*;

    fn code(one: &super::super::Pin, other: &super::super::Pin) -> ComparisonCode {
        ComparisonCode::of(
            (&one.claim, one.fingerprint),
            (&other.claim, other.fingerprint),
        )
    }

    #[test]
    fn both_sides_have_the_same_code_and_it_is_read_back() {
        let (a, b) = (pin(1), pin(2));
        let text = code(&a, &b).to_string();
        assert_eq!(code(&b, &a).to_string(), text);
        // Nodes of two versions have to say the same.
        assert_eq!(text, "28853 60384 82568 10582 06055 26051 06661 22480");
        for form in [
            text.clone(),
            text.replace(' ', ""),
            text.replace(' ', "-") + "\n",
        ] {
            assert_eq!(form.parse(), Ok(code(&a, &b)));
        }
        for wrong in ["", "12345", &text[1..], &text.replace(' ', "x")] {
            wrong.parse::<ComparisonCode>().expect_err(wrong);
        }
    }

    #[test]
    fn every_part_of_either_side_changes_the_code() {
        let (a, b) = (pin(1), pin(2));
        let mut others = vec![b.clone(); 4];
        others[0].fingerprint.0[31] ^= 1;
        others[1].claim.name.push('x');
        others[2].claim.ipv4 = [10, 73, 0, 9].into();
        others[3].claim.ipv6 = "fd5a::9".parse().expect("valid");
        let mut codes: Vec<_> = others
            .iter()
            .chain([&b])
            .map(|b| code(&a, b).to_string())
            .collect();
        codes.sort();
        codes.dedup();
        assert_eq!(codes.len(), 5);
    }
}
