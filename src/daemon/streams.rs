//! The streams that run, and what the doors ask of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use ringgear_producer::messages::{RefusalCode, Refused};
use tokio::sync::watch;

use crate::access::Access;
use crate::clock::Anchor;
use crate::config::{Plan, StreamPlan};
use crate::control::{Desk, Granted, Offer, Peer, ReloadError, Reloaded};
use crate::http;
use crate::service::{self, Watchdog};
use crate::status::{StreamState, StreamStatus, StreamsStatus};
use crate::stream::{AnyStream, House, StreamError, refused};

/// A stream that has reached no tick for so long will reach none any more.
const STUCK: Duration = Duration::from_secs(10);
/// How often it is looked whether encoders are still tried at the start, and how long they may be: the unit's `TimeoutStartSec=` is longer.
const SETTLING: Duration = Duration::from_millis(50);
const LONGEST_START: Duration = Duration::from_secs(15);
/// How often the service manager's status line is made anew.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether the disks of recordings answer; and whether there is any, which costs an idle daemon a wake-up each time.
const DISKS_EVERY: Duration = Duration::from_secs(5);
const NO_DISKS_EVERY: Duration = Duration::from_secs(60);

/// The streams as the origin sees them.
pub(super) type Ports = BTreeMap<String, http::StreamPort>;

/// The streams.
pub(super) struct Streams {
    by_name: RwLock<BTreeMap<String, Arc<AnyStream>>>,
    /// As the origin sees them; it counts their viewers, and ends with this.
    ports: watch::Sender<Arc<Ports>>,
    pub(super) house: Arc<House>,
    started: Instant,
    asked_to_stop: watch::Sender<bool>,
    /// Where the origin serves viewers.
    pub(super) address: SocketAddr,
    administrators: watch::Sender<Arc<Access>>,
    /// Whether the service manager has been told that the daemon is up: until then there is nothing to tell it of reloads.
    pub(super) told_ready: AtomicBool,
    /// What they run by. Held while it is changed.
    pub(super) config: Mutex<Running>,
}

/// The config that the streams run by.
pub(super) struct Running {
    /// What it says, but for keys of the daemon itself: those are of its start.
    pub(super) plan: Plan,
    /// Where to read it again.
    pub(super) file: Option<PathBuf>,
}

impl Streams {
    /// Starts every stream of `plan`, which `file` says and the origin at `address` serves; beside them, as the origin sees them.
    pub(super) fn start(
        plan: &Plan,
        file: Option<PathBuf>,
        address: SocketAddr,
        house: Arc<House>,
    ) -> Result<(Self, watch::Receiver<Arc<Ports>>), StreamError> {
        let mut by_name = BTreeMap::new();
        for (name, stream) in &plan.streams {
            let stream = AnyStream::start(stream.clone(), &house)?;
            by_name.insert(name.clone(), Arc::new(stream));
        }
        let ports = by_name
            .iter()
            .map(|(name, stream)| (name.clone(), port_of(stream, &plan.streams[name])))
            .collect();
        let (ports, current) = watch::channel(Arc::new(ports));
        let streams = Self {
            by_name: RwLock::new(by_name),
            ports,
            house,
            started: Instant::now(),
            asked_to_stop: watch::Sender::new(false),
            address,
            administrators: watch::Sender::new(Arc::new(plan.http.admin.clone())),
            told_ready: AtomicBool::new(false),
            config: Mutex::new(Running {
                plan: plan.clone(),
                file,
            }),
        };
        Ok((streams, current))
    }

    /// Whether they are stopping, or are to.
    pub(super) fn is_stopping(&self) -> bool {
        *self.asked_to_stop.borrow()
    }

    /// Turns true when somebody asks over the control socket to stop.
    pub(super) fn asked_to_stop(&self) -> watch::Receiver<bool> {
        self.asked_to_stop.subscribe()
    }

    /// Who administers, as the config in force says.
    pub(super) fn administrators(&self) -> watch::Receiver<Arc<Access>> {
        self.administrators.subscribe()
    }

    /// Lets watch and administer whom `plan` names, after `running`. Streams that it does not name stay as they are, and so do administrators where they
    /// are served elsewhere from the next start on.
    pub(super) fn let_in(&self, plan: &Plan, running: &Plan) {
        if plan.http.admin_listen == running.http.admin_listen {
            self.administrators
                .send_replace(Arc::new(plan.http.admin.clone()));
        }
        self.ports.send_modify(|ports| {
            for (name, port) in Arc::make_mut(ports) {
                if let Some(stream) = plan.streams.get(name)
                    && *port.access != stream.access
                {
                    port.access = Arc::new(stream.access.clone());
                }
            }
        });
    }

