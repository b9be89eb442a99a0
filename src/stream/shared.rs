//! What a stream tells about itself: written by its own threads, read by status and pages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::{AudioInput, StreamPlan};
use crate::encode::{EncodeError, FfmpegInfo};
use crate::histogram::Histogram;
use crate::ingest::{Count, Counters};
use crate::status::{
    AudioStatus, EncoderStatus, LatencyStatus, RenditionStatus, SessionStatus, SoundSessionStatus,
    SourceState, SourceStatus, StreamState, StreamStatus, WindowStatus,
};
use crate::tick::UnixTime;
use crate::window::Snapshot;

/// One stream's figures.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) counters: std::sync::Arc<Counters>,
    pub(super) latency: std::sync::Arc<Latency>,
    report: Mutex<Report>,
    /// Whether a stop ends the stream for its viewers.
    ends_at_exit: AtomicBool,
}

/// How long frames take; see [`LatencyStatus`].
#[derive(Debug, Default)]
pub(super) struct Latency {
    pub(super) tick_lateness: Histogram,
    pub(super) encoder_delay: Histogram,
    pub(super) commit_to_part: Histogram,
    /// When the newest part's first picture was captured, in nanoseconds of Unix time; 0 before there is one.
    pub(super) newest_captured: Count,
    /// How long after its capture a picture is shown, the middle one of the last ones, in nanoseconds.
    pub(super) picture_lag: std::sync::Arc<Count>,
}

impl Latency {
    fn newest_captured(&self) -> Option<UnixTime> {
        let nanos = self.newest_captured.get();
        (nanos > 0).then(|| UnixTime::from_nanos(nanos))
    }

    fn status(&self) -> LatencyStatus {
        LatencyStatus {
            tick_lateness: self.tick_lateness.distribution(),
            encoder_delay: self.encoder_delay.distribution(),
            commit_to_part: self.commit_to_part.distribution(),
        }
    }
}

/// What changes seldom, or is told by the stream's owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    /// Whether the encoders are being tried.
    pub(super) starting: bool,
    /// Why the encoder does not run, for people.
    pub(super) failure: Option<String>,
    /// Which encoder FFmpeg lacks, so that nothing can be encoded, for people.
    pub(super) lacking: Option<String>,
    /// Why it is not known what the sound is encoded as, which the stream waits for, for people.
    pub(super) undescribed: Option<String>,
    /// Whether it has failed so often that it is tried only now and then, or has no threads at all.
    pub(super) broken: bool,
    /// Why renditions are encoded by their fallbacks, for people.
    pub(super) fallen: Vec<Option<String>>,
    /// Whether the newest tick showed the slate.
    pub(super) no_signal: bool,
    /// Why disk publishing does not work, for people.
    pub(super) disk: Option<String>,
    /// What is given up because memory is short, for people.
    pub(super) memory: Option<String>,
    pub(super) ended: bool,
    /// How often the stream was started again after a fault of its own.
    pub(super) restarts: u64,
    pub(super) started: Option<UnixTime>,
    pub(super) encoder: EncoderStatus,
    /// What feeds it, where that is no producer.
    pub(super) source: Option<SourceStatus>,
    /// The stream's sound, if it has any.
    pub(super) audio: Option<AudioStatus>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            counters: std::sync::Arc::default(),
            latency: std::sync::Arc::default(),
            report: Mutex::default(),
            ends_at_exit: AtomicBool::new(false),
        }
    }

    /// Says whether a stop ends the stream for its viewers, or leaves the window to be gone on with.
    pub(super) fn end_at_exit(&self, ends: bool) {
        self.ends_at_exit.store(ends, Ordering::Relaxed);
    }

    /// Whether a stop ends the stream for its viewers.
    pub(super) fn ends_at_exit(&self) -> bool {
        self.ends_at_exit.load(Ordering::Relaxed)
    }

    /// Notes whether `ffmpeg` lacks an encoder that the stream of `plan` can't do without: then it is failed.
    pub(super) fn look_for_encoders(&self, plan: &StreamPlan, ffmpeg: &FfmpegInfo) {
        let lacking = super::require_encoders(ffmpeg, plan).err();
        if let Some(error) = &lacking {
            tracing::error!(stream = %plan.name, "the stream can't be encoded: {error}");
        }
        // FFmpeg is looked at once.
        let told =
            |error: EncodeError| format!("{error}; the daemon looks at FFmpeg when it starts");
        self.report().lacking = lacking.map(told);
    }

    /// The report, to be read or changed briefly.
    pub(super) fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As `/api/v1/streams` tells it.
    pub(super) fn status(
        &self,
        plan: &StreamPlan,
        snapshot: &Snapshot,
        session: Option<SessionStatus>,
        sound: Option<SoundSessionStatus>,
    ) -> StreamStatus {
        let report = self.report().clone();
        let state = match &report {
            report if report.ended => StreamState::Ended,
            report if report.broken || report.lacking.is_some() || report.undescribed.is_some() => {
                StreamState::Failed
            }
            report if report.starting => StreamState::Starting,
            report if report.started.is_none() => StreamState::Waiting,
            report if report.no_signal => StreamState::NoSignal,
            _ => StreamState::Live,
        };
        let renditions = renditions(plan, snapshot, &report.fallen);
        let fallen = report.fallen.into_iter().flatten().next();
        let too_slow = report.encoder.too_slow.clone();
        let source = report.source.as_ref().and_then(source_detail);
        let detail = report
            .lacking
            .or(report.failure)
            .or(report.undescribed)
            .or(source)
            .or(report.disk)
            .or(report.memory)
            .or(too_slow)
            .or(fallen);
        StreamStatus {
            name: plan.name.clone(),
            state,
            detail,
            mode: plan.mode.name().to_owned(),
            framerate: framerate(plan, snapshot),
            started: report.started.map(UnixTime::rfc3339),
            restarts: report.restarts,
            source: report.source,
            session,
            frames: self.counters.frames(),
            ticks: self.counters.ticks(),
            encoder: report.encoder,
            renditions,
            recording: None,
            recordings: Vec::new(),
            record: None,
            audio: audio(plan, report.audio, sound),
            window: window(snapshot, self.latency.newest_captured()),
            latency: self.latency.status(),
            restricted: false,
        }
    }
}

