//! What a `ringgear_producer` is: a producer, its lock, and its story.

use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ringgear_producer::messages::FrameCounts;
use ringgear_producer::{Captured, FrameFormat, LinkEvent, ProducerOptions, SteadyProducer};

use crate::abi::Counters;
use crate::code::Failure;
use crate::steady_frame::SteadyFrame;
use crate::story::{Step, Story};

/// A producer, in C's hands.
#[derive(Debug)]
pub struct Handle(Mutex<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    producer: SteadyFrame,
    format: FrameFormat,
    /// The counters as they were when a frame was last begun: until it ends they don't change.
    counters: Counters,
    story: Story,
}

impl Handle {
    pub(crate) fn open(options: ProducerOptions) -> Result<Self, Failure> {
        let format = options.format.clone();
        let story = Story::default();
        let told = story.listener();
        let producer = SteadyProducer::open(options, move |event| {
            told.tell(match event {
                LinkEvent::Waiting { cause } => {
                    format!("{cause}; frames are dropped until the daemon is back")
                }
                LinkEvent::Back { .. } => String::new(),
            });
        })?;
        Ok(Self(Mutex::new(Inner {
            counters: counters(&producer),
            producer: SteadyFrame::new(producer),
            format,
            story,
        })))
    }

    /// The producer, locked; none after a panic within it.
    pub(crate) fn lock(&self) -> Option<MutexGuard<'_, Inner>> {
        self.0.lock().ok()
    }

    /// Ends the producer. The code is what ended it before, if anything did.
    pub(crate) fn close(self) -> Result<(c_int, Option<FrameCounts>), Failure> {
        let inner = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        inner.story.close(inner.producer.close())
    }
}

impl Inner {
    /// Runs a step and keeps what it says. A producer that has come to its end runs none, and says its end again.
    pub(crate) fn step(&mut self, run: impl FnOnce(&mut Self) -> Result<Step, Failure>) -> c_int {
        let outcome = match self.story.over() {
            Some(failure) => Err(failure),
            None => run(self),
        };
        self.story.note(outcome)
    }

    pub(crate) fn said(&self) -> &str {
        self.story.said()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.producer.idle().map_or(self.counters, counters)
    }

    pub(crate) fn format(&self) -> &FrameFormat {
        &self.format
    }

    /// Begins a frame, and says its number.
    pub(crate) fn begin(&mut self) -> Result<Option<u64>, Failure> {
        let number = self.idle()?.next_frame_number();
        self.counters = self.counters();
        match self.producer.begin() {
            Ok(true) => Ok(Some(number)),
            Ok(false) => Ok(None),
            Err(error) => Err(Failure::last(error)),
        }
    }

    /// The bytes of the frame that was begun.
    pub(crate) fn frame(&mut self) -> Result<&mut [u8], Failure> {
        self.producer.frame().ok_or_else(no_frame)
    }

    pub(crate) fn commit(&mut self, captured: Option<Captured>) -> Result<(), Failure> {
        self.producer
            .commit(captured)
            .then_some(())
            .ok_or_else(no_frame)
    }

    pub(crate) fn abandon(&mut self) -> Result<(), Failure> {
        self.producer.abandon().then_some(()).ok_or_else(no_frame)
    }

    pub(crate) fn check(&mut self) -> Result<Step, Failure> {
        let producer = self.idle()?;
        match producer.check() {
            Ok(()) if producer.is_connected() => Ok(Step::Done),
            Ok(()) => Ok(Step::Dropped),
            Err(error) => Err(Failure::last(error)),
        }
    }

    fn idle(&mut self) -> Result<&mut SteadyProducer, Failure> {
        self.producer.idle_mut().ok_or_else(|| {
            Failure::order(
                "a frame is begun already: call ringgear_commit or ringgear_abandon first",
            )
        })
    }
}

fn no_frame() -> Failure {
    Failure::order("no frame is begun: call ringgear_begin first, and look at what it returns")
}

fn counters(producer: &SteadyProducer) -> Counters {
    Counters {
        committed: producer.committed(),
        superseded: producer.superseded(),
        dropped: producer.dropped(),
        sessions: producer.sessions(),
        connected: u64::from(producer.is_connected()),
    }
}
