//! The sound of `ringgear pattern --clap`: silence, and a click whenever the picture flashes, as fast as it happens: to the stream itself, or to a FIFO. What it and
//! the picture say of one moment was captured at the same moment, so whoever plays both can be measured.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringgear_producer::{AudioProducer, Captured, SampleFormat, SoundFormat};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use super::CliError;
use super::feed;
use crate::clock::MonotonicTime;

/// Samples per second of a FIFO; one channel, 16 bits.
const FIFO_RATE: u32 = 48_000;
/// Likewise of a session of sound: not the rate that is published, so that it has to be found again.
const SESSION_RATE: u32 = 44_100;
/// How long a click is heard.
const CLICK: Duration = Duration::from_millis(10);
/// So often its tone changes its sign in a second: 1 kHz.
const CHANGES: u64 = 2000;
const LOUD: i16 = 24_000;

/// Where the sound goes.
enum Outlet {
    Fifo { path: PathBuf, fifo: File },
    Session(Box<AudioProducer>),
}

/// The sound of one run.
pub(super) struct Clap {
    outlet: Outlet,
    /// Samples a second.
    rate: u32,
    start: MonotonicTime,
    /// The samples that were written, or nobody was there to read.
    written: u64,
    /// The first sample of the newest click.
    click: Option<u64>,
    bytes: Vec<u8>,
}

impl Clap {
    /// Sound for the FIFO at `path`, which is made if nothing is there, from `start` on.
    pub(super) fn to_fifo(path: &Path, start: MonotonicTime) -> Result<Self, CliError> {
        let failed = |error: io::Error| {
            CliError::Failed(format!(
                "the sound can't be written to {}: {error}; name a FIFO, or a new file in a folder of your own",
                path.display()
            ))
        };
        let mode = Mode::from_raw_mode(0o644);
        match mknodat(CWD, path, FileType::Fifo, mode, 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(failed(error.into())),
        }
        // Opened for both, it neither waits for a reader nor breaks when one goes.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let fifo = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)
            .map_err(failed)?;
        let path = path.to_owned();
        Ok(Self::new(Outlet::Fifo { path, fifo }, FIFO_RATE, start))
    }

    /// Sound for the stream itself, by a session beside the one of its pictures.
    pub(super) fn to_stream(
        socket: &Path,
        (stream, take_over): (&str, bool),
        start: MonotonicTime,
    ) -> Result<Self, CliError> {
        let format = SoundFormat::new(SampleFormat::S16le, SESSION_RATE, 1)
            .map_err(|error| CliError::Failed(error.to_string()))?;
        let producer = feed::open_sound(socket, stream, format, take_over, "ringgear-pattern")?;
        let outlet = Outlet::Session(Box::new(producer));
        Ok(Self::new(outlet, SESSION_RATE, start))
    }

    fn new(outlet: Outlet, rate: u32, start: MonotonicTime) -> Self {
        Self {
            outlet,
            rate,
            start,
            written: 0,
            click: None,
            bytes: Vec::new(),
        }
    }

    /// Something flashes at `now`.
    pub(super) fn click(&mut self, now: MonotonicTime) {
        self.click = Some(self.sample_at(now));
    }

    /// Writes what was heard until this moment, which is `now` on the clock of the start. What a full FIFO has no room for is lost, as a sound card's is.
    pub(super) fn hear_until(&mut self, now: MonotonicTime) -> Result<(), CliError> {
        let until = self.sample_at(now);
        let heard = (self.written..until).map(|at| value(at, self.click, self.rate.into()));
        self.bytes.clear();
        self.bytes.extend(heard.flat_map(i16::to_le_bytes));
        let lasts = until.saturating_sub(self.written) * 1_000_000_000 / u64::from(self.rate);
        self.written = until;
        match &mut self.outlet {
            Outlet::Session(producer) => {
                let captured = Captured(ringgear_producer::now().0.saturating_sub(lasts));
                producer.write(&self.bytes, Some(captured))?;
                Ok(())
            }
            Outlet::Fifo { path, fifo } => match fifo.write(&self.bytes) {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(error) => Err(CliError::Failed(format!(
                    "the sound can't be written to {}: {error}",
                    path.display()
                ))),
            },
        }
    }

    /// Ends a session of sound in good order.
    pub(super) fn close(self) {
        if let Outlet::Session(producer) = self.outlet {
            feed::close_sound(*producer);
        }
    }

    fn sample_at(&self, time: MonotonicTime) -> u64 {
        let since = time.saturating_since(self.start).as_nanos();
        u64::try_from(since * u128::from(self.rate) / 1_000_000_000).unwrap_or(u64::MAX)
    }
}

fn value(at: u64, click: Option<u64>, rate: u64) -> i16 {
    let length = u64::try_from(CLICK.as_millis()).unwrap_or(0) * rate / 1000;
    match click.and_then(|click| at.checked_sub(click)) {
        Some(since) if since < length && (since * CHANGES / rate).is_multiple_of(2) => LOUD,
        Some(since) if since < length => -LOUD,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_click_is_heard_from_the_sample_of_its_flash_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clap");
        let at = |millis: u64| MonotonicTime(5_000_000_000 + millis * 1_000_000);
        let mut clap = Clap::to_fifo(&path, at(0)).unwrap();
        let mut reader = File::open(&path).unwrap();
        clap.hear_until(at(40)).unwrap();
        clap.click(at(40));
        clap.hear_until(at(80)).unwrap();
        let mut bytes = vec![0; 80 * 48 * 2];
        reader.read_exact(&mut bytes).unwrap();
        let samples: Vec<i16> = bytes
            .chunks_exact(2)
            .map(|bytes| i16::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        let first = samples.iter().position(|sample| *sample != 0);
        let last = samples.iter().rposition(|sample| *sample != 0);
        assert_eq!((first, last), (Some(40 * 48), Some(50 * 48 - 1)));
    }

    #[test]
    fn what_can_be_no_fifo_is_named() {
        let missing = Path::new("/nowhere/clap");
        let error = Clap::to_fifo(missing, MonotonicTime(0)).err().unwrap();
        assert!(error.to_string().contains("/nowhere/clap"), "{error}");
    }
}
