//! What a daemon that runs by one plan has to do to run by another.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{HttpPlan, Plan, StreamPlan};

/// The keys that say who may watch a stream, or what the files hold that they name. The origin alone goes by them.
const ACCESS: &str = "tokens, token_file, signing_key or signing_key_file";

/// What a reload of the config does; beside [`Plan`]s in the daemon, and as JSON for who asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The streams that something is done to, by name. All others are not touched.
    pub streams: BTreeMap<String, StreamChange>,
    /// Keys of the daemon itself that have changed, and are followed at once.
    #[serde(default)]
    pub at_once: Vec<String>,
    /// Keys of the daemon itself that have changed: they wait for its next start.
    pub next_start: Vec<String>,
}

/// What a reload does to one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamChange {
    /// What is done.
    pub action: Action,
    /// The keys that have changed; none for a stream that comes or goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

/// What is done to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It starts.
    Start,
    /// It ends: its last segments are published, and its playlists say that it is over.
    End,
    /// It stops and starts again on what it has published, as all do when the daemon is restarted.
    Restart,
    /// It goes on, and changes on the way: not a tick is late, and its encoder is not touched.
    Adjust,
}

impl Changes {
    /// What leads from `old` to `new`.
    pub fn between(old: &Plan, new: &Plan) -> Self {
        let mut streams = BTreeMap::new();
        for name in old.streams.keys().chain(new.streams.keys()) {
            let change = match (old.streams.get(name), new.streams.get(name)) {
                (Some(old), Some(new)) => change(old, new),
                (Some(_), None) => Some(StreamChange::of(Action::End)),
                (None, _) => Some(StreamChange::of(Action::Start)),
            };
            if let Some(change) = change {
                streams.insert(name.clone(), change);
            }
        }
        let of_daemon = differing_of_daemon(old, new);
        let keys = |those: bool| -> Vec<String> {
            let keys = of_daemon.iter().filter(|(_, at_once)| *at_once == those);
            keys.map(|(key, _)| (*key).to_owned()).collect()
        };
        Self {
            streams,
            at_once: keys(true),
            next_start: keys(false),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.at_once.is_empty() && self.next_start.is_empty()
    }

    /// The streams that `action` is done to.
    pub(crate) fn with(&self, action: Action) -> impl Iterator<Item = &str> {
        let those = self
            .streams
            .iter()
            .filter(move |(_, it)| it.action == action);
        those.map(|(name, _)| name.as_str())
    }
}

/// One line for each stream, and one for what of the daemon itself is followed at once, and for what waits.
impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing has changed\n");
        }
        for (name, StreamChange { action, keys }) in &self.streams {
            let what = match action {
                Action::Start => "starts",
                Action::End => "ends",
                Action::Restart => "is restarted",
                Action::Adjust => "goes on, changed",
            };
            let mut line = format!("stream {name} {what}");
            if !keys.is_empty() {
                let _ = write!(line, ": {}", keys.join(", "));
            }
            writeln!(f, "{line}")?;
        }
        if !self.at_once.is_empty() {
            writeln!(
                f,
                "the daemon goes on, changed: {}",
                self.at_once.join(", ")
            )?;
        }
        if !self.next_start.is_empty() {
            let keys = self.next_start.join(", ");
            writeln!(f, "at the daemon's next start: {keys}")?;
        }
        Ok(())
    }
}

impl StreamChange {
    /// Whether there is anything to be told to the stream itself, and not to the origin alone.
    pub(crate) fn is_of_the_stream(&self) -> bool {
        self.keys.iter().any(|key| key != ACCESS)
    }

    fn of(action: Action) -> Self {
        let keys = Vec::new();
        Self { action, keys }
    }
}

