//! The atomics that the slot state machine runs on, in one place: the standard library's in service, a model checker's
//! (`--cfg loom`) in its tests.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
