//! What is kept of a live stream's past: its full segments, in reels of an hour each, until they are too old or too many. A thread
//! of its own writes them from what viewers see of the window, so that no disk holds up the stream: one that is too slow or full costs
//! the recording segments, which then has a hole, and nobody else anything. Nothing that the index does not name is ever removed.

mod error;
mod index;
mod name;
mod reel;
#[cfg(test)]
mod tests;
mod thread;
mod view;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub(crate) use name::{age_key, name_at};
pub(crate) use thread::ArchiveThread;
pub(crate) use view::ReelView;

use crate::clock::Anchor;
use crate::status::RecordStatus;
use crate::tick::UnixTime;
use crate::window::Snapshot;

/// So many reels are kept at hand for who watches them.
const MOST_VIEWED: usize = 8;
/// One that nobody has asked for in this time is let go of.
const UNWATCHED: Duration = Duration::from_secs(60);
/// A pass that takes so long is worth a word.
const STALLED: Duration = Duration::from_secs(5);

/// What is kept, for how long, and where.
#[derive(Clone, Debug)]
pub(crate) struct ArchivePlan {
    /// The stream.
    pub(crate) stream: String,
    /// The folder of its reels.
    pub(crate) dir: PathBuf,
    /// How long a segment is kept.
    pub(crate) keep: Duration,
    /// What segments may take, in bytes; none for all that there is.
    pub(crate) max_bytes: Option<u64>,
    /// What stays free on the file system, in bytes.
    pub(crate) keep_free: u64,
}

/// A stream's past, for who reads it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Archive {
    shared: Arc<Shared>,
}

struct Shared {
    plan: ArchivePlan,
    anchor: Anchor,
    /// Oldest first.
    reels: Mutex<Vec<Summary>>,
    trouble: Mutex<Trouble>,
    /// Those that were asked for, and when: the last one at the end.
    viewed: Mutex<Vec<(Instant, Arc<ReelView>)>>,
}

/// A reel in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Its name, which says when its hour began; its folder.
    pub(crate) name: String,
    /// When what it has begins: what is older is gone, or about to go.
    pub(crate) starts: UnixTime,
    /// When what it has ends: what is newer is not whole yet.
    pub(crate) ends: UnixTime,
    /// How many segments each track has.
    pub(crate) segments: u64,
    /// The bytes of all of them.
    pub(crate) bytes: u64,
    /// The tracks' names.
    tracks: Vec<String>,
}

/// How the writing goes.
#[derive(Debug, Default)]
struct Trouble {
    /// Why nothing is written, if nothing is.
    error: Option<String>,
    /// Since when a pass is under way, and whether it has been said that it takes long.
    pass: Option<(Instant, bool)>,
    /// Since when no pass has ended well, if the last one has not.
    failing: Option<Instant>,
    /// How long the window had to wait for the passes before this one, from the first that did not end well on.
    held_up: Duration,
    /// How much time is missing because the disk was too slow or full.
    missed: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Archive {
    /// The past of the stream of `plan`, and the thread that adds to it what `window` lists.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn start(
        plan: ArchivePlan,
        anchor: Anchor,
        window: watch::Receiver<Arc<Snapshot>>,
    ) -> std::io::Result<(Self, ArchiveThread)> {
        let shared = Arc::new(Shared {
            plan,
            anchor,
            reels: Mutex::default(),
            trouble: Mutex::default(),
            viewed: Mutex::default(),
        });
        let thread = ArchiveThread::start(Arc::clone(&shared), window)?;
        Ok((Self { shared }, thread))
    }

    /// Its reels that have something, oldest first.
    pub(crate) fn reels(&self) -> Vec<Summary> {
        let reels = lock(&self.shared.reels);
        reels
            .iter()
            .filter(|reel| reel.segments > 0)
            .cloned()
            .collect()
    }

    /// The folder of the reel that has what begins at `starts`.
    pub(crate) fn folder_of(&self, starts: UnixTime) -> Option<PathBuf> {
        let reels = lock(&self.shared.reels);
        let reel = reels
            .iter()
            .find(|reel| (reel.starts..reel.ends).contains(&starts))?;
        Some(self.folder(&reel.name))
    }

    /// The reels that have something of what is between `from` and `to`, oldest first. Reads the disk.
    pub(crate) fn views(&self, from: UnixTime, to: UnixTime) -> Vec<Arc<ReelView>> {
        let reels = self.reels().into_iter();
        let those = reels.filter(|reel| reel.starts < to && reel.ends > from);
        those.filter_map(|reel| self.view(&reel.name)).collect()
    }