fn change(old: &StreamPlan, new: &StreamPlan) -> Option<StreamChange> {
    let differing = differing(old, new);
    if differing.is_empty() {
        return None;
    }
    let of_access_alone = differing.iter().all(|(key, _)| *key == ACCESS);
    let at_once = match (old.mode.is_recorded(), new.mode.is_recorded()) {
        // What is being copied has nobody who could be told.
        (false, false) => !old.copies() && differing.iter().all(|(_, at_once)| *at_once),
        // The next recording is made by the new plan; a source begins it with the stream.
        (true, true) => old.source.is_none() && new.source.is_none(),
        _ => false,
    };
    let at_once = at_once || of_access_alone;
    Some(StreamChange {
        action: if at_once {
            Action::Adjust
        } else {
            Action::Restart
        },
        keys: differing
            .into_iter()
            .map(|(key, _)| key.to_owned())
            .collect(),
    })
}

/// The keys of a stream that differ, and whether one that is live takes the change on the way.
fn differing(old: &StreamPlan, new: &StreamPlan) -> Vec<(&'static str, bool)> {
    // Every field by its name, so that none can be forgotten.
    let StreamPlan {
        name: _,
        mode,
        grid,
        window,
        stale_after,
        slack,
        pace,
        backfill,
        encoder_timeout,
        degrade,
        max_bytes,
        hls,
        dash,
        at_exit,
        feeders,
        access,
        source,
        renditions,
        audio,
        record,
    } = old;
    let equal = [
        ("mode", mode == &new.mode, false),
        ("framerate, segment or part", grid == &new.grid, false),
        ("window", window == &new.window, true),
        ("stale_after", stale_after == &new.stale_after, true),
        ("slack", slack == &new.slack, false),
        ("pace", pace == &new.pace, false),
        ("backfill", backfill == &new.backfill, false),
        (
            "encoder_timeout",
            encoder_timeout == &new.encoder_timeout,
            false,
        ),
        ("degrade", degrade == &new.degrade, false),
        ("max_bytes", max_bytes == &new.max_bytes, false),
        ("formats", (hls, dash) == (&new.hls, &new.dash), false),
        ("at_exit", at_exit == &new.at_exit, true),
        ("allow_users or allow_groups", feeders == &new.feeders, true),
        (ACCESS, access == &new.access, true),
        ("source", source == &new.source, false),
        ("renditions", renditions == &new.renditions, false),
        ("audio", audio == &new.audio, false),
        ("record", record == &new.record, false),
    ];
    let differing = equal.into_iter().filter(|(_, equal, _)| !equal);
    differing.map(|(key, _, at_once)| (key, at_once)).collect()
}

