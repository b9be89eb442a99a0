//! What of a config depends on the machine: folders, the socket's place, FFmpeg. Looking changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::error::{Offset, Report};
use super::{Plan, SourceInput};

/// The longest path that a Unix socket can have, in bytes: `sun_path` less its NUL.
pub(super) const MAX_SOCKET_PATH: usize = 107;

/// Something that FFmpeg can't do as the config asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FfmpegProblem {
    /// The encoder that is missing; none when it is about FFmpeg itself.
    pub codec: Option<String>,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

impl FfmpegProblem {
    /// A problem told in one line, `what is wrong: how to mend it`.
    pub fn told(codec: Option<&str>, line: &str) -> Self {
        let (what, mend) = line
            .split_once(": ")
            .unwrap_or((line, "install another FFmpeg, or name it in [ffmpeg] path"));
        Self {
            codec: codec.map(Into::into),
            what: what.into(),
            mend: mend.into(),
        }
    }
}

/// Says what FFmpeg at the path can't do, given the encoders that the config names, each once.
pub type FfmpegCheck<'a> = &'a dyn Fn(&Path, &[&str]) -> Vec<FfmpegProblem>;

/// Says whether the origin can listen where the plan wants it; if not, what is wrong and how to mend it.
pub type ListenCheck<'a> = &'a dyn Fn(&Plan) -> Result<(), (String, String)>;

/// What a config is checked against beside its own text.
#[derive(Clone, Copy, Default)]
pub struct Environment<'a> {
    /// Whether folders have to be there and writable for this process's user.
    pub folders: bool,
    /// Whether the files of tokens and keys are read.
    pub secrets: bool,
    /// Asks FFmpeg; none: it is not asked.
    pub ffmpeg: Option<FfmpegCheck<'a>>,
    /// Tries the origin's address; none: it is not tried.
    pub listen: Option<ListenCheck<'a>>,
}

impl Environment<'_> {
    /// Nothing but the text.
    pub const TEXT_ONLY: Environment<'static> = Environment {
        folders: false,
        secrets: false,
        ffmpeg: None,
        listen: None,
    };
    /// The text, and what is secret.
    pub const SECRETS: Environment<'static> = Environment {
        secrets: true,
        ..Environment::TEXT_ONLY
    };
    /// The text, what is secret, and the folders of this machine.
    pub const FOLDERS: Environment<'static> = Environment {
        folders: true,
        ..Environment::SECRETS
    };
}

/// Where in the file the things stand that depend on the machine; the defaults' place is the file's start.
pub(super) struct Places {
    pub(super) socket: Offset,
    pub(super) tick_log: Offset,
    pub(super) publish: Offset,
    pub(super) ffmpeg: Offset,
    pub(super) listen: Offset,
    pub(super) tls_certificate: Offset,
    pub(super) tls_key: Offset,
    pub(super) codecs: BTreeMap<String, Vec<Offset>>,
    /// By stream.
    pub(super) sources: BTreeMap<String, Offset>,
    /// The folders of recordings, by stream.
    pub(super) records: BTreeMap<String, Offset>,
}

/// Checks `plan` against the machine.
pub(super) fn check(
    plan: &Plan,
    places: &Places,
    environment: &Environment<'_>,
    report: &mut Report,
) {
    if environment.folders {
        check_socket(&plan.socket, places.socket, report);
        check_folder("publish dir", &plan.publish_dir, places.publish, report);
        check_free(plan, places.publish, report);
        check_records(plan, places, report);
        if let Some(tls) = &plan.tls {
            check_file(
                "tls_certificate",
                &tls.certificate,
                places.tls_certificate,
                report,
            );
            check_file("tls_key", &tls.key, places.tls_key, report);
        }
        if let Some(folder) = &plan.tick_log {
            check_folder("tick_log", folder, places.tick_log, report);
        }
        check_sources(plan, places, report);
    }
    if let Some(Err((what, mend))) = environment.listen.map(|may_listen| may_listen(plan)) {
        report.error(places.listen, what, mend);
    }
    if let Some(ask) = environment.ffmpeg {
        check_ffmpeg(plan, places, ask, report);
    }
}

