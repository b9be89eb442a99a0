//! How far a transcode is, on a terminal or in a log.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::cli::bar::bar;
use crate::status::StreamStatus;
use crate::tick::Framerate;

/// How often the progress is shown on a terminal, and elsewhere.
const LOOK: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(10);
/// How wide the progress bar is, in characters: the whole line has to fit into 80.
const BAR: usize = 12;
/// How far it is.
pub(super) struct Progress {
    terminal: bool,
    /// How many pictures there were before.
    before: u64,
    begun: Instant,
    shown: Instant,
}

impl Progress {
    /// Begins now, with so many pictures that were done before.
    pub(super) fn after(before: u64) -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            before,
            begun: Instant::now(),
            shown: Instant::now(),
        }
    }

    /// Shows how far it is by `status`, unless that was done a moment ago.
    pub(super) fn show(&mut self, status: &StreamStatus) {
        let wait = if self.terminal { LOOK } else { LINE };
        if self.shown.elapsed() < wait {
            return;
        }
        self.shown = Instant::now();
        let framerate = status.framerate.parse::<Framerate>();
        let framerate = framerate.map_or(25.0, Framerate::as_f64);
        let source = status.source.as_ref();
        let length = source.and_then(|source| source.duration_seconds);
        let pictures = (self.before, status.ticks.fresh);
        let (share, line) = progress(pictures, framerate, length, self.begun.elapsed());
        let bar = share.map_or_else(String::new, |share| format!("{} ", bar(share, BAR)));
        // Nobody reads it if that fails.
        let _ = match self.terminal {
            true => write!(std::io::stderr(), "\r\x1b[K{bar}{line}"),
            false => writeln!(std::io::stderr(), "{line}"),
        };
    }

    /// Leaves the line to others.
    pub(super) fn clear(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// How much is done of `length` seconds, if that is known; and in one line what is encoded, how fast, and how long the rest will take at that pace.
/// Of the pictures, some were done before, and some were made in the time `taken`.
fn progress(
    (before, made): (u64, u64),
    framerate: f64,
    length: Option<f64>,
    taken: Duration,
) -> (Option<f64>, String) {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let (before, made) = (before as f64 / framerate, made as f64 / framerate);
    let (done, taken) = (before + made, taken.as_secs_f64().max(0.001));
    if before > 0.0 && made == 0.0 {
        return (
            None,
            format!("the input is read up to {before:.1} s, where it goes on"),
        );
    }
    let rate = made * framerate / taken;
    let Some(length) = length.filter(|length| *length > 0.0) else {
        return (None, format!("{done:.1} s, {rate:.0} pictures a second"));
    };
    let share = (done / length).min(1.0);
    let made = (made / length).max(0.001);
    let left = Duration::from_secs_f64((taken / made * (1.0 - share)).min(1e6));
    let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
    let line = format!(
        "{:3.0} %, {done:.1} of {length:.1} s, {rate:.0} pictures a second, {left} left",
        share * 100.0
    );
    (Some(share), line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_how_much_is_done_and_how_long_the_rest_takes() {
        let taken = Duration::from_secs(5);
        let of = |pictures, length| progress((0, pictures), 30.0, length, taken);
        let unknown = (None, "10.0 s, 60 pictures a second".to_owned());
        assert_eq!(of(300, None), unknown);
        let line = " 25 %, 10.0 of 40.0 s, 60 pictures a second, 15s left";
        assert_eq!(of(300, Some(40.0)), (Some(0.25), line.to_owned()));
        // A container may say less than there is.
        let (share, line) = of(1500, Some(40.0));
        assert!(share == Some(1.0) && line.ends_with(" 0s left"), "{line}");
    }

    #[test]
    fn what_was_done_before_is_progress_and_no_pace() {
        let taken = Duration::from_secs(5);
        let of = |made| progress((600, made), 30.0, Some(40.0), taken);
        let line = "the input is read up to 20.0 s, where it goes on";
        assert_eq!(of(0), (None, line.to_owned()));
        let line = " 75 %, 30.0 of 40.0 s, 60 pictures a second, 5s left";
        assert_eq!(of(300), (Some(0.75), line.to_owned()));
    }
}