/// The daemon's own keys that differ, and whether it follows the new ones at once.
fn differing_of_daemon(old: &Plan, new: &Plan) -> Vec<(&'static str, bool)> {
    let Plan {
        socket,
        socket_mode,
        tick_log,
        listen,
        http:
            HttpPlan {
                allow_anyone,
                admin_listen,
                admin,
                limits: viewers,
            },
        tls,
        publish_dir,
        keep_free,
        ffmpeg,
        breaker,
        limits,
        streams: _,
    } = old;
    // Administrators of another address are let in once it is listened at.
    let same_doors = admin_listen == &new.http.admin_listen;
    let equal = [
        ("[daemon] socket", socket == &new.socket, false),
        (
            "[daemon] socket_mode",
            socket_mode == &new.socket_mode,
            false,
        ),
        ("[daemon] tick_log", tick_log == &new.tick_log, false),
        ("[http] listen", listen == &new.listen, false),
        (
            "[http] allow_anyone",
            *allow_anyone == new.http.allow_anyone,
            true,
        ),
        ("[http] admin_listen", same_doors, false),
        (
            "[http] admin_token_file or what it holds",
            admin == &new.http.admin,
            same_doors,
        ),
        (
            "[http] trusted_proxies or limits",
            viewers == &new.http.limits,
            false,
        ),
        ("[http] tls_certificate or tls_key", tls == &new.tls, false),
        ("[publish] dir", publish_dir == &new.publish_dir, false),
        ("[publish] keep_free", keep_free == &new.keep_free, false),
        ("[ffmpeg] path", ffmpeg == &new.ffmpeg, false),
        (
            "[ffmpeg] failures, failures_within or retry_every",
            breaker == &new.breaker,
            false,
        ),
        ("[limits]", limits == &new.limits, false),
    ];
    let differing = equal.into_iter().filter(|(_, equal, _)| !equal);
    differing.map(|(key, _, at_once)| (key, at_once)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_builtin;

    fn plan(text: &str) -> Plan {
        parse_builtin(text).unwrap()
    }

    fn door(more: &str) -> String {
        format!("[streams.door]\nframerate = 25\n{more}\n")
    }

    #[test]
    fn only_what_has_changed_is_touched_and_as_little_as_can_be() {
        let yard = "[streams.yard]\nframerate = 25\nwindow = \"30s\"\n";
        let old = plan(&(door("window = \"20s\"") + yard));
        assert!(Changes::between(&old, &old).is_empty());
        let actions = |new: &str| -> Vec<(String, Action)> {
            let changes = Changes::between(&old, &plan(new));
            let streams = changes.streams.into_iter();
            streams
                .map(|(name, change)| (name, change.action))
                .collect()
        };
        let one = |name: &str, action| vec![(name.to_owned(), action)];
        assert_eq!(actions(&door("window = \"20s\"")), one("yard", Action::End));
        let more = door("window = \"20s\"") + yard + "[streams.new]\nframerate = 5\n";
        assert_eq!(actions(&more), one("new", Action::Start));
        let adjusted =
            door("window = \"40s\"\nstale_after = \"9s\"\nallow_users = [0]\nat_exit = \"end\"")
                + yard;
        assert_eq!(actions(&adjusted), one("door", Action::Adjust));
        let other_rate = door("window = \"20s\"").replace("25", "30") + yard;
        assert_eq!(actions(&other_rate), one("door", Action::Restart));
    }

    #[test]
    fn a_recordings_change_is_for_the_next_one_unless_a_source_makes_it() {
        let recorded = |more: &str| plan(&door(&format!("mode = \"event\"\n{more}")));
        let change = |old: &Plan, new: &Plan| Changes::between(old, new).streams["door"].action;
        let old = recorded("");
        assert_eq!(change(&old, &recorded("segment = \"1s\"")), Action::Adjust);
        assert_eq!(
            change(&old, &recorded("source = \"a.mp4\"")),
            Action::Restart
        );
        assert_eq!(change(&old, &plan(&door(""))), Action::Restart);
    }

    #[test]
    fn who_administers_and_whether_anyone_may_watch_is_followed_at_once_and_told() {
        let old = plan(&door(""));
        let mut new = old.clone();
        new.http.admin.guarded = !old.http.admin.guarded;
        new.http.allow_anyone = true;
        let told = "the daemon goes on, changed: [http] allow_anyone, [http] admin_token_file or what it holds\n";
        assert_eq!(Changes::between(&old, &new).to_string(), told);
        // Those of another address wait for it.
        new.http.admin_listen = Some(([127, 0, 0, 1], 9).into());
        let changes = Changes::between(&old, &new);
        assert_eq!(changes.at_once, ["[http] allow_anyone"]);
        assert_eq!(changes.next_start[0], "[http] admin_listen");
        assert_eq!(changes.next_start.len(), 2);
        // As an older daemon says it.
        let json = "{\"streams\":{},\"next_start\":[]}";
        assert!(serde_json::from_str::<Changes>(json).unwrap().is_empty());
    }

    #[test]
    fn what_the_daemon_began_with_waits_for_its_next_start_and_is_told_by_name() {
        let old = plan(&door(""));
        let new = plan(&format!(
            "[http]\nlisten = \"127.0.0.1:9\"\n{}",
            door("slack = 2")
        ));
        let changes = Changes::between(&old, &new);
        assert_eq!(changes.next_start, ["[http] listen"]);
        assert_eq!(
            changes.to_string(),
            "stream door is restarted: slack\nat the daemon's next start: [http] listen\n"
        );
        let json = serde_json::to_string(&changes).unwrap();
        assert_eq!(serde_json::from_str::<Changes>(&json).unwrap(), changes);
    }
}
