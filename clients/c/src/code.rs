//! The codes that functions return, and what they mean.

use std::ffi::{CStr, c_int};

use ringgear_producer::messages::{EndCode, RefusalCode};
use ringgear_producer::{ProducerError, RingError};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        $($(#[$doc])* pub const $name: c_int = $code;)*

        /// Every code by its name in `ringgear.h`, without the prefix.
        pub const CODES: &[(&str, c_int)] = &[$((stringify!($name), $code)),*];

        /// What `code` means in general.
        pub(crate) fn meaning(code: c_int) -> &'static CStr {
            match code {
                $($code => $text,)*
                _ => c"an unknown code: is the library older than the program?",
            }
        }
    };
}

codes! {
    /// Done.
    OK = 0, c"done";
    /// No error: the frame found no daemon.
    DROPPED = 1, c"the daemon is away, so the frame is dropped and counted";
    /// What was passed can't be.
    E_ARGUMENT = -1, c"an argument is null, of the wrong size, or no UTF-8";
    /// No such frames.
    E_FORMAT = -2, c"the pixel format, size or strides, or the sound's format, are not possible";
    /// Nobody listens.
    E_NO_DAEMON = -3, c"no daemon listens at the socket: start it, or name its socket";
    /// The file system says no.
    E_PERMISSION = -4, c"the socket's permissions keep this process out";
    /// The config says no.
    E_NOT_PERMITTED = -5, c"the daemon's config does not let this user feed the stream";
    /// No such stream.
    E_UNKNOWN_STREAM = -6, c"no stream has this name: see the daemon's config";
    /// Held by another.
    E_BUSY = -7, c"another producer holds the stream: stop it, or take over";
    /// Lost to another.
    E_TAKEN_OVER = -8, c"another producer took the stream over";
    /// Something ran out.
    E_RESOURCES = -9, c"memory, descriptors or threads ran out";
    /// The other end is no more.
    E_GONE = -10, c"the daemon is stopping, or went away";
    /// Silence.
    E_NO_ANSWER = -11, c"the daemon did not answer in time: is it stopped or overloaded?";
    /// Two languages.
    E_PROTOCOL = -12, c"daemon and library don't understand each other: are they of the same version?";
    /// A broken ring.
    E_RING = -13, c"the ring's memory is not what was agreed on";
    /// A broken connection.
    E_IO = -14, c"the connection to the daemon failed";
    /// A call out of turn.
    E_ORDER = -15, c"the call came at the wrong time: see ringgear.h";
    /// Our own fault.
    E_INTERNAL = -16, c"a fault of the library: close the producer, and report it";
}

/// Why a function failed: its code, and the story.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: c_int,
    pub(crate) text: String,
    /// Whether the producer has come to its end by it.
    pub(crate) is_final: bool,
}

impl Failure {
    pub(crate) fn argument(text: impl Into<String>) -> Self {
        Self {
            code: E_ARGUMENT,
            text: text.into(),
            is_final: false,
        }
    }

    /// No such format.
    pub(crate) fn format(text: String) -> Self {
        Self {
            code: E_FORMAT,
            text,
            is_final: false,
        }
    }

    /// What has ended a producer.
    pub(crate) fn last(error: ProducerError) -> Self {
        Self {
            is_final: true,
            ..error.into()
        }
    }

    pub(crate) fn order(text: &str) -> Self {
        Self {
            code: E_ORDER,
            text: text.to_owned(),
            is_final: false,
        }
    }
}

impl From<ProducerError> for Failure {
    fn from(error: ProducerError) -> Self {
        Self {
            code: code_of(&error),
            text: error.to_string(),
            is_final: false,
        }
    }
}

