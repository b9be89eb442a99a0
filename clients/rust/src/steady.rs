//! A producer that outlives its daemon: while there is none, frames are dropped and a thread of its own reconnects with
//! backoff, so that the camera's loop never waits.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringgear_ring::Captured;
use ringgear_ring::format::FrameFormat;

use crate::error::ProducerError;
use crate::messages::{FrameCounts, Opened};
use crate::producer::{Frame, ParkedFrame, Producer, ProducerOptions};

/// The first pause between two attempts; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts: with the jitter and the opening, a producer is back within two seconds of the daemon.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A session that lasted this long was a good one: the next begins with the first pause again.
const GOOD_SESSION: Duration = Duration::from_secs(2);

/// What a person may want to know: told once when it happens.
#[derive(Debug)]
pub enum LinkEvent {
    /// The session was lost; frames are dropped until the daemon is back.
    Waiting {
        /// How it was lost.
        cause: ProducerError,
    },
    /// A new session has begun.
    Back {
        /// How many frames were dropped meanwhile.
        dropped: u64,
        /// How long it took.
        away: Duration,
    },
}

/// A [`Producer`] that reconnects by itself. The first opening must succeed; later only what can't heal is an error: a takeover by another
/// producer, or a daemon that no longer has the stream.
pub struct SteadyProducer {
    options: ProducerOptions,
    link: Link,
    opened: Opened,
    /// Counts every frame of the camera, dropped ones too, over all sessions.
    next_frame: u64,
    dropped: u64,
    /// Sessions opened so far, the present one included.
    sessions: u64,
    /// Frames committed in sessions that are over.
    committed_before: u64,
    /// How many of them gave way to newer ones.
    superseded_before: u64,
    pause: Duration,
    on_event: Box<dyn FnMut(LinkEvent) + Send>,
}

enum Link {
    Up {
        producer: Box<Producer>,
        since: Instant,
    },
    Away {
        attempts: Reconnecting,
        since: Instant,
        dropped_before: u64,
    },
    /// Lost for good; the error was returned.
    Over,
}

impl SteadyProducer {
    /// Opens the first session. `on_event` is called from the thread that writes frames.
    ///
    /// # Errors
    /// As [`Producer::open`].
    pub fn open(
        options: ProducerOptions,
        on_event: impl FnMut(LinkEvent) + Send + 'static,
    ) -> Result<Self, ProducerError> {
        let producer = Producer::open(&options)?;
        // Who took over once doesn't do so again when the daemon comes back: the stream may rightly be another's by then.
        let options = ProducerOptions {
            take_over: false,
            ..options
        };
        Ok(Self {
            options,
            opened: producer.opened().clone(),
            link: Link::Up {
                producer: Box::new(producer),
                since: Instant::now(),
            },
            next_frame: 0,
            dropped: 0,
            sessions: 1,
            committed_before: 0,
            superseded_before: 0,
            pause: FIRST_PAUSE,
            on_event: Box::new(on_event),
        })
    }

    /// What the daemon said when the newest session began.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The frames' format.
    pub fn format(&self) -> &FrameFormat {
        &self.options.format
    }

    /// The number that the next frame has.
    pub fn next_frame_number(&self) -> u64 {
        self.next_frame
    }

    /// How many frames were dropped because no daemon was there.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many frames were committed, over all sessions.
    pub fn committed(&self) -> u64 {
        self.committed_before + self.session().map_or(0, Producer::committed)
    }

    /// How many of the committed frames gave way to newer ones because the ring was full, over all sessions.
    pub fn superseded(&self) -> u64 {
        self.superseded_before + self.session().map_or(0, Producer::superseded)
    }

    /// How many sessions were opened so far: more than one says that the producer has come back.
    pub fn sessions(&self) -> u64 {
        self.sessions
    }

    /// Whether there is a session, as far as the last call noticed.
    pub fn is_connected(&self) -> bool {
        self.session().is_some()
    }

    fn session(&self) -> Option<&Producer> {
        match &self.link {
            Link::Up { producer, .. } => Some(producer),
            Link::Away { .. } | Link::Over => None,
        }
    }

