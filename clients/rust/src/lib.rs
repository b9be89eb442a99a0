//! Write camera frames into Ringgear.
//!
pub mod messages;
pub mod pattern;
