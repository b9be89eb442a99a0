//! What brings pictures to a stream's owner: a picture for each tick of a live stream, each frame of a recording.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::gate::Gate;
use super::life::{Ground, INGEST};
use super::owner::Event;
use crate::faults;
use crate::ingest::{Command, Ingest, IngestPlan, LosslessIngest, Sink, TickLog, TickPicture};
use crate::picture::Picture;
use crate::tick::Tick;

/// How many pictures may wait for the owner at most: two seconds of them, which it takes in one go once it runs.
const MOST_WAITING: usize = 64;

/// How long a recording waits for a producer that is gone without a close.
const RETURN: Duration = Duration::from_secs(10);

/// The body of ingest's thread.
type Body = Box<dyn FnOnce() + Send>;

/// What ingest is wired to.
pub(super) struct Intake {
    pub(super) obeyed: Receiver<Command>,
    pub(super) events: SyncSender<Event>,
    /// How many pictures wait for the owner.
    pub(super) waiting: Arc<AtomicUsize>,
}

impl Intake {
    /// Ingest of a live stream.
    pub(super) fn ticking(self, ground: &Ground, tick_log: Option<TickLog>) -> Body {
        let before = ground.newest.borrow().as_ref().map(Picture::input);
        let remembered = ground.desk.remembered();
        let remembered = before.or(remembered.map(|source| (source.format, source.size)));
        match remembered {
            // Without a picture there will be no sample that shows that all is well again.
            None => ground.shared.report().failure = None,
            // The first tick has one, with which the encoders are tried.
            Some(_) => ground.shared.report().starting = true,
        }
        let plan = IngestPlan {
            stream: ground.plan.name.clone(),
            grid: ground.grid,
            slack: ground.plan.slack,
            pace: ground.plan.pace,
            stale_after: ground.plan.stale_after,
            backfill: ground.plan.backfill,
            remembered,
            tick_log,
        };
        let (stream, events, waiting) = (ground.plan.name.clone(), self.events, self.waiting);
        let memory = ground.replay_memory.unwrap_or(u64::MAX);
        let mut sent: Option<Picture> = None;
        let sink = move |mut tick: TickPicture| {
            faults::point(INGEST, &stream);
            if waiting.fetch_add(1, Ordering::Relaxed) >= most_waiting(&tick.picture, memory)
                && let Some(before) = &sent
            {
                // An owner that gets no processor must not cost memory: the picture before is shown again.
                tick.picture = before.captured_at(tick.picture.captured);
            }
            sent = Some(tick.picture.clone());
            // The owner ends after ingest; if it has died, nobody is left to take pictures.
            drop(events.send(Event::Picture(tick)));
        };
        let ingest = Ingest::new(
            plan,
            ground.anchor.clone(),
            self.obeyed,
            Arc::clone(&ground.shared.counters),
            ground.newest.clone(),
            sink,
        );
        Box::new(move || ingest.run())
    }

    /// Ingest of a recording whose next frame is `first`.
    pub(super) fn recording(self, ground: &Ground, first: Tick, gate: Arc<Gate>) -> Body {
        let sink = GatedSink {
            stream: ground.plan.name.clone(),
            gate,
            waiting: self.waiting,
            events: self.events,
        };
        // A source comes back by itself, however long that takes.
        let patience = ground.plan.source.is_none().then_some(RETURN);
        let ingest = LosslessIngest::new(
            (ground.plan.name.clone(), patience),
            first,
            ground.anchor.clone(),
            self.obeyed,
            Arc::clone(&ground.shared.counters),
            ground.newest.clone(),
            sink,
        );
        let (bench, farewell) = (ground.bench.clone(), Arc::clone(&ground.farewell));
        Box::new(move || {
            let last = ingest.run();
            bench.finish();
            *farewell.lock().unwrap_or_else(PoisonError::into_inner) = last;
        })
    }
}

/// How many pictures like this one may wait for the owner, within `memory` bytes.
fn most_waiting(picture: &Picture, memory: u64) -> usize {
    let fit = memory / (picture.pixels().len() as u64).max(1);
    usize::try_from(fit)
        .unwrap_or(MOST_WAITING)
        .clamp(2, MOST_WAITING)
}

/// Where a recording's pictures go, held back by its gate.
struct GatedSink {
    stream: String,
    gate: Arc<Gate>,
    waiting: Arc<AtomicUsize>,
    events: SyncSender<Event>,
}

impl Sink for GatedSink {
    fn is_open(&self) -> bool {
        self.gate.is_open()
    }

    fn is_dead(&self) -> bool {
        self.gate.is_dead()
    }

    fn note_stop(&mut self) {
        self.gate.note_stop();
    }

    fn has_room(&mut self, time: Duration) -> bool {
        self.gate.has_room(time)
    }

    fn take(&mut self, picture: TickPicture) {
        faults::point(INGEST, &self.stream);
        self.gate.enter();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The owner ends after ingest; if it has died, nobody is left to take pictures.
        drop(self.events.send(Event::Picture(picture)));
    }
}
