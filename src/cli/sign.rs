//! `ringgear sign`: makes a signed URL of a stream, which opens it to whoever has the URL until it expires.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::CliError;
use crate::config::{self, Environment, Plan};

/// No pass is good for longer.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The arguments of `ringgear sign`.
#[derive(Debug, clap::Args)]
pub(super) struct SignArgs {
    /// The stream
    stream: String,
    /// How long the URL is good, like 1h, 30m or 7d
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    length: Duration,
    /// Where viewers reach the origin [default: where it listens]
    #[arg(long, value_name = "URL")]
    base: Option<String>,
    /// The config file [default: $RINGGEAR_CONFIG, then /etc/ringgear/ringgear.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Prints the URL of the stream's page. Behind it are `index.m3u8` and all else that the stream has.
pub(super) fn run(args: SignArgs) -> Result<(), CliError> {
    let path = config::find(args.config)?;
    let plan = config::read(&path, &Environment::SECRETS)?.plan;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|_| CliError::Failed("the clock is before 1970: set it".to_owned()))?;
    let base = args.base.unwrap_or_else(|| base_of(&plan));
    println!("{}", url(&plan, &args.stream, args.length, &base, now)?);
    Ok(())
}

fn base_of(plan: &Plan) -> String {
    let scheme = if plan.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", plan.listen)
}

/// The URL that is good for `length` from `now` on, a Unix time.
fn url(
    plan: &Plan,
    name: &str,
    length: Duration,
    base: &str,
    now: Duration,
) -> Result<String, CliError> {
    let Some(stream) = plan.streams.get(name) else {
        let names: Vec<&str> = plan.streams.keys().map(String::as_str).take(20).collect();
        let what = format!(
            "no stream is called {name:?}: the config has {}",
            names.join(", ")
        );
        return Err(CliError::Usage(what));
    };
    if length < Duration::from_secs(1) || length > LONGEST {
        let what = format!(
            "a URL can't be good for {}: take 1s to 366d",
            humantime::format_duration(length)
        );
        return Err(CliError::Usage(what));
    }
    let expires = (now + length).as_secs();
    let pass = stream.access.sign(name, expires).ok_or_else(|| {
        CliError::Failed(format!(
            "stream {name:?} has no key to sign with: add signing_key_file to [streams.{name}], and reload"
        ))
    })?;
    Ok(format!("{}/{name}/~{pass}/", base.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(stream: &str, length: u64) -> Result<String, String> {
        let plan = config::parse_builtin(
            "[streams.door]\nframerate = 30\nsigning_key = \"0123456789abcdef0123456789abcdef\"\n[streams.open]\nframerate = 30\n",
        );
        let (length, now) = (Duration::from_secs(length), Duration::from_secs(1000));
        let base = base_of(plan.as_ref().unwrap());
        url(&plan.unwrap(), stream, length, &base, now).map_err(|error| error.to_string())
    }

    #[test]
    fn a_signed_url_has_the_pass_in_its_path() {
        let url = signed("door", 60).unwrap();
        let pass = url
            .strip_prefix("http://127.0.0.1:8080/door/~1060-")
            .unwrap();
        assert_eq!(pass.len(), 64 + 1);
        assert!(pass.ends_with('/'));
    }

    #[test]
    fn what_cant_be_signed_is_told_with_its_mend() {
        for (stream, length, told) in [
            ("gate", 60, "the config has door, open"),
            ("open", 60, "add signing_key_file to [streams.open]"),
            ("door", 0, "take 1s to 366d"),
            ("door", 400 * 24 * 3600, "take 1s to 366d"),
        ] {
            let error = signed(stream, length).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
