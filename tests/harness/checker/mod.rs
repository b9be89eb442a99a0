//! Watches a live window as its viewers would, only more closely: it reads all manifests many times a second, fetches
//! every segment and part that was ever listed, and keeps asking for those that have left. It holds what it sees against
//! rules (docs/live-rules.md) 1 to 7, 12 to 14, 19 to 30 and 32 to 35, and reports each break with the rule's number.
//!
//! It asks over HTTP or reads the publish folder: the rules are the same, but that only an origin has what low-latency players want.

mod counted_mpd;
mod manifests;
mod origin;
mod parts;
mod uris;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use origin::{FolderOrigin, HttpOrigin, Origin};

use crate::harness::daemon::Daemon;
use crate::harness::wait_for;

const ROUND: Duration = Duration::from_millis(40);
/// More than any run can use; a broken stream must not fill the memory with reports of it.
const VIOLATIONS_KEPT: usize = 200;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Its number in the list of rules.
    pub(crate) rule: u8,
    /// How long the checker had been watching.
    pub(crate) after: Duration,
    pub(crate) what: String,
}

/// What a checker saw.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) violations: Vec<Violation>,
    /// Rounds over all manifests.
    pub(crate) rounds: u64,
    /// Rounds in which the origin did not answer at all, or not any more.
    pub(crate) outages: u64,
    /// Segments that were compared with the parts that they had been listed in.
    pub(crate) in_parts: u64,
    /// URIs that any manifest listed.
    pub(crate) listed: usize,
    /// Of these, those that answered for as long as rule 2 says, and then went.
    pub(crate) expired: usize,
    /// The folder's size in bytes, round by round; of a [`FolderOrigin`] only.
    pub(crate) sizes: Vec<u64>,
}

impl Report {
    /// Fails the test if any rule was broken but those given.
    #[track_caller]
    pub(crate) fn assert_clean_but(&self, tolerated: &[u8]) {
        let broken: Vec<String> = self
            .violations
            .iter()
            .filter(|violation| !tolerated.contains(&violation.rule))
            .take(20)
            .map(|violation| {
                format!(
                    "  rule {}, after {:.2?}: {}",
                    violation.rule, violation.after, violation.what
                )
            })
            .collect();
        assert!(
            broken.is_empty(),
            "the window broke its rules ({} times in all):\n{}",
            self.violations.len(),
            broken.join("\n")
        );
    }

    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        self.assert_clean_but(&[]);
    }

    /// The rules that were broken.
    pub(crate) fn rules_broken(&self) -> BTreeSet<u8> {
        self.violations
            .iter()
            .map(|violation| violation.rule)
            .collect()
    }
}

/// Notes what was broken, once for each text.
pub(crate) struct Notes {
    since: Instant,
    seen: BTreeSet<(u8, String)>,
    violations: Vec<Violation>,
}

impl Notes {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            seen: BTreeSet::new(),
            violations: Vec::new(),
        }
    }

    pub(crate) fn broken(&mut self, rule: u8, what: impl Into<String>) {
        let what = what.into();
        if self.violations.len() < VIOLATIONS_KEPT && self.seen.insert((rule, what.clone())) {
            let after = self.since.elapsed();
            self.violations.push(Violation { rule, after, what });
        }
    }

    pub(crate) fn unless(&mut self, holds: bool, rule: u8, what: impl FnOnce() -> String) {
        if !holds {
            self.broken(rule, what());
        }
    }
}

/// A checker at work on a thread of its own.
pub(crate) struct Checker {
    stop: Arc<AtomicBool>,
    /// How often nothing has answered.
    outages: Arc<AtomicU64>,
    thread: JoinHandle<Report>,
}

impl Checker {
    /// Starts to watch `stream`. What does not answer at all (a daemon that is away) is counted, not judged.
    pub(crate) fn start(origin: impl Origin + Send + 'static, stream: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let outages = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&outages));
        let stream = stream.to_owned();
        let thread = std::thread::spawn(move || watch(origin, &stream, &stopped, &counted));
        Self {
            stop,
            outages,
            thread,
        }
    }

    /// Watches it as the daemon's origin serves it.
    pub(crate) fn over_http(daemon: &Daemon, stream: &str) -> Self {
        let port = daemon.place.port;
        Self::start(HttpOrigin { port }, stream)
    }

    /// Watches it as it lies in the daemon's publish folder.
    pub(crate) fn of_folder(daemon: &Daemon, stream: &str) -> Self {
        let dir = daemon.place.live();
        Self::start(FolderOrigin { dir }, stream)
    }

    /// Waits until it has seen that nothing answers: a daemon may be away for less than a round.
    pub(crate) fn wait_for_an_outage(&self) {
        let before = self.outages.load(Ordering::Relaxed);
        wait_for(
            "the checker sees an outage",
            Duration::from_secs(20),
            || (self.outages.load(Ordering::Relaxed) > before).then_some(()),
        );
    }

    /// Stops watching, and says what it saw.
    pub(crate) fn finish(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the checker ends by itself")
    }
}

fn watch(mut origin: impl Origin, stream: &str, stop: &AtomicBool, outages: &AtomicU64) -> Report {
    let mut notes = Notes::new();
    let mut manifests = manifests::Manifests::new(stream);
    let mut uris = uris::Uris::new(stream);
    let mut report = Report::default();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        report.rounds += 1;
        let answered = manifests
            .read_all(&mut origin, &mut uris, &mut notes)
            .and_then(|()| uris.ask(&mut origin, &mut notes))
            .and_then(|()| manifests.parts.ask(&mut origin, &mut notes));
        if answered.is_err() {
            report.outages += 1;
            outages.fetch_add(1, Ordering::Relaxed);
            manifests.forget_pace();
            manifests.parts.forget();
        }
        report.sizes.extend(origin.size(stream));
        std::thread::sleep(ROUND.saturating_sub(begun.elapsed()));
    }
    report.in_parts = manifests.parts.whole();
    report.listed = uris.listed();
    report.expired = uris.expired();
    report.violations = notes.violations;
    report
}
