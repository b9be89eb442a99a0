//! Named segments: shared memory with a name in /dev/shm, for producers in languages that can't receive a descriptor. A name says
//! which process made it, `ringgear-{pid}-{start}-{count}`. Its maker holds a lock on it for as long as it lives, so that what a killed daemon
//! leaves is told from what a running one uses, in whatever container it runs.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, Stat};
use rustix::fs::{FileType, FlockOperation, Mode, fallocate, flock, fstat};
use rustix::io::Errno;
use rustix::process::{geteuid, getpid};
use rustix::shm;
use shared_memory::{ShmemConf, ShmemError};

use crate::error::RingError;

const DIRECTORY: &str = "/dev/shm";
const PREFIX: &str = "ringgear-";
/// Another daemon that starts at this moment may take a name away before its lock is held; then the next is tried.
const ATTEMPTS: u32 = 8;

/// A named segment of this process's making: its name goes when this is dropped, its memory with the last mapping.
#[derive(Debug)]
pub(crate) struct Segment {
    /// With the leading slash that shm_open wants.
    name: String,
    /// Locked.
    pub(crate) fd: OwnedFd,
}

impl Segment {
    /// Makes a segment of `bytes` bytes, all of them allocated.
    pub(crate) fn create(bytes: usize) -> Result<Self, RingError> {
        let failed = |call| move |error| RingError::System { call, bytes, error };
        for _ in 0..ATTEMPTS {
            let name = next_name();
            let mut made = match ShmemConf::new().os_id(&name).size(bytes).create() {
                Ok(made) => made,
                Err(ShmemError::MappingIdExists) => continue,
                Err(error) => return Err(failed("shm_open")(errno_of(&error))),
            };
            let fd = open(&name).map_err(failed("shm_open"))?;
            let held = flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok();
            if !held || fstat(&fd).map_err(failed("fstat"))?.st_nlink == 0 {
                continue;
            }
            // Every page now, so that a full /dev/shm says so here, and not by a signal at the first write.
            match fallocate(&fd, FallocateFlags::empty(), 0, bytes as u64) {
                Ok(()) => {}
                Err(Errno::NOSPC) => return Err(RingError::NoRoom { bytes }),
                Err(error) => return Err(failed("fallocate")(error)),
            }
            // Its mapping goes with `made`, but the name is ours from here on.
            made.set_owner(false);
            return Ok(Self { name, fd });
        }
        Err(failed("shm_open")(Errno::EXIST))
    }

    /// The name, without the leading slash: the file's in /dev/shm.
    pub(crate) fn name(&self) -> &str {
        self.name.trim_start_matches('/')
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // Somebody else of this user's may have removed it; gone is gone.
        let _ = shm::unlink(self.name.as_str());
    }
}

/// Opens a segment that a daemon of this user has made and told the name of.
pub(crate) fn open_named(name: &str) -> Result<OwnedFd, RingError> {
    let not = |why| RingError::NotARing {
        name: name.chars().take(100).collect(),
        why,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !name.starts_with(PREFIX) || !name.bytes().all(plain) || name.len() > 100 {
        return Err(not("its name is not one of ringgear's"));
    }
    let fd = open(&format!("/{name}")).map_err(|error| match error {
        Errno::NOENT => not("it is not there: are both sides in one container, and of one user?"),
        Errno::ACCESS => not("it belongs to another user"),
        _ => not("it can't be opened"),
    })?;
    let stat = fstat(&fd).map_err(|_| not("it can't be opened"))?;
    if !is_ours(&stat) {
        return Err(not("it belongs to another user, or is no file"));
    }
    Ok(fd)
}

/// Removes the named segments that daemons of this user's left behind when they died; those in use stay. Returns how many there were.
///
/// # Errors
/// Whatever keeps /dev/shm from being listed. A system without it has no leftovers.
pub fn sweep_leftovers() -> io::Result<usize> {
    let entries = match std::fs::read_dir(DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut removed = 0;
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        removed += usize::from(sweep(&format!("/{name}")));
    }
    Ok(removed)
}

/// Removes one segment if it is this user's and nobody holds its lock.
fn sweep(name: &str) -> bool {
    let Ok(fd) = open(name) else { return false };
    fstat(&fd).is_ok_and(|stat| is_ours(&stat))
        && flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok()
        && shm::unlink(name).is_ok()
}

fn open(name: &str) -> Result<OwnedFd, Errno> {
    shm::open(name, shm::OFlags::RDWR, Mode::empty())
}

fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == geteuid().as_raw() && FileType::from_raw_mode(stat.st_mode).is_file()
}

/// A name that no segment has had: of this process, since its start.
fn next_name() -> String {
    static START: OnceLock<u64> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let start = START.get_or_init(|| {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
    });
    let (pid, count) = (getpid(), COUNT.fetch_add(1, Ordering::Relaxed));
    format!("/{PREFIX}{pid}-{start:x}-{count}")
}

fn errno_of(error: &ShmemError) -> Errno {
    match error {
        ShmemError::MapCreateFailed(code)
        | ShmemError::MapOpenFailed(code)
        | ShmemError::UnknownOsError(code) => {
            Errno::from_raw_os_error(i32::try_from(*code).unwrap_or(libc::EIO))
        }
        _ => Errno::IO,
    }
}
