//! A config that is read again: what it changes is done, and no other stream notices.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ringgear::status::StreamState;
use rustix::process::Signal;

use super::lifecycle::encode_once;
use crate::harness::broken_ffmpeg::BrokenFfmpeg;
use crate::harness::daemon::Daemon;
use crate::harness::place::{Place, Who, give_to_daemon};
use crate::harness::process::{Outcome, run};
use crate::harness::service_manager::ServiceManager;
use crate::harness::streams::small_stream;
use crate::harness::{beside_others, hls, http, tick_log, wait_for};

/// `ringgear` with these arguments, as the daemon's user.
fn ringgear(daemon: &Daemon, arguments: &[&str]) -> Outcome {
    let mut command = daemon.place.command(Who::Daemon);
    run(command.args(arguments), Duration::from_secs(60))
}

fn reload(daemon: &Daemon) -> Outcome {
    ringgear(daemon, &["reload"])
}

fn window(length: &str) -> String {
    format!("window = \"{length}\"")
}

#[test]
fn unchanged_streams_go_on_and_each_other_gets_what_its_change_needs() {
    let _machine = beside_others();
    let [same, longer, other, gone] =
        ["same", "longer", "other", "gone"].map(|name| small_stream(name, &window("12s")));
    let daemon = Daemon::start(&[&*same, &longer, &other, &gone].concat());
    let cameras = ["same", "longer", "other", "gone"]
        .map(|name| daemon.producer(&["pattern", name, "--size", "320x180"]));
    for name in ["same", "longer", "other", "gone"] {
        daemon.wait_until_playable(name);
    }
    let before = ["same", "longer", "other"].map(|name| daemon.stream(name));

    let longer = small_stream("longer", &window("30s"));
    let other = small_stream("other", &window("12s")).replace("300k", "500k");
    let new = small_stream("new", &window("12s"));
    let config = daemon
        .place
        .write_config(&[&*same, &longer, &other, &new].concat());
    let told = "stream gone ends\nstream longer goes on, changed: window\nstream new starts\nstream other is restarted: renditions\n";
    let difference = ringgear(
        &daemon,
        &["check", "--diff", "--config", config.to_str().unwrap()],
    );
    assert_eq!(difference.code, Some(0), "{difference:?}");
    assert!(difference.stdout.ends_with(told), "{difference:?}");
    assert!(
        daemon
            .status()
            .streams
            .iter()
            .all(|stream| stream.name != "new")
    );

    let done = reload(&daemon);
    assert_eq!((done.code, &*done.stdout), (Some(0), told), "{done:?}");
    assert_eq!(reload(&daemon).stdout, "nothing has changed\n");

    let _new = daemon.producer(&["pattern", "new", "--size", "320x180"]);
    daemon.wait_until_playable("new");
    let after = ["same", "longer"].map(|name| daemon.stream(name));
    for (before, after) in before.iter().zip(&after) {
        let name = &after.name;
        assert_eq!(before.encoder.pid, after.encoder.pid, "{name}'s encoder");
        assert_eq!(
            before.encoder.restarts, after.encoder.restarts,
            "{name}'s encoder"
        );
        assert_eq!(
            before.session.as_ref().map(|session| session.id),
            after.session.as_ref().map(|session| session.id),
            "{name}'s producer"
        );
        let log = tick_log::read(&daemon.place.tick_logs(), name);
        let ticks = log.windows(2).all(|two| two[0].tick + 1 == two[1].tick);
        assert!(ticks, "{name} has missed no tick");
        assert_eq!(after.restarts, 0, "{name} itself");
        // Whether any was late is the machine's affair, too: it may have had much to do meanwhile.
        let overdue = after.ticks.overdue - before.ticks.overdue;
        eprintln!("{name}: {overdue} ticks were overdue over the reload");
    }
    // Its producer has come back by itself, and its numbers go on.
    let restarted = wait_for("it is fed again", Duration::from_secs(20), || {
        let stream = daemon.stream("other");
        (stream.state == StreamState::Live && stream.session.is_some()).then_some(stream)
    });
    assert_ne!(restarted.encoder.pid, before[2].encoder.pid);
    assert_ne!(
        restarted.session.map(|session| session.id),
        before[2].session.as_ref().map(|session| session.id)
    );
    wait_for(
        "its new pictures are listed",
        Duration::from_secs(20),
        || {
            let playlist = daemon.folder_playlist("other", "small");
            playlist.contains("EXT-X-DISCONTINUITY\n").then_some(())
        },
    );

    // Who is gone has ended in good order: the folder says so, the origin knows it no more, and its producer is told that it need not come back.
    assert!(
        hls::media(&daemon.folder_playlist("gone", "small"))
            .unwrap()
            .ended
    );
    assert_eq!(daemon.get("/gone/index.m3u8").status, 404);
    let [_, _, _, mut gone] = cameras;
    assert_eq!(gone.wait(Duration::from_secs(10)).code(), Some(1));
    assert!(
        gone.said().contains("no stream is called 'gone'"),
        "{}",
        gone.said()
    );

    wait_for(
        "the longer window lists more than the others'",
        Duration::from_secs(40),
        || {
            (daemon.stream("longer").window.segments > daemon.stream("same").window.segments + 2)
                .then_some(())
        },
    );
}

