//! One producer's session as ingest sees it: its ring, and an account of every frame that was committed to it.

use std::time::Duration;

use ringgear_producer::messages::{EndCode, Ended, FrameCounts};
use ringgear_ring::format::FrameFormat;
use ringgear_ring::layout::MAX_SLOTS;
use ringgear_ring::{Captured, Deadline, Reader, ReadySlot, RingError, Taken};
use tokio::sync::{oneshot, watch};

use super::choose::{Choice, choose};
use super::convert::{ConvertError, Converter, Rows};
use super::counters::Counters;
use crate::clock::MonotonicTime;
use crate::control::Hold;
use crate::picture::Picture;

/// A frame's capture time is believed if it lies at most this long before the tick that takes it.
const OLDEST_CAPTURE: u64 = 60_000_000_000;

/// A session as it is handed to ingest.
pub(crate) struct NewSession {
    /// Unique in the daemon's life.
    pub(crate) id: u64,
    /// The daemon's end of its ring.
    pub(crate) reader: Reader,
    /// Its frames' format.
    pub(crate) format: FrameFormat,
    /// Where ingest says that the ring can't be read on.
    pub(crate) ended: watch::Sender<Option<Ended>>,
    /// Its place in the books, given back once its memory is gone.
    pub(crate) hold: Hold,
}

/// Why a session can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// A frame became no picture.
    #[error(transparent)]
    Frame(#[from] ConvertError),
    /// More frames than anybody could have written.
    #[error("the counter committed rose by {frames} frames within {within:?}")]
    TooMany {
        /// How many since the look before.
        frames: u64,
        /// When that was.
        within: Duration,
    },
}

impl From<RingError> for SessionError {
    fn from(error: RingError) -> Self {
        Self::Frame(error.into())
    }
}

/// A frame that a tick took.
pub(crate) struct Fresh {
    pub(crate) picture: Picture,
    pub(crate) frame_number: u64,
}

/// The session that feeds a stream now.
pub(crate) struct Session {
    pub(crate) id: u64,
    reader: Reader,
    converter: Converter,
    ended: watch::Sender<Option<Ended>>,
    closing: Option<Closing>,
    counts: FrameCounts,
    last_sequence: u64,
    committed: u64,
    /// When `committed` was looked at.
    looked: MonotonicTime,
    /// After the reader: it counts until the memory is gone.
    _hold: Hold,
}

/// What is known once the producer has closed.
struct Closing {
    /// Who waits for the account.
    done: Option<oneshot::Sender<FrameCounts>>,
    /// How many frames had been committed by then. The producer's mapping outlives its session, but what it commits later is
    /// not shown: the session would never end, and the stream would be fed by nobody that it knows.
    committed: u64,
    /// How many frames may still be taken: a full ring's, should that count be a lie.
    frames_left: u32,
}

impl Rows for Taken<'_> {
    fn copy_rows(
        &self,
        plane: usize,
        first: usize,
        rows: usize,
        into: &mut [u8],
    ) -> Result<(), RingError> {
        Taken::copy_rows(self, plane, first, rows, into)
    }
}

impl Session {
    pub(crate) fn new(new: NewSession, now: MonotonicTime) -> Self {
        Self {
            id: new.id,
            reader: new.reader,
            converter: Converter::new(new.format),
            ended: new.ended,
            closing: None,
            counts: FrameCounts::default(),
            last_sequence: 0,
            committed: 0,
            // It began before ingest heard of it: at most a tick, which is at most a second.
            looked: MonotonicTime(now.0.saturating_sub(2_000_000_000)),
            _hold: new.hold,
        }
    }

    /// The producer commits no more; what waits in the ring is still shown.
    pub(crate) fn close(&mut self, done: Option<oneshot::Sender<FrameCounts>>) {
        // A count that can't be believed any more is an error at the next tick.
        let committed = self.reader.committed().unwrap_or(self.committed);
        self.closing = Some(Closing {
            done,
            committed,
            frames_left: MAX_SLOTS,
        });
    }

    /// Takes no more than what waits, whether the producer has closed or not.
    pub(crate) fn stop(&mut self) {
        if self.closing.is_none() {
            self.close(None);
        }
    }

    /// Sleeps until a frame may have been committed since the last look, for at most `pause`; says whether one may have. What can't be
    /// read shows at the next look.
    pub(crate) fn wait(&mut self, pause: Duration) -> bool {
        self.reader.wait(Deadline::after(pause)).unwrap_or(false)
    }

    /// Whether a frame waits. What can't be read shows when one is taken.
    pub(crate) fn has_frames(&mut self) -> bool {
        let ready = self.reader.ready();
        ready.is_ok_and(|ready| !self.before_close(&ready).is_empty())
    }

