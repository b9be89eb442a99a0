//! The control socket's name in the file system: taken over from a daemon that died, never from one that lives.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use interprocess::local_socket::tokio::Listener as Socket;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName as _};
use interprocess::os::unix::local_socket::ListenerOptionsExt as _;

use super::ControlError;

/// The listening control socket. The name that it was bound to here is removed when it is dropped.
pub struct Listener {
    inner: Socket,
    bound: Option<PathBuf>,
}

impl Listener {
    /// Listens at `path` with permission bits `mode`. Has to be called within the runtime.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, ControlError> {
        let io = |source| ControlError::Io {
            path: path.to_owned(),
            source,
        };
        clear_stale(path)?;
        let name = path.to_fs_name::<GenericFilePath>().map_err(io)?;
        let inner = ListenerOptions::new()
            .name(name)
            .mode(mode)
            .reclaim_name(false)
            .create_tokio()
            .map_err(io)?;
        // The bind applied the umask, which would take from the group what the config gives it.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io)?;
        Ok(Self {
            inner,
            bound: Some(path.to_owned()),
        })
    }

    /// Listens at a socket that somebody else has bound, and keeps. Has to be called within the runtime. `path` is its name, for errors.
    pub fn inherit(socket: UnixListener, path: &Path) -> Result<Self, ControlError> {
        let inherited = socket
            .set_nonblocking(true)
            .and_then(|()| OwnedFd::from(socket).try_into());
        let inner = inherited.map_err(|source| ControlError::Io {
            path: path.to_owned(),
            source,
        })?;
        let inner = Socket::UdSocket(inner);
        Ok(Self { inner, bound: None })
    }

    pub(super) fn inner(&self) -> &Socket {
        &self.inner
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.bound {
            // Somebody else may have removed it; the next start copes with a leftover.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes the socket that a daemon left behind when it died.
fn clear_stale(path: &Path) -> Result<(), ControlError> {
    let io = |source| ControlError::Io {
        path: path.to_owned(),
        source,
    };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(ControlError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(io)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(ControlError::InUse(path.to_owned())),
        Err(error) => Err(io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_daemons_socket_is_taken_over_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let dead = UnixListener::bind(&path).unwrap();
        assert!(matches!(
            Listener::bind(&path, 0o660),
            Err(ControlError::InUse(_))
        ));
        drop(dead);
        let listener = Listener::bind(&path, 0o660).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660, "whatever the umask is");
        drop(listener);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Listener::bind(&path, 0o660),
            Err(ControlError::NotASocket(_))
        ));
    }
}
