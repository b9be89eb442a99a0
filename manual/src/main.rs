//! Writes the manual pages and shell completions of `ringgear` as its command line says them. A program of its own, so that the
//! daemon carries nothing of it: `cargo run -p ringgear-manual -- FOLDER`.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap_complete::Shell;

/// The shells, each with its folder. What a shell looks for in there, clap_complete knows.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash"),
    (Shell::Zsh, "zsh"),
    (Shell::Fish, "fish"),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [folder] = arguments.as_slice() else {
        eprintln!("ringgear-manual: name one folder, which gets man/, bash/, zsh/ and fish/");
        return ExitCode::from(2);
    };
    match write(Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringgear-manual: {}: {error}", Path::new(folder).display());
            ExitCode::FAILURE
        }
    }
}

/// Fills `folder` with `man/`, one page for the program and one for each subcommand, and with one folder for each shell. What was in
/// these before is gone, as a subcommand's page may be that no longer exists.
fn write(folder: &Path) -> Result<(), Box<dyn Error>> {
    let emptied = |name: &str| {
        let inner = folder.join(name);
        if inner.exists() {
            fs::remove_dir_all(&inner)?;
        }
        fs::create_dir_all(&inner)?;
        std::io::Result::Ok(inner)
    };
    for (shell, name) in SHELLS {
        let mut command = ringgear::cli::command();
        clap_complete::generate_to(shell, &mut command, "ringgear", emptied(name)?)?;
    }
    // A page for `ringgear help` would say what the first page says.
    let command = ringgear::cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, emptied("man")?)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_has_a_page_and_every_shell_knows_it() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("man/ringgear-gone.1");
        fs::create_dir_all(left.parent().unwrap()).unwrap();
        fs::write(&left, "").unwrap();
        write(folder.path()).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let program = read("man/ringgear.1");
        let shells = ["bash/ringgear.bash", "zsh/_ringgear", "fish/ringgear.fish"].map(read);
        for subcommand in ringgear::cli::command().get_subcommands() {
            let name = subcommand.get_name();
            // In a page, a hyphen is written as \-.
            assert!(program.contains(&format!("ringgear\\-{name}(1)")), "{name}");
            let page = read(&format!("man/ringgear-{name}.1"));
            let shown = subcommand.get_opts().filter(|option| !option.is_hide_set());
            for option in shown.filter_map(|option| option.get_long()) {
                let written = format!("\\-\\-{}", option.replace('-', "\\-"));
                assert!(page.contains(&written), "{name} {option}");
            }
            for shell in &shells {
                assert!(shell.contains(name), "{name}");
            }
        }
        assert!(!left.exists());
    }
}
