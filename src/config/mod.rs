//! TOML in, a checked [`Plan`] out.

mod plan;

pub use plan::{AtExit, Plan, RateControl, RenditionPlan, StreamPlan};
