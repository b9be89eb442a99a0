//! What every row of the matrix has: a daemon with one stream, a camera, checkers, and three players in a browser.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringgear::tick::Framerate;

use crate::harness::checker::Checker;
use crate::harness::daemon::Daemon;
use crate::harness::held_players::HeldPlayers;
use crate::harness::process::Process;
use crate::harness::streams::small_stream;
use crate::harness::tick_log::Kind;
use crate::harness::{Machine, beside_others, hls, media, tick_log, wait_for};

/// The stream that most rows break. Its window holds the whole test, so that every picture can be decoded at the end.
pub(crate) fn stream() -> String {
    stream_for(90)
}

/// The same for a test of so many seconds.
pub(crate) fn stream_for(seconds: u64) -> String {
    small_stream(
        "cam",
        &format!("window = \"{seconds}s\"\ndegrade = \"off\""),
    )
}

/// Its framerate.
pub(crate) const FRAMERATE: u64 = 25;

/// How a camera feeds it.
pub(crate) const CAMERA: [&str; 4] = ["pattern", "cam", "--size", "320x180"];

/// Players have to be playing this long after the fault.
const RECOVERY: Duration = Duration::from_secs(5);
/// For so long they are watched then.
const WATCHED: Duration = Duration::from_secs(2);

/// What a row may cost. Nothing, unless it says so.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowed {
    /// Rules that can't hold meanwhile: nothing new can appear while the daemon is away (5), nothing is answered (2).
    pub(crate) rules: &'static [u8],
    /// Further rules that can't hold in the publish folder, while it is not there.
    pub(crate) folder_rules: &'static [u8],
    /// Whether another camera came, that counts its frames from 0.
    pub(crate) another_camera: bool,
    /// Ticks that show another picture than ingest logged: frames that died with the daemon that had logged them.
    pub(crate) replaced: u64,
    /// Ticks that were published though ingest logged nothing: those that a restarted daemon filled in.
    pub(crate) filled: u64,
    /// Ticks without a picture of their own, because the one before is shown for several ticks.
    pub(crate) held: u64,
    /// Ticks that lie in a gap.
    pub(crate) missing: u64,
}

/// A stream at work, and everybody who watches it.
pub(crate) struct Scene {
    pub(crate) daemon: Daemon,
    pub(crate) camera: Option<Process>,
    pub(crate) players: HeldPlayers,
    row: &'static str,
    http: Checker,
    folder: Checker,
    _machine: Machine,
}

impl Scene {
    /// Starts all of it, for the row of this name, and waits until the players play.
    #[track_caller]
    pub(crate) fn begin(row: &'static str, config: &str) -> Self {
        let machine = beside_others();
        let daemon = Daemon::start(config);
        let camera = daemon.producer(&CAMERA);
        Self::of(row, machine, daemon, Some(camera))
    }

    /// As [`Self::begin`], of a daemon and a camera that run already.
    #[track_caller]
    pub(crate) fn of(
        row: &'static str,
        machine: Machine,
        daemon: Daemon,
        camera: Option<Process>,
    ) -> Self {
        // Long enough that no player begins at the stream's very first picture.
        wait_for("six segments are listed", Duration::from_secs(30), || {
            (daemon.stream("cam").window.segments >= 6).then_some(())
        });
        let http = Checker::over_http(&daemon, "cam");
        let folder = Checker::of_folder(&daemon, "cam");
        let players = HeldPlayers::open(&daemon.url("/cam"));
        Self {
            daemon,
            camera,
            players,
            row,
            http,
            folder,
            _machine: machine,
        }
    }

    /// The encoder's process.
    #[track_caller]
    pub(crate) fn encoder_pid(&self) -> u32 {
        wait_for("an encoder runs", Duration::from_secs(10), || {
            self.daemon.stream("cam").encoder.pid
        })
    }

    /// Called when the fault is over, or was done: five seconds later, all three players have to play.
    #[track_caller]
    pub(crate) fn recovers(&mut self) {
        self.recovers_within(RECOVERY);
    }

    /// As [`Self::recovers`], where a player takes longer by its own design.
    #[track_caller]
    pub(crate) fn recovers_within(&mut self, time: Duration) {
        self.plays_within(time, 5.0);
    }

    /// Called when a slate is shown, which has a picture for each part: five seconds later, all three players have to play it.
    #[track_caller]
    pub(crate) fn plays_the_slate(&mut self) {
        self.plays_within(RECOVERY, 3.0);
    }

    #[track_caller]
    fn plays_within(&mut self, time: Duration, pictures_a_second: f64) {
        std::thread::sleep(time);
        let seen = self.players.look(WATCHED);
        let stalls: Vec<String> = seen
            .iter()
            .map(|seen| format!("{} stalled {:.1} s", seen.player, seen.stalled))
            .collect();
        eprintln!("{}: {}", self.row, stalls.join(", "));
        for player in &seen {
            assert!(
                player.plays(WATCHED, pictures_a_second) && player.errors.is_empty(),
                "{}: a player does not play {time:?} after the fault: {seen:#?}",
                self.row
            );
        }
    }

    /// Ends the stream, and holds everything that was published against the log of ingest.
    #[track_caller]
    pub(crate) fn end(mut self, allowed: Allowed) -> Account {
        let http = self.http.finish();
        let folder = self.folder.finish();
        drop(self.camera.take());
        self.daemon.stop();
        let account = Account::of(&self.daemon, allowed.another_camera);
        eprintln!("{}: {account}", self.row);
        for (report, name) in [(&http, "HTTP"), (&folder, "the folder")] {
            assert!(report.rounds > 50, "{name} was hardly checked: {report:?}");
            let mut rules = allowed.rules.to_vec();
            if name != "HTTP" {
                rules.extend(allowed.folder_rules);
            }
            let broken = report.rules_broken();
            eprintln!("{}: rules that {name} broke: {broken:?}", self.row);
            report.assert_clean_but(&rules);
        }
        account.is_within(self.row, allowed);
        account
    }
}