    /// The clock that all of them go by.
    pub(super) fn anchor(&self) -> &Anchor {
        &self.house.anchor
    }

    /// Takes no more frames, and publishes what is under way.
    pub(super) fn stop_all(&self) {
        // A reload that is under way ends first, and none follows.
        let _config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        self.asked_to_stop.send_replace(true);
        let all = self.all();
        for (_, stream) in &all {
            stream.begin_stop();
        }
        for (_, stream) in &all {
            stream.finish_stop();
        }
    }

    /// Tells the service manager, if there is one, that the daemon is up: once every encoder that was tried at the start has answered or failed.
    /// From then on, how the streams are, and that they go on.
    pub(super) async fn tell_service_manager(&self, watchdog: Option<Watchdog>) {
        if !service::listens() {
            return std::future::pending().await;
        }
        let settled = async {
            loop {
                tokio::time::sleep(SETTLING).await;
                let mut streams = self.all().into_iter();
                if !streams.any(|(_, stream)| stream.status().state == StreamState::Starting) {
                    return;
                }
            }
        };
        // What takes longer is for the status line.
        let _ = tokio::time::timeout(LONGEST_START, settled).await;
        let mut told = self.in_a_line();
        while !service::ready_with(&told) {
            tokio::time::sleep(SETTLING).await;
            told = self.in_a_line();
        }
        self.told_ready.store(true, Ordering::Relaxed);
        let statuses = async {
            loop {
                tokio::time::sleep(STATUS_EVERY).await;
                let now = self.in_a_line();
                if now != told {
                    service::status(&now);
                    told = now;
                }
            }
        };
        tokio::join!(self.keep_alive(watchdog), statuses);
    }

    /// Says of disks that do not answer that they don't, whether anybody asks for the status or not.
    pub(super) async fn look_at_disks(&self) {
        let mut pause = DISKS_EVERY;
        loop {
            tokio::time::sleep(pause).await;
            pause = NO_DISKS_EVERY;
            for (_, stream) in self.all() {
                if stream.look_at_disk() {
                    pause = DISKS_EVERY;
                }
            }
        }
    }

    /// How the streams are: "3 streams: 2 live, 1 failed (yard)".
    fn in_a_line(&self) -> String {
        let states = self.all().into_iter();
        let states: Vec<_> = states
            .map(|(name, stream)| (name, stream.status().state))
            .collect();
        in_a_line(&states)
    }

    /// Feeds `watchdog` as long as every stream goes on; without one, waits for ever.
    async fn keep_alive(&self, watchdog: Option<Watchdog>) {
        let Some(watchdog) = watchdog else {
            return std::future::pending().await;
        };
        loop {
            let stuck: Vec<_> = self
                .all()
                .into_iter()
                .filter(|(_, stream)| stream.since_tick() > STUCK)
                .map(|(name, _)| name)
                .collect();
            if stuck.is_empty() {
                watchdog.feed();
            } else {
                tracing::error!(
                    streams = %stuck.join(", "),
                    "streams stand still: the service manager's watchdog is not fed, and will start the daemon again"
                );
            }
            tokio::time::sleep(watchdog.interval()).await;
        }
    }

    fn report(&self) -> StreamsStatus {
        let streams = self.all();
        StreamsStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: self.anchor().now().rfc3339(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            streams: streams
                .iter()
                .map(|(name, stream)| self.status_of(name, stream))
                .collect(),
        }
    }

    fn status_of(&self, name: &str, stream: &AnyStream) -> StreamStatus {
        let mut status = stream.status();
        if let Some(port) = self.ports.borrow().get(name) {
            status.window.viewers = port.viewers.count(self.anchor().monotonic());
        }
        status
    }

