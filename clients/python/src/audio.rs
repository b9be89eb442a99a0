//! The link of a producer of sound. A block is copied twice, into `bytes` by Python and from there into the ring: sound is small.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::MutexExt as _;
use ringgear_producer::{
    AudioProducer, AudioProducerOptions, Captured, LinkEvent, SampleFormat, SoundFormat,
};

use super::{Counts, Events, errors, held};
use errors::{closed, to_python};

/// A producer of sound's link to the daemon. Its methods may be called from any thread.
#[pyclass(frozen, module = "ringgear._native")]
pub(super) struct AudioLink {
    /// None once it is closed.
    producer: Mutex<Option<AudioProducer>>,
    events: Events,
}

#[pymethods]
impl AudioLink {
    #[new]
    #[pyo3(signature = (socket, stream, format, rate, channels, slots, take_over, client))]
    #[expect(
        clippy::too_many_arguments,
        reason = "called from one place, by keywords"
    )]
    fn new(
        py: Python<'_>,
        socket: PathBuf,
        stream: String,
        format: &str,
        rate: u32,
        channels: u32,
        slots: Option<u32>,
        take_over: bool,
        client: String,
    ) -> PyResult<Self> {
        let samples =
            SampleFormat::from_name(format).ok_or_else(|| errors::unknown_sound_format(format))?;
        let format = SoundFormat::new(samples, rate, channels)
            .map_err(|error| errors::frame_error(&error.to_string()))?;
        let options = AudioProducerOptions {
            socket,
            slots,
            take_over,
            client,
            ..AudioProducerOptions::new(stream, format)
        };
        let events = Events::default();
        let heard = Arc::clone(&events);
        let on_event = move |event| held(&heard).push(told(event));
        // The daemon may take seconds to answer.
        let producer = py
            .detach(|| AudioProducer::open(options, on_event))
            .map_err(|error| to_python(&error))?;
        Ok(Self {
            producer: Mutex::new(Some(producer)),
            events,
        })
    }

    /// Writes samples as they lie in memory; False if they were dropped because the daemon is away.
    fn write(&self, py: Python<'_>, samples: &[u8], captured: Option<u64>) -> PyResult<bool> {
        let mut guard = self.lock(py);
        let producer = guard.as_mut().ok_or_else(closed)?;
        // Other threads run meanwhile: bytes don't change.
        let written = py.detach(|| producer.write(samples, captured.map(Captured)));
        written.map_err(|error| to_python(&error))
    }

    /// Notices a session lost, and a session found.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let mut guard = self.lock(py);
        let producer = guard.as_mut().ok_or_else(closed)?;
        producer.check().map_err(|error| to_python(&error))
    }

    /// Ends the session in good order: what became of its blocks, or None if the daemon is away, or it was closed before.
    fn close(&self, py: Python<'_>) -> PyResult<Option<Counts>> {
        let Some(producer) = self.lock(py).take() else {
            return Ok(None);
        };
        let counts = py
            .detach(|| producer.close())
            .map_err(|error| to_python(&error))?;
        Ok(counts.map(|counts| (counts.used, counts.superseded, counts.late)))
    }

    /// What happened since the last call.
    fn events(&self) -> Vec<(bool, String)> {
        std::mem::take(&mut *held(&self.events))
    }

    /// How the link fares, or None once it is closed.
    fn state(&self, py: Python<'_>) -> Option<AudioState> {
        let guard = self.lock(py);
        let producer = guard.as_ref()?;
        Some(AudioState {
            connected: producer.is_connected(),
            samples: producer.samples(),
            dropped: producer.dropped(),
            committed: producer.committed(),
            superseded: producer.superseded(),
            sessions: producer.sessions(),
            slots: producer.opened().slots,
        })
    }
}

/// How the link fares; counts are over all sessions.
#[pyclass(frozen, get_all, module = "ringgear._native")]
pub(super) struct AudioState {
    /// Whether there is a session, as far as the last call noticed.
    connected: bool,
    /// Samples written, dropped ones included.
    samples: u64,
    /// Samples dropped while the daemon was away.
    dropped: u64,
    /// Blocks committed.
    committed: u64,
    /// Committed blocks that gave way to newer ones in a full ring.
    superseded: u64,
    /// Sessions opened.
    sessions: u64,
    /// The ring's slots.
    slots: u32,
}

impl AudioLink {
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Option<AudioProducer>> {
        self.producer
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn told(event: LinkEvent) -> (bool, String) {
    match event {
        LinkEvent::Waiting { cause } => (
            false,
            format!("{cause}; sound is dropped until the daemon is back"),
        ),
        LinkEvent::Back { dropped, away } => {
            let away = away.as_secs_f64();
            let words = format!("the daemon is back after {away:.1} s; {dropped} samples dropped");
            (true, words)
        }
    }
}
