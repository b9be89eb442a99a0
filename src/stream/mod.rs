//! One stream's life: it wires the street from ring to window, and takes it down again in order.

mod any;
mod backlog;
mod chair;
mod changes;
mod copier;
mod curtain;
mod gate;
mod intake;
mod keeper;
mod life;
mod manifests;
mod owner;
mod recorder;
mod seat;
mod shared;
mod shelf;
mod shortage;
mod sound_seat;
mod transcode;
mod turns;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ringgear_producer::messages::{Open, OpenSound, RefusalCode, Refused};
use ringgear_ring::layout::Policy;
use tokio::sync::watch;

pub(crate) use any::AnyStream;
pub(crate) use chair::refused;
pub(crate) use keeper::hear_panics;
use recorder::Recorder;
pub(crate) use transcode::{Left, Transcode};
pub(crate) use turns::Turns;

use crate::archive::{Archive, ArchivePlan, ArchiveThread};
use crate::budget::Budget;
use crate::clock::{Anchor, MonotonicTime};
use crate::config::{AtExit, AudioInput, BreakerPlan, Plan, StreamPlan, user_name};
use crate::control::{Accounts, Granted, Offer, Peer};
use crate::descriptors::{Descriptors, TooFew};
use crate::encode::{EncodeError, FfmpegInfo, ProbeCache};
use crate::http::StreamPort;
use crate::ingest::TickLogError;
use crate::picture::{Picture, Size};
use crate::publish::{self, Claim, DiskDesk, Restored};
use crate::status::StreamStatus;
use crate::threads;
use crate::tick::{Grid, Tick, UnixTime};
use crate::window::{Mode, Snapshot, Window, WindowSettings};
use curtain::Curtain;
use keeper::{Keeper, News};
use life::Ground;
use manifests::OriginManifests;
use seat::Bench;
use shared::Shared;
use sound_seat::SoundBench;

/// How long a stop waits for the recordings' disk, once all else of the stream has ended.
const LAST_OF_RECORDING: Duration = Duration::from_millis(300);

/// What all streams share.
pub(crate) struct House {
    pub(crate) anchor: Anchor,
    pub(crate) ffmpeg: Arc<FfmpegInfo>,
    pub(crate) breaker: BreakerPlan,
    pub(crate) probes: Arc<ProbeCache>,
    pub(crate) publish_dir: PathBuf,
    /// What stays free on its file system, in bytes.
    pub(crate) keep_free: u64,
    pub(crate) tick_log: Option<PathBuf>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) descriptors: Arc<Descriptors>,
    /// What the windows of all streams may hold.
    pub(crate) window_memory: Arc<Budget>,
    /// What the pictures may take that are kept for their encoders' restarts.
    pub(crate) picture_memory: Arc<Budget>,
    /// How many of them start their encoders at once.
    pub(crate) turns: Arc<Turns>,
}

/// A stream could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The log for tests.
    #[error(transparent)]
    TickLog(#[from] TickLogError),
    /// Another daemon publishes there.
    #[error(
        "another ringgear publishes stream '{stream}' to {}: stop it, or set [publish] dir to another folder", folder.display()
    )]
    FolderInUse {
        /// The stream.
        stream: String,
        /// Its folder.
        folder: PathBuf,
    },
    /// No more descriptors.
    #[error("stream '{stream}' can't start: {source}")]
    Descriptors {
        /// The stream.
        stream: String,
        /// The figures.
        source: TooFew,
    },
    /// No more threads.
    #[error("stream '{stream}' can't have a thread of its own: {source}; raise the limit of tasks")]
    Thread {
        /// The stream.
        stream: String,
        /// The system's word.
        source: std::io::Error,
    },
}

/// A running stream.
pub(crate) struct Stream {
    plan: watch::Sender<StreamPlan>,
    anchor: Anchor,
    shared: Arc<Shared>,
    bench: Bench,
    sound_bench: SoundBench,
    window: watch::Receiver<Arc<Snapshot>>,
    picture: watch::Receiver<Option<Picture>>,
    keeper: Sender<News>,
    /// Decodes pictures of its past.
    ffmpeg: Arc<Path>,
    archive: Option<Archive>,
    /// What adds to it; taken at the stop.
    recording: Mutex<Option<ArchiveThread>>,
    /// The keeper's; taken at the stop.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Stream {
    /// Starts a live stream, going on from what an earlier run has published.
    pub(crate) fn start(plan: StreamPlan, house: &House) -> Result<Self, StreamError> {
        let folder = house.publish_dir.join(&plan.name);
        let (newest, _) = watch::channel(None);
        Self::start_in(folder, plan, house, newest, Box::new(|| ()))
    }

