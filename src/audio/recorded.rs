//! The sound of a recording, which has no clock: it is taken in order from the recording's beginning, all of it, as fast as it can be encoded, and where none comes there is
//! silence. What the pictures are ahead or behind says how long anything is waited for, so that neither waits for the other for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::Pcm;
use super::supply::{Kind, Supply};
use super::timeline::Timeline;
use crate::clock::MonotonicTime;

/// So far beyond what the encoder has returned the timeline goes: less than it keeps, so that another encoder can be given it again.
const UNRETURNED: u64 = 8 * 48_000;
/// So far beyond the pictures sound is read from a source of its own.
const AHEAD: u64 = 4 * 48_000;
/// So far beyond the pictures lies at most what comes from who gives them, too. A source's can't be held back without them: what lies further is left out. A
/// producer is held back, but no sooner, for it may have a single thread for both.
const MOST_AHEAD: u64 = 600 * 48_000;
/// Sound so far behind the pictures is waited for no longer, once nothing comes.
const BEHIND: u64 = 30 * 48_000;
/// Nothing comes if it hasn't for so long.
const QUIET: Duration = Duration::from_secs(2);
/// A file that is being opened is waited for so long: on a busy machine that takes its time, and short pictures may be over before.
const OPENED: Duration = Duration::from_secs(10);
/// A place that is no further off is what rounding makes of it, in samples.
const TOLERANCE: i64 = 960;
/// So much is placed at once.
const BLOCK: u64 = 4800;

/// How far a recording's pictures are, told by their owner.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    video: AtomicU64,
    held: AtomicBool,
}

impl Beside {
    /// They are encoded up to before sample `video`; `held`: no more of them is, until the disk has what is there, sound and all.
    pub(crate) fn note(&self, video: u64, held: bool) {
        self.video.store(video, Ordering::Relaxed);
        self.held.store(held, Ordering::Relaxed);
    }

    pub(super) fn video(&self) -> u64 {
        self.video.load(Ordering::Relaxed)
    }

    fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }
}

/// Where sound goes in a recording.
pub(super) struct Recorded {
    pub(super) beside: Arc<Beside>,
    /// The place of the next sample that comes out of the inlet, once that is known; before the recording's beginning, it is none of its.
    next: Option<i64>,
    taken: u64,
    /// When sound was last taken; earlier, if that was little.
    moved: MonotonicTime,
    /// Where the recording ends, once that is known.
    end: Option<u64>,
    /// When that was first seen, and how much had been taken then.
    ended: Option<(MonotonicTime, u64)>,
    /// It was told that sound is left out.
    told: bool,
}

impl Recorded {
    pub(super) fn new(beside: Arc<Beside>, now: MonotonicTime) -> Self {
        Self {
            beside,
            next: None,
            taken: 0,
            moved: now,
            end: None,
            ended: None,
            told: false,
        }
    }

    /// Another inlet begins, of this kind, with the timeline at `end`.
    pub(super) fn begin(&mut self, kind: Kind, end: u64) {
        self.taken = 0;
        self.next = match kind {
            // From its beginning, so that it goes on where it was.
            Kind::File => Some(0),
            Kind::Download | Kind::Unending | Kind::Fed => Some(signed(end)),
            Kind::Given => None,
        };
    }

    /// `received` samples have come out of the inlet, the last of them captured so long after the recording's beginning, if that is known.
    pub(super) fn arrived(&mut self, received: u64, captured: Option<MonotonicTime>) {
        let Some(captured) = captured else { return };
        let end = u128::from(captured.0) * 48_000 + 500_000_000;
        let end = i64::try_from(end / 1_000_000_000).unwrap_or(i64::MAX);
        let place = end.saturating_sub(signed(received.saturating_sub(self.taken)));
        let off = self.next.map(|next| place.saturating_sub(next).abs());
        if off.is_none_or(|off| off > TOLERANCE) {
            self.next = Some(place);
        }
    }

    /// The recording ends before sample `end`.
    pub(super) fn end_at(&mut self, end: u64) {
        self.end = Some(end);
    }

