//! `ringgear clip`: a stretch of a stream as an MP4 file, from the daemon's origin.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::CliError;

/// How long the origin may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest head of an answer, and the longest error.
const MOST_WORDS: u64 = 64 << 10;

/// Cuts a stretch out of a stream's window or recordings, at the edges of segments and without encoding it again.
#[derive(Debug, clap::Args)]
pub(super) struct ClipArgs {
    /// The stream
    stream: String,
    /// Where it begins: 2026-11-23T07:03:12Z, or the seconds since 1970
    #[arg(long, value_name = "TIME", requires = "to")]
    from: Option<String>,
    /// Where it ends
    #[arg(long, value_name = "TIME", requires = "from")]
    to: Option<String>,
    /// The newest so much of it, like 30s, in place of --from and --to
    #[arg(long, value_name = "LENGTH", conflicts_with_all = ["from", "to"], required_unless_present = "from")]
    last: Option<String>,
    /// The rendition; by default the one with the most pixels
    #[arg(long, value_name = "NAME")]
    rendition: Option<String>,
    /// The file to write; "-" for standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The daemon's origin
    #[arg(
        long,
        value_name = "URL",
        env = "RINGGEAR_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    url: String,
    /// A token or a pass of the stream, if it is guarded
    #[arg(long, value_name = "TOKEN", env = "RINGGEAR_TOKEN", hide_env_values = true, value_parser = token)]
    token: Option<String>,
}

/// A token that is fit for a header.
fn token(text: &str) -> Result<String, String> {
    match text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("a token has no spaces and no signs beyond ASCII".to_owned()),
    }
}

/// Fetches the clip.
pub(super) fn run(args: ClipArgs) -> Result<(), CliError> {
    let origin = args.url.trim_end_matches('/');
    let Some(host) = origin.strip_prefix("http://") else {
        return Err(CliError::Usage(format!(
            "--url {origin} does not begin with http://: name the origin as this machine reaches it without TLS"
        )));
    };
    let (authority, prefix) = host
        .split_once('/')
        .map_or((host, String::new()), |(host, path)| {
            (host, format!("/{path}"))
        });
    let fields = [
        ("from", &args.from),
        ("to", &args.to),
        ("last", &args.last),
        ("rendition", &args.rendition),
    ];
    let fields: Vec<String> = fields
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", escaped(value.as_ref()?))))
        .collect();
    let path = format!(
        "{prefix}/{}/clip.mp4?{}",
        escaped(&args.stream),
        fields.join("&")
    );
    let failed = |error: io::Error| {
        CliError::Failed(format!(
            "the origin at {origin} can't be asked: {error}; see whether the daemon runs, or name its [http] listen with --url"
        ))
    };
    let mut answer = ask(authority, &path, args.token.as_deref()).map_err(failed)?;
    if answer.status != 200 {
        let mut text = String::new();
        let _ = answer.body.take(MOST_WORDS).read_to_string(&mut text);
        return Err(CliError::Failed(told(&text, answer.status)));
    }
    const CUT: &str =
        "what was asked for left the window meanwhile, or the daemon stopped; try again";
    let written = match args.output.as_os_str() == "-" {
        true => copy(&mut answer.body, &mut io::stdout().lock()),
        false => save(&mut answer.body, &args.output, answer.length),
    };
    let written = written.map_err(|broken| {
        CliError::Failed(match broken {
            Broken::Reading(error) => {
                format!("the origin at {origin} broke off: {error}; {CUT}")
            }
            Broken::Writing(error) => {
                format!("{} can't be written: {error}", args.output.display())
            }
        })
    })?;
    if Some(written) != answer.length {
        return Err(CliError::Failed(format!("the daemon broke off: {CUT}")));
    }
    if let (Some(from), Some(to)) = (answer.from, answer.to) {
        eprintln!("from {from} to {to}, {written} bytes");
    }
    Ok(())
}