fn code_of(error: &ProducerError) -> c_int {
    match error {
        ProducerError::NoSocket(_)
        | ProducerError::NobodyListens(_)
        | ProducerError::Connect { .. } => E_NO_DAEMON,
        ProducerError::NoPermission { .. } => E_PERMISSION,
        ProducerError::Refused(refused) => match refused.code {
            RefusalCode::ProtocolMismatch
            | RefusalCode::BadRequest
            | RefusalCode::OutOfOrder
            | RefusalCode::BadConfig => E_PROTOCOL,
            RefusalCode::UnknownStream => E_UNKNOWN_STREAM,
            RefusalCode::UnknownFormat | RefusalCode::BadSize => E_FORMAT,
            RefusalCode::StreamBusy => E_BUSY,
            RefusalCode::NotPermitted => E_NOT_PERMITTED,
            RefusalCode::OutOfResources => E_RESOURCES,
            RefusalCode::Stopping => E_GONE,
        },
        ProducerError::Ended(ended) => match ended.code {
            EndCode::TakenOver => E_TAKEN_OVER,
            EndCode::RingCorrupt => E_RING,
            EndCode::Stopping | EndCode::StreamGone => E_GONE,
        },
        ProducerError::Gone => E_GONE,
        ProducerError::NoAnswer { .. } => E_NO_ANSWER,
        ProducerError::Io(_) => E_IO,
        ProducerError::Protocol { .. } => E_PROTOCOL,
        ProducerError::Ring(RingError::System { .. }) | ProducerError::Thread(_) => E_RESOURCES,
        ProducerError::Ring(_) => E_RING,
        ProducerError::Format(_) | ProducerError::SoundFormat(_) => E_FORMAT,
    }
}

/// Whether trying again later makes sense.
pub(crate) fn can_retry(code: c_int) -> bool {
    matches!(
        code,
        E_NO_DAEMON | E_PERMISSION | E_BUSY | E_RESOURCES | E_GONE | E_NO_ANSWER | E_IO
    )
}

#[cfg(test)]
mod tests {
    use ringgear_producer::messages::{Ended, Refused};

    use super::*;

    #[test]
    fn an_opening_that_can_heal_has_a_code_to_retry() {
        use std::io::{Error, ErrorKind};
        let refused = |code| {
            ProducerError::Refused(Refused {
                code,
                message: String::new(),
                holder_pid: None,
            })
        };
        let ended = ProducerError::Ended(Ended {
            code: EndCode::TakenOver,
            message: String::new(),
        });
        let errors = [
            ProducerError::NoSocket("x".into()),
            ProducerError::NobodyListens("x".into()),
            ProducerError::NoPermission {
                path: "x".into(),
                mend: String::new(),
            },
            ProducerError::Connect {
                path: "x".into(),
                error: Error::from(ErrorKind::Other),
            },
            refused(RefusalCode::ProtocolMismatch),
            refused(RefusalCode::BadRequest),
            refused(RefusalCode::UnknownStream),
            refused(RefusalCode::UnknownFormat),
            refused(RefusalCode::BadSize),
            refused(RefusalCode::StreamBusy),
            refused(RefusalCode::NotPermitted),
            refused(RefusalCode::OutOfResources),
            refused(RefusalCode::Stopping),
            refused(RefusalCode::OutOfOrder),
            refused(RefusalCode::BadConfig),
            ended,
            ProducerError::Gone,
            ProducerError::NoAnswer { seconds: 5 },
            ProducerError::Io(Error::from(ErrorKind::Other)),
            ProducerError::Protocol {
                what: String::new(),
            },
        ];
        for error in errors {
            assert_eq!(can_retry(code_of(&error)), error.can_heal(), "{error:?}");
        }
    }

    #[test]
    fn every_code_has_a_meaning_of_its_own() {
        let unknown = meaning(-1000);
        for &(name, code) in CODES {
            assert_ne!(meaning(code), unknown, "{name}");
            let same = CODES
                .iter()
                .filter(|(_, other)| meaning(*other) == meaning(code));
            assert_eq!(same.count(), 1, "{name}");
        }
    }
}
