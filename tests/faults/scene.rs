//! What every row of the matrix has: a daemon with one stream, a camera, checkers, and three players in a browser.
//!
//! An encoder that is too slow is given fewer pictures (`degrade = "skip"`, as is the default), so on a busy machine a sample may be two ticks long. No more ticks
//! may be without a picture of their own than the daemon says it has left out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use ringgear::tick::Framerate;

use crate::harness::checker::Checker;
use crate::harness::daemon::Daemon;
use crate::harness::held::ProcessorTime;
use crate::harness::held_players::{HeldPlayers, Seen};
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
    small_stream("cam", &format!("window = \"{seconds}s\""))
}

/// Its framerate.
pub(crate) const FRAMERATE: u64 = 25;

/// How a camera feeds it.
pub(crate) const CAMERA: [&str; 4] = ["pattern", "cam", "--size", "320x180"];

/// Players have to be playing this long after the fault.
const RECOVERY: Duration = Duration::from_secs(5);
/// For so long they are watched then.
const WATCHED: Duration = Duration::from_secs(2);
/// A slate has five. One that stands still shows none.
const PICTURES_A_SECOND: f64 = 3.0;
/// With less than this share of the processors' time idle, browsers may stutter for want of it.
const SPARE: f64 = 0.1;
/// A player may stall for so long, where a row does not say more: less is hardly seen.
const UNSEEN: Duration = Duration::from_millis(500);
/// Where less than this was idle since the fault, stalls are the machine's.
pub(crate) const SPARE_SINCE: f64 = 0.3;
/// Then they have to play within this.
const STARVED: Duration = Duration::from_secs(60);

/// How long ago the newest segment begins, by its PROGRAM-DATE-TIME and the machine's clock.
pub(crate) fn newest_is_old(daemon: &Daemon) -> f64 {
    let playlist = hls::media(&daemon.get("/cam/small/media.m3u8").text()).unwrap();
    let starts = playlist.segments.last().unwrap().program_date_time.unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs_f64() - Duration::from_millis(starts).as_secs_f64()
}

/// What a row may cost. Nothing, unless it says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    /// Rules that can't hold meanwhile.
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
    /// Changes to another encoder, whose headers are others.
    pub(crate) discontinuities: usize,
}

impl Allowed {
    /// Nothing.
    pub(crate) const NOTHING: Self = Self {
        rules: &[],
        folder_rules: &[],
        another_camera: false,
        replaced: 0,
        filled: 0,
        held: 0,
        missing: 0,
        discontinuities: 0,
    };
    /// That the daemon was away: nothing new appeared, and nothing was removed from the folder in time.
    pub(crate) const AWAY: Self = Self {
        rules: &[5],
        folder_rules: &[2],
        ..Self::NOTHING
    };
}

