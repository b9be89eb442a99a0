//! TOML in, a checked [`Plan`] out, or everything that is wrong with the file at once, each with its line, its column and
//! how to mend it. Reading a config changes nothing on the machine.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;

mod access;
mod audio;
mod changes;
pub mod defaults;
mod error;
mod extras;
mod feeders;
mod hardware;
mod http;
mod limits;
mod machine;
mod options;
mod plan;
mod record;
mod rendition;
mod sections;
mod source;
mod stream;
mod table;
mod value;

pub use audio::{AudioCodec, AudioInput, AudioPlan, AudioRenditionPlan, AudioSource};
pub use changes::{Action, Changes, StreamChange};
pub use error::{ConfigError, ConfigErrors, Position};
pub(crate) use feeders::user_name;
pub use feeders::{Account, Feeders};
pub use hardware::Hardware;
pub use http::{HttpPlan, ViewerLimits};
pub use machine::{Environment, FfmpegCheck, FfmpegProblem, ListenCheck};
pub use plan::{
    AtExit, BreakerPlan, Degrade, Limits, Pace, Plan, RateControl, RenditionPlan, StreamPlan,
    TlsPlan,
};
pub use record::RecordPlan;
pub(crate) use source::without;
pub use source::{SourceInput, SourcePlan};

use error::{Offset, Report};
use machine::Places;
use sections::{Audio, AudioRendition, Daemon, Ffmpeg, Http, Publish, ROOT, Rendition, Stream};
use table::Entries;

/// The fewest segments that a window may hold.
const MIN_SEGMENTS: u32 = 6;

/// The largest config file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// A good config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What it says.
    pub plan: Plan,
    /// What works but is hardly meant.
    pub warnings: Vec<ConfigError>,
}

/// The config file: `named` if given, else `$RINGGEAR_CONFIG`, else `/etc/ringgear/ringgear.toml`. It has to be a file.
pub fn find(named: Option<PathBuf>) -> Result<PathBuf, ConfigErrors> {
    let from_environment = || std::env::var_os("RINGGEAR_CONFIG").filter(|path| !path.is_empty());
    find_in(named, from_environment().map(PathBuf::from))
}

fn find_in(named: Option<PathBuf>, environment: Option<PathBuf>) -> Result<PathBuf, ConfigErrors> {
    let (path, mend) = match (named, environment) {
        (Some(path), _) => (path, "name another with --config FILE"),
        (None, Some(path)) => (path, "mend $RINGGEAR_CONFIG, which names it"),
        (None, None) => (
            PathBuf::from(defaults::CONFIG),
            "write one (config/ringgear.toml is a commented example), or name another with --config FILE or $RINGGEAR_CONFIG",
        ),
    };
    match path.metadata() {
        Ok(found) if found.is_dir() => {
            Err(ConfigErrors::file(&path, "the config is a folder", mend))
        }
        Ok(_) => Ok(path),
        Err(error) => {
            let what = format!("the config can't be read: {error}");
            Err(ConfigErrors::file(&path, what, mend))
        }
    }
}

/// Reads and checks the config at `path` against its text and this machine's folders, for the daemon. Warnings are logged.
pub fn load(path: &Path) -> Result<Plan, ConfigErrors> {
    let loaded = read(path, &Environment::FOLDERS)?;
    for warning in loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded.plan)
}

/// Checks a config that the program itself wrote, against its text alone.
pub fn parse_builtin(text: &str) -> Result<Plan, ConfigErrors> {
    let loaded = parse(text, Path::new("built-in config"), &Environment::TEXT_ONLY)?;
    Ok(loaded.plan)
}

/// Reads and checks the config at `path`.
pub fn read(path: &Path, environment: &Environment<'_>) -> Result<Loaded, ConfigErrors> {
    let unreadable = |error: std::io::Error| {
        let mend = "let the daemon's user read it, or name another with --config FILE";
        ConfigErrors::file(path, format!("the config can't be read: {error}"), mend)
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    parse_bytes(&bytes, path, environment)
}

/// Checks a config's bytes, which should be UTF-8. `file` is its name for messages, and relative paths in it are taken from
/// that file's folder.
pub fn parse_bytes(
    bytes: &[u8],
    file: &Path,
    environment: &Environment<'_>,
) -> Result<Loaded, ConfigErrors> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text, file, environment),
        Err(error) => {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let mut report = Report::default();
            let what = format!("byte 0x{:02x} is not UTF-8", bytes[error.valid_up_to()]);
            report.error(good.len(), what, "save the file as UTF-8");
            Err(report.into_errors(file, &good))
        }
    }
}

/// Checks a config's text; see [`parse_bytes`].
pub fn parse(
    text: &str,
    file: &Path,
    environment: &Environment<'_>,
) -> Result<Loaded, ConfigErrors> {
    if text.len() as u64 > MAX_FILE {
        let what = format!("the config is larger than {MAX_FILE} bytes");
        return Err(ConfigErrors::file(
            file,
            what,
            "make it smaller: is it the right file?",
        ));
    }
    let mut report = Report::default();
    let root = match DeTable::parse(text) {
        Ok(root) => root.into_inner(),
        // After an error of syntax, what follows can't be trusted to mean what it says.
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let (what, mend) = syntax(error.message());
            report.error(at, what, mend);
            return Err(report.into_errors(file, text));
        }
    };
    let plan = check(root, file, environment, &mut report);
    let warnings = report.finish(file, text)?;
    Ok(Loaded { plan, warnings })
}

