//! One log line, before it is text: its message, and its fields in their order.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};

use crate::threads;

/// No field is longer; what is longer is cut.
const MAX_FIELD: usize = 16 * 1024;
/// What names the stream that a line is of.
const STREAM: &str = "stream";

/// What an event says.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) metadata: &'static Metadata<'static>,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
}

impl Line {
    /// The event's, with the stream that the thread works for where it names none itself.
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut line = Self {
            metadata: event.metadata(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut line);
        if line.stream().is_none()
            && let Some(stream) = threads::stream()
        {
            line.fields.push((STREAM, (*stream).into()));
        }
        line
    }

    /// The stream that it is of.
    pub(super) fn stream(&self) -> Option<&str> {
        let mut fields = self.fields.iter();
        let (_, stream) = fields.find(|(name, _)| *name == STREAM)?;
        stream.as_str()
    }

    /// For people: one line, whatever its fields hold.
    pub(super) fn text(&self, time: Option<SystemTime>, colours: bool) -> String {
        let mut text = String::new();
        let (dim, plain) = if colours {
            ("\x1b[2m", "\x1b[0m")
        } else {
            ("", "")
        };
        let colour = match *self.metadata.level() {
            _ if !colours => "",
            Level::ERROR => "\x1b[31m",
            Level::WARN => "\x1b[33m",
            Level::INFO => "\x1b[32m",
            _ => "\x1b[34m",
        };
        if let Some(time) = time {
            let _ = write!(
                text,
                "{dim}{}{plain} ",
                humantime::format_rfc3339_micros(time)
            );
        }
        let _ = write!(
            text,
            "{colour}{:>5}{plain} {}",
            self.metadata.level(),
            OneLine(&self.message)
        );
        for (name, value) in &self.fields {
            let _ = match value {
                Value::String(value) if needs_quotes(value) => {
                    write!(text, " {dim}{name}={plain}{value:?}")
                }
                Value::String(value) => write!(text, " {dim}{name}={plain}{}", OneLine(value)),
                value => write!(text, " {dim}{name}={plain}{value}"),
            };
        }
        text.push('\n');
        text
    }

    /// For programs: an object on a line.
    pub(super) fn json(&self, time: SystemTime) -> String {
        let time = humantime::format_rfc3339_micros(time).to_string();
        let level = self.metadata.level().as_str().to_ascii_lowercase();
        let first = [
            ("time", time.into()),
            ("level", level.into()),
            ("target", self.metadata.target().into()),
            ("message", self.message.clone().into()),
        ];
        // In this order, which a map would not keep.
        let fields = first.iter().chain(&self.fields);
        let fields = fields.map(|(name, value)| format!("{}:{value}", Value::from(*name)));
        format!("{{{}}}\n", fields.collect::<Vec<_>>().join(","))
    }

    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, cut(format!("{value:?}")).into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, cut(value.to_owned()).into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_FIELD {
        let most = MAX_FIELD - '…'.len_utf8();
        let end = (0..=most).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

fn needs_quotes(value: &str) -> bool {
    value.is_empty() || value.contains([' ', '"', '='])
}

/// A text without what would begin another line or steer a terminal.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            c if c.is_control() => write!(f, "{}", c.escape_default()),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::Subscriber;
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt as _};

    use super::*;

    #[derive(Default, Clone)]
    struct Heard(Arc<Mutex<Vec<Line>>>);

    impl<S: Subscriber> Layer<S> for Heard {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(Line::of(event));
        }
    }

    /// What `body` logs on this thread.
    pub(in super::super) fn lines_of(body: impl FnOnce()) -> Vec<Line> {
        let heard = Heard::default();
        let subscriber = tracing_subscriber::registry().with(heard.clone());
        tracing::subscriber::with_default(subscriber, body);
        std::mem::take(&mut *heard.0.lock().unwrap())
    }

    #[test]
    fn a_line_is_one_line_whatever_it_quotes() {
        let lines = lines_of(|| {
            let error = std::io::Error::other("it\nis \x1b[31mred");
            tracing::warn!(stream = %"door", pid = 7, %error, kept = true, "a source of\nmany lines");
        });
        let text = lines[0].text(None, false);
        assert_eq!(
            text,
            " WARN a source of\\nmany lines stream=door pid=7 error=\"it\\nis \\u{1b}[31mred\" kept=true\n"
        );
    }

    #[test]
    fn programs_get_an_object_with_numbers_as_numbers() {
        let lines =
            lines_of(|| tracing::info!(stream = "door", pid = 7, late = 0.5, "encoder started"));
        let object: Value = serde_json::from_str(&lines[0].json(SystemTime::UNIX_EPOCH)).unwrap();
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:00.000000Z", "level": "info", "target": module_path!(),
            "message": "encoder started", "stream": "door", "pid": 7, "late": 0.5,
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn a_line_without_a_stream_is_of_the_one_that_the_thread_works_for() {
        let log = || {
            lines_of(|| {
                tracing::info!("silence follows");
                tracing::info!(stream = "yard", "its own");
            })
        };
        let lines = threads::spawn_for("door", "test", log)
            .unwrap()
            .join()
            .unwrap();
        let streams: Vec<_> = lines.iter().map(Line::stream).collect();
        assert_eq!(streams, [Some("door"), Some("yard")]);
        assert_eq!(log()[0].stream(), None);
    }

    #[test]
    fn a_field_without_end_is_cut() {
        let lines = lines_of(|| tracing::info!(text = "ö".repeat(MAX_FIELD), "long"));
        let text = lines[0].fields[0].1.as_str().unwrap();
        assert!(
            text.len() <= MAX_FIELD && text.ends_with("ö…"),
            "{}",
            text.len()
        );
    }
}
