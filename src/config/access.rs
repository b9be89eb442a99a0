//! Who may watch a stream: `tokens`, `signing_key` and the files that hold them. What is secret is never shown, in errors neither.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use toml::Spanned;

use super::error::{Offset, Report};
use super::machine::{Environment, user};
use super::sections::{Entry, Http, Stream};
use super::table::Section;
use super::value::Text;
use crate::access::{Access, SECRET, Secret};

/// How many tokens, and how many keys, a stream may have.
const MOST: usize = 64;
/// The largest file of tokens or keys, in bytes.
const MAX_FILE: u64 = 64 << 10;
/// Mode bits of those who are neither the file's owner nor in its group.
const OTHERS: u32 = 0o007;

/// A secret as the config has it.
#[derive(Clone, Debug)]
pub(super) struct Hidden(Secret);

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HiddenVisitor)
    }
}

struct HiddenVisitor;

impl HiddenVisitor {
    fn refused<E: Error>() -> E {
        // Whatever it is, it may have been meant to be secret.
        E::invalid_value(
            Unexpected::Other("what stands there"),
            &format!("{SECRET}, in quotes").as_str(),
        )
    }
}

impl Visitor<'_> for HiddenVisitor {
    type Value = Hidden;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{SECRET}, in quotes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Hidden, E> {
        Secret::new(text).map(Hidden).ok_or_else(Self::refused)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Hidden, E> {
        Err(Self::refused())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Hidden, E> {
        Err(Self::refused())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Hidden, E> {
        Err(Self::refused())
    }
}

/// A list of secrets, each with its place.
pub(super) type HiddenList = Option<Spanned<Vec<Spanned<Hidden>>>>;

/// Who may do what, as a table says it. What the files hold comes to it with [`Written::read`].
#[derive(Debug, Default)]
pub(super) struct Written {
    access: Access,
    /// By their keys, with their places.
    token_file: Option<(&'static str, String, Offset)>,
    signing_key_file: Option<(&'static str, String, Offset)>,
    /// Where the first secret stands in the config itself.
    inline: Option<Offset>,
}

/// Checks a stream's keys.
pub(super) fn check(section: &Section<Stream>, report: &mut Report) -> Written {
    let stream = &section.values;
    let mut access = Access::default();
    if let Some(tokens) = &stream.tokens {
        let at = tokens.span().start;
        if tokens.get_ref().is_empty() {
            let mend = "list tokens, or leave it out to let everybody watch";
            report.error(at, "tokens is empty", mend);
        }
        if tokens.get_ref().len() > MOST {
            let what = format!("tokens lists more than {MOST}");
            report.error(at, what, "list fewer, or give viewers signed URLs");
        }
        let tokens = tokens.get_ref().iter().take(MOST);
        access.tokens = tokens.map(|token| token.get_ref().0.clone()).collect();
    }
    if let Some(key) = &stream.signing_key {
        access.keys.push(key.get_ref().0.clone());
    }
    access.guarded = ["tokens", "token_file", "signing_key", "signing_key_file"]
        .iter()
        .any(|key| section.has(key));
    Written {
        access,
        token_file: file("token_file", &stream.token_file),
        signing_key_file: file("signing_key_file", &stream.signing_key_file),
        inline: section
            .place_of("tokens")
            .or_else(|| section.place_of("signing_key")),
    }
}

/// What `[http]` says of who may administer.
pub(super) fn check_admin(section: &Section<Http>) -> Written {
    Written {
        access: Access {
            guarded: section.has("admin_token_file"),
            ..Access::default()
        },
        token_file: file("admin_token_file", &section.values.admin_token_file),
        ..Written::default()
    }
}

fn file(key: &'static str, entry: &Entry<Text>) -> Option<(&'static str, String, Offset)> {
    let entry = entry.as_ref()?;
    Some((key, entry.get_ref().0.0.clone(), entry.span().start))
}

impl Written {
    /// Where the first secret stands in the config itself, if there is one.
    pub(super) fn inline(&self) -> Option<Offset> {
        self.inline
    }

    /// Who may, with what the files hold, whose paths start at `folder`, if the environment has files.
    pub(super) fn read(
        self,
        folder: &Path,
        environment: &Environment<'_>,
        report: &mut Report,
    ) -> Access {
        let mut access = self.access;
        let files = [
            (self.token_file, &mut access.tokens),
            (self.signing_key_file, &mut access.keys),
        ];
        for (file, secrets) in files {
            let Some((key, path, at)) = file.filter(|_| environment.secrets) else {
                continue;
            };
            match secrets_in(key, &folder.join(path)) {
                Ok(read) => secrets.extend(read),
                Err((what, mend)) => report.error(at, what, mend),
            }
        }
        access
    }
}

/// Warns of secrets in a config that every user of the machine may read.
pub(super) fn check_config(file: &Path, inline: Option<Offset>, report: &mut Report) {
    let open = file
        .metadata()
        .is_ok_and(|found| found.mode() & OTHERS != 0);
    if let Some(at) = inline.filter(|_| open) {
        let what = format!("every user may read the secrets in {}", file.display());
        let mend =
            "chmod o= it, or put them into files and name those in token_file and signing_key_file";
        report.warning(at, what, mend);
    }
}

/// The secrets in the file at `path`, one a line; empty lines and those that begin with `#` are none. Or what is wrong, and how to mend it.
fn secrets_in(key: &str, path: &Path) -> Result<Vec<Secret>, (String, String)> {
    let shown = path.display();
    let unreadable = |why: String| {
        let mend = format!("let {} read it, or name another file", user());
        (format!("{key} {shown} can't be read: {why}"), mend)
    };
    // Who writes to a pipe would be waited for.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let opened = opened.and_then(|file| Ok((file.metadata()?, file)));
    let (found, file) = opened.map_err(|error| unreadable(error.to_string()))?;
    if !found.is_file() {
        return Err(unreadable("it is no plain file".to_owned()));
    }
    let mode = found.mode() & 0o7777;
    if mode & OTHERS != 0 {
        let what = format!("{key} {shown} is open to every user (mode {mode:04o})");
        let mend = format!("chmod o= {shown}, and renew what is in it");
        return Err((what, mend));
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > MAX_FILE {
        return Err(unreadable(format!("it is larger than {MAX_FILE} bytes")));
    }
    let mut secrets = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match Secret::new(line) {
            Some(_) if secrets.len() == MOST => {
                let what = format!("{key} {shown} has more than {MOST} lines");
                return Err((what, "keep fewer".to_owned()));
            }
            Some(secret) => secrets.push(secret),
            None => {
                let what = format!("line {number} of {key} {shown} can't be used");
                return Err((what, format!("write {SECRET}")));
            }
        }
    }
    if secrets.is_empty() {
        let what = format!("{key} {shown} is empty");
        return Err((what, format!("write {SECRET}")));
    }
    Ok(secrets)
}
