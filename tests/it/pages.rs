//! The daemon's pages but for the player's: the list of streams, what is kept of a live one, and a recording.

use std::time::{Duration, Instant};

use crate::harness::beside_others;
use crate::harness::browser_session::BrowserSession;
use crate::harness::daemon::Daemon;
use crate::harness::streams::small_stream;

const SOON: Duration = Duration::from_secs(30);

/// A stream's card in the list.
#[derive(Clone, Debug, serde::Deserialize)]
struct Card {
    name: String,
    state: String,
    viewers: String,
    bitrate: String,
    latency: String,
    /// How many points its line of latencies has.
    points: usize,
    /// Whether its thumbnail is drawn.
    picture: bool,
    note: String,
}

/// What a page shows.
#[derive(Clone, Debug, serde::Deserialize)]
struct Page {
    path: String,
    text: String,
    /// By how many pixels it is wider than its window.
    overflow: i32,
    /// Where the link leads that has the keyboard.
    focus: String,
    cards: Vec<Card>,
    /// Its video's time, in seconds.
    at: Option<f64>,
    recordings: Vec<String>,
    /// What its console complained of, and whom else it asked.
    troubles: Vec<String>,
}

impl Page {
    #[track_caller]
    fn card(&self, name: &str) -> &Card {
        let card = self.cards.iter().find(|card| card.name == name);
        card.unwrap_or_else(|| panic!("no {name}: {self:#?}"))
    }

    /// Fits into its window, and neither complains nor asks other hosts.
    #[track_caller]
    fn is_well(&self) {
        assert!(self.overflow <= 0 && self.troubles.is_empty(), "{self:#?}");
    }
}

/// One tab of a browser.
struct Tab(BrowserSession);

impl Tab {
    #[track_caller]
    fn new() -> Self {
        Self(BrowserSession::start("visit.mjs", None, SOON))
    }

    #[track_caller]
    fn act(&mut self, command: &str) -> Page {
        let line = self.0.ask(command, SOON);
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Looks at the page, which nobody reloads, until it is as it should be.
    #[track_caller]
    fn wait_until(&mut self, what: &str, well: impl Fn(&Page) -> bool) -> Page {
        let deadline = Instant::now() + SOON;
        loop {
            let page = self.act("look");
            if well(&page) {
                return page;
            }
            assert!(Instant::now() < deadline, "not {what}: {page:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the page's video plays, which is begun by hand where that is needed.
    #[track_caller]
    fn wait_until_it_plays(&mut self) -> Page {
        self.act("play");
        self.wait_until("playing", |page| page.at.is_some_and(|at| at > 1.0))
    }
}

#[test]
fn the_list_of_streams_follows_them_by_itself_and_its_keys_lead_to_a_player() {
    let _machine = beside_others();
    let daemon = Daemon::start(&(small_stream("cam", "") + &small_stream("door", "")));
    let mut tab = Tab::new();
    let page = tab.act(&format!("open {}", daemon.url("/")));
    page.is_well();
    let page = tab.wait_until("a list", |page| page.cards.len() == 2);
    for card in &page.cards {
        assert_eq!(card.state, "waiting", "{page:#?}");
        let mend = format!("ringgear pattern {}", card.name);
        assert!(card.note.contains(&mend), "{page:#?}");
    }
    let mut camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    let page = tab.wait_until("live", |page| {
        let cam = page.card("cam");
        cam.state == "live" && cam.picture && cam.points > 2 && cam.bitrate.ends_with("bit/s")
    });
    let cam = page.card("cam");
    let latency = cam.latency.strip_suffix(" s").unwrap();
    assert!(latency.parse::<f64>().unwrap() < 10.0, "{page:#?}");
    assert_eq!(cam.viewers, "0", "{page:#?}");
    assert_eq!(page.card("door").state, "waiting", "{page:#?}");
    assert_eq!(daemon.get("/cam/small/media.m3u8").status, 200);
    tab.wait_until("watched", |page| page.card("cam").viewers == "1");
    camera.kill();
    tab.wait_until("no signal", |page| page.card("cam").state == "no signal");
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    tab.wait_until("live again", |page| page.card("cam").state == "live");

    let page = tab.act(&format!("open {} phone", daemon.url("/")));
    page.is_well();
    tab.wait_until("a list", |page| page.cards.len() == 2)
        .is_well();
    let mut pressed = 0;
    while tab.act("press Tab").focus != "cam/" {
        pressed += 1;
        assert!(pressed < 10, "{:#?}", tab.act("look"));
    }
    tab.act("press Enter");
    tab.wait_until("the player's page", |page| page.path == "/cam/");
    tab.wait_until_it_plays().is_well();
}

#[test]
fn what_is_kept_and_what_was_recorded_can_be_watched() {
    let _machine = beside_others();
    let streams = [
        small_stream("cam", ""),
        "[streams.cam.record]\nkeep = \"1h\"\n".to_owned(),
        small_stream("talk", "mode = \"event\""),
    ];
    let daemon = Daemon::start(&streams.concat());
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    let mut tab = Tab::new();
    let page = tab.act(&format!("open {} phone", daemon.url("/cam/recordings/")));
    page.is_well();
    let page = tab.wait_until_it_plays();
    page.is_well();
    assert_eq!(page.recordings.len(), 1, "{page:#?}");
    assert!(page.recordings[0].starts_with('#'), "{page:#?}");

    let url = daemon.url("/talk/");
    let mut speaker = daemon.producer(&["pattern", "talk", "--size", "320x180", "--frames", "100"]);
    speaker.wait(SOON);
    let page = tab.act(&format!("open {url}"));
    page.is_well();
    let page = tab.wait_until_it_plays();
    page.is_well();
    assert_eq!(page.recordings.len(), 1, "{page:#?}");
    let name = &page.recordings[0];
    let at = name.trim_start_matches("..").trim_start_matches('/');
    assert!(page.path == format!("/talk/{at}"), "{page:#?}");
    assert!(page.text.contains("recorded"), "{page:#?}");
}
