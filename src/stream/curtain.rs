//! What viewers see of the window. A finished segment is listed for them once the publisher is through with it: then a daemon that is
//! killed and started again goes on behind what anybody has seen listed, and no list steps back. Its last part they see at once. A copied stream's segment, whose
//! number would else be given to another one after that, is seen only once its first part is on the disk.
//! A disk that takes long is not waited for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::shared::Latency;
use crate::clock::Anchor;
use crate::tick::UnixTime;
use crate::window::{OpenSegment, Snapshot, TrackView};

/// The longest that a disk is waited for.
const PATIENCE: Duration = Duration::from_millis(50);

/// The window's newest snapshot, and the one that viewers see.
#[derive(Clone)]
pub(super) struct Curtain {
    newest: watch::Sender<Arc<Snapshot>>,
    shown: watch::Sender<Arc<Snapshot>>,
    held: Arc<Mutex<Option<Held>>>,
    anchor: Anchor,
    latency: Arc<Latency>,
}

/// A snapshot that viewers don't see yet.
struct Held {
    updated: UnixTime,
    since: Instant,
    /// When the first pictures of the parts were captured that nobody sees yet.
    parts: Vec<UnixTime>,
}

impl Curtain {
    /// One behind which `first` stands; and what viewers see. How long parts took until they were seen is counted in `latency`.
    pub(super) fn new(
        first: Arc<Snapshot>,
        anchor: Anchor,
        latency: Arc<Latency>,
    ) -> (Self, watch::Receiver<Arc<Snapshot>>) {
        let (newest, _) = watch::channel(Arc::clone(&first));
        let (shown, seen) = watch::channel(first);
        let held = Arc::default();
        let curtain = Self {
            newest,
            shown,
            held,
            anchor,
            latency,
        };
        (curtain, seen)
    }

    /// The newest snapshots, for the publisher.
    pub(super) fn behind(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.newest.subscribe()
    }

