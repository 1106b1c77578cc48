//! Big-endian words in packets, at places known to be inside.

#[inline]
pub(crate) fn read16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(chunk(bytes, at))
}

#[inline]
pub(crate) fn read32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(chunk(bytes, at))
}

#[inline]
pub(crate) fn read64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(chunk(bytes, at))
}

#[inline]
pub(crate) fn write16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[inline]
pub(crate) fn write32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// One check of the bounds, and not one for each byte.
#[inline]
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut chunk = [0; N];
    chunk.copy_from_slice(&bytes[at..at + N]);
    chunk
}