    /// Appends to `timeline` what there is, `returned` being where the encoder is.
    pub(super) fn extend(
        &mut self,
        timeline: &mut Timeline,
        supply: &mut Supply,
        returned: u64,
        now: MonotonicTime,
    ) {
        let video = self.beside.video();
        let end = self.end.unwrap_or(u64::MAX);
        let mut limit = returned.saturating_add(UNRETURNED).min(end);
        match supply.kind() {
            Kind::Given if timeline.end() > video.saturating_add(MOST_AHEAD) => {
                return self.leave_out(supply, now);
            }
            Kind::Given => {}
            Kind::Fed => limit = limit.min(video.saturating_add(MOST_AHEAD)),
            Kind::File | Kind::Download | Kind::Unending => {
                limit = limit.min(video.saturating_add(AHEAD));
            }
        }
        self.take(timeline, supply, limit, now);
        let patience = match self.taken {
            0 if supply.is_being_opened() => OPENED,
            _ => QUIET,
        };
        let starved = now.saturating_since(self.moved) > patience
            && (video.saturating_sub(timeline.end()) > BEHIND
                || self.beside.is_held()
                || self.end.is_some());
        let live = self.end.is_some()
            && match supply.kind() {
                Kind::Unending => true,
                Kind::Download => self.comes_live(now),
                _ => false,
            };
        if supply.is_finished() || starved || live {
            silence(timeline, self.end.unwrap_or(video).min(limit));
        }
    }

    /// Appends silence behind the recording's end, once `timeline` has come to it, up to sample `end`.
    pub(super) fn pad(&self, timeline: &mut Timeline, end: u64) {
        if self.end.is_some_and(|whole| timeline.end() >= whole) {
            silence(timeline, end);
        }
    }

    /// Takes what comes next, up to `limit`.
    fn take(
        &mut self,
        timeline: &mut Timeline,
        supply: &mut Supply,
        limit: u64,
        now: MonotonicTime,
    ) {
        let mut block: Vec<Pcm> = Vec::new();
        while timeline.end() < limit
            && let Some(next) = self.next
        {
            let at = signed(timeline.end());
            if next > at {
                silence(timeline, limit.min(next.unsigned_abs()));
                continue;
            }
            let late = usize::try_from(at - next).unwrap_or(usize::MAX);
            let left = usize::try_from((limit - timeline.end()).min(BLOCK)).unwrap_or(0);
            let most = if late > 0 { late } else { left };
            block.clear();
            let count = supply.take(most, |sound| block.extend(sound));
            if count == 0 {
                return;
            }
            self.note_moved(count, now);
            self.taken += count as u64;
            self.next = Some(next.saturating_add(i64::try_from(count).unwrap_or(i64::MAX)));
            if late == 0 {
                timeline.push(&block);
            }
        }
    }

    /// So many samples were taken. Who gives less than a quarter of what the clock would ask for gives nothing in the long run.
    fn note_moved(&mut self, count: usize, now: MonotonicTime) {
        if count == 0 {
            return;
        }
        let lasts = count as u64 * 1_000_000_000 / 48_000;
        let quiet = u64::try_from(QUIET.as_nanos()).unwrap_or(u64::MAX);
        // A pause before this is forgiven.
        let moved = self.moved.0.max(now.0.saturating_sub(quiet));
        self.moved = now.min(MonotonicTime(moved.saturating_add(4 * lasts)));
    }

    /// The recording has ended: whether what comes since comes no faster than it is heard, which nobody is to wait for.
    fn comes_live(&mut self, now: MonotonicTime) -> bool {
        let (since, taken) = *self.ended.get_or_insert((now, self.taken));
        let passed = now.saturating_since(since);
        let heard = passed.as_secs_f64() * 48_000.0;
        let came = self.taken.saturating_sub(taken);
        passed > QUIET && (came as f64) < 2.0 * heard
    }

    /// Lets sound go that lies too far from its pictures.
    fn leave_out(&mut self, supply: &mut Supply, now: MonotonicTime) {
        let count = supply.take(usize::MAX, |_| ());
        self.taken += count as u64;
        self.next = self
            .next
            .map(|next| next.saturating_add(i64::try_from(count).unwrap_or(i64::MAX)));
        self.note_moved(count, now);
        if count > 0 && !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                "sound that lies more than {} s before its pictures is left out",
                MOST_AHEAD / 48_000
            );
        }
    }
}

/// Appends silence up to sample `end`.
pub(super) fn silence(timeline: &mut Timeline, end: u64) {
    while timeline.end() < end {
        let left = (end - timeline.end()).min(BLOCK);
        timeline.push(&vec![[0.0; 2]; usize::try_from(left).unwrap_or(0)]);
    }
}

