//! A producer's session of sound: out of its ring into an inlet, on a thread of its own. The thread sleeps until a block is committed, so that one whose
//! producer knows no capture time still has a good one: looking as often as the thread that publishes turns would make that up to 10 ms worse. A recording
//! takes every block in order, as soon as there is room for it, and asks for no times.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::Duration;

use ringgear_producer::messages::{EndCode, Ended, FrameCounts};
use ringgear_ring::layout::MAX_SLOTS;
use ringgear_ring::sound::SoundFormat;
use ringgear_ring::{Deadline, Reader, ReadySlot};
use tokio::sync::{oneshot, watch};

use super::allowance::Allowance;
use super::blocks::{Blocks, SoundError};
use super::downmix::Downmix;
use super::resample::Resampler;
use super::{Capture, Entrance, Filler, Moment, Pcm};
use crate::clock::{Anchor, MonotonicTime};
use crate::control::Hold;
use crate::ingest::{Count, possible};
use crate::tick::SAMPLE_RATE;

/// How long a block of a producer that wakes nobody waits at most, and how soon a close is seen.
const TURN: Duration = Duration::from_millis(10);
/// However fast a producer commits, no more than one look in this time.
const BREATH: Duration = Duration::from_millis(1);
/// So much sound of a recording waits for who publishes it: before the first picture nobody does.
const WAITING_SECONDS: u32 = 10;
/// In a recording, samples that a producer leaves out by their numbers are silence, up to this.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);
/// What a session has had, for status.
#[derive(Debug, Default)]
pub(crate) struct SoundCounters {
    /// Blocks committed.
    pub(crate) committed: Count,
    /// Blocks that were passed over.
    pub(crate) superseded: Count,
    /// Capture times that were not believed.
    pub(crate) disbelieved: Count,
}

/// A session.
pub(crate) struct SoundSession {
    /// The daemon's end of its ring.
    pub(crate) reader: Reader<SoundFormat>,
    /// Whether the stream records: then the ring is a lossless one.
    pub(crate) recorded: bool,
    /// The stream's sound.
    pub(crate) entrance: Entrance,
    pub(crate) anchor: Anchor,
    pub(crate) counters: Arc<SoundCounters>,
    /// Where the producer is told that its ring can't be read on.
    pub(crate) ended: watch::Sender<Option<Ended>>,
    /// Who waits for the account, once the producer has closed; its sender is gone once nobody does.
    pub(crate) closing: Receiver<oneshot::Sender<FrameCounts>>,
    /// After the reader: it counts until the memory is gone.
    pub(crate) hold: Hold,
}

impl SoundSession {
    /// Runs until the session's end.
    pub(crate) fn run(self) {
        let format = *self.reader.format();
        let rate = NonZeroU32::new(format.rate()).expect("a sound format has a rate");
        // It began before this thread did: at most a second.
        let started = MonotonicTime(self.anchor.monotonic().0.saturating_sub(1_000_000_000));
        let (rate_in, seconds, pace) = match self.recorded {
            false => (rate, 1, Pace::Heard(Allowance::new(rate))),
            true => (
                SAMPLE_RATE,
                WAITING_SECONDS,
                Pace::Recorded(Resampler::new(rate)),
            ),
        };
        let blocks = Blocks::new(format.rate());
        let mut work = Work {
            reader: self.reader,
            filler: self
                .entrance
                .begin_at(rate_in, (seconds * rate_in.get()) as usize),
            entrance: self.entrance,
            rate,
            pace,
            anchor: self.anchor,
            counters: self.counters,
            downmix: Downmix::new(&format),
            sample_bytes: format.sample_bytes() as u64,
            blocks: match self.recorded {
                false => blocks,
                true => blocks.with_gaps(LONGEST_SILENCE),
            },
            committed: 0,
            behind: false,
            looked: started,
            last: 0,
            used: 0,
            bytes: Vec::new(),
            samples: Vec::new(),
        };
        let outcome = loop {
            match self.closing.try_recv() {
                Ok(done) => {
                    // The producer may be gone; then nobody asks.
                    break work.account().map(|account| _ = done.send(account));
                }
                // What was committed is recorded all the same.
                Err(TryRecvError::Disconnected) if self.recorded => {
                    break work.account().map(|_| ());
                }
                Err(TryRecvError::Disconnected) => break Ok(()),
                Err(TryRecvError::Empty) => {}
            }
            if let Err(error) = work.turn() {
                break Err(error);
            }
        };
        if let Err(error) = outcome {
            self.ended.send_replace(Some(Ended {
                code: EndCode::RingCorrupt,
                message: error.to_string(),
            }));
        }
        drop(work);
        drop(self.hold);
    }
}

