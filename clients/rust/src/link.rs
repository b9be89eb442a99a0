//! A link that outlives its sessions: while the daemon is away a thread of its own reconnects with backoff, so that whoever feeds it never waits.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::ProducerError;
use crate::messages::{FrameCounts, Opened};

/// The first pause between two attempts; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts: with the jitter and the opening, a producer is back within two seconds of the daemon.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A session that lasted this long was a good one: the next begins with the first pause again.
const GOOD_SESSION: Duration = Duration::from_secs(2);

/// What a person may want to know: told once when it happens.
#[derive(Debug)]
pub enum LinkEvent {
    /// The session was lost; what is written is dropped until the daemon is back.
    Waiting {
        /// How it was lost.
        cause: ProducerError,
    },
    /// A new session has begun.
    Back {
        /// How many frames, or samples of sound, were dropped meanwhile.
        dropped: u64,
        /// How long it took.
        away: Duration,
    },
}

/// A session, as a link sees it.
pub(crate) trait Linked: Sized + Send + 'static {
    /// What it is opened with.
    type Options: Clone + Send + 'static;

    fn open(options: &Self::Options) -> Result<Self, ProducerError>;
    fn opened(&self) -> &Opened;
    fn check(&mut self) -> Result<(), ProducerError>;
    /// Whether its ring has a slot for the writer; waits for that for a moment at most.
    fn has_room(&mut self) -> Result<bool, ProducerError>;
    fn committed(&self) -> u64;
    fn superseded(&self) -> u64;
    fn close(self) -> Result<FrameCounts, ProducerError>;
}

/// Sessions, one after the other.
pub(crate) struct Link<S: Linked> {
    options: S::Options,
    state: State<S>,
    opened: Opened,
    dropped: u64,
    /// Sessions opened so far, the present one included.
    sessions: u64,
    /// Slots committed in sessions that are over.
    committed_before: u64,
    /// How many of them gave way to newer ones.
    superseded_before: u64,
    pause: Duration,
    on_event: Box<dyn FnMut(LinkEvent) + Send>,
}

enum State<S> {
    Up {
        session: Box<S>,
        since: Instant,
    },
    Away {
        attempts: Reconnecting<S>,
        since: Instant,
        dropped_before: u64,
    },
    /// Lost for good; the error was returned.
    Over,
}

impl<S: Linked> Link<S> {
    /// Opens the first session with `first`, and all later ones with `again`.
    pub(crate) fn open(
        first: &S::Options,
        again: S::Options,
        on_event: impl FnMut(LinkEvent) + Send + 'static,
    ) -> Result<Self, ProducerError> {
        let session = S::open(first)?;
        Ok(Self {
            options: again,
            opened: session.opened().clone(),
            state: State::Up {
                session: Box::new(session),
                since: Instant::now(),
            },
            dropped: 0,
            sessions: 1,
            committed_before: 0,
            superseded_before: 0,
            pause: FIRST_PAUSE,
            on_event: Box::new(on_event),
        })
    }

    pub(crate) fn options(&self) -> &S::Options {
        &self.options
    }

    /// What the daemon said when the newest session began.
    pub(crate) fn opened(&self) -> &Opened {
        &self.opened
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Counts what was dropped.
    pub(crate) fn drop_some(&mut self, count: u64) {
        self.dropped += count;
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed_before + self.session().map_or(0, S::committed)
    }

    pub(crate) fn superseded(&self) -> u64 {
        self.superseded_before + self.session().map_or(0, S::superseded)
    }

    pub(crate) fn sessions(&self) -> u64 {
        self.sessions
    }

    /// The session, as far as the last call of [`Self::check`] noticed.
    pub(crate) fn session(&self) -> Option<&S> {
        match &self.state {
            State::Up { session, .. } => Some(session),
            State::Away { .. } | State::Over => None,
        }
    }

    pub(crate) fn session_mut(&mut self) -> Option<&mut S> {
        match &mut self.state {
            State::Up { session, .. } => Some(session),
            State::Away { .. } | State::Over => None,
        }
    }

    /// The session, once its ring has room: at once unless that is lossless and full. None while the daemon is away.
    ///
    /// # Errors
    /// What can't heal.
    pub(crate) fn with_room(&mut self) -> Result<Option<&mut S>, ProducerError> {
        loop {
            self.check()?;
            let Some(session) = self.session_mut() else {
                return Ok(None);
            };
            if session.has_room()? {
                break;
            }
        }
        Ok(self.session_mut())
    }

    /// Notices a session lost and a session found. Waits for nothing.
    ///
    /// # Errors
    /// What can't heal.
    pub(crate) fn check(&mut self) -> Result<(), ProducerError> {
        match &mut self.state {
            State::Up { session, since } => {
                let Err(cause) = session.check() else {
                    return Ok(());
                };
                let lasted = since.elapsed();
                self.committed_before += session.committed();
                self.superseded_before += session.superseded();
                self.lose(cause, lasted)
            }
            State::Away {
                attempts,
                since,
                dropped_before,
            } => match attempts.outcome() {
                None => Ok(()),
                Some(Ok(session)) => {
                    let event = LinkEvent::Back {
                        dropped: self.dropped - *dropped_before,
                        away: since.elapsed(),
                    };
                    self.opened = session.opened().clone();
                    self.sessions += 1;
                    self.state = State::Up {
                        session,
                        since: Instant::now(),
                    };
                    (self.on_event)(event);
                    Ok(())
                }
                Some(Err(error)) => {
                    self.state = State::Over;
                    Err(error)
                }
            },
            State::Over => Err(ProducerError::Gone),
        }
    }

    fn lose(&mut self, cause: ProducerError, lasted: Duration) -> Result<(), ProducerError> {
        self.state = State::Over;
        if !cause.can_heal() {
            return Err(cause);
        }
        self.pause = if lasted >= GOOD_SESSION {
            FIRST_PAUSE
        } else {
            (self.pause * 2).min(LONGEST_PAUSE)
        };
        self.state = State::Away {
            attempts: Reconnecting::start(self.options.clone(), self.pause)?,
            since: Instant::now(),
            dropped_before: self.dropped,
        };
        (self.on_event)(LinkEvent::Waiting { cause });
        Ok(())
    }

    /// Ends the session in good order. None if the daemon is away.
    pub(crate) fn close(self) -> Result<Option<FrameCounts>, ProducerError> {
        match self.state {
            State::Up { session, .. } => session.close().map(Some),
            State::Away { .. } | State::Over => Ok(None),
        }
    }
}

/// The thread that tries again and again. Dropping this ends it.
struct Reconnecting<S> {
    outcome: Receiver<Result<Box<S>, ProducerError>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl<S: Linked> Reconnecting<S> {
    fn start(options: S::Options, pause: Duration) -> Result<Self, ProducerError> {
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

    fn outcome(&self) -> Option<Result<Box<S>, ProducerError>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(ProducerError::Gone)),
        }
    }
}

impl<S> Drop for Reconnecting<S> {
    fn drop(&mut self) {
        drop(self.stop.take());
        // The thread is left to itself: in the middle of an opening it may wait for an answer, and the camera's loop must not.
        drop(self.thread.take());
    }
}

/// Tries until it succeeds, can't heal, or is stopped (none).
fn reconnect<S: Linked>(
    options: &S::Options,
    mut pause: Duration,
    stopped: &Receiver<()>,
) -> Option<Result<Box<S>, ProducerError>> {
    loop {
        match stopped.recv_timeout(jittered(pause)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return None,
        }
        match S::open(options) {
            Ok(session) => return Some(Ok(Box::new(session))),
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
