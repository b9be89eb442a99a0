//! Ring.
pub mod format;