    /// The folder of the reel `name`.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.shared.plan.dir.join(name)
    }

    /// The reel `name` as it is now. Reads the disk.
    pub(crate) fn view(&self, name: &str) -> Option<Arc<ReelView>> {
        let reels = lock(&self.shared.reels);
        let at = reels.iter().position(|reel| reel.name == name)?;
        let (summary, is_newest) = (reels[at].clone(), at + 1 == reels.len());
        drop(reels);
        if summary.segments == 0 {
            return None;
        }
        let ended = !is_newest || view::hour_is_over(&summary, self.shared.anchor.now());
        let known = |viewed: &[(Instant, Arc<ReelView>)]| {
            let mut views = viewed.iter().map(|(_, view)| view);
            views.position(|view| view.is_of(&summary, ended))
        };
        let mut viewed = lock(&self.shared.viewed);
        if known(&viewed).is_none() {
            drop(viewed);
            let loaded = self.load(&summary, ended)?;
            viewed = lock(&self.shared.viewed);
            // Whoever was quicker has the one that all share.
            if known(&viewed).is_none() {
                viewed.retain(|(_, view)| view.name() != name);
                viewed.push((Instant::now(), loaded));
            }
        }
        let at = known(&viewed)?;
        let (_, view) = viewed.remove(at);
        viewed.push((Instant::now(), Arc::clone(&view)));
        if viewed.len() > MOST_VIEWED {
            viewed.remove(0);
        }
        Some(view)
    }

    fn load(&self, summary: &Summary, ended: bool) -> Option<Arc<ReelView>> {
        let folder = self.folder(&summary.name);
        match ReelView::load(&self.shared.plan.stream, &folder, summary, ended) {
            Ok(view) => view.map(Arc::new),
            Err(error) => {
                tracing::warn!(stream = self.shared.plan.stream, %error, "a recording can't be read");
                None
            }
        }
    }

    /// What `/api/v1/streams` tells of it.
    pub(crate) fn status(&self) -> RecordStatus {
        self.shared.status()
    }

    /// Says once that the disk does not answer, if so. To be asked now and then: the thread itself waits for the disk.
    pub(crate) fn look_at_disk(&self) {
        self.shared.stalled();
    }
}

impl Shared {
    /// Lets go of the reels that nobody has asked for lately at `now`.
    fn let_go(&self, now: Instant) {
        lock(&self.viewed).retain(|(asked, _)| now.saturating_duration_since(*asked) < UNWATCHED);
    }

    /// What there is to say of a pass that takes long, which is logged the first time.
    fn stalled(&self) -> Option<String> {
        let mut trouble = lock(&self.trouble);
        let (since, said) = trouble.pass.as_mut()?;
        if since.elapsed() < STALLED {
            return None;
        }
        let text = format!(
            "the disk of {} does not answer: nothing is recorded until it does; viewers are not concerned; see whether it fails or is overloaded",
            self.plan.dir.display()
        );
        if !std::mem::replace(said, true) {
            tracing::warn!(stream = self.plan.stream, "{text}");
        }
        Some(text)
    }

    fn status(&self) -> RecordStatus {
        let stalled = self.stalled();
        let trouble = lock(&self.trouble);
        let error = stalled.or_else(|| trouble.error.clone());
        let missed_seconds = trouble.missed.as_secs_f64();
        drop(trouble);
        let reels = lock(&self.reels);
        let held = || reels.iter().filter(|reel| reel.segments > 0);
        RecordStatus {
            error,
            oldest: held().map(|reel| reel.starts).min().map(UnixTime::rfc3339),
            newest: held().map(|reel| reel.ends).max().map(UnixTime::rfc3339),
            segments: held().map(|reel| reel.segments).sum(),
            bytes: held().map(|reel| reel.bytes).sum(),
            missed_seconds,
        }
    }
}

impl Summary {
    fn of(name: &str, index: &index::Index) -> Self {
        // What is lost at the end may still be had from the window.
        let whole = || index.columns.iter().filter(|column| !column.lost);
        Self {
            name: name.to_owned(),
            starts: whole()
                .next()
                .map(|column| column.starts)
                .unwrap_or_default(),
            ends: whole()
                .next_back()
                .map(|column| column.ends)
                .unwrap_or_default(),
            segments: whole().count() as u64,
            bytes: index.bytes(),
            tracks: index.tracks.clone(),
        }
    }
}

/// The reels in `dir`, oldest first, by their names.
fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| crate::http::is_recording(name))
        .collect();
    names.sort_by_key(|name| age_key(name));
    names
}