    /// Room for the next frame; none while the daemon is away, and then the frame counts as dropped. Waits for nothing but a lossless ring's free slot.
    ///
    /// # Errors
    /// What can't heal; every later call fails too.
    pub fn begin(&mut self) -> Result<Option<Frame<'_>>, ProducerError> {
        self.check()?;
        loop {
            let Link::Up { producer, .. } = &mut self.link else {
                self.next_frame += 1;
                self.dropped += 1;
                return Ok(None);
            };
            if producer.has_room()? {
                break;
            }
            self.check()?;
        }
        let Link::Up { producer, .. } = &mut self.link else {
            return Ok(None);
        };
        producer.set_next_frame_number(self.next_frame);
        self.next_frame += 1;
        producer.begin_unchecked().map(Some)
    }

    /// The frame that was parked, to go on with; none if its session is over, and then the frame counts as dropped.
    pub fn resume(&mut self, parked: ParkedFrame) -> Option<Frame<'_>> {
        let resumed = match &mut self.link {
            Link::Up { producer, .. } => producer.resume(parked),
            Link::Away { .. } | Link::Over => None,
        };
        self.dropped += u64::from(resumed.is_none());
        resumed
    }

    /// Writes a whole frame, given plane after plane without padding, captured at `captured`, or now. False if it was dropped.
    ///
    /// # Errors
    /// What can't heal, and [`ringgear_ring::RingError::FrameBytes`].
    pub fn write(
        &mut self,
        frame: &[u8],
        captured: Option<Captured>,
    ) -> Result<bool, ProducerError> {
        let Some(mut next) = self.begin()? else {
            return Ok(false);
        };
        next.fill(frame)?;
        next.commit(captured);
        Ok(true)
    }

    /// Notices a session lost and a session found. [`Self::begin`] does so too; call this where frames are rare. Waits for nothing.
    ///
    /// # Errors
    /// What can't heal.
    pub fn check(&mut self) -> Result<(), ProducerError> {
        match &mut self.link {
            Link::Up { producer, since } => {
                let Err(cause) = producer.check() else {
                    return Ok(());
                };
                let lasted = since.elapsed();
                self.committed_before += producer.committed();
                self.superseded_before += producer.superseded();
                self.lose(cause, lasted)
            }
            Link::Away {
                attempts,
                since,
                dropped_before,
            } => match attempts.outcome() {
                None => Ok(()),
                Some(Ok(producer)) => {
                    let event = LinkEvent::Back {
                        dropped: self.dropped - *dropped_before,
                        away: since.elapsed(),
                    };
                    self.opened = producer.opened().clone();
                    self.sessions += 1;
                    self.link = Link::Up {
                        producer,
                        since: Instant::now(),
                    };
                    (self.on_event)(event);
                    Ok(())
                }
                Some(Err(error)) => {
                    self.link = Link::Over;
                    Err(error)
                }
            },
            Link::Over => Err(ProducerError::Gone),
        }
    }

    fn lose(&mut self, cause: ProducerError, lasted: Duration) -> Result<(), ProducerError> {
        self.link = Link::Over;
        if !cause.can_heal() {
            return Err(cause);
        }
        self.pause = if lasted >= GOOD_SESSION {
            FIRST_PAUSE
        } else {
            (self.pause * 2).min(LONGEST_PAUSE)
        };
        self.link = Link::Away {
            attempts: Reconnecting::start(self.options.clone(), self.pause)?,
            since: Instant::now(),
            dropped_before: self.dropped,
        };
        (self.on_event)(LinkEvent::Waiting { cause });
        Ok(())
    }

    /// Ends the session in good order. None if the daemon is away.
    ///
    /// # Errors
    /// As [`Producer::close`].
    pub fn close(self) -> Result<Option<FrameCounts>, ProducerError> {
        match self.link {
            Link::Up { producer, .. } => producer.close().map(Some),
            Link::Away { .. } | Link::Over => Ok(None),
        }
    }
}

impl std::fmt::Debug for SteadyProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let up = matches!(self.link, Link::Up { .. });
        f.debug_struct("SteadyProducer")
            .field("stream", &self.options.stream)
            .field("up", &up)
            .field("next_frame", &self.next_frame)
            .finish_non_exhaustive()
    }
}

/// The thread that tries again and again. Dropping this ends it.
struct Reconnecting {
    outcome: Receiver<Result<Box<Producer>, ProducerError>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reconnecting {
    fn start(options: ProducerOptions, pause: Duration) -> Result<Self, ProducerError> {
        let (send, outcome) = channel();
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("ringgear-link".to_owned())
            .spawn(move || {
                if let Some(end) = reconnect(&options, pause, &stopped) {
                    // Nobody listens any more: the session, if there is one, ends with this.
                    let _ = send.send(end);
                }
            })
            .map_err(ProducerError::Thread)?;
        Ok(Self {
            outcome,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn outcome(&self) -> Option<Result<Box<Producer>, ProducerError>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(ProducerError::Gone)),
        }
    }
}

impl Drop for Reconnecting {
    fn drop(&mut self) {
        drop(self.stop.take());
        // The thread is left to itself: in the middle of an opening it may wait for an answer, and the camera's loop must not.
        drop(self.thread.take());
    }
}

/// Tries until it succeeds, can't heal, or is stopped (none).
fn reconnect(
    options: &ProducerOptions,
    mut pause: Duration,
    stopped: &Receiver<()>,
) -> Option<Result<Box<Producer>, ProducerError>> {
    loop {
        match stopped.recv_timeout(jittered(pause)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return None,
        }
        match Producer::open(options) {
            Ok(producer) => return Some(Ok(Box::new(producer))),
            Err(error) if error.can_heal() => pause = (pause * 2).min(LONGEST_PAUSE),
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Three quarters to five quarters of `pause`, so that many producers don't come back at one instant. The clock's low bits are random enough for that.
fn jittered(pause: Duration) -> Duration {
    let mixed = crate::producer::now().0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let share = u32::try_from(mixed % 512).unwrap_or(0);
    pause * (768 + share) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_near_what_they_are() {
        for _ in 0..1000 {
            let pause = jittered(Duration::from_millis(1000));
            assert!(pause >= Duration::from_millis(750) && pause <= Duration::from_millis(1250));
        }
    }
}
