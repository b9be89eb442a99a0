//! Byte ranges (RFC 9110, section 14), single ones: and slices of shared memory that are sent together, never copied together.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// What a Range header asks of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteRange {
    /// All of it: no range, several, or none that can be understood, which the RFC lets a server ignore.
    Whole,
    /// The bytes `first..=last`.
    Slice { first: u64, last: u64 },
    /// Bytes that aren't there: 416.
    Unsatisfiable,
}

impl ByteRange {
    /// What `header` asks of a body of `total` bytes.
    pub(super) fn parse(header: &str, total: u64) -> Self {
        let parsed = header
            .strip_prefix("bytes=")
            .filter(|set| !set.contains(','))
            .and_then(|set| set.trim().split_once('-'));
        match parsed {
            Some(("", suffix)) => match position(suffix) {
                None => Self::Whole,
                Some(0) => Self::Unsatisfiable,
                Some(_) if total == 0 => Self::Unsatisfiable,
                Some(length) => Self::Slice {
                    first: total.saturating_sub(length),
                    last: total - 1,
                },
            },
            Some((first, last)) => {
                let open = last.is_empty();
                match (position(first), position(last)) {
                    (Some(first), _) if open && first >= total => Self::Unsatisfiable,
                    (Some(first), None) if open => Self::Slice {
                        first,
                        last: total - 1,
                    },
                    (Some(first), Some(last)) if first > last => Self::Whole,
                    (Some(first), Some(_)) if first >= total => Self::Unsatisfiable,
                    (Some(first), Some(last)) => Self::Slice {
                        first,
                        last: last.min(total - 1),
                    },
                    _ => Self::Whole,
                }
            }
            None => Self::Whole,
        }
    }
}

/// A position; one beyond 64 bits is beyond every body.
fn position(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Slices that are sent one after another.
#[derive(Debug, Default)]
pub(super) struct Slices {
    /// Empty only where there are no others, as most have one alone.
    first: Bytes,
    others: VecDeque<Bytes>,
    left: u64,
}

impl Slices {
    /// All of `slices`, one after another.
    pub(super) fn new(slices: impl IntoIterator<Item = Bytes>) -> Self {
        let mut slices = slices.into_iter().filter(|slice| !slice.is_empty());
        let first = slices.next().unwrap_or_default();
        let others: VecDeque<_> = slices.collect();
        let all = std::iter::once(&first).chain(&others);
        let left = all.map(|slice| slice.len() as u64).sum();
        Self {
            first,
            others,
            left,
        }
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> u64 {
        self.left
    }

    /// The bytes `first..=last` alone; `last` lies within.
    pub(super) fn cut(self, first: u64, last: u64) -> Self {
        let mut start = 0;
        let slices = std::iter::once(self.first).chain(self.others);
        Self::new(slices.filter_map(|slice| {
            let end = start + slice.len() as u64;
            let from = first.clamp(start, end) - start;
            let to = (last + 1).clamp(start, end) - start;
            start = end;
            let index =
                |at: u64| usize::try_from(at).expect("within a slice, whose length is a usize");
            (from < to).then(|| slice.slice(index(from)..index(to)))
        }))
    }

    /// Takes the next bytes, at most so many, out of it: of one slice.
    pub(super) fn take(&mut self, most: usize) -> Bytes {
        let taken = self.first.split_to(most.min(self.first.len()));
        self.left -= taken.len() as u64;
        if self.first.is_empty() {
            self.first = self.others.pop_front().unwrap_or_default();
        }
        taken
    }
}

impl From<Bytes> for Slices {
    fn from(slice: Bytes) -> Self {
        Self::new([slice])
    }
}

impl Buf for Slices {
    fn remaining(&self) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX)
    }

    fn chunk(&self) -> &[u8] {
        &self.first
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let slices = std::iter::once(&self.first).chain(&self.others);
        let slices = slices.filter(|slice| !slice.is_empty());
        let mut count = 0;
        for (into, slice) in into.iter_mut().zip(slices) {
            *into = IoSlice::new(slice);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining(), "there are so many bytes");
        while count > 0 {
            count -= self.take(count).len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_understood_or_ignored() {
        let slice = |first, last| ByteRange::Slice { first, last };
        for (header, range) in [
            ("bytes=0-0", slice(0, 0)),
            ("bytes=10-", slice(10, 99)),
            ("bytes=99-", slice(99, 99)),
            ("bytes=90-1000", slice(90, 99)),
            ("bytes=0-99999999999999999999999", slice(0, 99)),
            ("bytes=-5", slice(95, 99)),
            ("bytes=-500", slice(0, 99)),
            ("bytes=100-", ByteRange::Unsatisfiable),
            ("bytes=99999999999999999999999-", ByteRange::Unsatisfiable),
            ("bytes=100-200", ByteRange::Unsatisfiable),
            ("bytes=-0", ByteRange::Unsatisfiable),
            ("bytes=5-4", ByteRange::Whole),
            ("bytes=0-1,3-4", ByteRange::Whole),
            ("bytes=-", ByteRange::Whole),
            ("bytes=", ByteRange::Whole),
            ("bytes=a-b", ByteRange::Whole),
            ("bytes=+1-2", ByteRange::Whole),
            ("lines=0-1", ByteRange::Whole),
        ] {
            assert_eq!(ByteRange::parse(header, 100), range, "{header}");
        }
        assert_eq!(ByteRange::parse("bytes=0-", 0), ByteRange::Unsatisfiable);
        assert_eq!(ByteRange::parse("bytes=-1", 0), ByteRange::Unsatisfiable);
    }

    /// All of it, as who writes `step` bytes at a time reads it.
    fn read(mut slices: Slices, step: usize) -> Vec<u8> {
        let mut read = Vec::new();
        while slices.has_remaining() {
            let mut vectors = [IoSlice::new(&[]); 3];
            let count = slices.chunks_vectored(&mut vectors);
            let there: Vec<u8> = vectors[..count]
                .iter()
                .flat_map(|one| one.to_vec())
                .collect();
            assert!(there.starts_with(slices.chunk()) && !slices.chunk().is_empty());
            let step = step.min(there.len());
            read.extend_from_slice(&there[..step]);
            slices.advance(step);
        }
        read
    }

    proptest! {
        #[test]
        fn a_cut_is_what_cutting_the_whole_gives(
            slices in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..6),
            a in 0_usize..100,
            b in 0_usize..100,
            step in 1_usize..30,
        ) {
            let whole = slices.concat();
            prop_assume!(!whole.is_empty());
            let (first, last) = (a.min(b) % whole.len(), a.max(b) % whole.len());
            prop_assume!(first <= last);
            let cut = Slices::new(slices.into_iter().map(Bytes::from)).cut(first as u64, last as u64);
            prop_assert_eq!(cut.len(), (last - first + 1) as u64);
            prop_assert_eq!(read(cut, step), &whole[first..=last]);
        }
    }
}