    /// Gives up the frames that wait, for the next one; they count as superseded by it.
    pub(crate) fn pass_over(&mut self) {
        // What can't be read shows when one is taken.
        let Ok(ready) = self.reader.ready() else {
            return;
        };
        let waiting = self.before_close(&ready).len();
        for slot in &ready[..waiting] {
            self.reader.skip(*slot);
        }
    }

    /// The frame that this tick takes, if one waits. `suspended` is how long the machine has been suspended since its boot.
    pub(crate) fn take(
        &mut self,
        slack: u32,
        (now, suspended): (MonotonicTime, Duration),
        counters: &Counters,
    ) -> Result<Option<Fresh>, SessionError> {
        self.count_committed(now, counters)?;
        // The producer may take the oldest back between the look and the take; then there are newer ones, so a second look finds one.
        for _ in 0..4 {
            let ready = self.reader.ready()?;
            let ready = self.before_close(&ready);
            let chosen = match choose(ready.len(), slack) {
                Choice::Repeat => return Ok(None),
                Choice::Oldest => ready[0],
                Choice::Newest => ready[ready.len() - 1],
            };
            for older in ready
                .iter()
                .filter(|older| older.sequence < chosen.sequence)
            {
                self.reader.skip(*older);
            }
            let Some(taken) = self.reader.take(chosen) else {
                continue;
            };
            let (sequence, frame_number) = (taken.sequence(), taken.frame_number());
            let captured = believable(taken.captured(), suspended, now);
            let picture = self.converter.convert(&taken, captured)?;
            drop(taken);
            let passed_over = sequence.saturating_sub(self.last_sequence + 1);
            self.last_sequence = sequence;
            self.counts.used += 1;
            self.counts.superseded = self.counts.superseded.saturating_add(passed_over);
            counters.used.add(1);
            counters.superseded.add(passed_over);
            if let Some(closing) = &mut self.closing {
                closing.frames_left = closing.frames_left.saturating_sub(1);
            }
            return Ok(Some(Fresh {
                picture,
                frame_number,
            }));
        }
        Ok(None)
    }

    fn count_committed(
        &mut self,
        now: MonotonicTime,
        counters: &Counters,
    ) -> Result<(), SessionError> {
        let committed = self.reader.committed()?;
        let frames = committed.saturating_sub(self.committed);
        let within = now.saturating_since(self.looked);
        if !possible(frames, within) {
            return Err(SessionError::TooMany { frames, within });
        }
        counters.received.add(frames);
        self.committed = committed;
        self.looked = now;
        counters.session_committed.set(committed);
        Ok(())
    }

    /// Those of the frames that wait, oldest first, that were committed before the producer closed.
    fn before_close<'a>(&self, ready: &'a [ReadySlot]) -> &'a [ReadySlot] {
        let Some(closing) = &self.closing else {
            return ready;
        };
        let late = ready.partition_point(|ready| ready.sequence <= closing.committed);
        &ready[..late]
    }

    /// Whether the producer has closed and every frame that it committed before has been shown.
    pub(crate) fn is_drained(&mut self) -> bool {
        let Some(closing) = &self.closing else {
            return false;
        };
        let over = self.last_sequence >= closing.committed || closing.frames_left == 0;
        over || match self.reader.ready() {
            Ok(ready) => self.before_close(&ready).is_empty(),
            Err(_) => true,
        }
    }

    /// Whether the producer waits for its account.
    pub(crate) fn is_awaited(&self) -> bool {
        let closing = self.closing.as_ref();
        closing.is_some_and(|closing| closing.done.is_some())
    }

    /// Ends the account: what was committed and neither shown nor passed over came too late.
    pub(crate) fn finish(mut self, now: MonotonicTime, counters: &Counters) {
        // A count that can't be believed any more stays at what was last believed.
        let _ = self.count_committed(now, counters);
        let late = self.committed.saturating_sub(self.last_sequence);
        self.counts.late = late;
        counters.late.add(late);
        counters.session_committed.set(0);
        if let Some(done) = self.closing.take().and_then(|closing| closing.done) {
            // The producer may be gone; then nobody asks for the account.
            let _ = done.send(self.counts);
        }
    }

    /// Tells the producer why its session ends here.
    pub(crate) fn fail(self, error: &SessionError, now: MonotonicTime, counters: &Counters) {
        let ended = Ended {
            code: EndCode::RingCorrupt,
            message: error.to_string(),
        };
        self.ended.send_replace(Some(ended));
        self.finish(now, counters);
    }
}

