//! A window's lack of memory, as people are told of it.

use std::time::Duration;

use crate::tick::UnixTime;
use crate::window::{GivenUp, Window};

/// The same lack is told of so often.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

/// What was last told.
#[derive(Debug, Default)]
pub(super) struct ShortageTeller {
    told: Option<(GivenUp, UnixTime)>,
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
}
