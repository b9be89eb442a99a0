//! Whether an encoder's processes do anything at all, as `/proc` tells it: an encoder that waits for a busy machine is slow, one that
//! sleeps on its work or was stopped is dead.

use std::path::Path;

use rustix::process::Pid;

/// A look at an encoder's process group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// A process of it was stopped (SIGSTOP, a debugger).
    pub stopped: bool,
    /// A thread of it runs or waits for a processor.
    pub runnable: bool,
    /// Processor time that its processes have used, in the kernel's clock ticks (of 10 ms).
    pub processor_ticks: u64,
    /// Bytes of pictures that its pipe has taken.
    pub bytes_taken: u64,
}

impl Vitals {
    /// Looks at all processes of `group`; none if there is no such process, or `/proc` can't be read.
    pub(super) fn of(group: Pid) -> Option<Self> {
        let group = group.as_raw_nonzero().get();
        let mut found = None::<Self>;
        for entry in std::fs::read_dir("/proc").ok()?.flatten() {
            let name = entry.file_name();
            if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            let Some(stat) = Stat::read(&entry.path()).filter(|stat| stat.group == group) else {
                continue;
            };
            let vitals = found.get_or_insert_default();
            vitals.stopped |= matches!(stat.state, b'T' | b't');
            vitals.processor_ticks += stat.processor_ticks;
            let threads = std::fs::read_dir(entry.path().join("task"));
            vitals.runnable |=
                threads.into_iter().flatten().flatten().any(|thread| {
                    Stat::read(&thread.path()).is_some_and(|stat| stat.state == b'R')
                });
        }
        found
    }

    /// Whether anything was done between `before` and this look.
    pub fn moved_since(&self, before: &Self) -> bool {
        self.processor_ticks != before.processor_ticks || self.bytes_taken != before.bytes_taken
    }
}

/// What is of interest in a `stat` file; see proc(5).
struct Stat {
    state: u8,
    group: i32,
    processor_ticks: u64,
}

impl Stat {
    fn read(folder: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(folder.join("stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name before may contain anything, parentheses too.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            group: fields.get(2)?.parse().ok()?,
            processor_ticks: number(11)? + number(12)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let stat = Stat::parse("7 (a) R (b) S 1 42 3 0 -1 4 5 6 7 8 90 10 11 12 20 0 1").unwrap();
        assert_eq!(
            (stat.state, stat.group, stat.processor_ticks),
            (b'S', 42, 100)
        );
    }

    #[test]
    fn this_test_is_running() {
        let group = rustix::process::getpgrp();
        let vitals = Vitals::of(group).unwrap();
        assert!(vitals.runnable && !vitals.stopped, "{vitals:?}");
    }
}