/// Whether a producer can commit so many frames, or blocks of sound, in such a time: not more than one in each nanosecond. It keeps a lie from
/// spoiling the stream's counters for good: they would take centuries to overflow.
pub(crate) fn possible(frames: u64, within: Duration) -> bool {
    u128::from(frames) <= within.as_nanos() + u128::from(MAX_SLOTS)
}

/// A capture time as the rest of the house uses it: now, if the producer gave none or one of another clock. Producers read
/// CLOCK_MONOTONIC, which stands still while the machine is `suspended`.
fn believable(
    captured: Option<Captured>,
    suspended: Duration,
    now: MonotonicTime,
) -> MonotonicTime {
    let Some(Captured(nanos)) = captured else {
        return now;
    };
    let suspended = u64::try_from(suspended.as_nanos()).unwrap_or(u64::MAX);
    let captured = nanos.saturating_add(suspended);
    let oldest = now.0.saturating_sub(OLDEST_CAPTURE);
    if (oldest..=now.0).contains(&captured) {
        MonotonicTime(captured)
    } else {
        now
    }
}

#[cfg(test)]
pub(super) mod tests {
    use ringgear_ring::format::PixelFormat;
    use ringgear_ring::{RingMemory, Writer};

    use super::*;
    use crate::config::Limits;
    use crate::control::Accounts;

    /// A session as ingest gets it, and its producer's end.
    pub(in crate::ingest) fn begun(slots: u32) -> (NewSession, Writer) {
        let format = FrameFormat::packed(PixelFormat::Gray, 16, 16).unwrap();
        let memory = RingMemory::create(&format, slots).unwrap();
        let fd = memory.fd().try_clone_to_owned().unwrap();
        let writer = Writer::from_fd(fd, &format, memory.bytes() as u64, slots).unwrap();
        let new = NewSession {
            id: 1,
            reader: Reader::new(memory),
            format,
            ended: watch::Sender::new(None),
            hold: Accounts::new(Limits::default()).session(0, 1).unwrap(),
        };
        (new, writer)
    }

    fn open(slots: u32) -> (Session, Writer) {
        let (new, writer) = begun(slots);
        (Session::new(new, MonotonicTime(0)), writer)
    }

    #[test]
    fn what_is_committed_after_the_close_is_late_and_does_not_keep_the_session() {
        let (mut session, mut writer) = open(6);
        let counters = Counters::default();
        let mut put = |number| {
            writer.begin().unwrap().commit(number, None);
        };
        (0..2).for_each(&mut put);
        let (done, mut account) = oneshot::channel();
        session.close(Some(done));
        (2..5).for_each(&mut put);
        let mut shown = Vec::new();
        while !session.is_drained() {
            let fresh = session
                .take(1, (MonotonicTime(1), Duration::ZERO), &counters)
                .unwrap();
            shown.push(fresh.unwrap().frame_number);
            put(9);
        }
        assert_eq!(shown, [0, 1]);
        session.finish(MonotonicTime(1), &counters);
        let counts = account.try_recv().unwrap();
        assert_eq!((counts.used, counts.superseded, counts.late), (2, 0, 5));
        assert_eq!(counters.received.get(), 7);
    }

    #[test]
    fn more_frames_than_nanoseconds_are_a_lie() {
        assert!(possible(0, Duration::ZERO) && possible(32, Duration::ZERO));
        assert!(possible(1_000_000, Duration::from_millis(1)));
        assert!(!possible(1 << 60, Duration::from_secs(3600)));
        assert!(!possible(u64::MAX, Duration::from_secs(1)));
    }

    #[test]
    fn a_capture_time_of_another_clock_is_replaced_by_now() {
        let now = MonotonicTime(100_000_000_000);
        let of = |nanos| believable(Some(Captured(nanos)), Duration::ZERO, now);
        assert_eq!(of(99_000_000_000), MonotonicTime(99_000_000_000));
        assert_eq!(believable(None, Duration::ZERO, now), now);
        assert_eq!(of(1_800_000_000_000_000_000), now, "Unix time");
        assert_eq!(of(u64::MAX), now);
        assert_eq!(of(1_000_000_000), now, "a minute and a half ago");
    }

    #[test]
    fn a_capture_time_lacks_what_the_machine_was_suspended() {
        let now = MonotonicTime(100_000_000_000);
        let suspended = Duration::from_secs(70);
        let of = |nanos| believable(Some(Captured(nanos)), suspended, now);
        assert_eq!(of(29_000_000_000), MonotonicTime(99_000_000_000));
        assert_eq!(of(99_000_000_000), now, "the future");
    }
}
