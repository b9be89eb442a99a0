//! One life of a stream: its threads from ingest to window, wired together. What a viewer sees outlives it: the next life
//! goes on from the newest snapshot, as a restarted daemon goes on from the folder, but without the folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{getegid, geteuid};
use tokio::sync::watch;

use super::copier::Copier;
use super::curtain::Curtain;
use super::gate::Gate;
use super::intake::Intake;
use super::keeper::Crew;
use super::manifests::FolderManifests;
use super::owner::{self, Event, Owner};
use super::seat::Bench;
use super::shared::Shared;
use super::sound_seat::SoundBench;
use super::turns::{Turn, Turns};
use super::{StreamError, policy_of, sizes_in};
use crate::audio::{self, AudioNews, AudioPost, Beside, Entrance};
use crate::budget::Budget;
use crate::clock::{Anchor, MonotonicTime};
use crate::config::{AudioInput, AudioPlan, BreakerPlan, StreamPlan};
use crate::control::Peer;
use crate::descriptors::{Descriptors, Share};
use crate::encode::{FfmpegInfo, ProbeCache};
use crate::ingest::{Command, Farewell, TickLog};
use crate::picture::{Picture, Size};
use crate::publish::{self, Claim, DiskDesk, DiskLimits, DiskPlan, DiskPublisher, Ledger};
use crate::source::{Copied, CopyDesk, Source, SourceParts, Stop};
use crate::tick::{Grid, Tick};
use crate::window::{Window, WindowSettings};

/// The owner's task, whose end is the life's.
pub(super) const OWNER: &str = "stream";
pub(super) const INGEST: &str = "ingest";
const SOURCE: &str = "source";

/// What all lives of a stream stand on.
pub(super) struct Ground {
    pub(super) plan: StreamPlan,
    pub(super) grid: Grid,
    pub(super) anchor: Anchor,
    pub(super) ffmpeg: Arc<FfmpegInfo>,
    pub(super) probes: Arc<ProbeCache>,
    pub(super) tick_log: Option<PathBuf>,
    pub(super) breaker: BreakerPlan,
    /// The bytes of pictures that are kept for the encoder's restart; none for those of the time that it takes.
    pub(super) replay_memory: Option<u64>,
    pub(super) settings: WindowSettings,
    pub(super) window_memory: Arc<Budget>,
    pub(super) picture_memory: Arc<Budget>,
    pub(super) turns: Arc<Turns>,
    pub(super) folder: PathBuf,
    pub(super) keep_free: u64,
    /// Keeps other daemons out of the folder, if that could be had.
    pub(super) _claim: Option<Claim>,
    pub(super) desk: DiskDesk,
    /// What the first publisher knows of the folder; later ones look for themselves.
    pub(super) ledger: Option<Ledger>,
    pub(super) shared: Arc<Shared>,
    pub(super) bench: Bench,
    pub(super) sound_bench: SoundBench,
    /// Where the commands of the next life arrive; its sender is the bench's.
    pub(super) commands: Option<Receiver<Command>>,
    pub(super) curtain: Curtain,
    pub(super) newest: watch::Sender<Option<Picture>>,
    pub(super) descriptors: Arc<Descriptors>,
    /// What the stream has of them, once it had them.
    pub(super) share: Option<Share>,
    /// Where an earlier run stopped, and whether the stream breaks there: until something is published after it.
    pub(super) resume: Option<Tick>,
    pub(super) discontinuity: bool,
    /// The sizes that an earlier run gave its renditions, by name.
    pub(super) sizes: BTreeMap<String, Size>,
    /// Of a recording: its producer, which waits to hear that it is whole.
    pub(super) farewell: Arc<Mutex<Option<Farewell>>>,
    /// Called once the stream has ended and is published.
    pub(super) over: Option<Box<dyn FnOnce() + Send>>,
}

impl Ground {
    /// Makes sure that the stream has its descriptors.
    pub(super) fn take_descriptors(&mut self) -> Result<(), StreamError> {
        if self.share.is_none() {
            let share = self.descriptors.take(self.tracks_with_pipes());
            let share = share.map_err(|source| StreamError::Descriptors {
                stream: self.plan.name.clone(),
                source,
            })?;
            self.share = Some(share);
        }
        Ok(())
    }

