//! Where a test's daemon lives: a folder of its own, a port, and the users that its processes run as.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use tempfile::TempDir;

/// Whom a process runs as, when the suite runs as root. Otherwise all are the suite's own user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The daemon's own user.
    Daemon,
    /// The user of a daemon with what the kernel counts by user all to itself: no other test's processes are still ending.
    LoneDaemon,
    /// A producer: another user, in the control socket's group.
    Camera,
    /// One of more users in that group.
    Member(u32),
    /// A user whom nobody let in.
    Stranger,
}

// Numbers that no distribution hands out to accounts.
const DAEMON: u32 = 61_801;
const CAMERA: u32 = 61_802;
const STRANGER: u32 = 61_803;
const LONE_DAEMON: u32 = 61_804;
const FIRST_MEMBER: u32 = 61_810;

impl Who {
    /// Its uid, gid and supplementary group.
    fn ids(self) -> (u32, u32, Option<u32>) {
        match self {
            Who::Daemon => (DAEMON, DAEMON, None),
            Who::LoneDaemon => (LONE_DAEMON, DAEMON, None),
            Who::Camera => (CAMERA, CAMERA, Some(DAEMON)),
            Who::Member(nth) => (FIRST_MEMBER + nth, FIRST_MEMBER + nth, Some(DAEMON)),
            Who::Stranger => (STRANGER, STRANGER, None),
        }
    }
}

/// Whether the suite may become other users.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command that runs `program` as `who`.
pub(crate) fn command_as(who: Who, program: impl AsRef<OsStr>) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let (uid, gid, group) = who.ids();
    let groups = group.map_or("--clear-groups".to_owned(), |group| {
        format!("--groups={group}")
    });
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={uid}"))
        .arg(format!("--regid={gid}"))
        .arg(groups)
        .arg("--no-new-privs")
        .arg("--")
        .arg(program)
        // The suite's own may lead through folders that are closed to other users.
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
    command
}

/// Makes the calling thread `who`, for good, when the suite runs as root: what it connects to takes it for that user.
pub(crate) fn become_user(who: Who) {
    if is_root() {
        let (uid, gid, group) = who.ids();
        let groups: Vec<Gid> = group.into_iter().map(Gid::from_raw).collect();
        set_thread_groups(&groups).unwrap();
        let (gid, uid) = (Gid::from_raw(gid), Uid::from_raw(uid));
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
    }
}

/// A folder for one daemon. It goes when this does.
pub(crate) struct Place {
    dir: TempDir,
    program: PathBuf,
    /// Whom the daemon runs as.
    pub(crate) daemon: Who,
    /// The origin's port.
    pub(crate) port: u16,
    /// More keys of `[http]`.
    pub(crate) http: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::of(Who::Daemon)
    }

    /// A place of a daemon that runs as `daemon`.
    pub(crate) fn of(daemon: Who) -> Self {
        let dir = TempDir::with_prefix("ringgear-it-").unwrap();
        give_to(daemon, dir.path());
        let program = reachable_program(dir.path());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let place = Self {
            dir,
            program,
            daemon,
            port,
            http: String::new(),
        };
        for folder in [place.live(), place.tick_logs(), place.faults()] {
            std::fs::create_dir(&folder).unwrap();
            give_to(daemon, &folder);
        }
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The program under test, where every user can run it.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("control.sock")
    }

    pub(crate) fn live(&self) -> PathBuf {
        self.path().join("live")
    }

    pub(crate) fn tick_logs(&self) -> PathBuf {
        self.path().join("ticks")
    }

    /// Where a test asks the daemon for faults; see `src/faults.rs`.
    pub(crate) fn faults(&self) -> PathBuf {
        self.path().join("faults")
    }

    /// Makes the publish folder a link to `target`, where a test has a file system of its own.
    pub(crate) fn publish_to(&self, target: &Path) {
        std::fs::remove_dir(self.live()).unwrap();
        std::os::unix::fs::symlink(target, self.live()).unwrap();
        give_to(self.daemon, target);
    }

    /// Lets what is started here have `limit` descriptors.
    pub(crate) fn limit_descriptors(&mut self, limit: u32) {
        let script = format!(
            "#!/bin/sh\nulimit -n {limit}\nexec {:?} \"$@\"\n",
            self.program
        );
        let path = self.write("limited", &script);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        self.program = path;
    }

    /// Writes a config with this place's paths and port before `streams`, and says where.
    pub(crate) fn write_config(&self, streams: &str) -> PathBuf {
        let http = &self.http;
        let text = format!(
            "[daemon]\nsocket = {:?}\nsocket_mode = \"0660\"\ntick_log = {:?}\n\n\
             [http]\nlisten = \"127.0.0.1:{}\"\n{http}\n\n[publish]\ndir = {:?}\n\n{streams}\n",
            self.socket(),
            self.tick_logs(),
            self.port,
            self.live(),
        );
        self.write("ringgear.toml", &text)
    }

    /// Writes a file that every user may read.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The program as `who`, in a plain environment of its own.
    pub(crate) fn command(&self, who: Who) -> Command {
        self.command_of(who, self.program())
    }

    /// Another program, likewise.
    pub(crate) fn command_of(&self, who: Who, program: impl AsRef<OsStr>) -> Command {
        let mut command = command_as(who, program);
        command
            .current_dir(self.path())
            .env("HOME", self.path())
            .env("RINGGEAR_SOCKET", self.socket())
            .env("RINGGEAR_FAULTS", self.faults())
            .env_remove("RINGGEAR_CONFIG");
        command
    }
}

/// Makes `path` the daemon's, readable by all.
pub(crate) fn give_to_daemon(path: &Path) {
    give_to(Who::Daemon, path);
}

fn give_to(who: Who, path: &Path) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    if is_root() {
        let (uid, gid, _) = who.ids();
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// The built program, or a copy of it in `dir` when its folder is closed to other users.
fn reachable_program(dir: &Path) -> PathBuf {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_ringgear"));
    let reachable = command_as(Who::Stranger, "test")
        .arg("-x")
        .arg(&built)
        .status()
        .is_ok_and(|status| status.success());
    if reachable {
        return built;
    }
    let copy = dir.join("ringgear");
    std::fs::copy(&built, &copy).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
    copy
}