struct Work {
    reader: Reader<SoundFormat>,
    filler: Filler,
    entrance: Entrance,
    rate: NonZeroU32,
    pace: Pace,
    anchor: Anchor,
    counters: Arc<SoundCounters>,
    downmix: Downmix,
    sample_bytes: u64,
    blocks: Blocks,
    /// Whether the last look has left blocks in the ring.
    behind: bool,
    /// How many blocks were committed at the last look, and when that was.
    committed: u64,
    looked: MonotonicTime,
    /// The newest block that was taken, and how many were.
    last: u64,
    used: u64,
    /// Kept for their memory.
    bytes: Vec<u8>,
    samples: Vec<Pcm>,
}

/// How fast blocks are taken.
enum Pace {
    /// As they are heard.
    Heard(Allowance),
    /// As there is room. They are brought to the rate of recordings on the way.
    Recorded(Resampler),
}

impl Work {
    /// Waits for blocks, for a moment at most, and takes those that are there.
    fn turn(&mut self) -> Result<(), SoundError> {
        // Nobody commits to a lossless ring that is full.
        if !self.behind && !self.reader.wait(Deadline::after(TURN))? {
            return Ok(());
        }
        let now = self.anchor.monotonic();
        self.take_all(now)?;
        thread::sleep(if self.may_take(now) { BREATH } else { TURN });
        Ok(())
    }

    /// Whether another block may be taken.
    fn may_take(&mut self, now: MonotonicTime) -> bool {
        match &mut self.pace {
            Pace::Heard(allowance) => !allowance.is_used_up(now),
            Pace::Recorded(_) => !self.filler.is_full() && !self.filler.is_closed(),
        }
    }

    fn take_all(&mut self, now: MonotonicTime) -> Result<(), SoundError> {
        let ready = self.reader.ready()?;
        let committed = self.reader.committed()?;
        let blocks = committed.saturating_sub(self.committed);
        let within = now.saturating_since(self.looked);
        if !possible(blocks, within) {
            return Err(SoundError::TooMany { blocks, within });
        }
        (self.committed, self.looked) = (committed, now);
        self.behind = false;
        for slot in ready.iter().take(MAX_SLOTS as usize) {
            if !self.may_take(now) {
                self.behind = true;
                break;
            }
            self.take(*slot, now)?;
        }
        self.counters.committed.set(committed);
        let passed_over = self.last.saturating_sub(self.used);
        self.counters.superseded.set(passed_over);
        self.counters.disbelieved.set(self.blocks.disbelieved());
        Ok(())
    }

    fn take(&mut self, slot: ReadySlot, now: MonotonicTime) -> Result<(), SoundError> {
        // The producer may have taken it back meanwhile: then it is missing, by the next one's number.
        let Some(taken) = self.reader.take(slot) else {
            return Ok(());
        };
        taken.copy_block(&mut self.bytes)?;
        let (sequence, first, captured) =
            (taken.sequence(), taken.frame_number(), taken.captured());
        drop(taken);
        self.last = sequence;
        self.used += 1;
        let count = self.bytes.len() as u64 / self.sample_bytes;
        let clocks = (now, self.anchor.suspended());
        let believed = match &mut self.pace {
            Pace::Heard(allowance) => {
                allowance.use_up(count);
                captured
            }
            Pace::Recorded(_) => None,
        };
        let heard = self.blocks.take(first, count, believed, clocks)?;
        // What is longer is no gap; then the sound begins anew, or in a recording just goes on.
        let missing = usize::try_from(heard.missing.unwrap_or(0)).unwrap_or(0);
        self.samples.clear();
        self.samples.resize(missing, [0.0; 2]);
        self.downmix.mix(&self.bytes, &mut self.samples);
        let moment = Moment {
            captured: heard.captured.map_or(Capture::Unknown, Capture::Told),
            came: now,
        };
        if let Pace::Recorded(resampler) = &mut self.pace {
            resampler.push(self.samples.drain(..));
            self.record(moment);
            return Ok(());
        }
        if heard.missing.is_none() {
            self.filler = self.entrance.begin_at(self.rate, self.rate.get() as usize);
        }
        if !self.filler.offer(&self.samples, moment) {
            // Nobody listens yet, or this comes faster than it is heard: what waits is old.
            self.filler.clear();
            self.filler.offer(&self.samples, moment);
        }
        Ok(())
    }