/// What is wrong and how to mend it, of an error of TOML's syntax.
fn syntax(message: &str) -> (String, String) {
    // A value without quotes is taken for a number: "2s", an address.
    let number = ["float", "integer", "number", "date"]
        .iter()
        .any(|kind| message.contains(kind));
    let (what, mend) = match message.rsplit_once(", expected ") {
        Some((what, _)) if number => (what, "put text in quotes".to_owned()),
        Some((what, "nothing")) => (what, "remove what is there".to_owned()),
        Some((what, expected)) => (what, format!("write {expected} here")),
        None if message.contains("duplicate") => (message, "keep one of the two".to_owned()),
        None => (
            message,
            "write it as TOML: text in quotes, numbers without".to_owned(),
        ),
    };
    (format!("not TOML: {what}"), mend)
}

fn check(
    mut root: DeTable<'_>,
    file: &Path,
    environment: &Environment<'_>,
    report: &mut Report,
) -> Plan {
    let (daemon, daemon_at) = table::take_table(&mut root, "daemon", 0, report);
    let (http, http_at) = table::take_table(&mut root, "http", 0, report);
    let (publish, publish_at) = table::take_table(&mut root, "publish", 0, report);
    let (ffmpeg, ffmpeg_at) = table::take_table(&mut root, "ffmpeg", 0, report);
    let (limits, limits_at) = table::take_table(&mut root, "limits", 0, report);
    let (streams, _) = table::take_table(&mut root, "streams", 0, report);
    for key in root.keys() {
        table::unknown_key("the config", key, &ROOT, report);
    }
    let daemon = table::read::<Daemon>("[daemon]", daemon, daemon_at, report);
    let http = table::read::<Http>("[http]", http, http_at, report);
    let publish = table::read::<Publish>("[publish]", publish, publish_at, report);
    let ffmpeg = table::read::<Ffmpeg>("[ffmpeg]", ffmpeg, ffmpeg_at, report);
    let limits = table::read::<sections::Limits>("[limits]", limits, limits_at, report);
    let window_memory_at = place(&limits.values.window_memory, limits.at);
    let limits = limits::check(&limits, report);
    let streams = stream::check_all(streams, report);
    if streams.is_empty() && !report.has_errors() {
        let mend = "add [streams.NAME] with a framerate";
        report.warning(0, "the config has no streams", mend);
    }

    let mut places = Places {
        socket: place(&daemon.values.socket, daemon.at),
        tick_log: place(&daemon.values.tick_log, daemon.at),
        publish: place(&publish.values.dir, publish.at),
        ffmpeg: place(&ffmpeg.values.path, ffmpeg.at),
        listen: place(&http.values.listen, http.at),
        tls_certificate: place(&http.values.tls_certificate, http.at),
        tls_key: place(&http.values.tls_key, http.at),
        codecs: BTreeMap::new(),
        sources: BTreeMap::new(),
        records: BTreeMap::new(),
    };
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut plans = BTreeMap::new();
    let mut inline = None;
    let mut recorded = Vec::new();
    for (name, mut checked) in streams {
        inline = inline.or(checked.access.inline());
        checked.plan.access = checked.access.read(folder, environment, report);
        if let Some(source) = &mut checked.plan.source {
            source.input = source.input.clone().within(folder);
            places.sources.insert(name.clone(), checked.source_at);
        }
        if let Some(audio) = &mut checked.plan.audio {
            audio.resolve(folder);
        }
        if let Some(record) = &mut checked.plan.record {
            record.resolve(folder);
            recorded.push((record.clone(), checked.record_at));
            places.records.insert(name.clone(), checked.record_at);
        }
        for (codec, at) in checked.codecs {
            places.codecs.entry(codec).or_default().push(at);
        }
        plans.insert(name, checked.plan);
    }
    if environment.secrets {
        access::check_config(file, inline, report);
    }
    let path = |entry: &sections::Entry<value::Text>, default: &str| match entry {
        Some(entry) => folder.join(&entry.get_ref().0.0),
        None => PathBuf::from(default),
    };
    let Daemon {
        socket,
        socket_mode,
        tick_log,
    } = &daemon.values;
    let tls = match (&http.values.tls_certificate, &http.values.tls_key) {
        (Some(certificate), Some(key)) => Some(TlsPlan {
            certificate: folder.join(&certificate.get_ref().0.0),
            key: folder.join(&key.get_ref().0.0),
        }),
        (Some(_), None) if !http.has("tls_key") => {
            let mend = "add tls_key, the certificate's own key";
            report.error(
                places.tls_certificate,
                "tls_certificate has no tls_key",
                mend,
            );
            None
        }
        (None, Some(_)) if !http.has("tls_certificate") => {
            let mend = "add tls_certificate, the key's own certificate";
            report.error(places.tls_key, "tls_key has no tls_certificate", mend);
            None
        }
        _ => None,
    };
    let plan = Plan {
        tls,
        socket: path(socket, defaults::SOCKET),
        socket_mode: socket_mode
            .as_ref()
            .map_or(defaults::SOCKET_MODE, |mode| mode.get_ref().0.0),
        tick_log: tick_log.is_some().then(|| path(tick_log, "")),
        listen: http
            .values
            .listen
            .as_ref()
            .map_or(defaults::LISTEN, |listen| listen.get_ref().0),
        http: http::check(&http, folder, environment, report),
        publish_dir: path(&publish.values.dir, defaults::PUBLISH_DIR),
        keep_free: publish
            .values
            .keep_free
            .as_ref()
            .map_or(defaults::KEEP_FREE, |entry| entry.get_ref().0.0),
        // A bare name is looked up in $PATH.
        ffmpeg: match &ffmpeg.values.path {
            Some(entry) if entry.get_ref().0.0.contains('/') => path(&ffmpeg.values.path, ""),
            Some(entry) => PathBuf::from(&entry.get_ref().0.0),
            None => PathBuf::from(defaults::FFMPEG),
        },
        breaker: breaker(&ffmpeg.values, report),
        limits,
        streams: plans,
    };
    if let Err((what, mend)) = plan.may_serve_at(plan.listen, plan.tls.is_some()) {
        report.error(places.listen, what, mend);
    }
    for (record, at) in &recorded {
        record::check_place(record, *at, &plan.publish_dir, report);
    }
    check_daemon(&plan, &daemon.values, places.socket, report);
    limits::check_windows(&plan, window_memory_at, report);
    machine::check(&plan, &places, environment, report);
    plan
}

