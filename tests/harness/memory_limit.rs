//! Memory that runs out around a process: the kernel kills it, as it does when a machine has none left. By a control group, which takes root.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::wait_for;

/// A control group with little memory, of either of the kernel's versions. It goes when this does.
pub(crate) struct MemoryLimit {
    group: PathBuf,
    /// The file that has the line `oom_kill N`.
    events: &'static str,
}

/// An encoder has more already, which is not counted.
const LIMIT: &str = "33554432";

impl MemoryLimit {
    /// None where the kernel, or who runs the tests, has no control over memory.
    pub(crate) fn new() -> Option<Self> {
        let name = format!("ringgear-test-{}", std::process::id());
        let versions = [
            (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.oom_control",
            ),
            ("/sys/fs/cgroup", "memory.max", "memory.events"),
        ];
        versions.into_iter().find_map(|(root, limit, events)| {
            let group = Path::new(root).join(&name);
            std::fs::create_dir(&group).ok()?;
            let made = Self { group, events };
            let limit = made.group.join(limit);
            // A folder that is no control group has none.
            (limit.exists() && std::fs::write(limit, LIMIT).is_ok()).then_some(made)
        })
    }

    /// Lets another process take all that there is, until the kernel has killed `pid` for it, and then that process.
    #[track_caller]
    pub(crate) fn run_out_around(&self, pid: u32) {
        let processes = self.group.join("cgroup.procs");
        std::fs::write(&processes, pid.to_string()).unwrap();
        let before = self.killed();
        // tail(1) keeps the last line, which here has no end.
        let script = format!("echo $$ >{}; exec tail /dev/zero", processes.display());
        let mut greedy = Command::new("sh")
            .args(["-c", &script])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the kernel kills both", Duration::from_secs(30), || {
            (self.killed() >= before + 2).then_some(())
        });
        greedy.wait().unwrap();
    }

    /// How many processes the kernel has killed in it.
    fn killed(&self) -> u64 {
        let text = std::fs::read_to_string(self.group.join(self.events)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.expect("the kernel counts what it kills")
            .parse()
            .unwrap()
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.group);
    }
}
