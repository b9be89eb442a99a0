//! What FFmpeg writes of a source that is copied, as it comes: its pictures, and each track of its sound from a pipe of its own. Sound is read first: of what
//! comes before a picture nothing is left behind it.

use std::io::{ErrorKind, PipeReader, Read};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Stop;
use super::ffmpeg::Pipes;
use super::fragments::{Fragment, Reader};
use super::input::Break;

/// Where the pictures come; sound comes behind them.
pub(super) const PICTURES: usize = 0;
/// What is read at once.
const BYTES: usize = 64 * 1024;
/// How often a wait looks up.
const LOOK_UP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
/// How long sound may take to end after the pictures.
const LAST_SOUND: Duration = Duration::from_secs(3);

/// All pipes of one opening.
pub(super) struct Inflow<'a> {
    inlets: Vec<Inlet>,
    stop: &'a Stop,
    /// How long there may be no pictures.
    pub(super) patience: Duration,
    buffer: Vec<u8>,
    /// Since when a picture is waited for; none while the one before is in somebody's hands.
    since: Option<Instant>,
}

/// One pipe.
struct Inlet {
    /// Until it is closed.
    pipe: Option<PipeReader>,
    fragments: Reader,
    /// What comes of it can't be understood: it is let go, for FFmpeg must not wait.
    broken: bool,
}

impl<'a> Inflow<'a> {
    pub(super) fn new(pipes: Pipes, stop: &'a Stop, patience: Duration) -> Self {
        let pipes = std::iter::once(pipes.pictures).chain(pipes.sounds);
        let inlet = |pipe| Inlet {
            pipe: Some(pipe),
            fragments: Reader::default(),
            broken: false,
        };
        Self {
            inlets: pipes.map(inlet).collect(),
            stop,
            patience,
            buffer: vec![0; BYTES],
            since: None,
        }
    }

    /// The next that comes, and from which pipe; waited for.
    ///
    /// # Errors
    /// Why no more pictures come. The end of the sound alone is none.
    pub(super) fn next(&mut self) -> Result<(usize, Fragment), Break> {
        loop {
            for (place, inlet) in self.inlets.iter_mut().enumerate().rev() {
                match inlet.fragments.next() {
                    Ok(Some(fragment)) => {
                        if place == PICTURES {
                            self.since = None;
                        }
                        return Ok((place, fragment));
                    }
                    Ok(None) => {}
                    Err(error) if place == PICTURES => return Err(error.into()),
                    Err(error) => {
                        tracing::warn!(
                            "the sound of a source can't be read any more, and silence follows: {error}"
                        );
                        inlet.fragments = Reader::default();
                        inlet.broken = true;
                    }
                }
            }
            self.read()?;
        }
    }

    /// Reads what has come, of sound if there is any.
    fn read(&mut self) -> Result<(), Break> {
        let since = *self.since.get_or_insert_with(Instant::now);
        loop {
            if self.stop.is_set() {
                return Err(Break::Stopped);
            }
            let ended = self.inlets[PICTURES].pipe.is_none();
            let open = self.inlets.iter().any(|inlet| inlet.pipe.is_some());
            if ended && (!open || since.elapsed() >= LAST_SOUND) {
                return Err(Break::Closed);
            }
            // Sound that goes on is no reason to wait for ever.
            if !ended && since.elapsed() >= self.patience {
                return Err(Break::Silent(self.patience));
            }
            if let Some(place) = self.ready() {
                return self.read_from(place);
            }
        }
    }

    /// The last pipe that has something, or has ended; none if that takes too long.
    fn ready(&self) -> Option<usize> {
        let open = self.inlets.iter().enumerate();
        let (places, mut waits): (Vec<usize>, Vec<PollFd<'_>>) = open
            .filter_map(|(place, inlet)| {
                let pipe = inlet.pipe.as_ref()?;
                Some((place, PollFd::new(pipe, PollFlags::IN)))
            })
            .unzip();
        // A signal is no news, and what can't be waited for shows when it is read.
        poll(&mut waits, Some(&LOOK_UP)).ok()?;
        let ready = places.iter().zip(&waits).rev();
        let mut ready = ready.filter(|(_, wait)| !wait.revents().is_empty());
        ready.next().map(|(place, _)| *place)
    }

    fn read_from(&mut self, place: usize) -> Result<(), Break> {
        let inlet = &mut self.inlets[place];
        let Some(pipe) = &mut inlet.pipe else {
            return Ok(());
        };
        match pipe.read(&mut self.buffer) {
            Ok(count) if count > 0 => {
                if !inlet.broken {
                    inlet.fragments.push(&self.buffer[..count]);
                }
                if place == PICTURES {
                    self.since = None;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => {
                inlet.pipe = None;
                if place == PICTURES {
                    self.since = Some(Instant::now());
                }
            }
        }
        Ok(())
    }
}