fn breaker(given: &Ffmpeg, report: &mut Report) -> BreakerPlan {
    let default = defaults::BREAKER;
    let Ffmpeg {
        failures,
        failures_within,
        retry_every,
        ..
    } = given;
    let plan = BreakerPlan {
        failures: failures
            .as_ref()
            .map_or(default.failures, |count| count.get_ref().0.0),
        within: failures_within
            .as_ref()
            .map_or(default.within, |length| length.get_ref().0.0),
        retry_every: retry_every
            .as_ref()
            .map_or(default.retry_every, |length| length.get_ref().0.0),
    };
    if plan.pauses() >= plan.within {
        let at = place(failures, place(failures_within, 0));
        let what = format!(
            "an encoder that fails at each start is started {} times in {}, but failures_within is {}, so its stream never becomes failed",
            plan.failures,
            humantime::format_duration(plan.pauses()),
            humantime::format_duration(plan.within)
        );
        report.warning(at, what, "lower failures, or raise failures_within");
    }
    plan
}

fn check_daemon(plan: &Plan, daemon: &Daemon, socket_at: Offset, report: &mut Report) {
    if !machine::fits_socket(&plan.socket) {
        let what = format!(
            "socket {} is {} bytes long",
            plan.socket.display(),
            plan.socket.as_os_str().len()
        );
        report.error(
            socket_at,
            what,
            format!("use at most {}", machine::MAX_SOCKET_PATH),
        );
    }
    if let Some(mode) = &daemon.socket_mode
        && plan.socket_mode & 0o002 != 0
    {
        let what = format!(
            "socket_mode {:04o} lets every user of this machine feed streams",
            plan.socket_mode
        );
        report.warning(
            mode.span().start,
            what,
            "write \"0660\" to let only its group",
        );
    }
    if plan.socket.starts_with(&plan.publish_dir) {
        let what = format!("socket {} is in the publish dir", plan.socket.display());
        report.error(
            socket_at,
            what,
            "name a path outside: web servers serve that folder",
        );
    }
}

fn place<T>(entry: &Option<Spanned<T>>, otherwise: Offset) -> Offset {
    entry.as_ref().map_or(otherwise, |entry| entry.span().start)
}

/// Every key of the config, table by table, as the reference has to have them.
pub fn keys() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("daemon", Daemon::keys()),
        ("http", Http::keys()),
        ("publish", Publish::keys()),
        ("ffmpeg", Ffmpeg::keys()),
        ("limits", sections::Limits::keys()),
        ("streams", Stream::keys()),
        ("renditions", Rendition::keys()),
        ("audio", Audio::keys()),
        ("audio renditions", AudioRendition::keys()),
        ("record", sections::Record::keys()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_config_goes_before_the_environments() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&a, "").unwrap();
        assert_eq!(find_in(Some(a.clone()), Some(b.clone())).unwrap(), a);
        assert_eq!(find_in(None, Some(a.clone())).unwrap(), a);
        let error = find_in(None, Some(b)).unwrap_err().to_string();
        assert!(error.contains("$RINGGEAR_CONFIG"), "{error}");
        let error = find_in(Some(folder.path().into()), None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("is a folder"), "{error}");
    }
}
