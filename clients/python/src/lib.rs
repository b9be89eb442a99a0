//! The native half of the Python package `ringgear`: the link to the daemon and the slots' addresses.
//!
//! Pixels are copied by numpy, which releases the GIL meanwhile and knows all strides; a [`Slot`] gives it the shared memory by its
//! `__array_interface__`, and keeps that mapped for as long as an array looks at it. So nothing here needs `unsafe`: the limited API of
//! Python 3.9 has no buffer protocol, and is not missed.

#![forbid(unsafe_code)]

mod audio;
mod errors;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::MutexExt as _;
use pyo3::types::PyDict;
use ringgear_producer::{
    Captured, Frame, FrameFormat, LinkEvent, ParkedFrame, PixelFormat, ProducerOptions, SlotMemory,
    SteadyProducer,
};

use errors::{closed, to_python};

/// A producer's link to the daemon. Its methods may be called from any thread.
#[pyclass(frozen, module = "ringgear._native")]
struct Link {
    /// None once it is closed.
    producer: Mutex<Option<SteadyProducer>>,
    events: Events,
    strays: Strays,
}

/// Frames whose [`Slot`] Python forgot before it was committed or given back: each is given back when the next frame begins.
type Strays = Arc<Mutex<Vec<ParkedFrame>>>;

/// What happened to the link since it was last asked: (is it back, words for the log).
type Events = Arc<Mutex<Vec<(bool, String)>>>;

/// What `close` tells: frames used, superseded and late.
type Counts = (u64, u64, u64);

#[pymethods]
impl Link {
    #[new]
    #[pyo3(signature = (socket, stream, format, width, height, slots, take_over, client))]
    #[expect(
        clippy::too_many_arguments,
        reason = "called from one place, by keywords"
    )]
    fn new(
        py: Python<'_>,
        socket: PathBuf,
        stream: String,
        format: &str,
        width: u32,
        height: u32,
        slots: Option<u32>,
        take_over: bool,
        client: String,
    ) -> PyResult<Self> {
        let pixels =
            PixelFormat::from_name(format).ok_or_else(|| errors::unknown_format(format))?;
        let format = FrameFormat::packed(pixels, width, height)
            .map_err(|error| errors::frame_error(&error.to_string()))?;
        let options = ProducerOptions {
            socket,
            slots,
            take_over,
            client,
            ..ProducerOptions::new(stream, format)
        };
        let events = Events::default();
        let heard = Arc::clone(&events);
        let on_event = move |event| held(&heard).push(told(event));
        // The daemon may take seconds to answer.
        let producer = py
            .detach(|| SteadyProducer::open(options, on_event))
            .map_err(|error| to_python(&error))?;
        Ok(Self {
            producer: Mutex::new(Some(producer)),
            events,
            strays: Strays::default(),
        })
    }

    /// Room for the next frame, or None while the daemon is away.
    fn begin(&self, py: Python<'_>) -> PyResult<Option<Slot>> {
        let mut guard = self.lock(py);
        let producer = guard.as_mut().ok_or_else(closed)?;
        for stray in std::mem::take(&mut *held(&self.strays)) {
            drop(producer.resume(stray));
        }
        // Other threads run meanwhile, as a recording's full ring makes its producer wait.
        let parked = py.detach(|| producer.begin().map(|frame| frame.map(Frame::park)));
        let parked = parked.map_err(|error| to_python(&error))?;
        Ok(parked.map(|parked| Slot::new(parked, Arc::clone(&self.strays))))
    }

    /// Hands a slot's frame to the daemon; False if its session is over.
    fn commit(&self, py: Python<'_>, slot: &Slot, captured: Option<u64>) -> PyResult<bool> {
        let Some(parked) = slot.take(py) else {
            return Ok(false);
        };
        let mut guard = self.lock(py);
        let producer = guard.as_mut().ok_or_else(closed)?;
        let Some(frame) = producer.resume(parked) else {
            return Ok(false);
        };
        frame.commit(captured.map(Captured));
        Ok(true)
    }

    /// Gives a slot back without a frame.
    fn discard(&self, py: Python<'_>, slot: &Slot) {
        let Some(parked) = slot.take(py) else { return };
        if let Some(producer) = self.lock(py).as_mut() {
            // Dropping a frame gives its slot back.
            drop(producer.resume(parked));
        }
    }

    /// Notices a session lost, and a session found.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let mut guard = self.lock(py);
        let producer = guard.as_mut().ok_or_else(closed)?;
        producer.check().map_err(|error| to_python(&error))
    }

    /// Ends the session in good order: what became of its frames, or None if the daemon is away, or it was closed before.
    fn close(&self, py: Python<'_>) -> PyResult<Option<Counts>> {
        let Some(producer) = self.lock(py).take() else {
            return Ok(None);
        };
        // The daemon answers when its last frame was shown.
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
    fn state(&self, py: Python<'_>) -> Option<State> {
        let guard = self.lock(py);
        let producer = guard.as_ref()?;
        let opened = producer.opened();
        Some(State {
            connected: producer.is_connected(),
            next_frame: producer.next_frame_number(),
            committed: producer.committed(),
            superseded: producer.superseded(),
            dropped: producer.dropped(),
            sessions: producer.sessions(),
            slots: opened.slots,
            framerate: (opened.framerate_num.get(), opened.framerate_den.get()),
        })
    }
}

