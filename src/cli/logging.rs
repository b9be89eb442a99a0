//! Log lines on standard error, one per event: text for people, fields for the journal, JSON for programs. A line that comes
//! again and again is left out and counted; a line of a stream names it.

mod journal;
mod limit;
mod line;

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use tracing::{Event, Level, Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::CliError;
use journal::Journal;
use limit::{Limit, Verdict};
use line::Line;

/// What is logged, and how.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct LogArgs {
    /// How log lines look; without it fields if the journal reads them, else text
    #[arg(long, value_name = "FORMAT", env = "RINGGEAR_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace or off, also by module: info,ringgear::http=debug
    #[arg(
        long = "log",
        value_name = "LEVELS",
        env = "RINGGEAR_LOG",
        default_value = "",
        hide_default_value = true
    )]
    levels: Levels,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// A line for people
    Text,
    /// An object a line
    Json,
    /// systemd's journal, with fields
    Journal,
}

/// A level for all, and levels for modules; none if nothing was said.
#[derive(Clone, Debug, Default)]
struct Levels(Option<Targets>);

impl FromStr for Levels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut targets = Targets::new();
        for directive in text.split(',').map(str::trim) {
            let (module, level) = match directive.split_once('=') {
                Some((module, level)) => (Some(module.trim()), level.trim()),
                None => (None, directive),
            };
            let level = level_named(level)?;
            targets = match module {
                Some(module) if is_path(module) => targets.with_target(module, level),
                Some(module) => {
                    return Err(format!(
                        "'{module}' is not the name of a module, such as ringgear::http"
                    ));
                }
                None => targets.with_default(level),
            };
        }
        Ok(Self(Some(targets)))
    }
}

fn level_named(name: &str) -> Result<LevelFilter, String> {
    const LEVELS: [LevelFilter; 6] = [
        LevelFilter::OFF,
        LevelFilter::ERROR,
        LevelFilter::WARN,
        LevelFilter::INFO,
        LevelFilter::DEBUG,
        LevelFilter::TRACE,
    ];
    let mut levels = LEVELS.into_iter();
    let found = levels.find(|level| level.to_string().eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        format!("'{name}' is not a level: use error, warn, info, debug, trace or off, for one module as in info,ringgear::http=debug")
    })
}

fn is_path(module: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    module
        .split("::")
        .all(|name| !name.is_empty() && name.chars().all(word))
}

/// Starts logging for the life of the process, from `usual` upwards where nothing else is asked for.
///
/// # Errors
/// When the journal was asked for and can't be reached.
pub(super) fn start(args: &LogArgs, usual: Level) -> Result<(), CliError> {
    let output = match args.log_format {
        Some(LogFormat::Text) => Output::text(),
        Some(LogFormat::Json) => Output::Json,
        Some(LogFormat::Journal) => Output::Journal(Journal::open().map_err(|error| {
            let socket = journal::SOCKET;
            CliError::Failed(format!(
                "the journal can't be reached at {socket}: {error}; use --log-format text or json"
            ))
        })?),
        None if journal_reads_us() => {
            Journal::open().map_or_else(|_| Output::text(), Output::Journal)
        }
        None => Output::text(),
    };
    let levels = args.levels.0.clone();
    let levels = levels.unwrap_or_else(|| Targets::new().with_default(usual));
    let log = Log {
        output,
        limit: Mutex::default(),
    };
    // A second start, as in tests, keeps the first.
    let _ = tracing_subscriber::registry()
        .with(log.with_filter(levels))
        .try_init();
    Ok(())
}

/// Whether standard error is a stream of the journal's: $JOURNAL_STREAM names its device and inode, and is inherited further than
/// the stream itself.
fn journal_reads_us() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stream| named == format!("{}:{}", stream.dev(), stream.ino()))
}

/// Where lines go.
enum Output {
    Text { colours: bool, times: bool },
    Json,
    Journal(Journal),
}

impl Output {
    fn text() -> Self {
        Self::Text {
            colours: std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            // The journal stamps each line itself.
            times: !journal_reads_us(),
        }
    }

    fn write(&self, line: &Line) {
        let now = SystemTime::now();
        let text = match self {
            Self::Text { colours, times } => line.text(times.then_some(now), *colours),
            Self::Json => line.json(now),
            Self::Journal(journal) => {
                journal.send(line);
                return;
            }
        };
        // Whoever does not read what is logged is no reason to stop.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text { .. } => "Text",
            Self::Json => "Json",
            Self::Journal(_) => "Journal",
        })
    }
}

/// The end of every event's way.
#[derive(Debug)]
struct Log {
    output: Output,
    limit: Mutex<Limit>,
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = Line::of(event);
        let verdict = match is_limited(event.metadata()) {
            true => {
                let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
                limit.judge(event.metadata().callsite(), &line, Instant::now())
            }
            false => Verdict::default(),
        };
        for left_out in verdict.left_out {
            self.output.write(&left_out);
        }
        if verdict.shown {
            self.output.write(&line);
        }
    }
}

/// Who asks for details wants them all.
fn is_limited(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_for_all_or_for_modules() {
        let levels: Levels = "warn, ringgear::http=debug".parse().unwrap();
        let levels = levels.0.unwrap();
        assert!(levels.would_enable("ringgear::http::serve", &Level::DEBUG));
        assert!(!levels.would_enable("ringgear::http::serve", &Level::TRACE));
        assert!(levels.would_enable("ringgear::encode", &Level::WARN));
        assert!(!levels.would_enable("ringgear::encode", &Level::INFO));
        assert!("".parse::<Levels>().unwrap().0.is_none());
    }

    #[test]
    fn levels_that_are_none_are_refused_with_their_names() {
        for (text, said) in [
            ("inof", "'inof' is not a level"),
            ("ringgear::http", "'ringgear::http' is not a level"),
            ("info,ringgear::http=loud", "'loud' is not a level"),
            ("info,,debug", "'' is not a level"),
            ("http/x=debug", "'http/x' is not the name of a module"),
            ("=debug", "'' is not the name of a module"),
        ] {
            let error = text.parse::<Levels>().unwrap_err();
            assert!(error.starts_with(said), "{text}: {error}");
        }
    }
}
