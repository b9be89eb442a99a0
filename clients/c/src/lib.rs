//! The C ABI over `ringgear_producer`: what `ringgear.h` declares, and nothing that it doesn't say. No panic leaves a function,
//! and a misused producer is an error where that can be noticed: calls in the wrong order, or from two threads at once.
//! What can't be noticed, the header asks of its caller: pointers that are good, and no use after close.

mod abi;
mod audio;
mod code;
mod handle;
mod options;
mod steady_frame;
mod story;
mod text;

pub use abi::*;
pub use audio::*;
pub use code::*;
pub use handle::Handle;
pub use options::Options;
