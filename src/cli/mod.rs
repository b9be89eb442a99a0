//! The command line: one file per subcommand.

mod bar;
pub mod check;
mod clicks;
mod clip;
mod demo;
mod demo_folder;
mod feed;
mod logging;
mod pattern;
mod push;
mod push_audio;
mod serve;
mod sign;
mod signals;
mod status;
mod transcode;
mod watch;
mod y4m;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use ringgear_producer::messages::DEFAULT_SOCKET;

use ringgear_ring::format::PixelFormat;

use crate::config::{ConfigErrors, FfmpegProblem};
use crate::encode::{self, EncodeError};

/// Why a subcommand failed: decides the exit status. The text is one line per error, with the cause and the mend.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Wrong arguments: exit status 2.
    #[error("ringgear: {0}")]
    Usage(String),
    /// A wrong config: exit status 2. One error a line, each beginning with its place, where editors look for it.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Anything else: exit status 1.
    #[error("ringgear: {0}")]
    Failed(String),
    /// It was interrupted: it dies of that signal, which is exit status 129, 130 or 143 in a shell.
    #[error("ringgear: {told}")]
    Interrupted {
        /// By which.
        signal: i32,
        /// For people.
        told: String,
    },
}

/// Raw camera frames in shared memory become live HLS and MPEG-DASH.
#[derive(Debug, Parser)]
#[command(
    name = "ringgear",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Subcommands,
    /// The daemon's control socket, for commands that talk to it
    #[arg(long, global = true, value_name = "PATH", env = "RINGGEAR_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Run the daemon
    Serve(serve::ServeArgs),
    /// Run a daemon with two test cameras and print where to see them
    Demo(demo::DemoArgs),
    /// Say whether a config is good, and how to mend it
    Check(check::CheckArgs),
    /// Feed a stream with frames, or with sound, from standard input
    Push(push::PushArgs),
    /// Feed a stream with test frames
    Pattern(pattern::PatternArgs),
    /// Make HLS and DASH of a file, in a folder
    ///
    /// What was cut off is gone on with by the same command. Exit status: 0 all of it is there, 1 it failed, 2 wrong arguments, 129, 130 and 143 it
    /// was interrupted by SIGHUP, SIGINT or SIGTERM
    Transcode(transcode::TranscodeArgs),
    /// Make a URL that opens a guarded stream for a while
    Sign(sign::SignArgs),
    /// Cut a stretch out of a stream, as an MP4 file
    Clip(clip::ClipArgs),
    /// Show what the streams do
    Status(status::StatusArgs),
    /// Have the daemon read its config again: only the streams that it changes are touched
    Reload,
    /// Stop the daemon: the last segments are published
    ///
    /// Under systemd it is started again. To stop it there for good: systemctl stop ringgear.socket ringgear.service
    Stop,
}

/// The whole command line, for manual pages, completions, and tests of what the docs have people type.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    let named = matches.value_source("socket") == Some(ValueSource::CommandLine);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let outcome = match cli.command {
        // An option that changes nothing would leave people waiting at the wrong socket.
        Subcommands::Serve(_)
        | Subcommands::Demo(_)
        | Subcommands::Check(_)
        | Subcommands::Sign(_)
        | Subcommands::Transcode(_)
        | Subcommands::Clip(_)
            if named =>
        {
            Err(CliError::Usage(
                "--socket is for commands that talk to a daemon: the daemon's own socket is [daemon] socket in its config"
                    .to_owned(),
            ))
        }
        Subcommands::Serve(args) => serve::run(args),
        Subcommands::Demo(args) => demo::run(args),
        Subcommands::Check(args) => check::run(args, &ffmpeg_problems),
        Subcommands::Push(args) => push::run(args, &cli.socket),
        Subcommands::Pattern(args) => pattern::run(args, &cli.socket),
        Subcommands::Transcode(args) => transcode::run(args),
        Subcommands::Sign(args) => sign::run(args),
        Subcommands::Clip(args) => clip::run(args),
        Subcommands::Status(args) => status::run(args, &cli.socket),
        Subcommands::Reload => status::reload(&cli.socket),
        Subcommands::Stop => status::stop(&cli.socket),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::from(match error {
                CliError::Usage(_) | CliError::Config(_) => 2,
                CliError::Failed(_) => 1,
                CliError::Interrupted { signal, .. } => {
                    signals::die_of(signal);
                    1
                }
            })
        }
    }
}

/// Writes a line to standard error. Where its terminal is closed nobody reads it, and what is under way goes on.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What FFmpeg at `path` lacks of `codecs`, for `ringgear check`.
fn ffmpeg_problems(path: &Path, codecs: &[&str]) -> Vec<FfmpegProblem> {
    // Its errors read "what is wrong: how to mend it".
    let problem =
        |codec: Option<&str>, error: EncodeError| FfmpegProblem::told(codec, &error.to_string());
    match encode::find_ffmpeg(path) {
        Err(error) => vec![problem(None, error)],
        Ok(ffmpeg) => {
            let lacks =
                |codec: &&str| Some(problem(Some(codec), ffmpeg.require_encoder(codec).err()?));
            codecs.iter().filter_map(lacks).collect()
        }
    }
}

/// A pixel format's name on the command line.
fn parse_format(name: &str) -> Result<PixelFormat, String> {
    PixelFormat::from_name(name).ok_or_else(|| {
        let names = PixelFormat::ALL.map(PixelFormat::name).join(", ");
        format!("'{name}' is not a format that a ring carries: use one of {names}")
    })
}
