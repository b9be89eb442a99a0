//! Byte ranges (RFC 9110, section 14), single ones: and bodies that are slices of shared memory, never copied together.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

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

/// A body of slices.
#[derive(Debug, Default)]
pub(super) struct Slices {
    slices: VecDeque<Bytes>,
    left: u64,
}

impl Slices {
    /// All of `slices`, one after another.
    pub(super) fn new(slices: impl IntoIterator<Item = Bytes>) -> Self {
        let slices: VecDeque<_> = slices.into_iter().collect();
        let left = slices.iter().map(|slice| slice.len() as u64).sum();
        Self { slices, left }
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> u64 {
        self.left
    }

    /// The bytes `first..=last` alone; `last` lies within.
    pub(super) fn cut(self, first: u64, last: u64) -> Self {
        let mut start = 0;
        Self::new(self.slices.into_iter().filter_map(|slice| {
            let end = start + slice.len() as u64;
            let from = first.clamp(start, end) - start;
            let to = (last + 1).clamp(start, end) - start;
            start = end;
            let index =
                |at: u64| usize::try_from(at).expect("within a slice, whose length is a usize");
            (from < to).then(|| slice.slice(index(from)..index(to)))
        }))
    }
}

impl Body for Slices {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.slices.pop_front();
        if let Some(slice) = &next {
            self.left -= slice.len() as u64;
        }
        Poll::Ready(next.map(|slice| Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.slices.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
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

    proptest! {
        #[test]
        fn a_cut_is_what_cutting_the_whole_gives(
            slices in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..6),
            a in 0_usize..100,
            b in 0_usize..100,
        ) {
            let whole = slices.concat();
            prop_assume!(!whole.is_empty());
            let (first, last) = (a.min(b) % whole.len(), a.max(b) % whole.len());
            prop_assume!(first <= last);
            let cut = Slices::new(slices.into_iter().map(Bytes::from)).cut(first as u64, last as u64);
            prop_assert_eq!(cut.len(), (last - first + 1) as u64);
            let bytes: Vec<u8> = cut.slices.iter().flatten().copied().collect();
            prop_assert_eq!(bytes, &whole[first..=last]);
        }
    }
}
