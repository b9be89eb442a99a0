//! What comes again and again is shown so often, then left out and counted. Lines are alike when the same place in the code says
//! them of the same stream; those of no stream, when their message is the same too. Pure.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;

use super::line::Line;

/// So many alike are shown in each period.
const AT_MOST: u32 = 30;
const PERIOD: Duration = Duration::from_secs(60);
/// So many kinds are told apart. Of those beyond, all lines of one place in the code are alike.
const MAX_KINDS: usize = 4096;

/// What was shown and left out in this period.
#[derive(Debug, Default)]
pub(super) struct Limit {
    kinds: HashMap<(Identifier, String), Kind>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Kind {
    since: Instant,
    shown: u32,
    left_out: u64,
    last: Option<Line>,
}

/// What becomes of a line.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) shown: bool,
    /// Lines about those that were left out in periods that are over, to be written before.
    pub(super) left_out: Vec<Line>,
}

impl Default for Verdict {
    fn default() -> Self {
        Self {
            shown: true,
            left_out: Vec::new(),
        }
    }
}

impl Limit {
    /// Whether `line` is shown, and what is to be said about others.
    pub(super) fn judge(&mut self, place: Identifier, line: &Line, now: Instant) -> Verdict {
        let left_out = self.sweep(now);
        let of = line.stream().unwrap_or(&line.message).to_owned();
        let full = self.kinds.len() >= MAX_KINDS;
        let kind = match self.kinds.entry((place.clone(), of)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) if !full => entry.insert(Kind::new(now)),
            Entry::Vacant(_) => {
                let others = (place.clone(), String::new());
                self.kinds.entry(others).or_insert_with(|| Kind::new(now))
            }
        };
        let shown = kind.shown < AT_MOST;
        if shown {
            kind.shown += 1;
        } else {
            kind.left_out += 1;
            kind.last = Some(line.clone());
        }
        Verdict { shown, left_out }
    }

    /// Forgets the periods that are over, at most once a second.
    fn sweep(&mut self, now: Instant) -> Vec<Line> {
        let rested = |since: Instant| now.saturating_duration_since(since);
        if self
            .swept
            .is_some_and(|at| rested(at) < Duration::from_secs(1))
        {
            return Vec::new();
        }
        self.swept = Some(now);
        let over = self
            .kinds
            .extract_if(|_, kind| rested(kind.since) >= PERIOD);
        over.filter_map(|(_, kind)| kind.told()).collect()
    }
}

impl Kind {
    fn new(since: Instant) -> Self {
        Self {
            since,
            shown: 0,
            left_out: 0,
            last: None,
        }
    }

    /// The last one that was left out, as the line about all of them.
    fn told(self) -> Option<Line> {
        let mut line = self.last?;
        line.message = format!(
            "left out {} lines like this one: {}",
            self.left_out, line.message
        );
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::logging::line::tests::lines_of;

    fn judge(limit: &mut Limit, line: &Line, now: Instant) -> (bool, Vec<String>) {
        let verdict = limit.judge(line.metadata.callsite(), line, now);
        let told = verdict.left_out.into_iter().map(|line| line.message);
        (verdict.shown, told.collect())
    }

    fn one(stream: &str, attempt: u64) -> Line {
        let mut lines = lines_of(|| tracing::warn!(stream, attempt, "it failed"));
        lines.remove(0)
    }

    #[test]
    fn what_comes_too_often_is_counted_and_told_once_its_period_is_over() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        let shown = (0..100).filter(|&attempt| judge(&mut limit, &one("door", attempt), start).0);
        assert_eq!(shown.count(), AT_MOST as usize);
        // Another stream's is another.
        assert!(judge(&mut limit, &one("yard", 0), start).0);
        let (shown, told) = judge(&mut limit, &one("door", 100), start + PERIOD);
        assert!(shown);
        assert_eq!(told, ["left out 70 lines like this one: it failed"]);
        // Told once.
        let later = start + 2 * PERIOD;
        assert_eq!(judge(&mut limit, &one("door", 101), later), (true, vec![]));
    }

    #[test]
    fn lines_of_no_stream_are_alike_when_their_message_is() {
        let (mut limit, now) = (Limit::default(), Instant::now());
        for error in 0..100 {
            let lines = lines_of(|| tracing::error!("error {error} of the config"));
            assert!(judge(&mut limit, &lines[0], now).0, "{error}");
        }
    }

    #[test]
    fn kinds_without_end_take_no_memory_without_end() {
        let (mut limit, now) = (Limit::default(), Instant::now());
        let line = one("door", 0);
        let mut shown = 0;
        for number in 0..2 * MAX_KINDS {
            let mut line = line.clone();
            line.fields[0].1 = format!("stream-{number}").into();
            shown += usize::from(judge(&mut limit, &line, now).0);
        }
        assert_eq!(shown, MAX_KINDS + AT_MOST as usize);
        assert_eq!(limit.kinds.len(), MAX_KINDS + 1);
    }
}
