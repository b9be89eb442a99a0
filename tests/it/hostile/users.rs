//! Users who want the control socket for themselves: the others go on, and who administers is always heard.

mod alone {
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use ringgear_producer::messages::{Reply, Request};
    use rustix::io::Errno;
    use rustix::net::{RecvFlags, recv};

    use crate::harness::daemon::Daemon;
    use crate::harness::liar::{Liar, open_request};
    use crate::harness::place::{Who, become_user, is_root};
    use crate::harness::process::run;
    use crate::harness::wait_for;
    use crate::siege::{Siege, judge, streams};

    /// A producer's user who only wants to connect.
    const CROWD: Who = Who::Member(0);
    /// An answer that takes longer is as good as none to somebody who looks why a daemon is slow.
    const SOON: Duration = Duration::from_secs(1);

    /// Without root, all are the daemon's own user, who is not held off.
    fn has_other_users() -> bool {
        if !is_root() {
            eprintln!("not measured: only root can be another user");
        }
        is_root()
    }

    /// Connects and hangs up from many threads of another user while `meanwhile` runs; says how often.
    fn flooded<T>(socket: &Path, meanwhile: impl FnOnce() -> T) -> (T, u32) {
        const THREADS: u32 = 64;
        let (over, connections) = (AtomicBool::new(false), AtomicU32::new(0));
        let done = std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    become_user(CROWD);
                    while !over.load(Ordering::Relaxed) {
                        if UnixStream::connect(socket).is_ok() {
                            connections.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            wait_for("the flood runs", Duration::from_secs(10), || {
                (connections.load(Ordering::Relaxed) > 1000).then_some(())
            });
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
            over.store(true, Ordering::Relaxed);
            done
        });
        let connections = connections.into_inner();
        match done {
            Ok(done) => (done, connections),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    #[test]
    fn a_flood_of_connections_keeps_nobody_else_waiting() {
        if !has_other_users() {
            return;
        }
        let siege = Siege::begin("");
        let ((worst, rounds), connections) = flooded(&siege.daemon.place.socket(), || {
            let until = Instant::now() + Duration::from_secs(4);
            let (mut worst, mut rounds) = (Duration::ZERO, 0);
            while Instant::now() < until {
                let asked = Instant::now();
                let mut liar = Liar::connect(&siege.daemon);
                let status = liar.ask(&Request::Status {});
                assert!(matches!(status, Some(Reply::Status { .. })), "{status:?}");
                let opened = liar.ask(&Request::Open(open_request("bad")));
                assert!(matches!(opened, Some(Reply::Opened(_))), "{opened:?}");
                drop(liar);
                worst = worst.max(asked.elapsed());
                rounds += 1;
                std::thread::sleep(Duration::from_millis(100));
            }
            (worst, rounds)
        });
        eprintln!("{connections} connections; {rounds} rounds of status and open were answered");
        wait_for(
            "the log says what holds them off",
            Duration::from_secs(5),
            || {
                let log = siege.daemon.log();
                log.contains("connections_per_second").then_some(())
            },
        );
        judge("the slowest round", worst, SOON);
        siege.end("a flood of connections", 0.7);
    }

    #[test]
    fn a_flood_of_connections_does_not_keep_a_daemon_from_being_stopped() {
        if !has_other_users() {
            return;
        }
        let _machine = crate::harness::alone();
        let mut daemon = Daemon::start(&streams());
        let (took, _) = flooded(&daemon.place.socket(), || {
            // From a thread that runs already: to start a program beside so many busy threads takes longer than its answer.
            let asked = Instant::now();
            let stop = Liar::connect(&daemon).ask(&Request::Stop {});
            assert_eq!(stop, Some(Reply::Done {}));
            asked.elapsed()
        });
        judge("`stop`", took, SOON);
        assert_eq!(daemon.wait(Duration::from_secs(6)).code(), Some(0));
    }

    /// Whether the daemon has told somebody who has asked for nothing why it hangs up.
    fn is_refused(connection: &UnixStream) -> bool {
        let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(connection, &mut [0; 1][..], look) {
            Ok((length, _)) => {
                assert!(length > 0, "a connection ended without a word");
                true
            }
            Err(Errno::AGAIN) => false,
            Err(error) => panic!("a hoarded connection: {error}"),
        }
    }

    #[test]
    fn users_who_take_all_connections_leave_some_for_others_and_for_who_administers() {
        if !has_other_users() {
            return;
        }
        let siege = Siege::begin("");
        let socket = siege.daemon.place.socket();
        let hoard = |who: Who| -> Vec<UnixStream> {
            std::thread::scope(|scope| {
                let hoarder = scope.spawn(|| {
                    become_user(who);
                    (0..200)
                        .map(|_| UnixStream::connect(&socket).unwrap())
                        .collect()
                });
                hoarder.join().unwrap()
            })
        };
        let hoards = [hoard(Who::Member(0)), hoard(Who::Member(1))];
        // The first has the 128 of a user. All have 256, less an eighth: 95 are the second's, beside the first's and the neighbour's. The others
        // have been turned away, and the last of all is one of those: none is still to come.
        wait_for("the hoards are complete", Duration::from_secs(5), || {
            let refused = hoards
                .each_ref()
                .map(|hoard| hoard.iter().filter(|one| is_refused(one)).count());
            (refused == [200 - 128, 200 - 95] && is_refused(&hoards[1][199])).then_some(())
        });
        let status = |who| {
            let place = &siege.daemon.place;
            run(place.command(who).arg("status"), Duration::from_secs(10))
        };
        let refused = status(Who::Member(0));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(
            refused.stderr.contains("has 128 connections") && refused.stderr.lines().count() == 1,
            "the CLI says what the daemon said: {refused:?}"
        );
        let refused = status(Who::Member(1));
        assert!(
            refused.stderr.contains("224 of 256 connections"),
            "{refused:?}"
        );
        for who in [Who::Camera, Who::Daemon] {
            let status = status(who);
            assert_eq!(status.code, Some(0), "{who:?}: {status:?}");
        }
        let camera = siege
            .daemon
            .producer(&["pattern", "bad", "--size", "320x180"]);
        wait_for(
            "an honest producer is let in",
            Duration::from_secs(5),
            || (siege.daemon.stream("bad").session?.committed > 5).then_some(()),
        );
        drop(camera);
        drop(hoards);
        siege.end("hoarded connections", 0.7);
    }
}