    /// What has descriptors of its own: a source's FFmpeg has as many as a rendition, and so has the recording.
    fn tracks_with_pipes(&self) -> usize {
        let plan = &self.plan;
        let others = [
            plan.source.is_some(),
            plan.audio.is_some(),
            plan.record.is_some(),
        ];
        let others: usize = others.into_iter().map(usize::from).sum();
        plan.track_names().len() + others
    }

    /// The stream's folder is published from now on, after `rest`. `guard` is dropped at the publisher's end.
    pub(super) fn start_publisher(
        &mut self,
        rest: Duration,
        guard: impl Send + 'static,
    ) -> Result<DiskPublisher, StreamError> {
        let plan = DiskPlan {
            dir: self.folder.clone(),
            manifests: FolderManifests::of(&self.plan),
            limits: DiskLimits {
                keep_free: self.keep_free,
                max_bytes: self
                    .plan
                    .max_bytes
                    .filter(|_| !self.plan.mode.is_recorded()),
            },
            rest,
        };
        let (folder, stream) = (self.folder.clone(), self.plan.name.clone());
        let (tracks, anchor) = (self.settings.tracks.clone(), self.anchor.clone());
        let mut known = self.ledger.take();
        let ledger = move || match known.take() {
            Some(ledger) => Ok(ledger),
            None => publish::restore(&folder, &stream, &tracks, anchor.now())
                .map(|restored| restored.ledger),
        };
        let snapshots = self.curtain.behind();
        let curtain = self.curtain.clone();
        let passed = move |updated| curtain.passed(updated);
        DiskPublisher::start(plan, self.desk.clone(), ledger, snapshots, passed, guard)
            .map_err(|source| self.no_thread(source))
    }

    /// The stream has ended, and its folder is as it stays.
    pub(super) fn conclude(mut self) {
        let farewell = {
            let mut farewell = self.farewell.lock().unwrap_or_else(PoisonError::into_inner);
            farewell.take()
        };
        if let Some(over) = self.over.take() {
            over();
        }
        if let Some(farewell) = farewell {
            farewell.say(self.anchor.monotonic());
        }
    }

    /// What the next life is made by, and the publisher's next look at the folder.
    pub(super) fn adjust(&mut self, plan: StreamPlan) {
        self.settings.window = plan.window;
        self.plan = plan;
    }

    /// Counts as a tick for who asks whether the stream is stuck.
    pub(super) fn shows_life(&self) {
        let now = self.anchor.monotonic();
        self.shared.counters.turned.set(now.0);
    }

    /// Notes that a life ended by itself, and of what, or why none could begin. Producers are told, and come back by themselves.
    pub(super) fn died(&mut self, cause: String) {
        let (commands, obeyed) = channel();
        self.bench.close(commands, &cause);
        self.sound_bench.close(&cause);
        self.commands = Some(obeyed);
        let mut report = self.shared.report();
        report.failure = Some(cause);
        report.broken = true;
        report.encoder.pid = None;
        report.starting = false;
    }

    /// What makes the stream's sound and tells its owner over `events`.
    fn sound(
        &self,
        (plan, beside): (AudioPlan, Option<Arc<Beside>>),
        post: AudioPost,
        events: SyncSender<Event>,
    ) -> audio::Work<impl Fn(AudioNews) -> bool + use<>> {
        audio::Work {
            stream: self.plan.name.clone(),
            plan,
            source: self.plan.sound_from().unwrap_or_default(),
            ffmpeg: Arc::clone(&self.ffmpeg),
            probes: Arc::clone(&self.probes),
            anchor: self.anchor.clone(),
            post,
            beside,
            encoder_timeout: self.plan.encoder_timeout,
            breaker: self.breaker,
            picture_lag: Arc::clone(&self.shared.latency.picture_lag),
            tell: move |news| events.send(Event::Audio(news)).is_ok(),
        }
    }

    fn no_thread(&self, source: std::io::Error) -> StreamError {
        StreamError::Thread {
            stream: self.plan.name.clone(),
            source,
        }
    }

