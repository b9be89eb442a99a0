//! Who may feed a stream and who may stop the daemon, by the kernel's word on who asks.

use std::time::Duration;

use crate::harness::daemon::Daemon;
use crate::harness::place::{Who, is_root};
use crate::harness::process::{Outcome, run};
use crate::harness::{beside_others, wait_for};

/// The users and groups that the harness gives to the daemon and to cameras; this process's own when it can't.
struct Ids {
    camera: u32,
    /// The camera is in it, by its supplementary groups alone.
    group: u32,
    nobody: u32,
}

fn ids() -> Ids {
    let nobody = 61_899;
    if is_root() {
        return Ids {
            camera: 61_802,
            group: 61_801,
            nobody,
        };
    }
    Ids {
        camera: rustix::process::geteuid().as_raw(),
        group: rustix::process::getegid().as_raw(),
        nobody,
    }
}

fn stream(name: &str, allowed: &str) -> String {
    format!(
        "[streams.{name}]\nframerate = 25\n{allowed}\n[[streams.{name}.renditions]]\nname = \"small\"\n\
         size = \"320x180\"\npreset = \"ultrafast\"\n"
    )
}

fn feed(daemon: &Daemon, who: Who, name: &str) -> Outcome {
    let mut command = daemon.place.command(who);
    command.args(["pattern", name, "--size", "320x180", "--frames", "3"]);
    run(&mut command, Duration::from_secs(20))
}

#[test]
fn a_stream_takes_frames_only_from_the_users_and_groups_that_it_lists() {
    let _machine = beside_others();
    let Ids {
        camera,
        group,
        nobody,
    } = ids();
    let daemon = Daemon::start(
        &[
            stream("open", ""),
            stream("users", &format!("allow_users = [{nobody}, {camera}]")),
            stream("groups", &format!("allow_groups = [{group}]")),
            stream(
                "either",
                &format!("allow_users = [{nobody}]\nallow_groups = [{group}]"),
            ),
            stream("others", &format!("allow_users = [{nobody}]")),
            stream("strange", &format!("allow_groups = [{nobody}]")),
        ]
        .concat(),
    );
    for name in ["open", "users", "groups", "either"] {
        let fed = feed(&daemon, Who::Camera, name);
        assert_eq!(fed.code, Some(0), "{name}: {fed:?}");
    }
    for name in ["others", "strange"] {
        let refused = feed(&daemon, Who::Camera, name);
        assert_eq!(refused.code, Some(1), "{name}: {refused:?}");
        let said = refused.stderr.trim();
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in [
            camera.to_string(),
            nobody.to_string(),
            format!("allow_users of [streams.{name}]"),
        ] {
            assert!(said.contains(&word), "{word}: {said}");
        }
        let stream = daemon.stream(name);
        assert_eq!((stream.frames.received, stream.session), (0, None));
    }
    if is_root() {
        // The daemon's own user feeds no more than its streams let it.
        let refused = feed(&daemon, Who::Daemon, "users");
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("61801"), "{refused:?}");
    }
}

#[test]
fn only_root_and_the_daemons_own_user_may_stop_it() {
    let _machine = beside_others();
    if !is_root() {
        eprintln!("not root: this needs a second user");
        return;
    }
    let stop = |daemon: &Daemon, who: Option<Who>| {
        let mut command = match who {
            Some(who) => daemon.place.command(who),
            None => std::process::Command::new(daemon.place.program()),
        };
        command
            .arg("stop")
            .arg("--socket")
            .arg(daemon.place.socket());
        run(&mut command, Duration::from_secs(10))
    };
    for who in [Some(Who::Daemon), None] {
        let mut daemon = Daemon::start(&stream("cam", ""));
        let refused = stop(&daemon, Some(Who::Camera));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("root"), "{refused:?}");
        wait_for("it still runs", Duration::from_secs(1), || {
            (daemon.get("/healthz").status == 200).then_some(())
        });
        let stopped = stop(&daemon, who);
        assert_eq!(stopped.code, Some(0), "{stopped:?}");
        let status = daemon.wait(Duration::from_secs(6));
        assert_eq!(status.code(), Some(0));
    }
}