/// Checks that `file` is there and that this process's effective user may read it.
fn check_file(name: &str, file: &Path, at: Offset, report: &mut Report) {
    let readable = accessat(CWD, file, Access::READ_OK, AtFlags::EACCESS);
    let what = match file.metadata() {
        Ok(found) if found.is_dir() => "it is a folder".to_owned(),
        Ok(_) => match readable {
            Ok(()) => return,
            Err(error) => io::Error::from(error).to_string(),
        },
        Err(error) => error.to_string(),
    };
    let what = format!("{name} {} can't be read: {what}", file.display());
    let mend = format!("let {} read it, or name another file", user());
    report.error(at, what, mend);
}

/// Warns of a source that is not there now: it may come later, and is waited for.
fn check_sources(plan: &Plan, places: &Places, report: &mut Report) {
    for (name, stream) in &plan.streams {
        let Some(source) = &stream.source else {
            continue;
        };
        let (kind, path) = match &source.input {
            // A number or a pattern stands for many files.
            SourceInput::File(path) if path.as_os_str().as_bytes().contains(&b'%') => continue,
            SourceInput::File(path) => ("file", path.as_path()),
            SourceInput::Device { name, .. } if name.starts_with("/dev/") => {
                ("device", Path::new(name))
            }
            _ => continue,
        };
        let shown = path.display();
        let readable = accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS);
        let (what, mend) = match (path.metadata(), readable) {
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => (
                format!("source {shown} is not there"),
                format!(
                    "put the {kind} there, or name another; until then it is looked for again and again"
                ),
            ),
            (Ok(found), _) if found.is_dir() => {
                let what = format!("source {shown} is a folder");
                (what, "name a file in it".to_owned())
            }
            (Err(error), _) => (
                format!("source {shown} can't be read: {error}"),
                format!("let {} read it", user()),
            ),
            (_, Err(error)) => (
                format!("source {shown} can't be read: {}", io::Error::from(error)),
                format!(
                    "let {} read it (devices mostly belong to the group video)",
                    user()
                ),
            ),
            (Ok(_), Ok(())) => continue,
        };
        let at = places.sources.get(name).copied().unwrap_or_default();
        report.warning(at, what, mend);
    }
}

fn check_socket(socket: &Path, at: Offset, report: &mut Report) {
    if let Ok(found) = socket.symlink_metadata()
        && !found.file_type().is_socket()
    {
        let what = format!("socket {} is there and is no socket", socket.display());
        report.error(at, what, "remove it, or name another path");
    }
    let folder = match socket.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let shown = folder.display();
    match folder.metadata() {
        Ok(found) if !found.is_dir() => {
            let what = format!("{shown} is no folder, so the socket can't be there");
            report.error(at, what, "name another path");
        }
        Ok(_) => {
            if let Err(error) = may_write(folder) {
                let what = format!("the socket's folder {shown} can't be written: {error}");
                let mend = format!("let {} write there, or name another path", user());
                report.error(at, what, mend);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = format!("the socket's folder {shown} doesn't exist");
            let mend = "create it (under systemd: RuntimeDirectory=ringgear), or name another path";
            report.error(at, what, mend);
        }
        Err(error) => {
            let what = format!("the socket's folder {shown} can't be read: {error}");
            report.error(at, what, format!("let {} in, or name another path", user()));
        }
    }
}

/// What keeps files from being made in a folder.
struct Unusable {
    what: String,
    mend: String,
    /// Whether the disk may be in trouble, rather than the config wrong.
    may_pass: bool,
}

/// Checks that files can be made in `folder`, or that it can be created.
fn check_folder(name: &str, folder: &Path, at: Offset, report: &mut Report) {
    match usable(name, folder) {
        Ok(()) => {}
        Err(why) if why.may_pass => report.warning(at, why.what, why.mend),
        Err(why) => report.error(at, why.what, why.mend),
    }
}

/// Warns of folders of recordings that can't be used: the streams go on without, and record as soon as they can.
fn check_records(plan: &Plan, places: &Places, report: &mut Report) {
    for (name, stream) in &plan.streams {
        let Some(record) = &stream.record else {
            continue;
        };
        let at = places.records.get(name).copied().unwrap_or_default();
        let folder = record.folder(&plan.publish_dir, name);
        // One beside the window is checked with that.
        let own = record.dir.is_some().then(|| usable("record dir", &folder));
        if let Some(Err(Unusable { what, mend, .. })) = own {
            let what = format!("{what}, so nothing of stream {name} is recorded");
            report.warning(at, what, mend);
            continue;
        }
        // The recording leaves the window's own room alone.
        let floor = plan.keep_free.saturating_mul(2);
        if let Some(free) = free_in(&folder).filter(|free| *free < floor) {
            let what = format!(
                "record dir {} has {free} bytes free, less than {floor}, twice the keep_free of [publish], so no more is recorded than goes",
                folder.display()
            );
            let mend = "free some space, lower keep_free, or set dir of record to a folder on another disk";
            report.warning(at, what, mend);
        }
    }
}

/// Whether files can be made in `folder`, or it can be created.
fn usable(name: &str, folder: &Path) -> Result<(), Unusable> {
    let shown = folder.display();
    let wrong = |what, mend| Unusable {
        what,
        mend,
        may_pass: false,
    };
    let nearest = nearest_existing(folder).map_err(|(path, error)| {
        wrong(
            format!("{name} {shown}: {} can't be read: {error}", path.display()),
            format!("let {} in, or name another folder", user()),
        )
    })?;
    if !nearest.is_dir() {
        return Err(wrong(
            format!("{name} {shown}: {} is no folder", nearest.display()),
            "name another folder".to_owned(),
        ));
    }
    may_write(&nearest).map_err(|error| {
        if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
            return Unusable {
                what: format!("{name} {shown} is on a read-only file system"),
                mend: format!(
                    "mount it writable, under systemd by ReadWritePaths={shown} in the unit (systemctl edit ringgear), or name another folder"
                ),
                may_pass: true,
            };
        }
        if nearest == folder {
            return wrong(
                format!("{name} {shown} can't be written: {error}"),
                format!("let {} write there, or name another folder", user()),
            );
        }
        wrong(
            format!(
                "{name} {shown} can't be created in {}: {error}",
                nearest.display()
            ),
            format!("create it and give it to {}, or name another folder", user()),
        )
    })
}