    /// Of a recording: hands on what the resampler has. Once nobody records any more, it is let go.
    fn record(&mut self, moment: Moment) {
        let Pace::Recorded(resampler) = &mut self.pace else {
            return;
        };
        self.samples.clear();
        resampler.pull(&mut self.samples, usize::MAX);
        let anchor = &self.anchor;
        let samples = self.samples.drain(..);
        self.filler.put(samples, moment, || anchor.monotonic());
    }

    /// Takes what was committed before the close, and says what became of all blocks.
    fn account(&mut self) -> Result<FrameCounts, SoundError> {
        let before = self.reader.committed()?;
        let now = self.anchor.monotonic();
        self.take_all(now)?;
        self.record_rest(before)?;
        let committed = self.reader.committed()?;
        Ok(FrameCounts {
            used: self.used,
            superseded: before.max(self.last).saturating_sub(self.used),
            late: committed.saturating_sub(before.max(self.last)),
        })
    }

    /// Of a recording: takes all blocks up to `last`, as there is room, as long as somebody records.
    fn record_rest(&mut self, last: u64) -> Result<(), SoundError> {
        let recorded = matches!(self.pace, Pace::Recorded(_));
        while recorded && self.last < last && !self.reader.ready()?.is_empty() {
            if self.filler.is_closed() {
                return Ok(());
            }
            thread::sleep(TURN);
            self.take_all(self.anchor.monotonic())?;
        }
        if let Pace::Recorded(resampler) = &mut self.pace {
            resampler.finish();
        }
        self.record(Moment {
            captured: Capture::Unknown,
            came: self.anchor.monotonic(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::time::Instant;

    use ringgear_ring::layout::Policy;
    use ringgear_ring::sound::SampleFormat;
    use ringgear_ring::{Captured, MemoryKind, RingMemory, Writer};

    use super::super::AudioPost;
    use super::super::inlet::Inlet;
    use super::super::post::post;
    use super::*;
    use crate::config::Limits;
    use crate::control::Accounts;

    /// A session on a thread, its producer's end, and what comes out.
    struct Scene {
        writer: Writer<SoundFormat>,
        counters: Arc<SoundCounters>,
        ended: watch::Receiver<Option<Ended>>,
        closing: Sender<oneshot::Sender<FrameCounts>>,
        post: AudioPost,
        thread: thread::JoinHandle<()>,
    }

    fn scene(rate: u32, channels: u32) -> Scene {
        scene_of(rate, channels, Policy::Latest)
    }

    fn scene_of(rate: u32, channels: u32, policy: Policy) -> Scene {
        let format = SoundFormat::new(SampleFormat::S16le, rate, channels).unwrap();
        let memory = RingMemory::create_as(MemoryKind::Memfd, policy, &format, 8).unwrap();
        let fd = memory.fd().try_clone_to_owned().unwrap();
        let bytes = memory.bytes() as u64;
        let writer = Writer::from_fd(fd, &format, bytes, 8).unwrap();
        let (slot, post) = post(policy == Policy::Lossless);
        let (ended, said) = watch::channel(None);
        let (closing, closed) = channel();
        let counters = Arc::<SoundCounters>::default();
        let session = SoundSession {
            reader: Reader::new(memory),
            recorded: policy == Policy::Lossless,
            entrance: Entrance(slot),
            anchor: Anchor::new(Arc::new(crate::clock::SystemClock)),
            counters: Arc::clone(&counters),
            ended,
            closing: closed,
            hold: Accounts::new(Limits::default()).session(0, 1).unwrap(),
        };
        Scene {
            writer,
            counters,
            ended: said,
            closing,
            post,
            thread: thread::spawn(move || session.run()),
        }
    }

    impl Scene {
        fn put(&mut self, values: &[i16], first: u64, captured: Option<Captured>) {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let slot = self.writer.begin().unwrap();
            slot.commit_block(&bytes, first, captured).unwrap();
        }

        fn inlet(&self) -> Inlet {
            let within = Duration::from_secs(20);
            let mut mail = self.post.collect(within).unwrap();
            mail.inlets.pop_front().expect("there is an inlet")
        }

        fn close(self) -> FrameCounts {
            let (done, account) = oneshot::channel();
            self.closing.send(done).unwrap();
            let account = account.blocking_recv().unwrap();
            self.thread.join().unwrap();
            account
        }
    }

    /// Waits until `count` samples are there, and takes them.
    fn heard(inlet: &Inlet, count: usize) -> Vec<Pcm> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut taken = Vec::new();
        while taken.len() < count {
            assert!(Instant::now() < deadline, "{}", taken.len());
            inlet.take(count - taken.len(), |samples| taken.extend(samples));
            thread::yield_now();
        }
        taken
    }

    #[test]
    fn blocks_are_heard_in_stereo_with_silence_for_what_is_missing() {
        let mut scene = scene(8000, 1);
        let inlet = scene.inlet();
        assert_eq!(inlet.rate().get(), 8000);
        scene.put(&[16_384; 2], 0, None);
        scene.put(&[8192], 5, Some(Captured(7)));
        let silent = [0.0; 2];
        let (half, quarter) = ([0.5; 2], [0.25; 2]);
        assert_eq!(
            heard(&inlet, 6),
            [half, half, silent, silent, silent, quarter]
        );
        assert!(
            inlet
                .arrivals()
                .iter()
                .all(|a| a.moment.captured == Capture::Unknown)
        );
        let counters = Arc::clone(&scene.counters);
        let account = scene.close();
        assert_eq!((account.used, account.superseded, account.late), (2, 0, 0));
        let told = (counters.committed.get(), counters.disbelieved.get());
        assert_eq!(told, (2, 1));
        assert!(inlet.is_over());
    }

    #[test]
    fn after_a_long_gap_the_sound_begins_anew() {
        let mut scene = scene(8000, 2);
        let first = scene.inlet();
        scene.put(&[1; 4], 0, None);
        heard(&first, 2);
        scene.put(&[1; 4], 1 << 50, None);
        let second = scene.inlet();
        heard(&second, 2);
        assert!(first.is_over());
        scene.close();
    }

    #[test]
    fn a_recording_takes_every_block_however_long_it_waits() {
        const BLOCKS: u64 = 120;
        let mut scene = scene_of(8000, 1, Policy::Lossless);
        let mut inlet = Some(scene.inlet());
        assert_eq!(inlet.as_ref().map(Inlet::rate), Some(SAMPLE_RATE));
        let mut taker = None;
        for block in 0..BLOCKS {
            while !scene
                .writer
                .wait_for_room(Deadline::after(Duration::from_millis(300)))
                .unwrap()
            {
                // The ring and the inlet are full: only now somebody listens.
                let Some(inlet) = inlet.take() else { continue };
                let most = usize::try_from(BLOCKS * 6000).unwrap() - 10;
                taker = Some(thread::spawn(move || heard(&inlet, most)));
            }
            // Nor does it matter what it says of the time.
            scene.put(&[8192; 1000], 1000 * block, Some(Captured(7)));
        }
        let taker = taker.expect("it was held back");
        let counters = Arc::clone(&scene.counters);
        let account = scene.close();
        assert_eq!(
            (account.used, account.superseded, account.late),
            (BLOCKS, 0, 0)
        );
        assert_eq!(counters.disbelieved.get(), 0);
        let heard = taker.join().unwrap();
        let (begun, ends) = (1000, heard.len() - 1000);
        let even = |pcm: &Pcm| (pcm[0] - 0.25).abs() < 0.001;
        assert!(heard[begun..ends].iter().all(even));
    }

    #[test]
    fn a_producer_that_lies_is_told_about_what() {
        let mut scene = scene(8000, 2);
        scene.put(&[1; 4], 100, None);
        scene.put(&[1; 4], 101, None);
        scene.thread.join().unwrap();
        let ended = scene.ended.borrow().clone().unwrap();
        assert_eq!(ended.code, EndCode::RingCorrupt);
        let named = ended.message.contains("sample 101") && ended.message.contains("102");
        assert!(named, "{}", ended.message);
    }
}
