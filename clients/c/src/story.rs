//! What a producer in C's hands remembers between calls: its last error, why its daemon is away, and the end that it came to.

use std::ffi::c_int;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringgear_producer::ProducerError;
use ringgear_producer::messages::FrameCounts;

use crate::code::{DROPPED, Failure, OK};

/// What a call on a producer comes to.
pub(crate) enum Step {
    Done,
    /// The daemon is away.
    Dropped,
}

#[derive(Debug, Default)]
pub(crate) struct Story {
    away: Listener,
    /// What can't heal, once it has come.
    over: Option<(c_int, String)>,
    said: String,
}

/// Hears why the daemon is away.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listener(Arc<Mutex<String>>);

impl Listener {
    /// Why it is; nothing once it is back.
    pub(crate) fn tell(&self, why: String) {
        *self.why() = why;
    }

    fn why(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Story {
    pub(crate) fn listener(&self) -> Listener {
        self.away.clone()
    }

    /// What the producer has come to, which every later call returns.
    pub(crate) fn over(&self) -> Option<Failure> {
        self.over.as_ref().map(|(code, text)| Failure {
            code: *code,
            text: text.clone(),
            is_final: true,
        })
    }

    /// Remembers what a call came to; its code.
    pub(crate) fn note(&mut self, outcome: Result<Step, Failure>) -> c_int {
        match outcome {
            Ok(Step::Done) => OK,
            Ok(Step::Dropped) => {
                self.said.clone_from(&self.away.why());
                DROPPED
            }
            Err(failure) => {
                if failure.is_final {
                    self.over = Some((failure.code, failure.text.clone()));
                }
                self.said = failure.text;
                failure.code
            }
        }
    }

    /// What was said last.
    pub(crate) fn said(&self) -> &str {
        &self.said
    }

    /// What closing came to. The code is what ended the producer before, if anything did.
    pub(crate) fn close(
        &self,
        counts: Result<Option<FrameCounts>, ProducerError>,
    ) -> Result<(c_int, Option<FrameCounts>), Failure> {
        if let Some(failure) = self.over() {
            return Err(failure);
        }
        let counts = counts?;
        let code = if counts.is_some() { OK } else { DROPPED };
        Ok((code, counts))
    }
}