    /// Starts what publishes in `folder`, going on from what it holds. The newest picture is shown in `newest`; `over` is called once it has
    /// ended and is published.
    fn start_in(
        folder: PathBuf,
        plan: StreamPlan,
        house: &House,
        newest: watch::Sender<Option<Picture>>,
        over: Box<dyn FnOnce() + Send>,
    ) -> Result<Self, StreamError> {
        let claim = claim(&plan.name, &folder)?;
        let tracks = plan.track_names();
        let restored = publish::restore(&folder, &plan.name, &tracks, house.anchor.now()).unwrap_or_else(|error| {
            tracing::error!(stream = %plan.name, %error, "what was published before can't be gone on with");
            Restored::default()
        });
        for note in &restored.notes {
            tracing::warn!(stream = %plan.name, "{note}");
        }
        let start = Start::new(&plan, &restored, house.anchor.now());
        let settings = WindowSettings {
            stream: plan.name.clone(),
            mode: plan.mode,
            tracks,
            window: plan.window,
            target_duration: target_duration(&plan, &start.grid),
        };
        let window = Window::new(settings.clone(), restored.snapshot.as_deref());
        let picture = newest.subscribe();
        let shared = Arc::new(Shared::new());
        shared.end_at_exit(plan.at_exit == AtExit::End);
        shared.look_for_encoders(&plan, &house.ffmpeg);
        let (curtain, snapshot) = Curtain::new(
            window.snapshot(house.anchor.now()),
            house.anchor.clone(),
            Arc::clone(&shared.latency),
        );
        // Its start counts as a tick: it has not been late yet.
        let now = house.anchor.monotonic();
        shared.counters.turned.set(now.0);
        let (commands, obeyed) = channel();
        let bench = Bench::new(
            &plan.name,
            (plan.grid.framerate, policy_of(plan.mode)),
            commands,
            Arc::clone(&house.accounts),
        );
        let sound_bench = SoundBench::new(&plan, house.anchor.clone(), Arc::clone(&house.accounts));
        let ground = Ground {
            plan: plan.clone(),
            grid: start.grid,
            anchor: house.anchor.clone(),
            breaker: house.breaker,
            ffmpeg: Arc::clone(&house.ffmpeg),
            probes: Arc::clone(&house.probes),
            tick_log: house.tick_log.clone(),
            replay_memory: house.accounts.limits().replay_memory,
            settings,
            window_memory: Arc::clone(&house.window_memory),
            picture_memory: Arc::clone(&house.picture_memory),
            turns: Arc::clone(&house.turns),
            folder,
            keep_free: house.keep_free,
            _claim: claim,
            desk: DiskDesk::new(&plan.name, restored.source),
            ledger: Some(restored.ledger),
            shared: Arc::clone(&shared),
            bench: bench.clone(),
            sound_bench: sound_bench.clone(),
            commands: Some(obeyed),
            curtain,
            newest,
            descriptors: Arc::clone(&house.descriptors),
            share: None,
            resume: start.resume,
            discontinuity: start.discontinuity,
            sizes: start.sizes,
            farewell: Arc::default(),
            over: Some(over),
        };
        let (keeper, news) = channel();
        let thread = {
            let mut keeper = Keeper::new(ground, keeper.clone(), news);
            let first = match keeper.begin() {
                Err(error @ StreamError::TickLog(_)) => return Err(error),
                // No thread now is no reason to give up the stream: the keeper tries again.
                first => first,
            };
            threads::spawn_for(&plan.name, "keeper", move || keeper.run(first))
        };
        let thread = thread.map_err(|source| StreamError::Thread {
            stream: plan.name.clone(),
            source,
        })?;
        let (archive, recording) = record(&plan, house, &snapshot)?.unzip();
        Ok(Self {
            ffmpeg: Arc::from(house.ffmpeg.path.as_path()),
            archive,
            recording: Mutex::new(recording),
            anchor: house.anchor.clone(),
            plan: watch::Sender::new(plan),
            shared,
            bench,
            sound_bench,
            window: snapshot,
            picture,
            keeper,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Whether the config lets `peer`, in its supplementary `groups`, feed this stream with what it offers.
    pub(crate) fn may_feed(
        &self,
        offer: &Offer,
        peer: Peer,
        groups: &[u32],
    ) -> Result<(), Refused> {
        may_offer(&self.plan.borrow(), offer, peer, groups)
    }

    /// Starts a producer's session.
    pub(crate) fn open(&self, open: &Open, peer: Peer) -> Result<Granted, Refused> {
        self.bench.open(open, peer, self.anchor.now())
    }

    /// Starts the session of a producer of sound.
    pub(crate) fn open_sound(&self, open: &OpenSound, peer: Peer) -> Result<Granted, Refused> {
        if self.bench.is_finishing() {
            let message = format!(
                "stream '{}' is finishing a recording: open the sound of the next one in a moment",
                self.plan.borrow().name
            );
            return Err(refused(RefusalCode::OutOfResources, message));
        }
        self.sound_bench.open(open, peer)
    }

    /// What `/api/v1/streams` tells of it.
    pub(crate) fn status(&self) -> StreamStatus {
        status(
            &self.shared,
            &self.plan.borrow(),
            (&self.bench, &self.sound_bench),
            &self.window,
            self.archive.as_ref(),
        )
    }

    /// How long ago it last reached a tick. A stream that works reaches one at least every second: ingest never waits for
    /// a producer, and only for the stream's owner when that has stopped taking pictures.
    pub(crate) fn since_tick(&self) -> Duration {
        let turned = MonotonicTime(self.shared.counters.turned.get());
        self.anchor.monotonic().saturating_since(turned)
    }

    /// Says once if the disk of what is kept of it does not answer. Whether anything is kept.
    pub(crate) fn look_at_disk(&self) -> bool {
        self.archive
            .as_ref()
            .inspect(|archive| archive.look_at_disk())
            .is_some()
    }

    /// What the origin needs of it.
    pub(crate) fn port(&self) -> StreamPort {
        let status = {
            let (shared, plan) = (Arc::clone(&self.shared), self.plan.subscribe());
            let benches = (self.bench.clone(), self.sound_bench.clone());
            let (window, archive) = (self.window.clone(), self.archive.clone());
            Arc::new(move || {
                let benches = (&benches.0, &benches.1);
                status(&shared, &plan.borrow(), benches, &window, archive.as_ref())
            })
        };
        let (window, picture) = (self.window.clone(), self.picture.clone());
        let plan = self.plan.borrow();
        let manifests = Arc::new(OriginManifests);
        let mut port = StreamPort::new(plan.name.clone(), window, picture, status, manifests);
        port.hls = plan.hls;
        port.dash = plan.dash;
        port.archive = self.archive.clone();
        port.ffmpeg = Some(Arc::clone(&self.ffmpeg));
        port
    }

    /// Changes to `plan` on the way. It differs in nothing but the window's length, when the slate is shown, who may feed the stream, and what
    /// a stop does to it.
    pub(crate) fn adjust(&self, plan: &StreamPlan) {
        self.shared.end_at_exit(plan.at_exit == AtExit::End);
        self.plan.send_replace(plan.clone());
        // A stream whose keeper has died has nothing to change.
        let _ = self.keeper.send(News::Adjust(Box::new(plan.clone())));
    }

    /// Begins to stop. Who feeds it is told to come again, because of `cause`, and is refused until somebody else has the stream's name.
    pub(crate) fn leave(&self, cause: &str) {
        // Nobody obeys any more.
        let (commands, _) = channel();
        self.bench.close(commands, cause);
        self.sound_bench.close(cause);
        self.begin_stop();
    }

    /// Tells who feeds its sound to come again, because of `cause`.
    pub(crate) fn dismiss_sound(&self, cause: &str) {
        self.sound_bench.close(cause);
    }

    /// As [`Self::leave`], and its viewers see that it has ended.
    pub(crate) fn end(&self, cause: &str) {
        self.shared.end_at_exit(true);
        self.leave(cause);
    }

    /// Takes no more frames and begins to publish what is under way.
    pub(crate) fn begin_stop(&self) {
        // A stream whose keeper has died has nothing to stop.
        let _ = self.keeper.send(News::Stop);
    }

    /// Waits until all is published, within the owner's deadline.
    pub(crate) fn finish_stop(&self) {
        let stream = self.plan.borrow().name.clone();
        join(&stream, self.thread());
        let recording = {
            let mut recording = self
                .recording
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            recording.take()
        };
        if recording.is_some_and(|recording| !recording.finish(LAST_OF_RECORDING)) {
            tracing::warn!(%stream, "the disk is too slow: the recording may lack the last segment");
        }
    }

    /// The keeper's thread, to be joined.
    fn thread(&self) -> Option<JoinHandle<()>> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.take()
    }
}

/// Whether `ffmpeg` has every encoder that the stream of `plan` can't do without.
pub(crate) fn require_encoders(ffmpeg: &FfmpegInfo, plan: &StreamPlan) -> Result<(), EncodeError> {
    for encoder in plan.needed_encoders() {
        ffmpeg.require_encoder(encoder)?;
    }
    for encoder in plan.needed_audio_encoders() {
        ffmpeg.require_encoder(&encoder)?;
    }
    Ok(())
}

/// Begins to keep what `window` lists, if `plan` asks for it.
fn record(
    plan: &StreamPlan,
    house: &House,
    window: &watch::Receiver<Arc<Snapshot>>,
) -> Result<Option<(Archive, ArchiveThread)>, StreamError> {
    let Some(record) = &plan.record else {
        return Ok(None);
    };
    let archive = ArchivePlan {
        stream: plan.name.clone(),
        dir: record.folder(&house.publish_dir, &plan.name),
        keep: record.keep,
        max_bytes: record.max_bytes,
        keep_free: house.keep_free,
    };
    let started = Archive::start(archive, house.anchor.clone(), window.clone());
    let no_thread = |source| StreamError::Thread {
        stream: plan.name.clone(),
        source,
    };
    started.map(Some).map_err(no_thread)
}

fn join(stream: &str, keeper: Option<JoinHandle<()>>) {
    if keeper.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!(%stream, "the stream's keeper had panicked");
    }
}

/// Whether the config lets `peer`, in its supplementary `groups`, feed the stream of `plan` with what it offers.
fn may_offer(plan: &StreamPlan, offer: &Offer, peer: Peer, groups: &[u32]) -> Result<(), Refused> {
    match offer {
        Offer::Frames(_) => may_feed(plan, peer, groups),
        Offer::Sound(_) => may_be_heard(plan, peer, groups),
    }
}

/// Whether the config lets `peer`, in its supplementary `groups`, feed the sound of the stream of `plan`: nobody unless it says so.
fn may_be_heard(plan: &StreamPlan, peer: Peer, groups: &[u32]) -> Result<(), Refused> {
    let stream = &plan.name;
    let wrong = match &plan.audio {
        Some(audio) if audio.source == AudioInput::Producer => {
            return is_feeder(plan, peer, groups);
        }
        Some(_) => "has sound from a source of its own",
        None => "has no sound",
    };
    let message = format!(
        "stream '{stream}' {wrong} and takes no producer of it: set source = \"producer\" in [streams.{stream}.audio] of the daemon's config"
    );
    Err(refused(RefusalCode::NotPermitted, message))
}

/// Whether the config lets `peer`, in its supplementary `groups`, feed the stream of `plan`: nobody where it has a source.
fn may_feed(plan: &StreamPlan, peer: Peer, groups: &[u32]) -> Result<(), Refused> {
    let stream = &plan.name;
    if let Some(source) = &plan.source {
        let message = format!(
            "stream '{stream}' has a source of its own ({}) and takes no producer: take source out of [streams.{stream}] in the \
             daemon's config, or feed another stream",
            source.input.shown()
        );
        return Err(refused(RefusalCode::NotPermitted, message));
    }
    is_feeder(plan, peer, groups)
}

/// Whether `peer` is one of the users, or in one of the groups, whom the config names.
fn is_feeder(plan: &StreamPlan, peer: Peer, groups: &[u32]) -> Result<(), Refused> {
    let (feeders, stream) = (&plan.feeders, &plan.name);
    if feeders.include(peer.uid, groups.iter().copied().chain([peer.gid])) {
        return Ok(());
    }
    let (user, listed) = match user_name(peer.uid) {
        Some(name) => (
            format!("user {name} (uid {})", peer.uid),
            format!("{name:?}"),
        ),
        None => (format!("user {}", peer.uid), peer.uid.to_string()),
    };
    let message = format!(
        "{user} may not feed stream '{stream}', only {feeders} may: run the producer as one of these, or add {listed} to \
             allow_users of [streams.{stream}] in the daemon's config"
    );
    Err(refused(RefusalCode::NotPermitted, message))
}

/// Takes the stream's folder. A folder that can't be had for another reason is no reason not to stream.
fn claim(stream: &str, folder: &Path) -> Result<Option<Claim>, StreamError> {
    match Claim::take(folder) {
        Ok(Some(claim)) => Ok(Some(claim)),
        Ok(None) => Err(StreamError::FolderInUse {
            stream: stream.to_owned(),
            folder: folder.to_owned(),
        }),
        Err(error) => {
            tracing::warn!(%stream, %error, "the stream's folder can't be locked against other daemons");
            Ok(None)
        }
    }
}

fn status(
    shared: &Shared,
    plan: &StreamPlan,
    (bench, sound_bench): (&Bench, &SoundBench),
    window: &watch::Receiver<Arc<Snapshot>>,
    archive: Option<&Archive>,
) -> StreamStatus {
    let snapshot = Arc::clone(&window.borrow());
    let status = shared.status(
        plan,
        &snapshot,
        bench.session(shared.counters.session_committed.get()),
        sound_bench.session(),
    );
    let record = archive.map(Archive::status);
    let unrecorded = || record.as_ref()?.error.clone();
    StreamStatus {
        detail: status.detail.clone().or_else(unrecorded),
        record,
        ..status
    }
}

/// The daemon's one anchor: `anchor`, unless one of the streams of `plan` has published further than its clock is, as on a
/// machine that booted without one. Then all of them go on from the furthest, and no number or time steps back.
pub(crate) fn anchor_for(plan: &Plan, anchor: Anchor) -> Anchor {
    let now = anchor.now();
    let ends = plan.streams.keys().filter_map(|name| {
        let end = publish::stored_end(&plan.publish_dir.join(name), name)?;
        // A stop completes its last segment, so the clock may be up to a segment behind it.
        (end.time > now.saturating_add(end.segment)).then_some((end.time, name))
    });
    let Some((until, stream)) = ends.max() else {
        return anchor;
    };
    tracing::warn!(
        %stream, clock = %now, published_until = %until,
        "the clock is behind what was published before: the time of all streams goes on from there"
    );
    anchor.not_before(until)
}

/// How a stream begins: from nothing, or where an earlier run stopped.
struct Start {
    grid: Grid,
    resume: Option<Tick>,
    discontinuity: bool,
    sizes: BTreeMap<String, Size>,
}

impl Start {
    fn new(plan: &StreamPlan, restored: &Restored, now: UnixTime) -> Self {
        let first = match plan.mode.is_recorded() {
            // A recording has no clock: its ticks are its frames.
            true => restored.last_tick.map_or(Tick(0), Tick::next),
            false => plan.grid.tick_at(now),
        };
        let (grid, changed) = restored.grid_for(&plan.grid, first);
        let sizes = restored
            .snapshot
            .as_deref()
            .and_then(|snapshot| sizes_in(plan, snapshot));
        Self {
            grid,
            resume: restored.last_tick.map(Tick::next),
            discontinuity: changed || restored.started_over,
            sizes: sizes.filter(|_| !restored.started_over).unwrap_or_default(),
        }
    }
}

/// What a full ring of such a stream does.
fn policy_of(mode: Mode) -> Policy {
    match mode.is_recorded() {
        true => Policy::Lossless,
        false => Policy::Latest,
    }
}

/// The sizes of the renditions in the newest period of `snapshot`, by name.
fn sizes_in(plan: &StreamPlan, snapshot: &Snapshot) -> Option<BTreeMap<String, Size>> {
    let period = snapshot.tracks.first()?.newest_period()?;
    let named = plan.renditions.iter().zip(&period.tracks);
    let sizes = named.map(|(rendition, track)| (rendition.name.clone(), track.description.size));
    Some(sizes.collect())
}

/// EXT-X-TARGETDURATION: a segment's length, rounded to whole seconds (RFC 8216, 4.3.3.1); of audio, whose segments differ by a frame, the longest's.
fn target_duration(plan: &StreamPlan, grid: &Grid) -> u64 {
    let audio = plan.audio_renditions().iter();
    let audio = audio.filter_map(|rendition| grid.for_audio(rendition.format().frame));
    let longest = audio.chain([*grid]).map(|grid| {
        grid.framerate
            .duration_of(u64::from(grid.ticks_per_segment.get()))
    });
    let longest = longest.max().unwrap_or_default();
    (longest + Duration::from_millis(500)).as_secs().max(1)
}
