//! Any pieces: what is put together is made of pieces 0, 1, 2, … of one packet, whole, and not of
//! one that had the same number long ago.
#![no_main]

use ipop_datapath::fragment::{
    FRAGMENT_HEADER, FragmentHeader, MAX_PIECES, PATH_CONTENT, Pieces, Reassembly,
};
use libfuzzer_sys::fuzz_target;

/// Bytes of one step: a header, and how long the piece is.
const STEP: usize = FRAGMENT_HEADER + 2;

fuzz_target!(|input: &[u8]| {
    let mut reassembly = Reassembly::default();
    for step in input.chunks_exact(STEP) {
        let len = u16::from_be_bytes([step[FRAGMENT_HEADER], step[FRAGMENT_HEADER + 1]]);
        let len = usize::from(len) % (PATH_CONTENT + 10);
        cut(usize::from(step[0]) * usize::from(step[1]), len);
        let Some(header) = FragmentHeader::read(step) else {
            continue;
        };
        assert_eq!(header.bytes(), step[..FRAGMENT_HEADER]);
        let turn = step[FRAGMENT_HEADER] >> 7;
        // Every byte says which piece it is of, and of which packet.
        let mark = |index| (header.id as u8) << 5 | turn << 4 | index;
        let sequence = u64::from(turn) << 17;
        let piece = vec![mark(header.index); len];
        let Ok(Some(whole)) = reassembly.add(sequence, header, &piece) else {
            continue;
        };
        assert!(whole.len() <= usize::from(header.count) * PATH_CONTENT);
        let mut marks = whole.clone();
        marks.dedup();
        assert!(marks.into_iter().eq((0..header.count).map(mark)));
        let lengths = whole.chunk_by(|a, b| a == b).map(<[u8]>::len);
        assert!(lengths.is_sorted_by(|a, b| a >= b));
    }
});

/// What is sent in pieces has all its bytes in them, in order, and none longer than there is room.
fn cut(len: usize, room: usize) {
    let Some(pieces) = Pieces::of(len, room) else {
        return;
    };
    assert!(pieces.count <= MAX_PIECES);
    let mut next = 0;
    for index in 0..pieces.count {
        let range = pieces.range(index);
        assert_eq!(range.start, next);
        assert!(
            range.len() <= room.max(1)
                && (range.len() == pieces.piece_len || index + 1 == pieces.count)
        );
        next = range.end;
    }
    assert_eq!(next, len);
}
