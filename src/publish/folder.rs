//! One folder, held by a descriptor: names are looked up in it and nowhere else, symbolic links are never followed, and a
//! file appears whole or not at all.
//!
//! The publish folder itself may be reached over links, for its path is the administrator's; the stream's folder and the
//! renditions' folders may not be links: a stranger who may write in the publish folder could otherwise point ours anywhere.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// The one temporary name: a folder has one writer, and what a crash left there is written over.
const TEMPORARY: &str = ".ringgear.tmp";
/// More names than this are not looked at in one folder.
const MAX_NAMES: usize = 200_000;

/// Why the folder could not be brought to the window's state: what was being done, where, and what mends it.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The system refused something.
    #[error("cannot {action} {}: {source}; {}", path.display(), mend(source))]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Writing would leave less free space than the config reserves.
    #[error(
        "nothing is written to {}: {free} bytes are free there, and {needed} more would leave less than the {floor} of keep_free; \
         free some space, or lower [publish] keep_free", path.display()
    )]
    Floor {
        /// The stream's folder.
        path: PathBuf,
        /// What its file system has for this user, in bytes.
        free: u64,
        /// What was to be written, in bytes.
        needed: u64,
        /// What has to stay free for that, in bytes.
        floor: u64,
    },
    /// The listed segments are more than the stream may have on the disk.
    #[error(
        "nothing is written to {}: what its playlists list has {needed} bytes, more than max_bytes = {limit} allows; \
         raise max_bytes, shorten the window, or lower the bitrate", path.display()
    )]
    Budget {
        /// The stream's folder.
        path: PathBuf,
        /// What the listed and open segments need, in bytes.
        needed: u64,
        /// The config's word.
        limit: u64,
    },
}

impl PublishError {
    /// Whether removing files may help.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            Self::Floor { .. } | Self::Budget { .. } => true,
        }
    }
}

fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space, or shorten the window"
        }
        io::ErrorKind::PermissionDenied => "let the daemon's user write there",
        io::ErrorKind::ReadOnlyFilesystem => {
            "mount it writable, under systemd by ReadWritePaths= of the [publish] dir in the unit (systemctl edit ringgear), or set another"
        }
        _ => in_the_way(error).unwrap_or("it is tried again with the next part"),
    }
}

/// What mends an error that comes from what stands in the place of a folder or a file, if it does.
pub(crate) fn in_the_way(error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error)? {
        Errno::NOTDIR | Errno::LOOP => {
            Some("it has to be a folder and no symbolic link: move away what stands there")
        }
        Errno::ISDIR => Some("it has to be a file: move away the folder that stands there"),
        _ => None,
    }
}

type Result<T> = std::result::Result<T, PublishError>;

/// A folder that is open.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// A stream's folder, taken: two publishers in one folder would write over each other's files and numbers. It ends with its
/// holder, however that dies, and leaves nothing behind.
#[derive(Debug)]
pub struct Claim {
    _folder: Folder,
}

impl Claim {
    /// Takes `dir`, making it if it is missing; none when somebody else has it.
    ///
    /// # Errors
    /// When the folder can't be made or opened, or its file system knows no locks.
    pub fn take(dir: &Path) -> Result<Option<Self>> {
        let folder = Folder::make(dir)?;
        match rustix::fs::flock(&folder.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _folder: folder })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(folder.failed("lock", "", errno)),
        }
    }
}

/// A whole segment in a folder, to be read.
#[derive(Debug)]
pub struct StoredFile {
    /// It, open.
    pub file: std::fs::File,
    /// Its length in bytes.
    pub len: u64,
}

impl StoredFile {
    /// Opens `{rendition}/{name}` in `dir`; none if there is no such regular file.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(dir: &Path, rendition: &str, name: &str) -> Result<Option<Self>> {
        let Some(folder) = Folder::open(dir)? else {
            return Ok(None);
        };
        let Some(folder) = folder.child(rendition)? else {
            return Ok(None);
        };
        let Some(len) = folder.len(name)? else {
            return Ok(None);
        };
        let file = folder.open_file(name)?;
        Ok(file.map(|file| Self { file, len }))
    }
}

