//! Finding FFmpeg: where it is, which version, and which encoders it has.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::EncodeError;
use super::probe::{Finished, run};

/// `-fps_mode` came with 5.1.
const OLDEST: (u32, u32) = (5, 1);
const DEADLINE: Duration = Duration::from_secs(10);

/// An FFmpeg that works. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FfmpegInfo {
    /// The program, as it is started.
    pub path: PathBuf,
    /// What it says of its version: `5.1.9-0+deb12u1`.
    pub version: String,
    pub(super) encoders: Arc<BTreeSet<String>>,
}

/// Looks at the FFmpeg at `path`, or of that name in `$PATH`: it has to run and to be 5.1 or newer.
pub fn find_ffmpeg(path: &Path) -> Result<FfmpegInfo, EncodeError> {
    // Side by side: a daemon's start waits for both.
    let (text, listed) = std::thread::scope(|scope| {
        let listed = scope.spawn(|| ask(path, "-encoders"));
        let text = ask(path, "-version");
        let listed = listed.join();
        (
            text,
            listed.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        )
    });
    let text = text?;
    let unusable = |why: &str| EncodeError::Unusable {
        path: path.display().to_string(),
        why: why.to_owned(),
    };
    let version = text
        .strip_prefix("ffmpeg version ")
        .and_then(|rest| rest.split_whitespace().next())
        .ok_or_else(|| unusable("it answers -version with something else"))?;
    // Builds between releases (N-112233-gabcdef) say nothing that could be compared, and are taken.
    if release(version).is_some_and(|release| release < OLDEST) {
        return Err(EncodeError::TooOld {
            path: path.display().to_string(),
            version: version.to_owned(),
        });
    }
    let encoders = encoders(&listed?);
    if encoders.is_empty() {
        return Err(unusable("it lists no encoders"));
    }
    Ok(FfmpegInfo {
        path: path.to_owned(),
        version: version.to_owned(),
        encoders: Arc::new(encoders),
    })
}

impl FfmpegInfo {
    /// Whether it was built with the encoder `codec`; if not, what to do.
    pub fn require_encoder(&self, codec: &str) -> Result<(), EncodeError> {
        if self.encoders.contains(codec) {
            return Ok(());
        }
        let kin: Vec<&str> = [
            "libx264",
            "libx265",
            "libsvtav1",
            "libvpx-vp9",
            "libaom-av1",
        ]
        .into_iter()
        .filter(|known| self.encoders.contains(*known))
        .collect();
        let mend = if codec.starts_with("lib") {
            "install one that has it (Debian, Ubuntu: apt install ffmpeg), or choose another codec"
        } else {
            "choose another codec"
        };
        let mend = match kin.as_slice() {
            [] => mend.to_owned(),
            kin => format!("{mend}; it has {}", kin.join(", ")),
        };
        Err(EncodeError::NoEncoder {
            path: self.path.display().to_string(),
            version: self.version.clone(),
            codec: codec.to_owned(),
            mend,
        })
    }
}

/// Whether a start that failed by `kind` means that there is no such program. For a name without a folder, a folder of `$PATH`
/// that may not be searched says the same: none of the others has it.
fn is_missing(path: &Path, kind: io::ErrorKind) -> bool {
    let looked_up = path.components().count() == 1 && path.file_name() == Some(path.as_os_str());
    kind == io::ErrorKind::NotFound || (kind == io::ErrorKind::PermissionDenied && looked_up)
}

fn ask(path: &Path, question: &str) -> Result<String, EncodeError> {
    let name = || path.display().to_string();
    let arguments = ["-hide_banner", question].map(str::to_owned);
    let unusable = |why: String| EncodeError::Unusable { path: name(), why };
    match run(path, &arguments, Vec::new(), 0, DEADLINE) {
        Err(EncodeError::Start { source, .. }) if is_missing(path, source.kind()) => {
            Err(EncodeError::NotFound { path: name() })
        }
        Err(EncodeError::Start { source, .. }) => Err(unusable(source.to_string())),
        Err(other) => Err(other),
        Ok(None) => Err(unusable(format!(
            "it does not answer {question} in {DEADLINE:?}"
        ))),
        Ok(Some(Finished { status, output, .. })) if status.success() => {
            Ok(String::from_utf8_lossy(&output).into_owned())
        }
        Ok(Some(Finished { status, .. })) => {
            Err(unusable(format!("it answers {question} with {status}")))
        }
    }
}

/// `5.1.9-0+deb12u1` and `n6.0` are releases.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version
        .trim_start_matches('n')
        .split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers
        .next()
        .and_then(|minor| minor.parse().ok())
        .unwrap_or(0);
    Some((major, minor))
}

/// The names in the answer to `-encoders`: lines of six flags, a name and a description.
fn encoders(text: &str) -> BTreeSet<String> {
    text.lines()
        .skip_while(|line| !line.trim_start().starts_with("---"))
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn fake(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("ffmpeg");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn the_installed_ffmpeg_is_found_by_name_with_its_encoders() {
        let info = find_ffmpeg(Path::new("ffmpeg")).unwrap();
        assert!(release(&info.version).is_none_or(|release| release >= OLDEST));
        info.require_encoder("libx264").unwrap();
        let error = info.require_encoder("libx266").unwrap_err().to_string();
        assert!(error.contains("has no encoder libx266"), "{error}");
        assert!(error.contains("it has libx264"), "{error}");
    }

    #[test]
    fn a_missing_ffmpeg_names_what_to_install() {
        let error = find_ffmpeg(Path::new("/nowhere/ffmpeg")).unwrap_err();
        assert!(matches!(error, EncodeError::NotFound { .. }), "{error:?}");
        assert!(error.to_string().contains("apt install ffmpeg"), "{error}");
    }

    #[test]
    fn a_folder_of_the_path_that_may_not_be_searched_hides_nothing() {
        let denied = io::ErrorKind::PermissionDenied;
        assert!(is_missing(Path::new("ffmpeg"), denied));
        assert!(!is_missing(Path::new("/opt/ffmpeg"), denied));
        assert!(!is_missing(Path::new("./ffmpeg"), denied));
        assert!(!is_missing(Path::new("ffmpeg"), io::ErrorKind::OutOfMemory));
    }

    #[test]
    fn what_is_no_ffmpeg_or_too_old_a_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = fake(
            folder.path(),
            "echo 'ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright'",
        );
        assert!(matches!(
            find_ffmpeg(&path),
            Err(EncodeError::TooOld { .. })
        ));
        let path = fake(folder.path(), "echo hello");
        assert!(matches!(
            find_ffmpeg(&path),
            Err(EncodeError::Unusable { .. })
        ));
        let path = fake(folder.path(), "exit 3");
        let error = find_ffmpeg(&path).unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert_eq!(release("5.1.9-0+deb12u1"), Some((5, 1)));
        assert_eq!(release("n7.0"), Some((7, 0)));
        assert_eq!(release("8-static"), Some((8, 0)));
        assert_eq!(release("N-112233-gabcdef"), None);
    }
}
