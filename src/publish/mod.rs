//! What copies a window elsewhere. The disk publisher keeps one folder per stream in the state of the newest snapshot, so
//! that any web server can serve it and the next start can go on from it.

mod copy;
mod discard;
mod disk;
mod folder;
mod reopen;
mod restore;
mod state;
mod stored_time;
#[cfg(test)]
mod tests;
mod wanted;

pub use copy::Manifests;
pub use discard::{clear_if_empty, discard_if_empty};
pub use disk::{DiskDesk, DiskPlan, DiskPublisher, DiskStatus};
pub(crate) use folder::Folder;
pub(crate) use folder::in_the_way;
pub use folder::{Claim, PublishError, StoredFile};
#[cfg(test)]
pub(crate) use folder::{DISK_FULL, STEPS_LEFT};
pub use reopen::{reopen, reopened};
pub use restore::{Ledger, Restored, restore};
pub use state::RememberedSource;
pub(crate) use state::{
    MAX_FILE_BYTES, MAX_NUMBER, PeriodState, init_name, most_ticks, segment_name,
};
pub use stored_time::{StoredEnd, stored_end};
pub use wanted::DiskLimits;