/// Warns when so little is free that nothing would be written.
fn check_free(plan: &Plan, at: Offset, report: &mut Report) {
    if let Some(free) = free_in(&plan.publish_dir).filter(|free| *free < plan.keep_free) {
        let what = format!(
            "publish dir {} has {free} bytes free, less than the {} of keep_free, so nothing is written to it",
            plan.publish_dir.display(),
            plan.keep_free
        );
        report.warning(at, what, "free some space, or lower keep_free");
    }
}

/// How many bytes this user may write where `folder` is, or will be.
fn free_in(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(&nearest_existing(folder).ok()?).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// `folder`, or the folder nearest above it that exists.
fn nearest_existing(folder: &Path) -> Result<PathBuf, (PathBuf, io::Error)> {
    for path in folder.ancestors() {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        match path.metadata() {
            Ok(_) => return Ok(path.to_owned()),
            // Below a plain file nothing is found either; the walk up then meets that file.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            Err(error) => return Err((path.to_owned(), error)),
        }
    }
    Ok(PathBuf::from("."))
}

/// Whether this process's effective user may make files in `folder`.
fn may_write(folder: &Path) -> io::Result<()> {
    accessat(
        CWD,
        folder,
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )?;
    Ok(())
}

/// Whom rights have to be given to.
pub(super) fn user() -> String {
    format!(
        "the daemon's user (checked as uid {})",
        rustix::process::geteuid().as_raw()
    )
}

fn check_ffmpeg(plan: &Plan, places: &Places, ask: FfmpegCheck<'_>, report: &mut Report) {
    let codecs: Vec<&str> = places.codecs.keys().map(String::as_str).collect();
    for problem in ask(&plan.ffmpeg, &codecs) {
        let of_codec = problem.codec.and_then(|codec| places.codecs.get(&codec));
        let ffmpeg = [places.ffmpeg];
        let at = of_codec.map_or(&ffmpeg[..], Vec::as_slice);
        for &at in at {
            report.error(at, problem.what.clone(), problem.mend.clone());
        }
    }
}

/// Whether `path` is short enough for a socket.
pub(super) fn fits_socket(path: &Path) -> bool {
    path.as_os_str().as_bytes().len() <= MAX_SOCKET_PATH
}