fn signed(samples: u64) -> i64 {
    i64::try_from(samples).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::inlet::{Filler, inlet};
    use crate::audio::{Capture, Moment};
    use crate::tick::SAMPLE_RATE;

    const SECOND: u64 = 48_000;

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime(seconds * 1_000_000_000)
    }

    struct Bench {
        beside: Arc<Beside>,
        recorded: Recorded,
        timeline: Timeline,
        supply: Supply,
        filler: Option<Filler>,
    }

    impl Bench {
        fn new(kind: Kind) -> Self {
            let beside = Arc::new(Beside::default());
            let mut recorded = Recorded::new(Arc::clone(&beside), at(0));
            let (filler, inlet) = inlet(SAMPLE_RATE, 100 * 48_000);
            recorded.begin(kind, 0);
            Self {
                beside,
                recorded,
                timeline: Timeline::new(0, Duration::from_secs(12)),
                supply: Supply::of(kind, inlet),
                filler: Some(filler),
            }
        }

        /// So many seconds of sound whose end is that of so many seconds of the recording.
        fn give(&mut self, value: f32, seconds: u64, end: Option<u64>) {
            let samples = usize::try_from(seconds * SECOND).unwrap();
            let moment = Moment {
                captured: end.map_or(Capture::Unknown, |end| Capture::Known(at(end))),
                came: at(0),
            };
            let filler = self.filler.as_ref().unwrap();
            assert!(filler.offer(&vec![[value; 2]; samples], moment));
        }

        fn turn(&mut self, now: u64) -> u64 {
            for (arrival, _) in self.supply.tend(at(now)).arrivals {
                let moment = arrival.moment;
                let captured = moment.captured.time();
                self.recorded.arrived(arrival.received, captured);
            }
            let returned = self.timeline.end();
            let (timeline, supply) = (&mut self.timeline, &mut self.supply);
            self.recorded.extend(timeline, supply, returned, at(now));
            self.timeline.end() / SECOND
        }

        fn heard(&self, second: u64) -> f32 {
            let at = second * SECOND + SECOND / 2;
            self.timeline.get(at, at + 1).next().unwrap()[0]
        }
    }

    #[test]
    fn a_file_is_read_no_further_than_the_pictures_need_it_and_cut_where_they_end() {
        let mut bench = Bench::new(Kind::File);
        bench.give(0.5, 60, None);
        assert_eq!(bench.turn(0), 4);
        bench.beside.note(3 * SECOND, false);
        assert_eq!(bench.turn(1), 7);
        bench.recorded.end_at(9 * SECOND);
        bench.beside.note(9 * SECOND, false);
        assert_eq!((bench.turn(2), bench.turn(3)), (9, 9));
        assert_eq!((bench.heard(0), bench.heard(8)), (0.5, 0.5));
    }

    #[test]
    fn a_file_that_is_slowly_opened_is_waited_for_at_the_end() {
        for (comes, heard) in [(true, 0.5), (false, 0.0)] {
            let mut bench = Bench::new(Kind::File);
            bench.beside.note(2 * SECOND, false);
            bench.recorded.end_at(2 * SECOND);
            assert_eq!((bench.turn(0), bench.turn(9)), (0, 0));
            if comes {
                bench.give(0.5, 60, None);
            }
            assert_eq!(bench.turn(11), 2);
            assert_eq!(bench.heard(1), heard);
        }
    }

    #[test]
    fn a_download_is_waited_for_at_the_end_while_it_comes_faster_than_it_is_heard() {
        let mut bench = Bench::new(Kind::Download);
        bench.beside.note(100 * SECOND, false);
        bench.recorded.end_at(100 * SECOND);
        bench.give(0.5, 1, None);
        assert_eq!(bench.turn(0), 1);
        bench.give(0.5, 7, None);
        assert_eq!(bench.turn(3), 8, "more than twice as fast");
        bench.give(0.5, 1, None);
        assert!(bench.turn(6) > 9, "as fast as it is heard: silence follows");
    }

    #[test]
    fn a_producers_sound_follows_in_order_and_is_waited_for() {
        let mut bench = Bench::new(Kind::Fed);
        bench.beside.note(20 * SECOND, false);
        bench.give(0.5, 2, None);
        assert_eq!((bench.turn(0), bench.turn(9)), (2, 2), "more may come");
        assert_eq!((bench.heard(0), bench.heard(1)), (0.5, 0.5));
        bench.filler = None;
        let turns = (0..5).map(|_| bench.turn(9)).max();
        assert_eq!((turns, bench.heard(10)), (Some(20), 0.0));
        let (filler, inlet) = inlet(SAMPLE_RATE, 100 * 48_000);
        (bench.filler, bench.supply) = (Some(filler), Supply::of(Kind::Fed, inlet));
        bench.recorded.begin(Kind::Fed, bench.timeline.end());
        bench.give(0.6, 1, None);
        assert_eq!((bench.turn(10), bench.heard(20)), (21, 0.6));
    }

    #[test]
    fn who_gives_too_little_is_not_waited_for_at_the_end() {
        let mut bench = Bench::new(Kind::Fed);
        bench.beside.note(9 * SECOND, false);
        bench.recorded.end_at(9 * SECOND);
        for now in 0..4 {
            let moment = Moment {
                captured: Capture::Unknown,
                came: at(now),
            };
            let filler = bench.filler.as_ref().unwrap();
            assert!(filler.offer(&[[0.5; 2]; 48], moment));
            assert_eq!(bench.turn(now), 0);
        }
        let turns = (0..2).map(|_| bench.turn(4)).max();
        assert_eq!(turns, Some(9));
    }

    #[test]
    fn what_one_producer_gave_comes_before_what_the_next_gives() {
        let mut bench = Bench::new(Kind::Fed);
        bench.give(0.5, 6, None);
        bench.give(0.5, 6, None);
        let (filler, next) = inlet(SAMPLE_RATE, 100 * 48_000);
        bench.supply.begin(next);
        bench.filler = Some(filler);
        bench.give(0.6, 1, None);
        let turns: Vec<u64> = (0..3).map(|_| bench.turn(0)).collect();
        assert_eq!(turns, [8, 12, 13]);
        assert_eq!((bench.heard(11), bench.heard(12)), (0.5, 0.6));
    }

    #[test]
    fn a_producers_sound_is_held_back_ten_minutes_before_its_pictures() {
        let mut bench = Bench::new(Kind::Fed);
        for _ in 0..11 {
            bench.give(0.5, 60, None);
            (0..10).for_each(|_| _ = bench.turn(0));
        }
        assert_eq!(bench.timeline.end(), MOST_AHEAD);
        bench.beside.note(30 * SECOND, false);
        (0..10).for_each(|_| _ = bench.turn(0));
        assert_eq!(bench.timeline.end(), MOST_AHEAD + 30 * SECOND);
    }

    #[test]
    fn a_file_that_is_begun_again_goes_on_where_it_was() {
        let mut bench = Bench::new(Kind::File);
        bench.timeline = Timeline::new(2 * SECOND, Duration::from_secs(12));
        bench.give(0.1, 2, None);
        bench.give(0.2, 1, None);
        bench.beside.note(2 * SECOND, false);
        assert_eq!(bench.turn(0), 3);
        assert_eq!(bench.heard(2), 0.2);
    }

    #[test]
    fn what_a_source_carries_lies_where_its_times_say_with_silence_between() {
        let mut bench = Bench::new(Kind::Given);
        assert_eq!(bench.turn(0), 0, "nobody knows yet where it lies");
        bench.give(0.5, 2, Some(3));
        assert_eq!(bench.turn(0), 3);
        assert_eq!((bench.heard(0), bench.heard(1)), (0.0, 0.5));
        bench.give(0.6, 1, Some(6));
        assert_eq!(bench.turn(0), 6);
        assert_eq!((bench.heard(4), bench.heard(5)), (0.0, 0.6));
        // What lies before is left out.
        bench.give(0.7, 2, Some(7));
        assert_eq!(bench.turn(0), 7);
        bench.filler = None;
        bench.recorded.end_at(9 * SECOND);
        assert_eq!((bench.turn(1), bench.turn(2)), (9, 9));
        assert_eq!((bench.heard(6), bench.heard(8)), (0.7, 0.0));
    }

    #[test]
    fn pictures_that_wait_for_sound_that_does_not_come_get_silence() {
        let mut bench = Bench::new(Kind::Given);
        bench.give(0.5, 1, Some(1));
        bench.beside.note(20 * SECOND, false);
        assert_eq!((bench.turn(1), bench.turn(9)), (1, 1), "it may yet come");
        bench.beside.note(20 * SECOND, true);
        let turns = (0..9).map(|_| bench.turn(9)).max();
        assert_eq!(turns, Some(20));
        bench.beside.note(29 * SECOND, false);
        assert_eq!(bench.turn(12), 20);
        bench.beside.note(51 * SECOND, false);
        let turns = (0..9).map(|_| bench.turn(12)).max();
        assert_eq!(turns, Some(28), "the last half minute may yet come");
    }

    #[test]
    fn sound_far_before_its_pictures_is_left_out_rather_than_holding_them_up() {
        let mut bench = Bench::new(Kind::Given);
        for minute in 0..11 {
            bench.give(0.5, 60, Some(60 * (minute + 1)));
            for _ in 0..10 {
                bench.turn(0);
            }
        }
        assert!(bench.timeline.end() >= MOST_AHEAD);
        assert!(bench.timeline.end() < MOST_AHEAD + 9 * SECOND);
        let filler = bench.filler.as_ref().unwrap();
        assert!(!filler.is_full());
    }
}
