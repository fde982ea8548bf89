// SPDX-License-Identifier: GPL-2.0
//! A stream of bytes that both ends can compute for any offset, so that what
//! arrives is checked without being kept.

/// The stream of one seed, produced or checked from its start.
pub(crate) struct Pattern {
    seed: u64,
    offset: u64,
}

impl Pattern {
    /// The stream of `seed`, at its first byte.
    pub(crate) fn new(seed: u64) -> Self {
        Pattern { seed, offset: 0 }
    }

    /// The number of bytes produced or checked so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Eight bytes of the stream: the generator "splitmix64", which needs no
    /// state but the index, so that an offset can be anywhere.
    fn word(&self, index: u64) -> [u8; 8] {
        let mut z = self
            .seed
            .wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }

    /// Runs over the next `length` bytes of the stream in pieces of at most
    /// a word: `each(position, bytes)`, until it returns false.
    fn walk(&mut self, length: usize, mut each: impl FnMut(usize, &[u8]) -> bool) -> bool {
        let mut done = 0;
        while done < length {
            let skip = (self.offset % 8) as usize;
            let take = (8 - skip).min(length - done);
            let word = self.word(self.offset / 8);
            if !each(done, &word[skip..skip + take]) {
                return false;
            }
            done += take;
            self.offset += take as u64;
        }
        true
    }

    /// Fills `buffer` with the next bytes of the stream.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        self.walk(buffer.len(), |at, bytes| {
            buffer[at..at + bytes.len()].copy_from_slice(bytes);
            true
        });
    }

    /// Whether `buffer` holds the next bytes of the stream.
    pub(crate) fn check(&mut self, buffer: &[u8]) -> bool {
        self.walk(buffer.len(), |at, bytes| {
            &buffer[at..at + bytes.len()] == bytes
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_whole() {
        let mut whole = [0; 1000];
        Pattern::new(7).fill(&mut whole);
        let mut pieces = Pattern::new(7);
        let mut at = 0;
        for length in [1, 7, 8, 9, 64, 300, 611] {
            let mut piece = vec![0; length];
            pieces.fill(&mut piece);
            assert_eq!(piece, whole[at..at + length]);
            at += length;
        }
        assert_eq!(pieces.offset(), 1000);
    }

    #[test]
    fn a_changed_byte_is_seen() {
        let mut bytes = [0; 100];
        Pattern::new(3).fill(&mut bytes);
        assert!(Pattern::new(3).check(&bytes));
        bytes[57] ^= 1;
        assert!(!Pattern::new(3).check(&bytes));
        assert!(!Pattern::new(4).check(&bytes));
    }
}