/// The stream's sound, with who feeds it.
fn audio(
    plan: &StreamPlan,
    told: Option<AudioStatus>,
    session: Option<SoundSessionStatus>,
) -> Option<AudioStatus> {
    let Some(fed) = plan
        .audio
        .as_ref()
        .filter(|audio| audio.source == AudioInput::Producer)
    else {
        return told;
    };
    let mut status = told.unwrap_or_else(|| AudioStatus {
        source: fed.shown().unwrap_or_default(),
        ..AudioStatus::default()
    });
    if session.is_none() && status.detail.is_none() {
        let nobody = "nobody feeds its sound: there is silence until a producer does";
        status.detail = Some(nobody.to_owned());
    }
    Some(AudioStatus { session, ..status })
}

/// A stream's framerate; of a copied one what its source has, and nothing before that is known.
fn framerate(plan: &StreamPlan, snapshot: &Snapshot) -> String {
    if !plan.copies() {
        return plan.grid.framerate.to_string();
    }
    let view = snapshot.tracks.first();
    let period = view.and_then(|view| view.newest_period());
    let track = period.and_then(|period| period.tracks.first());
    let rate = track.map(|track| track.description.framerate.reduced().to_string());
    rate.unwrap_or_default()
}

/// Why a source gives no pictures.
fn source_detail(source: &SourceStatus) -> Option<String> {
    match (&source.error, source.state) {
        (None, SourceState::Ended) => Some(format!("its source has ended: {}", source.source)),
        (error, _) => error.clone(),
    }
}

fn renditions(
    plan: &StreamPlan,
    snapshot: &Snapshot,
    fallen: &[Option<String>],
) -> Vec<RenditionStatus> {
    let rendition = |(index, plan): (usize, &crate::config::RenditionPlan)| {
        let view = snapshot.tracks.get(index);
        let period = view.and_then(|view| view.newest_period());
        let why = fallen.get(index).cloned().flatten();
        let description = period
            .and_then(|period| period.tracks.get(index))
            .map(|track| &track.description);
        RenditionStatus {
            name: plan.name.clone(),
            codec: match (&why, &plan.fallback) {
                (Some(_), Some(fallback)) => fallback.clone(),
                _ => plan.codec.clone(),
            },
            fallback: why,
            codecs: description.map(|description| description.codecs.clone()),
            width: description.map(|description| description.size.width),
            height: description.map(|description| description.size.height),
            configured_bits_per_second: match plan.rate {
                crate::config::RateControl::Bitrate(bits) => Some(bits),
                crate::config::RateControl::Crf(_) => None,
            },
            average_bits_per_second: view.map_or(0, |view| view.average_bandwidth),
            peak_bits_per_second: view.map_or(0, |view| view.peak_bandwidth),
        }
    };
    plan.renditions.iter().enumerate().map(rendition).collect()
}

fn window(snapshot: &Snapshot, newest_captured: Option<UnixTime>) -> WindowStatus {
    let Some(first) = snapshot.tracks.first() else {
        return WindowStatus::default();
    };
    let bytes = snapshot.tracks.iter().flat_map(|track| {
        let open = track
            .open
            .iter()
            .flat_map(|open| open.parts.iter().map(|part| part.bytes.len()));
        let whole = track
            .retained
            .iter()
            .chain(&track.listed)
            .map(|segment| segment.len());
        whole.chain(open.map(|bytes| bytes as u64))
    });
    let length: Duration = first.listed.iter().map(|segment| segment.duration()).sum();
    WindowStatus {
        first_segment: snapshot.media_sequence.0,
        last_segment: first.listed.last().map(|segment| segment.number.0),
        segments: first.listed.len() as u64,
        seconds: length.as_secs_f64(),
        bytes: bytes.sum(),
        viewers: 0,
        newest_captured: newest_captured.map(UnixTime::rfc3339),
    }
}
