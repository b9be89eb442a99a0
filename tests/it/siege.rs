//! A daemon under attack beside one that nobody attacks: what the tests of hostile producers measure and demand.

use std::time::{Duration, Instant};

use ringgear::status::TickStatus;

use crate::harness::daemon::Daemon;
use crate::harness::held::{Held, ProcessorTime, cpu_seconds, memory_kb, thread_names};
use crate::harness::process::Process;
use crate::harness::streams::small_stream;
use crate::harness::{Machine, alone, beside_others, wait_for};

/// Two streams with a second of everything.
pub(crate) fn streams() -> String {
    ["good", "bad"]
        .map(|name| small_stream(name, "window = \"6s\""))
        .concat()
}

/// A tick of the streams.
pub(crate) const TICK: Duration = Duration::from_millis(40);

/// A daemon whose stream `good` is fed well while a test does its worst to `bad`, and a daemon far away that nobody attacks: what its
/// ticks suffer is the machine's doing.
pub(crate) struct Siege {
    pub(crate) daemon: Daemon,
    neighbour: Process,
    ticks: TickStatus,
    far_daemon: Daemon,
    _far_neighbour: Process,
    far_ticks: TickStatus,
    pub(crate) held: Held,
    threads: Vec<String>,
    resident_kb: u64,
    cpu: f64,
    since: Instant,
    /// Whether nobody else worked on the machine before this began.
    quiet: bool,
    _machine: Machine,
}

impl Siege {
    pub(crate) fn begin(limits: &str) -> Self {
        // Whether ticks suffer can be measured only where nothing else runs: `make soak` sees to that.
        let demanded = quiet_is_demanded();
        let machine = if demanded { alone() } else { beside_others() };
        let quiet = demanded && machine_is_quiet();
        assert!(
            quiet || !demanded,
            "other work fills the machine: whether ticks suffer can't be measured beside it (RINGGEAR_QUIET demands that it is)"
        );
        let far_daemon = Daemon::start(&streams());
        let far_neighbour = far_daemon.producer(&["pattern", "good", "--size", "320x180"]);
        far_daemon.wait_until_playable("good");
        let daemon = Daemon::start(&format!("[limits]\n{limits}\n{}", streams()));
        let neighbour = daemon.producer(&["pattern", "good", "--size", "320x180"]);
        // The other stream has its encoder by then, so that its start is no part of what is measured.
        let camera = daemon.producer(&["pattern", "bad", "--size", "320x180"]);
        daemon.wait_until_playable("good");
        daemon.wait_until_playable("bad");
        // What it does once and for all is done, too.
        daemon.wait_for_slates(&["good", "bad"]);
        drop(camera);
        free(&daemon);
        let stream = daemon.stream("good");
        Self {
            ticks: stream.ticks,
            far_ticks: far_daemon.stream("good").ticks,
            far_daemon,
            _far_neighbour: far_neighbour,
            held: Held::by(&daemon),
            threads: thread_names(&daemon),
            resident_kb: memory_kb(daemon.pid(), "VmRSS"),
            cpu: cpu_seconds(&daemon),
            since: Instant::now(),
            daemon,
            neighbour,
            quiet,
            _machine: machine,
        }
    }

    /// The most memory that the daemon has had, beyond what it had before.
    pub(crate) fn peak_grew_by_kb(&self) -> u64 {
        memory_kb(self.daemon.pid(), "VmHWM") - self.resident_kb
    }

