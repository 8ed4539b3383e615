//! How large a request a registry takes: what it has been seen to accept and to refuse decides the size
//! of the next piece. The limit is often a proxy's (nginx takes 1 MiB unless told otherwise), or that of
//! pieces alone (GitHub's registry takes 4 MiB, but any size as a whole).

use std::sync::{Mutex, PoisonError};

/// The first piece that is tried.
const FIRST: u64 = 4 << 20;
/// None is made smaller, unless the registry asks for it, and none larger.
const SMALLEST: u64 = 256 << 10;
const LARGEST: u64 = 128 << 20;

/// What is known of one registry.
#[derive(Debug, Default)]
pub(super) struct Sizes(Mutex<Known>);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The smallest blob that was refused as a whole.
    whole: Option<u64>,
    /// The largest piece that was taken, and the smallest that was refused.
    taken: Option<u64>,
    refused: Option<u64>,
}

impl Sizes {
    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn known(&self) -> Known {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a blob of that size was refused as a whole.
    pub(super) fn refuse_whole(&self, size: u64) {
        self.change(|known| known.whole = Some(known.whole.map_or(size, |old| old.min(size))));
    }

    /// Tells whether a blob of that size is worth sending as a whole.
    pub(super) fn may_be_whole(&self, size: u64) -> bool {
        self.known().whole.is_none_or(|refused| size < refused)
    }

    /// Notes that a piece was taken.
    pub(super) fn take(&self, size: u64) {
        self.change(|known| known.taken = Some(known.taken.map_or(size, |old| old.max(size))));
    }

    /// Notes that a piece was refused for its size; tells whether a smaller one is worth a try.
    pub(super) fn refuse(&self, size: u64, least: u64) -> bool {
        self.change(|known| {
            known.refused = Some(known.refused.map_or(size, |old| old.min(size)));
            known.taken = known.taken.filter(|taken| *taken < size);
        });
        self.piece(least) < size
    }

    /// Tells whether pieces of some size are known to be refused.
    pub(super) fn has_limit(&self) -> bool {
        self.known().refused.is_some()
    }

    /// Returns the size of the next piece, where none smaller than `least` is welcome.
    pub(super) fn piece(&self, least: u64) -> u64 {
        let Known { taken, refused, .. } = self.known();
        let size = match (taken, refused) {
            (None, None) => FIRST,
            // Limits are powers of two more often than not.
            (None, Some(refused)) => FIRST.min(1 << (refused / 2).max(1).ilog2()),
            (Some(taken), Some(refused)) if taken.saturating_mul(2) >= refused => taken,
            (Some(taken), _) => taken.saturating_mul(2),
        };
        size.clamp(least.clamp(SMALLEST, LARGEST), LARGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_grow_until_one_is_refused_and_shrink_until_one_is_taken() {
        let sizes = Sizes::default();
        let mut sent = Vec::new();
        for _ in 0..8 {
            let size = sizes.piece(0);
            sent.push(size >> 20);
            if size <= 20 << 20 {
                sizes.take(size);
            } else {
                assert!(sizes.refuse(size, 0));
            }
        }
        assert_eq!(sent, [4, 8, 16, 32, 16, 16, 16, 16]);

        let sizes = Sizes::default();
        for expected in [4 << 20, 2 << 20, 1 << 20, 512 << 10, 256 << 10] {
            assert_eq!(sizes.piece(0), expected);
            assert_eq!(sizes.refuse(expected, 0), expected > SMALLEST);
        }
        let sizes = Sizes::default();
        assert_eq!(sizes.piece(5 << 20), 5 << 20);
        assert!(!sizes.refuse(5 << 20, 5 << 20), "no smaller one is welcome");
        assert_eq!(Sizes::default().piece(u64::MAX), LARGEST);
    }

    #[test]
    fn a_blob_is_sent_whole_unless_one_no_larger_was_refused() {
        let sizes = Sizes::default();
        assert!(sizes.may_be_whole(u64::MAX));
        sizes.refuse_whole(100);
        sizes.refuse_whole(200);
        assert!(sizes.may_be_whole(99) && !sizes.may_be_whole(100));
    }
}