/// Why a clip is not whole.
#[derive(Debug)]
enum Broken {
    /// No more came.
    Reading(io::Error),
    /// What came could not be kept.
    Writing(io::Error),
}

/// Writes all of `body`, and says how much that was.
fn copy(body: &mut impl Read, out: &mut impl Write) -> Result<u64, Broken> {
    let mut buffer = vec![0; 64 << 10];
    let mut written = 0;
    loop {
        let read = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Broken::Reading(error)),
        };
        out.write_all(&buffer[..read]).map_err(Broken::Writing)?;
        written += read as u64;
    }
    out.flush().map_err(Broken::Writing)?;
    Ok(written)
}

/// Writes it beside `path` and puts it in place once it is whole.
fn save(body: &mut impl Read, path: &Path, length: Option<u64>) -> Result<u64, Broken> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let beside = PathBuf::from(name);
    let written = File::create(&beside)
        .map_err(Broken::Writing)
        .and_then(|mut file| copy(body, &mut file));
    match written {
        Ok(written) if Some(written) == length => std::fs::rename(&beside, path)
            .map(|()| written)
            .map_err(Broken::Writing),
        other => {
            // It is of no use; should it not go, it is in nobody's way.
            let _ = std::fs::remove_file(&beside);
            other
        }
    }
}

/// An answer of the origin.
struct Answer {
    status: u16,
    length: Option<u64>,
    from: Option<String>,
    to: Option<String>,
    body: io::Take<BufReader<TcpStream>>,
}

/// GET by HTTP/1.1, of an origin of ours: what it answers here has a length.
fn ask(authority: &str, path: &str, token: Option<&str>) -> io::Result<Answer> {
    let address = match authority.rsplit_once(':') {
        Some((_, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => authority.to_owned(),
        _ => format!("{authority}:80"),
    };
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\n{}Connection: close\r\n\r\n",
        authorization.unwrap_or_default()
    )?;
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "that is no HTTP");
    let mut head = BufReader::new(stream).take(MOST_WORDS);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let (mut length, mut from, mut to) = (None, None, None);
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(strange());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok(),
            "clip-from" => from = Some(value.to_owned()),
            "clip-to" => to = Some(value.to_owned()),
            _ => {}
        }
    }
    Ok(Answer {
        status: status.ok_or_else(strange)?,
        length,
        from,
        to,
        body: head.into_inner().take(length.unwrap_or(MOST_WORDS)),
    })
}

/// What the origin's error says.
fn told(text: &str, status: u16) -> String {
    let error: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let message = error
        .as_ref()
        .and_then(|error| error["error"]["message"].as_str());
    message.map_or_else(
        || format!("the origin answers with status {status}"),
        str::to_owned,
    )
}

/// `text` as a part of a URL (RFC 3986, 2.3).
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    let mut escaped = String::new();
    for byte in text.bytes() {
        match plain(byte) {
            true => escaped.push(char::from(byte)),
            false => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes, then fails as a socket does whose peer is gone.
    struct Cut(bool);

    impl Read for Cut {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            buffer[..3].copy_from_slice(b"abc");
            Ok(3)
        }
    }

    #[test]
    fn an_origin_that_breaks_off_is_told_from_a_file_that_cant_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clip.mp4");
        let broken = save(&mut Cut(false), &path, Some(6)).unwrap_err();
        assert!(matches!(broken, Broken::Reading(_)), "{broken:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let nowhere = dir.path().join("nowhere/clip.mp4");
        let broken = save(&mut &b"abc"[..], &nowhere, Some(3)).unwrap_err();
        assert!(matches!(broken, Broken::Writing(_)), "{broken:?}");
        let broken = copy(&mut &b"abc"[..], &mut &mut [0; 2][..]).unwrap_err();
        assert!(matches!(broken, Broken::Writing(_)), "{broken:?}");
        assert_eq!(save(&mut &b"abc"[..], &path, Some(3)).unwrap(), 3);
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
    }
}