/// How what was published compares with what ingest logged, tick by tick, from the first tick published to the last logged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    /// Ticks from the first to the last.
    pub(crate) ticks: u64,
    /// Ticks that show the frame that was logged for them.
    pub(crate) right: u64,
    /// As [`Allowed`] has them.
    pub(crate) replaced: Vec<u64>,
    pub(crate) filled: Vec<u64>,
    pub(crate) held: u64,
    pub(crate) missing: Vec<u64>,
    /// Ticks that a frame of the camera is shown on.
    pub(crate) fresh: u64,
    pub(crate) discontinuities: usize,
}

impl Account {
    #[track_caller]
    pub(crate) fn of(daemon: &Daemon, another_camera: bool) -> Self {
        let log: BTreeMap<u64, (Kind, Option<u64>)> =
            tick_log::read(&daemon.place.tick_logs(), "cam")
                .into_iter()
                .map(|row| (row.tick, (row.kind, row.frame)))
                .collect();
        let folder = daemon.place.live().join("cam/small");
        let text = std::fs::read_to_string(folder.join("media.m3u8")).unwrap();
        let mut playlist = hls::media(&text).unwrap();
        let discontinuities = playlist.segments.iter().filter(|one| one.discontinuity);
        let discontinuities = discontinuities.count();
        playlist.segments.retain(|segment| !segment.gap);
        let rate: Framerate = "25".parse().unwrap();
        let shown: BTreeMap<u64, Option<u64>> = media::decode_published(&folder, &playlist)
            .into_iter()
            .map(|picture| {
                let den = u64::from(rate.den());
                assert_eq!(picture.time % den, 0, "a picture lies on the grid");
                let frame = picture.bars.map(|bars| u64::from(bars.frame_number));
                (picture.time / den, frame)
            })
            .collect();
        let mut account = Self {
            discontinuities,
            ..Self::default()
        };
        let first = *shown.keys().next().expect("pictures are published");
        let last = *log.keys().next_back().expect("ingest has logged ticks");
        let mut latest = 0;
        for tick in first..=last {
            account.ticks += 1;
            let Some(frame) = shown.get(&tick) else {
                let before = shown.range(..tick).next_back().map(|(tick, _)| *tick);
                let after = shown.range(tick..).next().map(|(tick, _)| *tick);
                match (before, after) {
                    // A sample lasts a part at most.
                    (Some(before), Some(after)) if after - before <= 5 => account.held += 1,
                    _ => account.missing.push(tick),
                }
                continue;
            };
            let before = latest;
            if let Some(frame) = frame {
                let goes_on = *frame >= latest || another_camera;
                assert!(goes_on, "frame {frame} after frame {latest}");
                latest = *frame;
            }
            match log.get(&tick) {
                None => account.filled.push(tick),
                Some((kind, logged)) if logged == frame => {
                    account.right += 1;
                    account.fresh += u64::from(*kind == Kind::Fresh);
                }
                // The slate is the last picture, darkened: its bars may be read still.
                Some((Kind::Slate, None)) if *frame == Some(before) => account.right += 1,
                Some(_) => account.replaced.push(tick),
            }
        }
        account
    }

    #[track_caller]
    fn is_within(&self, row: &str, allowed: Allowed) {
        let count = |ticks: &[u64]| u64::try_from(ticks.len()).unwrap();
        let checks = [
            ("replaced", count(&self.replaced), allowed.replaced),
            ("filled", count(&self.filled), allowed.filled),
            ("held", self.held, allowed.held),
            ("missing", count(&self.missing), allowed.missing),
        ];
        for (what, found, most) in checks {
            assert!(
                found <= most,
                "{row}: {found} ticks were {what}, {most} are allowed: {self:?}"
            );
        }
        assert_eq!(self.discontinuities, 0, "{row}: discontinuities");
        assert!(self.fresh > 50, "{row}: hardly a frame was shown: {self:?}");
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ticks, {} of them with a new frame: {} as logged, {} replaced, {} filled in, {} held, {} missing, {} discontinuities",
            self.ticks,
            self.fresh,
            self.right,
            self.replaced.len(),
            self.filled.len(),
            self.held,
            self.missing.len(),
            self.discontinuities
        )
    }
}

/// Watches the folder for new parts, and says how long the longest wait for one was.
pub(crate) fn longest_wait_for_a_part(daemon: &Daemon, watched: Duration) -> Duration {
    let folder = daemon.place.live().join("cam/small");
    let newest = || {
        let names = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        names
            .filter_map(|entry| part_of(entry.file_name().to_str()?))
            .max()
    };
    let end = Instant::now() + watched;
    let (mut last, mut since, mut longest) = (newest(), Instant::now(), Duration::ZERO);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
        longest = longest.max(since.elapsed());
        let now = newest();
        if now > last {
            (last, since) = (now, Instant::now());
        }
    }
    longest
}

/// Segment and part of `{number}.{part}.m4s`; a whole segment stands behind all its parts.
fn part_of(name: &str) -> Option<(u64, u64)> {
    let name = name.strip_suffix(".m4s")?;
    match name.split_once('.') {
        Some((number, part)) => Some((number.parse().ok()?, part.parse().ok()?)),
        None => Some((name.parse().ok()?, u64::MAX)),
    }
}