/// How the link fares; counts are over all sessions.
#[pyclass(frozen, get_all, module = "ringgear._native")]
struct State {
    /// Whether there is a session, as far as the last call noticed.
    connected: bool,
    /// The next frame's number.
    next_frame: u64,
    /// Frames committed.
    committed: u64,
    /// Committed frames that gave way to newer ones in a full ring.
    superseded: u64,
    /// Frames dropped while the daemon was away.
    dropped: u64,
    /// Sessions opened.
    sessions: u64,
    /// The ring's slots.
    slots: u32,
    /// The stream's framerate, numerator and denominator.
    framerate: (u32, u32),
}

impl Link {
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Option<SteadyProducer>> {
        self.producer
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot of the ring, for numpy: `numpy.asarray(slot)` is its bytes, in shared memory.
#[pyclass(frozen, module = "ringgear._native")]
struct Slot {
    /// None once it is committed or given back.
    parked: Mutex<Option<ParkedFrame>>,
    memory: SlotMemory,
    number: u64,
    strays: Strays,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let parked = self
            .parked
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // No array looks at the memory any more, as each holds this. The producer itself may be in use at this moment.
        held(&self.strays).extend(parked.take());
    }
}

impl Slot {
    fn new(parked: ParkedFrame, strays: Strays) -> Self {
        Self {
            strays,
            memory: parked.memory().clone(),
            number: parked.number(),
            parked: Mutex::new(Some(parked)),
        }
    }

    fn take(&self, py: Python<'_>) -> Option<ParkedFrame> {
        self.parked
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

#[pymethods]
impl Slot {
    /// The frame's number.
    #[getter]
    fn number(&self) -> u64 {
        self.number
    }

    /// numpy's array interface, version 3. Arrays made from it hold this object, and so the memory.
    #[getter(__array_interface__)]
    fn array_interface<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("typestr", "|u1")?;
        interface.set_item("shape", (self.memory.bytes(),))?;
        interface.set_item("data", (self.memory.address(), false))?;
        Ok(interface)
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn told(event: LinkEvent) -> (bool, String) {
    match event {
        LinkEvent::Waiting { cause } => (
            false,
            format!("{cause}; frames are dropped until the daemon is back"),
        ),
        LinkEvent::Back { dropped, away } => {
            let away = away.as_secs_f64();
            let words = format!("the daemon is back after {away:.1} s; {dropped} frames dropped");
            (true, words)
        }
    }
}

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::audio::{AudioLink, AudioState};
    #[pymodule_export]
    use super::{Link, Slot, State};
}
