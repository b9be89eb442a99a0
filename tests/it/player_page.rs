//! The daemon's own player page: it holds the live edge, keeps what was chosen in its address, and plays again after whatever happens,
//! without being reloaded.

use std::time::Duration;

use ringgear::status::StreamState;
use rustix::process::{Pid, Signal, kill_process};

use super::copies::{copied_stream, video};
use crate::harness::beside_others;
use crate::harness::broken_ffmpeg::BrokenFfmpeg;
use crate::harness::daemon::Daemon;
use crate::harness::held_players::{HeldPlayers, Seen};
use crate::harness::place::Place;
use crate::harness::process::Process;
use crate::harness::streams::small_stream;

const WATCHED: Duration = Duration::from_secs(1);

fn started(more: &str) -> (Daemon, Process) {
    let daemon = Daemon::start(&format!(
        "{more}{}[[streams.cam.renditions]]\nname = \"tiny\"\nsize = \"160x90\"\nbitrate = \"100k\"\npreset = \"ultrafast\"\n",
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

/// Whether each chart has a value for this moment.
fn all_have_charts(seen: &[Seen]) -> bool {
    let titles = [
        "Frames in, a second",
        "Ticks, a second",
        "Encoder speed",
        "Part latency",
    ];
    seen.iter().all(|seen| {
        let charts = &says(seen).charts;
        let drawn = |(chart, title): (&String, &&str)| {
            let now = chart.split_once("; now ").map(|(_, now)| now);
            chart.starts_with(title) && now.is_some_and(|now| !now.contains('–'))
        };
        charts.len() == titles.len() && charts.iter().zip(&titles).all(drawn)
    })
}

/// All play the rendition `name`, at the live edge.
fn all_live_with(name: &str) -> impl Fn(&[Seen]) -> bool {
    move |seen| all_live(seen) && seen.iter().all(|seen| says(seen).rendition == name)
}

/// What was chosen and stands in a page's address, in the order of the alphabet.
fn chosen(seen: &Seen) -> Vec<&str> {
    let query = says(seen).query.trim_start_matches('?').split('&');
    let mut chosen: Vec<&str> = query.filter(|one| !one.is_empty()).collect();
    chosen.sort_unstable();
    chosen
}

/// The figures of a page that plays at the live edge.
#[track_caller]
fn shows_how_it_plays(seen: &Seen) {
    let page = says(seen);
    assert!(
        page.buffer
            .is_some_and(|buffer| buffer > 0.0 && buffer < 3.0),
        "{seen:#?}"
    );
    assert_eq!(page.qualities, ["", "small", "tiny"], "{seen:#?}");
    let shown = ["small, 320×180", "tiny, 160×90"];
    assert!(shown.contains(&page.rendition.as_str()), "{seen:#?}");
    let (dropped, of) = page.dropped.split_once(" of ").unwrap();
    let number = |text: &str| text.replace(',', "").parse::<u32>().unwrap();
    assert!(number(dropped) < number(of), "{seen:#?}");
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
fn it_shows_how_it_plays_rewinds_comes_back_to_the_live_edge_and_keeps_what_was_chosen_in_its_address()
 {
    let _machine = beside_others();
    let (daemon, _camera) = started("");
    let mut pages = both_pages(&daemon);
    let seen = pages.wait_until("both are live", Duration::from_secs(15), all_live);
    each_in_its_format(&seen);
    assert_eq!(says(&seen[0]).query, "");
    seen.iter().for_each(shows_how_it_plays);
    pages.wait_until("the charts", Duration::from_secs(15), all_have_charts);
    for (name, shown) in [("tiny", "tiny, 160×90"), ("small", "small, 320×180")] {
        pages.act(&format!("choose quality {name}"));
        let seen = pages.wait_until(shown, Duration::from_secs(15), all_live_with(shown));
        each_in_its_format(&seen);
    }
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
    pages.act("choose quality");
    pages.act("choose latency safe");
    let safe = |seen: &[Seen]| {
        seen.iter().all(|seen| {
            let latency = says(seen).latency;
            seen.plays(WATCHED, 2.0) && latency.is_some_and(|latency| latency > 2.0)
        })
    };
    let seen = pages.wait_until("both play safely", Duration::from_secs(15), safe);
    each_in_its_format(&seen);
    assert_eq!(chosen(&seen[0]), ["latency=safe"]);
    assert_eq!(chosen(&seen[1]), ["format=dash", "latency=safe"]);
    pages.act("choose quality tiny");
    pages.act("choose latency low");
    pages.act("choose format dash");
    let of_both = |seen: &[Seen]| {
        all_live_with("tiny, 160×90")(seen)
            && seen.iter().all(|seen| says(seen).engine.contains("Shaka"))
    };
    let seen = pages.wait_until("both play DASH", Duration::from_secs(20), of_both);
    for seen in &seen {
        assert_eq!(chosen(seen), ["format=dash", "quality=tiny"]);
    }
    for seen in &seen {
        assert!(seen.errors.is_empty(), "{seen:#?}");
    }
}

#[test]
fn it_plays_a_copied_stream_in_both_formats() {
    let _machine = beside_others();
    let place = Place::new();
    video(&place.path().join("cam.mp4"), 6, 25, "-c:v libx264");
    let keys = "part = \"200ms\"\nsource = \"cam.mp4\"\nsource_loop = true";
    let stream = copied_stream("cam", keys);
    let daemon = Daemon::start_in(place, &stream, &[]);
    daemon.wait_until_playable("cam");
    let mut pages = both_pages(&daemon);
    // HLS has it part by part, DASH only segment by segment. Without parts hls.js was 1.9 s behind.
    let all_play = |seen: &[Seen]| seen.iter().all(|seen| seen.plays(WATCHED, 2.0));
    let near = |seen: &[Seen]| says(&seen[0]).latency.is_some_and(|latency| latency < 1.5);
    pages.wait_until(
        "HLS is near to the live edge",
        Duration::from_secs(60),
        near,
    );
    let seen = pages.wait_until("both play", Duration::from_secs(60), all_play);
    each_in_its_format(&seen);
    for seen in &seen {
        let page = says(seen);
        eprintln!("{}: {:?} s behind", page.engine, page.latency);
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
