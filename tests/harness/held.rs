//! What the daemon's process holds of the machine, as `/proc` says.

use super::daemon::Daemon;
use super::place::{Who, command_as};

/// Descriptors, threads, mappings of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    /// Of files and shared memory, but for published media, which comes and goes with the window. Anonymous ones tell nothing
    /// by their number: the C library keeps the stacks of ended threads and the arenas of busy ones for the next, so their
    /// measure is resident memory.
    pub(crate) mappings: usize,
    /// Rings of both kinds among the descriptors and the mappings.
    pub(crate) rings: usize,
    /// Named rings of its in /dev/shm.
    pub(crate) names: usize,
}

impl Held {
    pub(crate) fn by(daemon: &Daemon) -> Self {
        let proc = format!("/proc/{}", daemon.pid());
        let links: Vec<String> = std::fs::read_dir(format!("{proc}/fd"))
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .map(|link| link.to_string_lossy().into_owned())
            .collect();
        let maps = std::fs::read_to_string(format!("{proc}/maps")).unwrap();
        let is_ring = |text: &str| {
            text.contains("memfd:ringgear-ring") || text.contains("/dev/shm/ringgear-")
        };
        let own = format!("ringgear-{}-", daemon.pid());
        let names = std::fs::read_dir("/dev/shm").unwrap().filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with(&own)
        });
        Self {
            descriptors: links.len(),
            threads: std::fs::read_dir(format!("{proc}/task")).unwrap().count(),
            mappings: maps
                .lines()
                .filter(is_of_a_file)
                .filter(|line| !line.contains("memfd:ringgear-media"))
                .count(),
            rings: links.iter().filter(|link| is_ring(link)).count()
                + maps.lines().filter(|line| is_ring(line)).count(),
            names: names.count(),
        }
    }

    /// Whether nothing grew over `before`.
    pub(crate) fn is_no_more_than(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors
            && self.threads <= before.threads
            && self.mappings <= before.mappings
            && self.rings <= before.rings
            && self.names <= before.names
    }
}

/// The names of the daemon's threads, for the words of a failed test.
pub(crate) fn thread_names(daemon: &Daemon) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let mut names: Vec<String> = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .collect();
    names.sort();
    names
}

/// Whether a line of `/proc/PID/maps` is of a mapping with a file behind it: its fifth field, the inode, is not 0.
fn is_of_a_file(line: &&str) -> bool {
    line.split_whitespace()
        .nth(4)
        .is_some_and(|inode| inode != "0")
}

/// Lets the running daemon have so many descriptors.
#[track_caller]
pub(crate) fn limit_descriptors(daemon: &Daemon, limit: usize) {
    // As the daemon's own user, which may change its soft limit.
    let status = command_as(Who::Daemon, "prlimit")
        .args(["--pid", &daemon.pid().to_string()])
        .arg(format!("--nofile={limit}:"))
        .status();
    assert!(status.unwrap().success());
}

/// The processor time that the daemon itself has used, in seconds.
pub(crate) fn cpu_seconds(daemon: &Daemon) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    // After the name, which is in parentheses: state is field 3, utime and stime are 14 and 15.
    let (_, fields) = text.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u32 = fields[11..13]
        .iter()
        .map(|field| field.parse::<u32>().unwrap())
        .sum();
    f64::from(ticks) / f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap())
}

/// A line of `/proc/PID/status`, in kB.
pub(crate) fn memory_kb(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in /proc/{pid}/status"))
}

/// What the processors have done since the boot, in clock ticks.
#[derive(Clone, Copy)]
pub(crate) struct ProcessorTime {
    idle: u64,
    all: u64,
}

impl ProcessorTime {
    pub(crate) fn now() -> Self {
        let text = std::fs::read_to_string("/proc/stat").unwrap();
        let line = text.lines().next().unwrap();
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows is in the first two already.
        let times: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .take(8)
            .map(|time| time.parse().unwrap())
            .collect();
        Self {
            idle: times[3] + times[4],
            all: times.iter().sum(),
        }
    }

    /// Which share of the processors' time nobody has used since then.
    pub(crate) fn idle_share(self) -> f64 {
        let now = Self::now();
        (now.idle - self.idle) as f64 / (now.all - self.all).max(1) as f64
    }
}
