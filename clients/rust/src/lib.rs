//! Producer.
pub mod messages;