impl Folder {
    /// Opens `path`, which may be missing (then `None`).
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        Self::open_at(rustix::fs::CWD, path, path.to_owned())
    }

    /// Opens `path`, making it and its parents if they are missing.
    pub(crate) fn make(path: &Path) -> Result<Self> {
        if let Some(folder) = Self::open(path)? {
            return Ok(folder);
        }
        step("make a folder", path)?;
        std::fs::create_dir_all(path).map_err(|source| PublishError::Io {
            action: "make the folder",
            path: path.to_owned(),
            source,
        })?;
        Self::open(path)?.ok_or_else(|| gone(path))
    }

    /// Opens the folder `name` in this one, which may be missing.
    pub(crate) fn child(&self, name: &str) -> Result<Option<Self>> {
        Self::open_at(&self.fd, Path::new(name), self.path.join(name))
    }

    /// Opens the folder `name` in this one, making it if it is missing.
    pub(crate) fn make_child(&self, name: &str) -> Result<Self> {
        if let Some(folder) = self.child(name)? {
            return Ok(folder);
        }
        let path = self.path.join(name);
        step("make a folder", &path)?;
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(self.failed("make the folder", name, errno)),
        }
        self.child(name)?.ok_or_else(|| gone(&path))
    }

    fn open_at(at: impl std::os::fd::AsFd, name: &Path, path: PathBuf) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(at, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(PublishError::Io {
                action: "open the folder",
                path,
                source: errno.into(),
            }),
        }
    }

    /// What tells this folder from another one that later stands at the same path.
    pub(crate) fn identity(&self) -> Result<(u64, u64)> {
        let stat =
            rustix::fs::fstat(&self.fd).map_err(|errno| self.failed("look at", "", errno))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// How many bytes this user may still write to its file system.
    pub(crate) fn free(&self) -> Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.fd)
            .map_err(|errno| self.failed("ask for the free space of", "", errno))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Puts the file `name` in place atomically. With `durable` its bytes are on the disk before it appears, which a crash
    /// of the machine respects too; its name is only after [`Self::sync`].
    pub(crate) fn write<'a>(
        &self,
        name: &str,
        content: impl IntoIterator<Item = &'a [u8]>,
        durable: bool,
    ) -> Result<()> {
        let path = self.path.join(name);
        let failed = |source: io::Error| PublishError::Io {
            action: "write",
            path: path.clone(),
            source,
        };
        step("create", &path)?;
        match rustix::fs::unlinkat(&self.fd, TEMPORARY, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, TEMPORARY, flags, Mode::from_raw_mode(0o666))
            .map_err(|errno| failed(errno.into()))?;
        let mut file = std::fs::File::from(fd);
        for chunk in content {
            step("write", &path)?;
            file.write_all(chunk).map_err(failed)?;
        }
        if durable {
            step("sync", &path)?;
            file.sync_data().map_err(failed)?;
        }
        step("rename", &path)?;
        rustix::fs::renameat(&self.fd, TEMPORARY, &self.fd, name)
            .map_err(|errno| failed(errno.into()))?;
        step("renamed", &path)
    }

    /// Makes the names in this folder survive a crash of the machine.
    pub(crate) fn sync(&self) -> Result<()> {
        step("sync", &self.path)?;
        rustix::fs::fsync(&self.fd).map_err(|errno| self.failed("sync", "", errno))
    }

    /// The length of the file `name`, none if there is no such regular file.
    pub(crate) fn len(&self, name: &str) -> Result<Option<u64>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(u64::try_from(stat.st_size).ok())
            }
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("look at", name, errno)),
        }
    }

    /// The content of the file `name`; none if there is no such regular file, or if it is longer than `limit`.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        if self.len(name)?.is_none_or(|len| len > limit) {
            return Ok(None);
        }
        let Some(file) = self.open_file(name)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        let mut file = file.take(limit + 1);
        file.read_to_end(&mut content)
            .map_err(|source| PublishError::Io {
                action: "read",
                path: self.path.join(name),
                source,
            })?;
        Ok((content.len() as u64 <= limit).then_some(content))
    }

    /// Opens the file `name` to be written at its end, making it if it is missing.
    pub(crate) fn append_to(&self, name: &str) -> Result<std::fs::File> {
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::APPEND
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o666))
            .map_err(|errno| self.failed("open", name, errno))?;
        Ok(fd.into())
    }

    fn open_file(&self, name: &str) -> Result<Option<std::fs::File>> {
        // Non-blocking: what was a file a moment ago may be a pipe now.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd.into())),
            Err(Errno::NOENT | Errno::LOOP) => Ok(None),
            Err(errno) => Err(self.failed("open", name, errno)),
        }
    }

    /// Removes the file `name`; it may be gone already.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        step("remove", &self.path.join(name))?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed("remove", name, errno)),
        }
    }

    /// Removes what a write that failed left under the temporary name.
    pub(crate) fn discard_temporary(&self) {
        // It may not be there, and the next write replaces it anyway.
        let _ = rustix::fs::unlinkat(&self.fd, TEMPORARY, AtFlags::empty());
    }

    /// Removes the folder `name` if it is empty.
    pub(crate) fn remove_child_if_empty(&self, name: &str) {
        // One that is not empty, or not ours to remove, simply stays.
        let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR);
    }

    /// The names in this folder.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let entries =
            rustix::fs::Dir::read_from(&self.fd).map_err(|errno| self.failed("list", "", errno))?;
        let mut names = Vec::new();
        for entry in entries.take(MAX_NAMES) {
            let entry = entry.map_err(|errno| self.failed("list", "", errno))?;
            names.extend(entry.file_name().to_str().map(str::to_owned));
        }
        Ok(names)
    }

    fn failed(&self, action: &'static str, name: &str, errno: Errno) -> PublishError {
        PublishError::Io {
            action,
            path: self.path.join(name),
            source: errno.into(),
        }
    }
}

fn gone(path: &Path) -> PublishError {
    PublishError::Io {
        action: "open the folder",
        path: path.to_owned(),
        source: io::ErrorKind::NotFound.into(),
    }
}

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "tests stop at any step")]
fn step(_action: &'static str, _path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
thread_local! {
    /// How many more steps this thread's publishers may take before each fails, as if the process had been killed.
    pub(crate) static STEPS_LEFT: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
    /// Whether this thread's publishers find the disk full.
    pub(crate) static DISK_FULL: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[cfg(test)]
fn step(action: &'static str, path: &Path) -> Result<()> {
    if DISK_FULL.get() && action == "write" {
        return Err(PublishError::Io {
            action,
            path: path.to_owned(),
            source: Errno::NOSPC.into(),
        });
    }
    let left = STEPS_LEFT.get();
    if left == Some(0) {
        return Err(PublishError::Io {
            action,
            path: path.to_owned(),
            source: io::Error::other("stopped here by the test"),
        });
    }
    STEPS_LEFT.set(left.map(|left| left - 1));
    Ok(())
}
