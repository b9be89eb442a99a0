//! Who a socket's other end is, beyond what safe crates ask the kernel: its supplementary groups. It is here because it needs `unsafe`, which has no
//! other home.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// As many as the kernel lets a process have (NGROUPS_MAX).
const MAX_GROUPS: usize = 65_536;

/// The supplementary groups that the process at the other end of a connected Unix socket had when it connected (SO_PEERGROUPS, Linux
/// 4.13). Like SO_PEERCRED's answer they are the kernel's own record: the peer can neither forge them nor change them afterwards. A kernel that
/// keeps no such record gives none.
///
/// # Errors
/// The kernel's: `socket` is no socket, or has no peer.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut room = 64;
    loop {
        let mut groups = vec![MaybeUninit::<libc::gid_t>::uninit(); room];
        let bytes = room * size_of::<libc::gid_t>();
        let mut length = libc::socklen_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: `groups` has `length` bytes to be written, `length` is a valid length to be read and written, both live through the call, and
        // the descriptor is open by `BorrowedFd`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 {
            groups.truncate(length as usize / size_of::<libc::gid_t>());
            let known = groups.into_iter().map(|group| {
                // SAFETY: the kernel has written the first `length` bytes, to which the list was cut; every value is a valid u32.
                unsafe { group.assume_init() }
            });
            return Ok(known.collect());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENOPROTOOPT) {
            return Ok(Vec::new());
        }
        if error.raw_os_error() != Some(libc::ERANGE) || room >= MAX_GROUPS {
            return Err(error);
        }
        room = MAX_GROUPS;
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_peer_of_this_process_is_in_its_groups() {
        let (end, _other) = UnixStream::pair().unwrap();
        let mut own: Vec<u32> = rustix::process::getgroups()
            .unwrap()
            .into_iter()
            .map(rustix::process::Gid::as_raw)
            .collect();
        let mut known = peer_groups(end.as_fd()).unwrap();
        own.sort_unstable();
        known.sort_unstable();
        assert_eq!(known, own);
    }

    #[test]
    fn what_is_no_socket_is_an_error() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(peer_groups(file.as_fd()).is_err());
    }
}