    /// The stream's source, if it has one; it ends with `stop`. If it is copied, its samples go to `copy`; else its sound goes to `sound`.
    fn source(
        &self,
        (first_tick, first_sound): (Tick, MonotonicTime),
        (sound, copy): (Option<Entrance>, Option<CopyDesk>),
        stop: &Stop,
    ) -> Option<Source> {
        let plan = self.plan.source.clone()?;
        let (bench, anchor) = (self.bench.clone(), self.anchor.clone());
        let shared = Arc::clone(&self.shared);
        Some(Source::new(SourceParts {
            stream: self.plan.name.clone(),
            plan,
            framerate: self.grid.framerate,
            first_tick,
            first_sound,
            sound,
            policy: policy_of(self.plan.mode),
            copy,
            ffmpeg: self.ffmpeg.path.clone(),
            anchor: self.anchor.clone(),
            seat: Box::new(move |open, pid| {
                let peer = Peer {
                    pid,
                    uid: geteuid().as_raw(),
                    gid: getegid().as_raw(),
                };
                bench.open(open, peer, anchor.now())
            }),
            tell: Box::new(move |status| shared.report().source = Some(status.clone())),
            stop: stop.clone(),
        }))
    }

    /// The window as the viewers see it now, to be gone on with.
    fn window(&mut self) -> Window {
        let snapshot = self.curtain.newest();
        let window = Window::new(self.settings.clone(), Some(&snapshot));
        let window = window.within(&self.window_memory);
        let reached = window.resume_tick();
        if reached.is_some() && reached != self.resume {
            // Something was published since: what an earlier run left is history.
            self.resume = reached;
            self.discontinuity = false;
            self.sizes = sizes_in(&self.plan, &snapshot).unwrap_or_default();
        }
        window
    }
}

