//! The test pattern: a moving picture that carries each frame's number and capture time in bars that survive encoding, and the
//! decoder for them. `docs/test-pattern.md` says how to decode without this library.

mod bars;
mod paint;

pub use bars::{Bars, COLUMNS, ROWS, decode_luma};
pub use paint::{PatternPainter, fill};
