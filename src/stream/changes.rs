//! How often a stream's source may become another. Each change of size or storage costs an encoder's start and everything that the
//! one before has under way, so producers that take turns with different pictures are held off.

use std::collections::VecDeque;
use std::time::Duration;

use super::backlog::Input;
use crate::tick::UnixTime;

/// Changes within [`WITHIN`] that nobody has to wait for.
const AT_ONCE: usize = 6;
/// How long a change is remembered.
const WITHIN: Duration = Duration::from_secs(60);

/// The changes of one stream's source.
#[derive(Debug, Default)]
pub(super) struct Changes {
    input: Option<Input>,
    recent: VecDeque<UnixTime>,
}

/// The source has changed too often: it may again after this time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its pictures have changed their size or format {AT_ONCE} times within {WITHIN:?}, and each change costs an encoder's start: give \
     all producers of the stream the same size and format, or try again in {} s", .wait.as_secs() + 1
)]
pub(super) struct TooOften {
    wait: Duration,
}

impl Changes {
    /// Whether pictures of `input` may come, before anything is made ready for them.
    ///
    /// # Errors
    /// When that is one change too many.
    pub(super) fn look(&mut self, input: Input, now: UnixTime) -> Result<(), TooOften> {
        if self.input.is_none_or(|before| before == input) {
            return Ok(());
        }
        let forgotten = now.saturating_sub(WITHIN);
        while self.recent.front().is_some_and(|then| *then <= forgotten) {
            self.recent.pop_front();
        }
        match self.recent.front() {
            Some(oldest) if self.recent.len() >= AT_ONCE => {
                let wait = oldest.saturating_add(WITHIN).saturating_since(now);
                Err(TooOften { wait })
            }
            _ => Ok(()),
        }
    }

    /// Notes that pictures of `input` will come.
    ///
    /// # Errors
    /// When that is one change too many.
    pub(super) fn note(&mut self, input: Input, now: UnixTime) -> Result<(), TooOften> {
        self.look(input, now)?;
        if self
            .input
            .replace(input)
            .is_some_and(|before| before != input)
        {
            self.recent.push_back(now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{PictureFormat, Size};

    fn input(side: u32) -> Input {
        (PictureFormat::I420, Size::new(side, side))
    }

    #[test]
    fn a_source_that_flaps_is_held_off_and_a_steady_one_never() {
        let mut changes = Changes::default();
        let at = |second: u64| UnixTime::from_secs(1_800_000_000 + second);
        let sides = [16, 32];
        for (second, side) in (0..=6).zip(sides.into_iter().cycle()) {
            changes.note(input(side), at(second)).unwrap();
        }
        assert!(changes.look(input(32), at(7)).is_err() && changes.look(input(16), at(7)).is_ok());
        let refused = changes.note(input(32), at(7)).unwrap_err();
        assert_eq!(refused.wait, Duration::from_secs(54));
        assert!(refused.to_string().ends_with("in 55 s"), "{refused}");
        for second in 8..1000 {
            changes.note(input(16), at(second)).unwrap();
        }
        changes.note(input(32), at(1000)).unwrap();
        assert_eq!(changes.recent.len(), 1);
    }
}