#[test]
fn another_token_of_administrators_counts_at_once_and_is_told_of_once() {
    let _machine = beside_others();
    let mut place = Place::new();
    let admin = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let tokens = ["the-first-of-two-tokens", "the-second-of-two-tokens"];
    let now_is = |place: &Place, token: &str| {
        let path = place.write("tokens", token);
        give_to_daemon(&path);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    };
    now_is(&place, tokens[0]);
    place.http = format!("admin_listen = \"127.0.0.1:{admin}\"\nadmin_token_file = \"tokens\"\n");
    let daemon = Daemon::start_in(place, &small_stream("cam", ""), &[]);
    let answers = |token: &str| {
        let shown = format!("Bearer {token}");
        let headers = [("Authorization", shown.as_str())];
        http::request(admin, "GET", "/api/v1/streams", &headers)
            .unwrap()
            .status
    };
    assert_eq!(tokens.map(answers), [200, 401]);
    now_is(&daemon.place, tokens[1]);
    let told = "the daemon goes on, changed: [http] admin_token_file or what it holds\n";
    assert_eq!(reload(&daemon).stdout, told);
    assert_eq!(tokens.map(answers), [401, 200]);
    assert_eq!(reload(&daemon).stdout, "nothing has changed\n");
}

#[test]
fn when_the_slate_is_shown_is_changed_on_the_way() {
    let _machine = beside_others();
    let keys = |stale_after: &str| format!("window = \"12s\"\nstale_after = \"{stale_after}\"");
    let daemon = Daemon::start(&small_stream("cam", &keys("1h")));
    let camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    let before = daemon.wait_until_playable("cam");
    drop(camera);
    wait_for("its picture is repeated", Duration::from_secs(20), || {
        let stream = daemon.stream("cam");
        let repeated = stream.ticks.repeated > before.ticks.repeated;
        (stream.session.is_none() && repeated).then_some(())
    });
    daemon
        .place
        .write_config(&small_stream("cam", &keys("100ms")));
    let done = reload(&daemon);
    let told = "stream cam goes on, changed: stale_after\n";
    assert_eq!((done.code, &*done.stdout), (Some(0), told), "{done:?}");
    let after = daemon.wait_for_state("cam", StreamState::NoSignal, Duration::from_secs(20));
    assert_eq!(after.encoder.pid, before.encoder.pid);
    assert_eq!(after.restarts, 0);
}

#[test]
fn a_wrong_config_changes_nothing_and_says_what_is_wrong() {
    let _machine = beside_others();
    let daemon = Daemon::start(&small_stream("cam", &window("12s")));
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    let before = daemon.wait_until_playable("cam");
    daemon
        .place
        .write_config(&small_stream("cam", "windw = \"30s\""));
    let refused = reload(&daemon);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for word in ["ringgear.toml:", "windw", "window"] {
        assert!(refused.stderr.contains(word), "{word}: {refused:?}");
    }
    let after = daemon.stream("cam");
    assert_eq!(after.encoder.pid, before.encoder.pid);
    assert_eq!(
        after.session.map(|one| one.id),
        before.session.map(|one| one.id)
    );

    // What the daemon began with waits for its next start, and is said to.
    let text = std::fs::read_to_string(daemon.place.path().join("ringgear.toml")).unwrap();
    let text = text.replace("windw = \"30s\"", &window("12s"));
    let listen = format!("127.0.0.1:{}", daemon.place.port);
    assert!(text.contains(&listen));
    daemon
        .place
        .write("ringgear.toml", &text.replace(&listen, "127.0.0.1:1"));
    let waits = reload(&daemon);
    assert_eq!(
        waits.stdout, "at the daemon's next start: [http] listen\n",
        "{waits:?}"
    );
    assert_eq!(daemon.get("/cam/index.m3u8").status, 200);

    // Nobody else's users may.
    let mut stranger = daemon.place.command(Who::Camera);
    let refused = run(stranger.arg("reload"), Duration::from_secs(20));
    assert_eq!(refused.code, Some(1), "{refused:?}");
}

#[test]
fn a_reload_while_the_start_is_not_over_does_not_end_it() {
    let _machine = beside_others();
    let place = Place::new();
    let manager = ServiceManager::listen(&place);
    let environment = [manager.variable()];
    let slow = BrokenFfmpeg::new("while [ -e BROKEN ]; do sleep 0.1; done; false");
    let config = slow.config("") + &small_stream("cam", &window("12s"));
    let mut daemon = Daemon::start_in(place, &config, &environment);
    encode_once(&mut daemon, &manager);
    // It does not answer yet.
    slow.break_it();
    daemon.restart();
    daemon
        .place
        .write_config(&(config + &small_stream("new", &window("12s"))));
    let done = reload(&daemon);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(daemon.stream("new").state, StreamState::Waiting);
    slow.mend_it();
    assert_eq!(manager.next(), "READY=1");
    // Of the next one it is told.
    assert_eq!(reload(&daemon).stdout, "nothing has changed\n");
    assert!(manager.next().starts_with("RELOADING=1"));
    assert_eq!(manager.next(), "READY=1");
}

#[test]
fn sighup_reads_the_config_again_and_the_service_manager_hears_of_it() {
    let _machine = beside_others();
    let place = Place::new();
    let manager = ServiceManager::listen(&place);
    let environment = [manager.variable()];
    let daemon = Daemon::start_in(place, &small_stream("cam", &window("12s")), &environment);
    assert_eq!(manager.next(), "READY=1");
    let both = small_stream("cam", &window("12s")) + &small_stream("new", &window("12s"));
    daemon.place.write_config(&both);
    daemon.signal(Signal::HUP);
    let reloading = manager.next();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    assert!(
        time.is_some_and(|time| time.parse::<u64>().is_ok()),
        "{reloading:?}"
    );
    assert_eq!(manager.next(), "READY=1");
    assert_eq!(daemon.stream("new").state, StreamState::Waiting);
    wait_for("the log says so", Duration::from_secs(5), || {
        daemon.log().contains("stream new starts").then_some(())
    });
}