    /// What the attack came to: nothing is left of it, and the neighbour did not feel it. `cores` bounds the daemon's own
    /// processor time.
    #[track_caller]
    pub(crate) fn end(mut self, what: &str, cores: f64) {
        let seconds = self.since.elapsed().as_secs_f64();
        let used = (cpu_seconds(&self.daemon) - self.cpu) / seconds;
        free(&self.daemon);
        wait_for(
            "two seconds of the neighbour's ticks",
            Duration::from_secs(20),
            || (self.daemon.stream("good").ticks.total >= self.ticks.total + 50).then_some(()),
        );
        let look = || {
            let resident_kb = memory_kb(self.daemon.pid(), "VmRSS");
            (Held::by(&self.daemon), resident_kb)
        };
        let most_kb = self.resident_kb + 32 * 1024;
        let (mut held, mut resident_kb) = look();
        let deadline = Instant::now() + Duration::from_secs(20);
        // Threads that helped out for a moment stay for ten seconds, and pictures until the encoder has returned them.
        while !(held.is_no_more_than(&self.held) && resident_kb <= most_kb)
            && Instant::now() < deadline
        {
            crate::harness::pause();
            (held, resident_kb) = look();
        }
        let peak_kb = memory_kb(self.daemon.pid(), "VmHWM");
        let far = self.far_daemon.stream("good").ticks;
        let far_overdue = far.overdue - self.far_ticks.overdue;
        let stream = self.daemon.stream("good");
        let ticks = &stream.ticks;
        let overdue = ticks.overdue - self.ticks.overdue;
        eprintln!(
            "{what}: {seconds:.1} s, {used:.2} cores, resident {} -> {resident_kb} kB (peak {peak_kb}), {:?} -> {held:?}, \
             neighbour: {} ticks, {overdue} overdue, {far_overdue} in a daemon without an attack",
            self.resident_kb,
            self.held,
            ticks.total - self.ticks.total
        );
        assert!(
            held.is_no_more_than(&self.held),
            "{held:?} after, {:?} before; threads {:?} after, {:?} before",
            self.held,
            thread_names(&self.daemon),
            self.threads
        );
        assert!(
            resident_kb <= most_kb,
            "resident kB: {} before, {resident_kb} after",
            self.resident_kb
        );
        // A burst may use what is bounded for two seconds at once.
        let allowed = cores * seconds.max(2.0);
        assert!(
            used * seconds <= allowed,
            "the daemon used {:.2} s of a processor, {allowed:.2} are allowed",
            used * seconds
        );
        if self.quiet {
            assert_eq!(
                overdue, 0,
                "ticks of the neighbour were overdue, and {far_overdue} in a daemon without an attack"
            );
        } else {
            eprintln!(
                "{what}: NOT MEASURED: whether ticks are overdue, as other tests may run beside: make soak does"
            );
        }
        assert_eq!(
            ticks.missed, self.ticks.missed,
            "missed ticks of the neighbour"
        );
        let session = stream
            .session
            .expect("the neighbour still feeds its stream");
        assert_eq!(u32::try_from(session.pid), Ok(self.neighbour.pid()));
        assert!(self.neighbour.is_running());
        // And the attacked stream is there for the next honest producer.
        let _camera = self
            .daemon
            .producer(&["pattern", "bad", "--size", "320x180"]);
        wait_for(
            "the stream takes frames again",
            Duration::from_secs(10),
            || (self.daemon.stream("bad").session?.committed > 5).then_some(()),
        );
    }
}

/// Waits until `bad` is nobody's, and its ring is gone: of the neighbour's there are the descriptor and the mapping.
#[track_caller]
pub(crate) fn free(daemon: &Daemon) {
    wait_for("nobody holds the stream", Duration::from_secs(10), || {
        let free = daemon.stream("bad").session.is_none() && Held::by(daemon).rings == 2;
        free.then_some(())
    });
}

/// Holds what took `took` against `most` where nothing else runs, as `make soak` sees to; elsewhere against four times as much.
#[track_caller]
pub(crate) fn judge(what: &str, took: Duration, most: Duration) {
    if quiet_is_demanded() {
        eprintln!("{what} took {took:?}");
        assert!(took < most, "{what} took {took:?}, {most:?} are allowed");
    } else {
        eprintln!("{what} took {took:?}; make soak allows {most:?}");
        assert!(
            took < 4 * most,
            "{what} took {took:?}, {most:?} are allowed on a quiet machine"
        );
    }
}

/// Whether a machine that is too busy to measure on fails the test.
fn quiet_is_demanded() -> bool {
    std::env::var_os("RINGGEAR_QUIET").is_some()
}

/// Whether three quarters of the processors' time are free before the test; what ran before may take a moment to end.
fn machine_is_quiet() -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let before = ProcessorTime::now();
        std::thread::sleep(Duration::from_millis(500));
        if before.idle_share() >= 0.75 {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}
