//! The daemon's own player page: it holds the live edge, keeps what was chosen in its address, and plays again after whatever happens,
//! without being reloaded.

use std::time::Duration;

use ringgear::status::StreamState;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::beside_others;
use crate::harness::broken_ffmpeg::BrokenFfmpeg;
use crate::harness::daemon::Daemon;
use crate::harness::held_players::{HeldPlayers, Seen};
use crate::harness::process::Process;
use crate::harness::streams::small_stream;

const WATCHED: Duration = Duration::from_secs(1);

fn started(more: &str) -> (Daemon, Process) {
    let daemon = Daemon::start(&format!(
        "{more}{}",
        small_stream("cam", "window = \"30s\"")
    ));
    let camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    (daemon, camera)
}

/// HLS and DASH, both at low latency.
#[track_caller]
fn both_pages(daemon: &Daemon) -> HeldPlayers {
    HeldPlayers::open_pages(&[daemon.url("/cam/"), daemon.url("/cam/?format=dash")])
}

/// Whether it plays at the live edge.
fn is_live(seen: &Seen) -> bool {
    let latency = seen.page.as_ref().and_then(|page| page.latency);
    seen.plays(WATCHED, 2.0) && latency.is_some_and(|latency| latency < 2.5)
}

fn all_live(seen: &[Seen]) -> bool {
    seen.iter().all(is_live)
}

/// None has gone over to the other format.
#[track_caller]
fn each_in_its_format(seen: &[Seen]) {
    assert!(says(&seen[0]).engine.contains("hls.js"), "{seen:#?}");
    assert!(says(&seen[1]).engine.contains("Shaka"), "{seen:#?}");
}

#[track_caller]
fn both_play_again(pages: &mut HeldPlayers, within: Duration) {
    let seen = pages.wait_until("both play again", within, all_live);
    each_in_its_format(&seen);
}

#[track_caller]
fn says(seen: &Seen) -> &crate::harness::held_players::PageSays {
    seen.page.as_ref().unwrap()
}

#[test]
fn it_rewinds_comes_back_to_the_live_edge_and_keeps_what_was_chosen_in_its_address() {
    let _machine = beside_others();
    let (daemon, _camera) = started("");
    let mut pages = both_pages(&daemon);
    let seen = pages.wait_until("both are live", Duration::from_secs(15), all_live);
    each_in_its_format(&seen);
    assert_eq!(says(&seen[0]).query, "");
    pages.act("press ArrowLeft");
    let rewound = |seen: &[Seen]| {
        seen.iter().all(|seen| {
            let latency = says(seen).latency;
            seen.plays(WATCHED, 2.0) && latency.is_some_and(|latency| (4.0..9.0).contains(&latency))
        })
    };
    pages.wait_until("both are rewound", Duration::from_secs(10), rewound);
    pages.act("press l");
    both_play_again(&mut pages, Duration::from_secs(10));
    pages.act("choose latency safe");
    let safe = |seen: &[Seen]| {
        seen.iter().all(|seen| {
            let latency = says(seen).latency;
            seen.plays(WATCHED, 2.0) && latency.is_some_and(|latency| latency > 2.0)
        })
    };
    let seen = pages.wait_until("both play safely", Duration::from_secs(15), safe);
    each_in_its_format(&seen);
    assert_eq!(says(&seen[0]).query, "?latency=safe");
    assert_eq!(says(&seen[1]).query, "?format=dash&latency=safe");
    for seen in &seen {
        assert!(seen.errors.is_empty(), "{seen:#?}");
    }
}

#[test]
fn it_plays_again_after_the_daemon_was_killed_and_the_network_was_gone_and_its_tab_was_out_of_sight()
 {
    let _machine = beside_others();
    let (mut daemon, _camera) = started("");
    let mut pages = both_pages(&daemon);
    pages.wait_until("both are live", Duration::from_secs(15), all_live);

    daemon.kill();
    pages.wait_until(
        "both say what is missing",
        Duration::from_secs(15),
        |seen| {
            seen.iter()
                .all(|seen| says(seen).veil.contains("Reconnecting"))
        },
    );
    daemon.restart();
    both_play_again(&mut pages, Duration::from_secs(20));

    pages.act("offline");
    pages.wait_until(
        "both say what is missing",
        Duration::from_secs(15),
        |seen| seen.iter().all(|seen| says(seen).veil.contains("offline")),
    );
    pages.act("online");
    both_play_again(&mut pages, Duration::from_secs(20));

    pages.act("hide");
    // The time out of sight is what is tested.
    std::thread::sleep(Duration::from_secs(5));
    pages.act("show");
    both_play_again(&mut pages, Duration::from_secs(10));
}

/// As long as people leave a tab, and as an encoder may take to come back.
#[test]
#[ignore = "takes minutes: make faults"]
fn it_plays_again_after_a_minute_out_of_sight_and_half_a_minute_without_an_encoder() {
    let _machine = beside_others();
    let ffmpeg = BrokenFfmpeg::new("[ -e BROKEN ]");
    let (daemon, _camera) = started(&ffmpeg.config("failures = 4\nretry_every = \"2s\""));
    let mut pages = both_pages(&daemon);
    pages.wait_until("both are live", Duration::from_secs(15), all_live);

    pages.act("hide");
    // The time out of sight is what is tested.
    std::thread::sleep(Duration::from_secs(60));
    pages.act("show");
    both_play_again(&mut pages, Duration::from_secs(10));

    ffmpeg.break_it();
    let pid = daemon.stream("cam").encoder.pid.unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    daemon.wait_for_state("cam", StreamState::Failed, Duration::from_secs(15));
    // As is the time without an encoder.
    std::thread::sleep(Duration::from_secs(30));
    let slate_or_reason = |seen: &[Seen]| {
        seen.iter()
            .all(|seen| seen.plays(WATCHED, 2.0) || says(seen).veil.contains("encoder"))
    };
    pages.wait_until(
        "both play the slate or say why not",
        Duration::from_secs(10),
        slate_or_reason,
    );
    ffmpeg.mend_it();
    daemon.wait_for_state("cam", StreamState::Live, Duration::from_secs(15));
    both_play_again(&mut pages, Duration::from_secs(20));
}
