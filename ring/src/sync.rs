//! The atomics that the slot state machine runs on, in one place, so that a model checker's can take their place.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