/// The running threads.
pub(super) struct Life {
    /// What its ingest and its owner listen to; none of a copied stream, whose owner listens to its source.
    wires: Option<(Sender<Command>, SyncSender<Event>)>,
    /// The source's, if there is one.
    source: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl Life {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread or the log for tests can't be had; nothing of it is left running then.
    pub(super) fn start(ground: &mut Ground, crew: Crew) -> Result<Self, StreamError> {
        match ground.plan.copies() {
            true => Self::copying(ground, &crew),
            false => Self::encoding(ground, crew),
        }
    }

    /// Starts what copies a source: it, and the owner.
    fn copying(ground: &mut Ground, crew: &Crew) -> Result<Self, StreamError> {
        let window = ground.window();
        let (deliver, news) = sync_channel(1);
        let mut life = Self {
            wires: None,
            source: Stop::default(),
            threads: Vec::new(),
        };
        let desk = CopyDesk {
            grid: ground.grid,
            next: window.next_tick(0).unwrap_or_default(),
            sounds: ground.plan.audio_renditions().to_vec(),
            deliver: deliver.clone(),
        };
        let copier = Copier::new(ground, window, news, &life.source);
        let owner = crew.spawn(OWNER, move || copier.run());
        life.threads
            .push(owner.map_err(|source| ground.no_thread(source))?);
        ground.shared.report().broken = false;
        let source = ground.source(
            (Tick(0), MonotonicTime(0)),
            (None, Some(desk)),
            &life.source,
        );
        let body = move || {
            if let Some(source) = source {
                source.run();
            }
            // Its segments came before this, so the owner has them all. If it has died, nobody has to be told.
            let _ = deliver.send(Copied::Over);
        };
        match crew.spawn(SOURCE, body) {
            Ok(thread) => life.threads.push(thread),
            Err(source) => {
                life.abandon();
                return Err(ground.no_thread(source));
            }
        }
        Ok(life)
    }

    /// Starts what encodes pictures.
    fn encoding(ground: &mut Ground, crew: Crew) -> Result<Self, StreamError> {
        let recorded = ground.plan.mode.is_recorded();
        let tick_log = ground
            .tick_log
            .as_deref()
            .filter(|_| !recorded)
            .map(|dir| TickLog::create(dir, &ground.plan.name))
            .transpose()?;
        let window = ground.window();
        let (events, received) = sync_channel(owner::EVENTS);
        let resume = ground
            .resume
            .filter(|_| !ground.discontinuity)
            .and_then(|_| window.resume_tick());
        let waiting = Arc::new(AtomicUsize::new(0));
        let gate = recorded.then(Arc::<Gate>::default);
        let first_tick = resume.unwrap_or(Tick(0));
        let first_sound = window.sound_goes_on_at();
        let beside = recorded.then(Arc::<Beside>::default);
        let (sound, post) = match &ground.plan.audio {
            Some(plan) => {
                let (desk, post) = audio::desk(recorded && plan.source == AudioInput::Producer);
                (Some(desk), Some((plan.clone(), post)))
            }
            None => (None, None),
        };
        let entrance = |input: &AudioInput| {
            let desk = sound.as_ref()?;
            let given = ground.plan.audio.as_ref()?.source == *input;
            given.then(|| desk.entrance())
        };
        let beside_pictures = entrance(&AudioInput::Pictures);
        let from_producers = entrance(&AudioInput::Producer);
        let owner = Owner::new(owner::Parts {
            waiting: Arc::clone(&waiting),
            plan: ground.plan.clone(),
            grid: ground.grid,
            ffmpeg: Arc::clone(&ground.ffmpeg),
            probes: Arc::clone(&ground.probes),
            anchor: ground.anchor.clone(),
            shared: Arc::clone(&ground.shared),
            events: received,
            sender: events.clone(),
            crew: crew.clone(),
            window,
            curtain: ground.curtain.clone(),
            disk: ground.desk.clone(),
            resume,
            discontinuity: ground.discontinuity,
            breaker: ground.breaker,
            replay_memory: ground.replay_memory,
            picture_memory: Arc::clone(&ground.picture_memory),
            turn: Turn::new(&ground.turns),
            sizes: ground.sizes.clone(),
            gate: gate.clone(),
            audio: sound.map(|desk| (desk, beside.clone())),
        });
        let obeyed = ground.commands.take().unwrap_or_else(|| {
            let (commands, obeyed) = channel();
            ground.bench.close(commands, "the stream is started again");
            obeyed
        });
        let intake = Intake {
            obeyed,
            events: events.clone(),
            waiting,
        };
        let intake = match gate {
            Some(gate) => intake.recording(ground, first_tick, gate),
            None => intake.ticking(ground, tick_log),
        };
        let mut life = Self {
            wires: Some((ground.bench.commands(), events.clone())),
            source: Stop::default(),
            threads: Vec::new(),
        };
        let no_thread = |source| ground.no_thread(source);
        life.threads
            .push(crew.spawn(OWNER, move || owner.run()).map_err(no_thread)?);
        if let Some((plan, post)) = post {
            let sound = ground.sound((plan, beside), post, events.clone());
            match crew.spawn("audio", move || sound.run()) {
                Ok(thread) => life.threads.push(thread),
                Err(source) => {
                    life.abandon();
                    return Err(no_thread(source));
                }
            }
        }
        let body = move || {
            intake();
            // Pictures came before this, so the owner has them all. If it has died, nobody has to be told.
            let _ = events.send(Event::Stop);
        };
        match crew.spawn(INGEST, body) {
            Ok(thread) => life.threads.push(thread),
            Err(source) => {
                life.abandon();
                return Err(no_thread(source));
            }
        }
        ground.shared.report().broken = false;
        ground.bench.reopen();
        if let Some(entrance) = from_producers {
            ground.sound_bench.reopen(entrance);
        }
        if let Some(source) = ground.source(
            (first_tick, first_sound),
            (beside_pictures, None),
            &life.source,
        ) {
            match crew.spawn(SOURCE, move || source.run()) {
                Ok(thread) => life.threads.push(thread),
                Err(source) => {
                    life.abandon();
                    return Err(ground.no_thread(source));
                }
            }
        }
        Ok(life)
    }

    /// Goes on by `plan`, as [`News::Adjust`](super::keeper::News::Adjust) says. Not to be asked of a copied stream.
    pub(super) fn adjust(&self, plan: &StreamPlan) {
        if let Some((commands, events)) = &self.wires {
            // Threads that have died have nothing to change.
            let _ = commands.send(Command::StaleAfter(plan.stale_after));
            let _ = events.send(Event::WindowLength(plan.window));
        }
    }

    /// Takes no more frames, and ends once what is under way is published.
    pub(super) fn stop(&self) {
        self.source.set();
        if let Some((commands, _)) = &self.wires {
            // Threads that have died have nothing to stop.
            let _ = commands.send(Command::Stop);
        }
    }

    /// Ends what still runs, without publishing what is under way, and waits for it.
    pub(super) fn abandon(self) {
        self.stop();
        if let Some((_, events)) = &self.wires {
            let _ = events.send(Event::Abandon);
        }
        for thread in self.threads {
            // How it ended, the keeper has heard.
            let _ = thread.join();
        }
    }
}