/// A stream at work, and everybody who watches it.
pub(crate) struct Scene {
    pub(crate) daemon: Daemon,
    pub(crate) camera: Option<Process>,
    pub(crate) players: HeldPlayers,
    row: &'static str,
    /// Since the players were last looked at.
    machine: ProcessorTime,
    /// Ticks that encoders which were too slow did not get, of daemons that have ended.
    skipped: u64,
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
        wait_for("six segments are listed", Duration::from_secs(60), || {
            (daemon.stream("cam").window.segments >= 6).then_some(())
        });
        // First: three browsers that start fill a small machine for seconds, and what is late then is late by them.
        let players = HeldPlayers::open(&daemon.url("/cam"));
        let http = Checker::over_http(&daemon, "cam");
        let folder = Checker::of_folder(&daemon, "cam");
        Self {
            daemon,
            camera,
            players,
            row,
            machine: ProcessorTime::now(),
            skipped: 0,
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

    /// Ends the daemon as a service manager does.
    #[track_caller]
    pub(crate) fn stop_daemon(&mut self) {
        self.keep_counts();
        self.daemon.stop();
    }

    /// Kills the daemon.
    #[track_caller]
    pub(crate) fn kill_daemon(&mut self) {
        self.keep_counts();
        self.daemon.kill();
    }

    /// What a daemon has counted goes with it.
    #[track_caller]
    fn keep_counts(&mut self) {
        let encoder = self.daemon.stream("cam").encoder;
        let reduces = encoder.reduced_to_per_second.is_some();
        // Until it has ended, it may leave out some more.
        self.skipped += encoder.skipped + if reduces { FRAMERATE } else { 0 };
    }

    /// Called when the fault is over, or was done: five seconds later, all three players have to play, and none may have stalled that anybody
    /// would have seen.
    #[track_caller]
    pub(crate) fn recovers(&mut self) {
        self.recovers_stalled(RECOVERY, UNSEEN);
    }

    /// As [`Self::recovers`], where players may stall for some time.
    #[track_caller]
    pub(crate) fn recovers_from_stall(&mut self, stall: Duration) {
        self.recovers_stalled(RECOVERY, stall);
    }

    /// As [`Self::recovers`], where a player stalls for this time by its own design.
    #[track_caller]
    pub(crate) fn recovers_within(&mut self, time: Duration) {
        self.recovers_stalled(time, time);
    }

    #[track_caller]
    fn recovers_stalled(&mut self, time: Duration, stall: Duration) {
        std::thread::sleep(time);
        let idle = std::mem::replace(&mut self.machine, ProcessorTime::now()).idle_share();
        let judged = idle >= SPARE_SINCE;
        let begun = Instant::now();
        loop {
            let machine = ProcessorTime::now();
            let seen = self.players.look(WATCHED);
            let idle = machine.idle_share();
            for player in seen.iter().filter(|_| judged) {
                assert!(
                    player.stalled <= stall.as_secs_f64(),
                    "{}: a player stalled, {stall:?} are allowed: {seen:#?}",
                    self.row
                );
            }
            let stalls: Vec<String> = seen
                .iter()
                .map(|seen| format!("{} stalled {:.1} s", seen.player, seen.stalled))
                .collect();
            eprintln!(
                "{}: {}, {:.0} % idle",
                self.row,
                stalls.join(", "),
                idle * 100.0
            );
            let plays = |player: &Seen| player.plays(WATCHED, PICTURES_A_SECOND);
            let sound = seen.iter().all(|player| player.errors.is_empty());
            if sound && seen.iter().all(plays) {
                break;
            }
            let starved = idle < SPARE && begun.elapsed() < STARVED;
            assert!(
                sound && starved,
                "{}: a player does not play {time:?} after the fault: {seen:#?}",
                self.row
            );
        }
    }

    /// Ends the stream, and holds everything that was published against the log of ingest.
    #[track_caller]
    pub(crate) fn end(mut self, mut allowed: Allowed) -> Account {
        self.keep_counts();
        let http = self.http.finish();
        let folder = self.folder.finish();
        drop(self.camera.take());
        self.daemon.stop();
        allowed.held += self.skipped;
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
        assert!(http.in_parts > 5, "parts were hardly checked: {http:?}");
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
        assert_eq!(
            self.discontinuities, allowed.discontinuities,
            "{row}: discontinuities"
        );
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

/// Segment and part of the newest part that the folder has of `rendition`.
pub(crate) fn newest_part(daemon: &Daemon, rendition: &str) -> Option<(u64, u64)> {
    let folder = daemon.place.live().join("cam").join(rendition);
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    names
        .filter_map(|entry| part_of(entry.file_name().to_str()?))
        .max()
}

/// Watches the folder for new parts of `rendition`, and says how long the longest wait for one was.
pub(crate) fn longest_wait_for_a_part(
    daemon: &Daemon,
    rendition: &str,
    watched: Duration,
) -> Duration {
    let newest = || newest_part(daemon, rendition);
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
