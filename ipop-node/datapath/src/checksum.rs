//! The Internet checksum: RFC 1071, and its incremental update by RFC 1624.
//!
//! A *sum* is the ones' complement sum of big-endian 16-bit words, a *checksum* its complement. A
//! sum of anything but zeros folds to 1..=0xffff and never to 0: sums of equal meaning are equal
//! numbers, so that they may be compared.

use crate::word::read16;

/// From here on it pays to ask the processor what it can do.
#[cfg(target_arch = "x86_64")]
const WIDE_FROM_BYTES: usize = 128;

/// The folded sum over `bytes`; an odd last byte is the high byte of a word.
#[must_use]
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    u16::from_be(fold(native_words(bytes)))
}

/// Ends a sum: adds the carries in.
#[must_use]
#[inline]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The sum of an IPv4 pseudo-header (RFC 9293 section 3.1).
#[must_use]
#[inline]
pub fn pseudo_v4(source: [u8; 4], destination: [u8; 4], protocol: u8, transport_len: u32) -> u16 {
    let addresses =
        u64::from(u32::from_be_bytes(source)) + u64::from(u32::from_be_bytes(destination));
    fold(addresses + u64::from(protocol) + u64::from(transport_len))
}

/// The sum of an IPv6 pseudo-header (RFC 8200 section 8.1).
#[must_use]
#[inline]
pub fn pseudo_v6(source: [u8; 16], destination: [u8; 16], protocol: u8, transport_len: u32) -> u16 {
    let addresses = u64::from(sum(&source)) + u64::from(sum(&destination));
    fold(addresses + u64::from(protocol) + u64::from(transport_len))
}

/// The sum of two parts of which the first has an even number of bytes.
#[must_use]
#[inline]
pub const fn combine(first: u16, second: u16) -> u16 {
    fold(first as u64 + second as u64)
}

/// The checksum after one word under it changed from `old` to `new` (RFC 1624, equation 3).
#[must_use]
#[inline]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(!checksum as u64 + !old as u64 + new as u64)
}

/// The sum of `header` without its words at `at`: to take away is to add the complement.
#[inline]
pub(crate) fn without(header: &[u8], at: &[usize]) -> u16 {
    let taken: u64 = at.iter().map(|&at| u64::from(!read16(header, at))).sum();
    fold(u64::from(sum(header)) + taken)
}

/// The sum of the 32-bit words in the machine's own byte order, not folded. A ones' complement
/// sum may be taken in either order and swapped afterwards (RFC 1071 section 2 B).
#[inline]
fn native_words(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= WIDE_FROM_BYTES && std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as has just been asked.
        return unsafe { native_words_avx2(bytes) };
    }
    native_words_of(bytes)
}

/// The same code, compiled for wider registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn native_words_avx2(bytes: &[u8]) -> u64 {
    native_words_of(bytes)
}

#[inline(always)]
fn native_words_of(bytes: &[u8]) -> u64 {
    // Sums of their own for the low and the high halves, so that no carry is ever lost and nothing
    // but additions is left for the compiler to make vectors of.
    let (mut low, mut high) = (0_u64, 0_u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_ne_bytes(*word);
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    let mut total = low + high;
    let mut rest = rest;
    if let Some((word, after)) = rest.split_first_chunk() {
        total += u64::from(u32::from_ne_bytes(*word));
        rest = after;
    }
    if let Some((word, after)) = rest.split_first_chunk() {
        total += u64::from(u16::from_ne_bytes(*word));
        rest = after;
    }
    if let [last] = rest {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    total
}

#[cfg(test)]
mod tests {
    use super::{combine, fold, pseudo_v4, pseudo_v6, sum, update};

    fn plain_sum(bytes: &[u8]) -> u16 {
        let mut total = 0_u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_u32;
        let mut bytes = Vec::new();
        for _ in 0..len {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            bytes.push(state as u8);
        }
        bytes
    }

    #[test]
    fn the_example_of_rfc_1071_gives_its_sum() {
        let words = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&words), 0xddf2);
    }

    #[test]
    fn every_length_and_alignment_sums_as_one_word_at_a_time_does() {
        let bytes = noise(700);
        for start in 0..9 {
            for end in start..bytes.len() {
                assert_eq!(sum(&bytes[start..end]), plain_sum(&bytes[start..end]));
            }
        }
    }

    #[test]
    fn the_largest_packet_of_ones_loses_no_carry() {
        let ones = vec![0xff; 65_535];
        assert_eq!(sum(&ones), plain_sum(&ones));
    }

    #[test]
    fn only_zeros_fold_to_zero() {
        assert_eq!(sum(&[0; 200]), 0);
        assert_eq!(fold(0xffff), 0xffff);
        assert_eq!(fold(0xffff_0000_ffff), 0xffff);
        assert_eq!(fold(u64::from(u32::MAX)), 0xffff);
    }

    #[test]
    fn parts_combine_to_the_sum_of_the_whole() {
        let bytes = noise(333);
        for at in (0..333).step_by(2) {
            assert_eq!(combine(sum(&bytes[..at]), sum(&bytes[at..])), sum(&bytes));
        }
    }

    #[test]
    fn a_pseudo_header_sums_as_its_bytes_do() {
        let (source, destination) = ([10, 1, 2, 250], [192, 168, 255, 3]);
        let bytes = [source.as_slice(), &destination, &[0, 17, 5, 120]].concat();
        assert_eq!(pseudo_v4(source, destination, 17, 1400), sum(&bytes));

        let addresses: [u8; 32] = noise(32).try_into().unwrap();
        let (source, destination) = addresses.split_at(16);
        let bytes = [&addresses[..], &[0, 1, 17, 112, 0, 0, 0, 6]].concat();
        let (source, destination) = (source.try_into().unwrap(), destination.try_into().unwrap());
        assert_eq!(pseudo_v6(source, destination, 6, 70_000), sum(&bytes));
    }

    #[test]
    fn an_updated_checksum_is_that_of_the_changed_bytes() {
        let mut bytes = noise(40);
        for (at, new) in [(0, 0_u16), (8, 0xffff), (38, 0x1234)] {
            let before = !sum(&bytes);
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            assert_eq!(update(before, old, new), !sum(&bytes));
        }
    }
}
