//! FFmpeg's pipe as pictures: each goes straight to its place. Every wait looks up now and then, whether it is still wanted.

use std::io::{ErrorKind, PipeReader, Read};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Stop;
use super::fragments::FragmentError;
use crate::encode::nut::{self, NutError, NutHead};

/// How often a wait looks up.
const LOOK_UP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
/// What is read at once before a picture begins: little, for what is beyond goes a detour.
const HEADS: usize = 4096;

/// Why there are no more pictures.
#[derive(Debug, thiserror::Error)]
pub(super) enum Break {
    /// It was asked to stop.
    #[error("it was stopped")]
    Stopped,
    /// FFmpeg has closed its pipe.
    #[error("FFmpeg gives no more pictures")]
    Closed,
    /// FFmpeg runs and gives nothing.
    #[error("nothing has come for {0:?}")]
    Silent(Duration),
    /// What FFmpeg writes makes no sense.
    #[error(transparent)]
    Nut(#[from] NutError),
    /// The same of what is copied.
    #[error(transparent)]
    Mp4(#[from] FragmentError),
}

/// The pipe.
pub(super) struct Pipe<'a> {
    reader: PipeReader,
    stop: &'a Stop,
    /// How long it may be silent.
    pub(super) patience: Duration,
}

/// The pipe with pictures in it.
pub(super) struct Input<'a> {
    pub(super) pipe: Pipe<'a>,
    nut: nut::Reader,
}

impl<'a> Input<'a> {
    /// Pictures of up to `max_picture` bytes.
    pub(super) fn new(
        pipe: PipeReader,
        max_picture: usize,
        stop: &'a Stop,
        patience: Duration,
    ) -> Self {
        Self {
            pipe: Pipe::new(pipe, stop, patience),
            nut: nut::Reader::new(max_picture),
        }
    }

    /// The next picture's head, or the track's, waited for.
    pub(super) fn head(&mut self) -> Result<NutHead, Break> {
        let mut buffer = [0; HEADS];
        loop {
            if let Some(head) = self.nut.head()? {
                return Ok(head);
            }
            let count = self.pipe.read(&mut buffer)?;
            self.nut.push(&buffer[..count]);
        }
    }

    /// Moves the picture whose head has come into `place`, which has its size.
    pub(super) fn fill(&mut self, place: &mut [u8]) -> Result<(), Break> {
        let mut done = self.nut.take(place);
        while done < place.len() {
            let count = self.pipe.read(&mut place[done..])?;
            self.nut.passed(count);
            done += count;
        }
        Ok(())
    }
}

impl<'a> Pipe<'a> {
    pub(super) fn new(reader: PipeReader, stop: &'a Stop, patience: Duration) -> Self {
        Self {
            reader,
            stop,
            patience,
        }
    }

    /// What has come, waited for: at least a byte.
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Break> {
        let since = Instant::now();
        loop {
            if self.stop.is_set() {
                return Err(Break::Stopped);
            }
            let mut ready = [PollFd::new(&self.reader, PollFlags::IN)];
            match poll(&mut ready, Some(&LOOK_UP)) {
                Ok(0) if since.elapsed() >= self.patience => {
                    return Err(Break::Silent(self.patience));
                }
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(_) => return Err(Break::Closed),
            }
            match self.reader.read(into) {
                Ok(0) => return Err(Break::Closed),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Break::Closed),
            }
        }
    }
}
