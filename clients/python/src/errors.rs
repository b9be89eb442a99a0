//! The daemon's and the link's errors as the package's exceptions, which `ringgear._errors` defines.

use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use ringgear_producer::messages::{EndCode, RefusalCode, Refused};
use ringgear_producer::{PixelFormat, ProducerError, RingError, SampleFormat};

/// The exception of that name, made from `arguments`.
fn exception<'py>(py: Python<'py>, name: &str, arguments: impl PyCallArgs<'py>) -> PyErr {
    let class = py
        .import("ringgear._errors")
        .and_then(|module| module.getattr(name));
    class
        .and_then(|class| class.call1(arguments))
        .map_or_else(|error| error, PyErr::from_value)
}

/// Something about a frame or its format is wrong.
pub(crate) fn frame_error(message: &str) -> PyErr {
    Python::attach(|py| exception(py, "FrameError", (message,)))
}

/// No pixel format has this name.
pub(crate) fn unknown_format(name: &str) -> PyErr {
    let known = PixelFormat::ALL.map(PixelFormat::name).join(", ");
    frame_error(&format!(
        "no pixel format is called {name:?}: use one of {known}"
    ))
}

/// No sound format has this name.
pub(crate) fn unknown_sound_format(name: &str) -> PyErr {
    let known = SampleFormat::ALL.map(SampleFormat::name).join(", ");
    frame_error(&format!(
        "no sound format is called {name:?}: use one of {known}"
    ))
}

/// The producer was closed.
pub(crate) fn closed() -> PyErr {
    Python::attach(|py| {
        exception(
            py,
            "ProducerClosed",
            ("this producer is closed: make a new one",),
        )
    })
}

/// `error` as an exception.
pub(crate) fn to_python(error: &ProducerError) -> PyErr {
    let message = error.to_string();
    Python::attach(|py| match error {
        ProducerError::NoPermission { .. } => exception(py, "NotPermitted", (message,)),
        ProducerError::NoSocket(_)
        | ProducerError::NobodyListens(_)
        | ProducerError::Connect { .. }
        | ProducerError::Gone
        | ProducerError::NoAnswer { .. }
        | ProducerError::Io(_)
        | ProducerError::Thread(_) => exception(py, "DaemonUnavailable", (message,)),
        ProducerError::Refused(refused) => refusal(py, refused),
        ProducerError::Ended(ended) if ended.code == EndCode::TakenOver => {
            let message = format!("{message}; this producer does not come back by itself");
            exception(py, "TakenOver", (message,))
        }
        ProducerError::Ended(_) => exception(py, "SessionEnded", (message,)),
        ProducerError::Ring(RingError::NoSlot { slots }) => {
            let message = format!(
                "all {slots} slots of the ring are in use: leave a `with producer.slot()` block first, or open the producer with more slots"
            );
            exception(py, "NoSlot", (message,))
        }
        ProducerError::Format(_)
        | ProducerError::SoundFormat(_)
        | ProducerError::Ring(RingError::BlockUneven { .. }) => {
            exception(py, "FrameError", (message,))
        }
        ProducerError::Protocol { .. } | ProducerError::Ring(_) => {
            exception(py, "ProtocolError", (message,))
        }
    })
}

fn refusal(py: Python<'_>, refused: &Refused) -> PyErr {
    let message = &refused.message;
    match refused.code {
        RefusalCode::StreamBusy => {
            let message = format!("{message} (take_over=True)");
            exception(py, "StreamBusy", (message, refused.holder_pid))
        }
        RefusalCode::UnknownStream => exception(py, "UnknownStream", (message,)),
        RefusalCode::NotPermitted => exception(py, "NotPermitted", (message,)),
        RefusalCode::UnknownFormat | RefusalCode::BadSize => {
            exception(py, "FrameError", (message,))
        }
        RefusalCode::Stopping => exception(py, "DaemonUnavailable", (message,)),
        RefusalCode::OutOfResources => exception(py, "OutOfResources", (message,)),
        RefusalCode::ProtocolMismatch
        | RefusalCode::BadRequest
        | RefusalCode::OutOfOrder
        | RefusalCode::BadConfig => exception(py, "ProtocolError", (message,)),
    }
}