    /// Those that run now, in the order of their names.
    fn all(&self) -> Vec<(String, Arc<AnyStream>)> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let all = by_name.iter();
        all.map(|(name, stream)| (name.clone(), Arc::clone(stream)))
            .collect()
    }

    /// Puts `stream`, which runs by `plan`, in the place of who had its name, for the doors too.
    pub(super) fn put(&self, stream: Arc<AnyStream>, plan: &StreamPlan) {
        self.show(&stream, plan);
        self.by_name_mut().insert(plan.name.clone(), stream);
    }

    /// From now on nobody has this name.
    pub(super) fn remove(&self, name: &str) {
        self.by_name_mut().remove(name);
        self.ports.send_modify(|ports| {
            Arc::make_mut(ports).remove(name);
        });
    }

    /// Shows the stream to the origin as `plan` has it.
    pub(super) fn show(&self, stream: &AnyStream, plan: &StreamPlan) {
        let port = port_of(stream, plan);
        self.ports.send_modify(|ports| {
            Arc::make_mut(ports).insert(plan.name.clone(), port);
        });
    }

    fn by_name_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Arc<AnyStream>>> {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<AnyStream>> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name.get(name).map(Arc::clone)
    }
}

impl Desk for Streams {
    fn may_feed(&self, offer: &Offer, peer: Peer, groups: &[u32]) -> Result<(), Refused> {
        self.get(offer.stream())
            .map_or(Ok(()), |stream| stream.may_feed(offer, peer, groups))
    }

    fn open(&self, offer: &Offer, peer: Peer) -> Result<Granted, Refused> {
        if let Some(stream) = self.get(offer.stream()) {
            return stream.open(offer, peer);
        }
        let given = offer.stream().chars().take(64).collect::<String>();
        let all = self.all();
        let message = format!(
            "no stream is called '{}': the config has {}",
            given.escape_debug(),
            some_of(all.iter().map(|(name, _)| name.as_str()))
        );
        Err(refused(RefusalCode::UnknownStream, message))
    }

    fn status(&self) -> serde_json::Value {
        serde_json::to_value(self.report()).unwrap_or_default()
    }

    fn stop(&self) {
        self.asked_to_stop.send_replace(true);
    }

    fn reload(&self, dry_run: bool) -> Result<Reloaded, ReloadError> {
        Self::reload(self, dry_run)
    }

    fn may_administer(&self, peer: Peer) -> bool {
        self.house.accounts.administers(peer.uid)
    }
}

/// The stream as the origin sees it.
fn port_of(stream: &AnyStream, plan: &StreamPlan) -> http::StreamPort {
    let mut port = stream.port();
    port.access = Arc::new(plan.access.clone());
    port
}

/// How the streams are: "3 streams: 2 live, 1 failed (yard)".
fn in_a_line(states: &[(String, StreamState)]) -> String {
    const ORDER: [StreamState; 6] = [
        StreamState::Live,
        StreamState::Starting,
        StreamState::Waiting,
        StreamState::NoSignal,
        StreamState::Ended,
        StreamState::Failed,
    ];
    let told = ORDER.iter().filter_map(|of| {
        let names = states.iter().filter(|(_, state)| state == of);
        let names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
        let count = names.len();
        match of {
            _ if names.is_empty() => None,
            StreamState::Failed => Some(format!("{count} {of} ({})", some_of(names.into_iter()))),
            of => Some(format!("{count} {of}")),
        }
    });
    let told = told.collect::<Vec<_>>().join(", ");
    match states.len() {
        0 => "no streams".to_owned(),
        1 => format!("1 stream: {told}"),
        count => format!("{count} streams: {told}"),
    }
}

/// The first of many names, for a message that has to stay short.
fn some_of<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    match (shown.as_str(), more) {
        ("", _) => "none".to_owned(),
        (_, 0) => shown,
        (_, more) => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_counts_the_streams_by_state_and_names_those_that_fail() {
        use StreamState::{Failed, Live, NoSignal};
        let said = |states: &[StreamState]| {
            let named = states.iter().enumerate();
            let named: Vec<_> = named
                .map(|(nth, state)| (format!("cam{nth}"), *state))
                .collect();
            in_a_line(&named)
        };
        assert_eq!(said(&[]), "no streams");
        assert_eq!(said(&[Live]), "1 stream: 1 live");
        assert_eq!(
            said(&[Failed, Live, NoSignal, Live, Failed]),
            "5 streams: 2 live, 1 no signal, 2 failed (cam0, cam4)"
        );
    }

    #[test]
    fn a_message_names_some_streams_however_many_there_are() {
        let names: Vec<String> = (0..1000).map(|nth| format!("cam{nth}")).collect();
        let said = |count: usize| some_of(names[..count].iter().map(String::as_str));
        assert_eq!(said(0), "none");
        assert_eq!(said(2), "cam0, cam1");
        assert!(said(20).ends_with(", cam19"));
        assert!(said(1000).ends_with(", cam19 and 980 more"));
    }
}