    /// The newest snapshot.
    pub(super) fn newest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.newest.borrow())
    }

    /// Takes the next snapshot: at once for the publisher, and for viewers too, but for a segment that has been finished. `parts` says when
    /// the first pictures of those parts were captured that the snapshot before did not have.
    pub(super) fn show(&self, next: Arc<Snapshot>, parts: Vec<UnixTime>, now: Instant) {
        let mut held = self.held();
        let shown = Arc::clone(&self.shown.borrow());
        self.newest.send_replace(Arc::clone(&next));
        let since = held.as_ref().map_or(now, |held| held.since);
        if next.ended || !lists_more(&next, &shown) || now.duration_since(since) >= PATIENCE {
            let before = held.take().map_or_else(Vec::new, |held| held.parts);
            self.reveal(next, before.into_iter().chain(parts));
            return;
        }
        let updated = next.updated;
        let mut unseen = held.take().map_or_else(Vec::new, |held| held.parts);
        unseen.extend(parts);
        if let Some(ahead) = without_finished(&shown, &next) {
            self.reveal(Arc::new(ahead), unseen.drain(..));
        }
        *held = Some(Held {
            updated,
            since,
            parts: unseen,
        });
    }

    /// The publisher is through with a snapshot of `updated`, whether it succeeded or not.
    pub(super) fn passed(&self, updated: UnixTime) {
        let mut held = self.held();
        if let Some(held) = held.take_if(|held| held.updated <= updated) {
            self.reveal(self.newest(), held.parts);
        }
    }

    /// How long until viewers are not kept waiting any more, if they are now.
    pub(super) fn lift_when_late(&self, now: Instant) -> Option<Duration> {
        let mut held = self.held();
        let since = held.as_ref()?.since;
        let left = PATIENCE.saturating_sub(now.duration_since(since));
        if left.is_zero() {
            let parts = held.take().map_or_else(Vec::new, |held| held.parts);
            self.reveal(self.newest(), parts);
            return None;
        }
        Some(left)
    }

    fn reveal(&self, snapshot: Arc<Snapshot>, parts: impl IntoIterator<Item = UnixTime>) {
        self.shown.send_replace(snapshot);
        let now = self.anchor.now();
        for captured in parts {
            let taken = now.saturating_since(captured);
            self.latency.commit_to_part.record(taken);
            self.latency.newest_captured.raise(captured.as_nanos());
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What viewers may see of `next` before its newest segments are on the disk: all of their parts, but as those of segments that are still being
/// written. None if it has more that is new.
fn without_finished(shown: &Snapshot, next: &Snapshot) -> Option<Snapshot> {
    let copied = next.is_copied();
    let tracks = shown.tracks.iter().zip(&next.tracks).map(|(shown, next)| {
        let (before, last) = (shown.listed.last()?, next.listed.last()?);
        let open = if last.number == before.number {
            let begun = copied && shown.open.is_none();
            next.open.clone().filter(|_| !begun)
        } else if last.number == before.number.next() && !last.gap && next.open.is_none() {
            Some(OpenSegment {
                number: last.number,
                period: Arc::clone(&last.period),
                first_tick: last.first_tick,
                parts: last.parts.clone(),
                captured: last.captured,
            })
        } else {
            return None;
        };
        Some(TrackView {
            open,
            ..shown.clone()
        })
    });
    Some(Snapshot {
        stream: shown.stream.clone(),
        mode: shown.mode,
        target_duration: shown.target_duration,
        media_sequence: shown.media_sequence,
        discontinuity_sequence: shown.discontinuity_sequence,
        window_ticks: shown.window_ticks,
        tracks: tracks.collect::<Option<_>>()?,
        longest_playlist: shown.longest_playlist,
        ended: shown.ended,
        // Its segments, and so its MPD, are those of before.
        updated: shown.updated,
    })
}

/// Whether any track of `next` lists a segment after those that it lists in `shown`, or if it is copied, has begun one.
fn lists_more(next: &Snapshot, shown: &Snapshot) -> bool {
    let listed = |track: &TrackView| track.listed.last().map(|segment| segment.number);
    let begun = |track: &TrackView| match &track.open {
        Some(open) if next.is_copied() => Some(open.number),
        _ => listed(track),
    };
    let mut tracks = next.tracks.iter().zip(&shown.tracks);
    tracks.any(|(next, shown)| {
        listed(next) > listed(shown) || begun(next) > begun(shown).max(listed(shown))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::http::fixtures::snapshot;

    /// The number of the newest segment that the first track lists.
    fn newest_number(snapshot: &Snapshot) -> Option<u64> {
        Some(snapshot.tracks[0].listed.last()?.number.0)
    }

    /// The number that viewers see as the newest.
    fn seen(viewers: &watch::Receiver<Arc<Snapshot>>) -> Option<u64> {
        newest_number(&viewers.borrow())
    }

    fn at(millis: u64, first: usize) -> Arc<Snapshot> {
        let mut snapshot = Arc::into_inner(snapshot("door", first, 4, 6)).unwrap();
        snapshot.updated = UnixTime::from_secs(1).saturating_add(Duration::from_millis(millis));
        Arc::new(snapshot)
    }

    fn curtain(first: Arc<Snapshot>) -> (Curtain, watch::Receiver<Arc<Snapshot>>) {
        let anchor = Anchor::new(Arc::new(SystemClock));
        Curtain::new(first, anchor, Arc::default())
    }

    #[test]
    fn the_last_part_of_a_finished_segment_is_seen_at_once_and_the_segment_when_it_is_on_the_disk()
    {
        let (curtain, viewers) = curtain(at(0, 7));
        let before = seen(&viewers);
        let mut finished = Arc::into_inner(at(1000, 8)).unwrap();
        finished.tracks[0].open = None;
        let finished = Arc::new(finished);
        let captured = curtain.anchor.now();
        curtain.show(Arc::clone(&finished), vec![captured], Instant::now());
        {
            let ahead = viewers.borrow();
            let track = &ahead.tracks[0];
            assert_eq!(newest_number(&ahead), before);
            let (open, last) = (
                track.open.as_ref().unwrap(),
                finished.tracks[0].listed.last().unwrap(),
            );
            assert_eq!((open.number, &open.parts), (last.number, &last.parts));
            assert!(open.is_whole());
            assert_eq!(track.next_part(), Some((last.number.next(), 0)));
        }
        assert_eq!(curtain.latency.commit_to_part.distribution().count, 1);
        curtain.passed(finished.updated);
        assert_eq!(*viewers.borrow(), finished);
        assert_eq!(curtain.latency.commit_to_part.distribution().count, 1);
    }

    /// A snapshot of two tracks, each without a part after its newest segment.
    fn ladder(millis: u64, listed: [usize; 2]) -> Arc<Snapshot> {
        let mut tracks = listed.map(|first| Arc::into_inner(at(millis, first)).unwrap());
        let mut second = tracks[1].tracks.remove(0);
        second.name = "180p".to_owned();
        let [mut both, _] = tracks;
        both.tracks.push(second);
        for track in &mut both.tracks {
            track.open = None;
        }
        Arc::new(both)
    }

    #[test]
    fn each_track_s_segment_waits_for_the_disk_and_its_last_part_for_nothing() {
        let (curtain, viewers) = curtain(ladder(0, [7, 7]));
        let now = Instant::now();
        let lists = |viewers: &watch::Receiver<Arc<Snapshot>>| {
            let shown = viewers.borrow();
            let tracks = shown.tracks.iter();
            let track = |track: &TrackView| {
                let whole = track.open.as_ref().is_some_and(OpenSegment::is_whole);
                (track.listed.last().unwrap().number.0, whole)
            };
            tracks.map(track).collect::<Vec<_>>()
        };
        let before = lists(&viewers)[0].0;
        curtain.show(ladder(1000, [8, 7]), Vec::new(), now);
        assert_eq!(lists(&viewers), [(before, true), (before, false)]);
        curtain.show(ladder(1010, [8, 8]), Vec::new(), now);
        assert_eq!(lists(&viewers), [(before, true), (before, true)]);
        // The pass that began in between has the first one's only.
        curtain.passed(ladder(1000, [8, 7]).updated);
        assert_eq!(lists(&viewers), [(before, true), (before, true)]);
        curtain.passed(ladder(1010, [8, 8]).updated);
        assert_eq!(lists(&viewers), [(before + 1, false), (before + 1, false)]);
        // One that is finished once the other is listed waits as well.
        curtain.show(ladder(2000, [9, 8]), Vec::new(), now);
        curtain.passed(ladder(2000, [9, 8]).updated);
        curtain.show(ladder(2010, [9, 9]), Vec::new(), now);
        assert_eq!(lists(&viewers), [(before + 2, false), (before + 1, true)]);
    }

    #[test]
    fn a_finished_segment_is_seen_when_the_publisher_is_through_with_it() {
        let (curtain, viewers) = curtain(at(0, 7));
        let (now, before) = (Instant::now(), seen(&viewers));
        curtain.show(at(1000, 8), Vec::new(), now);
        assert_eq!(newest_number(&curtain.newest()), before.map(|n| n + 1));
        assert_eq!(seen(&viewers), before);
        // A pass that began before the segment was finished says nothing of it.
        curtain.passed(at(999, 8).updated);
        assert_eq!(seen(&viewers), before);
        curtain.passed(at(1000, 8).updated);
        assert_eq!(seen(&viewers), before.map(|n| n + 1));
        // What finishes no segment is seen at once.
        curtain.show(at(1200, 8), Vec::new(), now);
        assert_eq!(viewers.borrow().updated, at(1200, 8).updated);
    }

    #[test]
    fn a_disk_that_takes_long_is_not_waited_for() {
        let (curtain, viewers) = curtain(at(0, 7));
        let (now, before) = (Instant::now(), seen(&viewers));
        curtain.show(at(1000, 8), Vec::new(), now);
        let late = now + PATIENCE;
        assert!(
            curtain
                .lift_when_late(late - Duration::from_millis(1))
                .is_some()
        );
        assert_eq!(seen(&viewers), before);
        assert_eq!(curtain.lift_when_late(late), None);
        assert_eq!(seen(&viewers), before.map(|n| n + 1));
        curtain.show(at(2000, 9), Vec::new(), late);
        curtain.show(at(2200, 9), Vec::new(), late + PATIENCE);
        assert_eq!(seen(&viewers), before.map(|n| n + 2));
    }

    #[test]
    fn a_copied_segment_is_seen_once_its_first_part_is_on_the_disk_and_the_others_at_once() {
        use crate::package::Part;
        use crate::tick::{Grid, SegmentNumber, Tick};
        use crate::window::{Mode, TrackInit, Window, WindowSettings};

        let grid = Grid::copied(Duration::from_secs(2), Some(Duration::from_millis(200)));
        let settings = WindowSettings {
            stream: "door".to_owned(),
            mode: Mode::Live,
            tracks: vec!["cam".to_owned()],
            window: Duration::from_secs(14),
            target_duration: 2,
        };
        let inits: Vec<TrackInit> = at(0, 7).tracks[0].newest_period().unwrap().tracks.clone();
        let start = Tick(20_000 * 86_400 * 90_000);
        let mut window = Window::new(settings, None);
        window.begin_cut_period(grid, start, inits, false, grid.time_of(start));
        let mut push = |segment: u64, number: u32, last: bool| {
            let first_tick = window.next_tick(0).unwrap();
            let now = grid.time_of(first_tick.plus(18_000));
            let part = Part {
                segment: SegmentNumber(segment),
                number,
                first_tick,
                ticks: 18_000,
                independent: number == 0,
                last,
                captured: now,
                bytes: bytes::Bytes::from_static(b"part"),
            };
            window.push(0, part, now).unwrap();
            window.snapshot(now)
        };
        let (curtain, viewers) = curtain(push(0, 0, true));
        let parts = |viewers: &watch::Receiver<Arc<Snapshot>>| {
            let shown = viewers.borrow();
            shown.tracks[0].open.as_ref().map(|open| open.parts.len())
        };
        let now = Instant::now();
        let begun = push(1, 0, false);
        curtain.show(Arc::clone(&begun), Vec::new(), now);
        assert_eq!((seen(&viewers), parts(&viewers)), (Some(0), None));
        curtain.passed(begun.updated);
        assert_eq!(parts(&viewers), Some(1));
        curtain.show(push(1, 1, false), Vec::new(), now);
        assert_eq!(parts(&viewers), Some(2));
        // It is whole, and then the next one begins.
        let whole = push(1, 2, true);
        curtain.show(Arc::clone(&whole), Vec::new(), now);
        assert_eq!((seen(&viewers), parts(&viewers)), (Some(0), Some(3)));
        curtain.passed(whole.updated);
        assert_eq!((seen(&viewers), parts(&viewers)), (Some(1), None));
        curtain.show(push(2, 0, false), Vec::new(), now);
        assert_eq!(parts(&viewers), None);
        // A disk that takes long is not waited for.
        assert_eq!(curtain.lift_when_late(now + PATIENCE), None);
        assert_eq!(parts(&viewers), Some(1));
    }
}
