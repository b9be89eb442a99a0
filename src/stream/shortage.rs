//! A stream's lack of memory, as people are told of it.

use std::time::Duration;

use crate::tick::UnixTime;
use crate::window::{GivenUp, Window};

/// The same lack is told of so often.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

const NO_ROOM: &str = "those that wait for encoders fill [limits] picture_memory; raise it, or let sources give smaller or fewer frames";

/// What was last told.
#[derive(Debug, Default)]
pub(super) struct ShortageTeller {
    told: Option<(GivenUp, UnixTime)>,
    told_of_pictures: Option<UnixTime>,
}

impl ShortageTeller {
    /// Says what `window` had to give up: in the log now and then; what it returns is for `status`, while it lasts.
    pub(super) fn tell(&mut self, window: &Window, stream: &str, now: UnixTime) -> Option<String> {
        let shortage = window.shortage(now)?;
        let told = self.told.is_some_and(|(given_up, at)| {
            given_up >= shortage.given_up && now.saturating_since(at) < BETWEEN_LINES
        });
        let text = format!("the window has too little memory, and {shortage}");
        if !told {
            self.told = Some((shortage.given_up, now));
            tracing::warn!(%stream, "the stream's window has too little memory, and {shortage}");
        }
        Some(text)
    }

    /// The same of pictures: `short` says whether the newest was left out for want of memory.
    pub(super) fn tell_of_pictures(
        &mut self,
        short: bool,
        stream: &str,
        now: UnixTime,
    ) -> Option<String> {
        if !short {
            return None;
        }
        let told = self.told_of_pictures;
        if told.is_none_or(|at| now.saturating_since(at) >= BETWEEN_LINES) {
            self.told_of_pictures = Some(now);
            tracing::warn!(%stream, "pictures are left out, and those before shown again: {NO_ROOM}");
        }
        Some(format!("pictures are left out: {NO_ROOM}"))
    }
}
