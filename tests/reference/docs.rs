//! The docs as their readers use them: configs are good, commands parse, links lead somewhere, and every page is in the book.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ringgear::config::{self, Environment};
use toml::{Table, Value};

use crate::repository;

/// All pages, from the repository's folder on.
pub(crate) fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    let mut folders = vec![PathBuf::from("docs"), PathBuf::from("clients")];
    while let Some(folder) = folders.pop() {
        for entry in Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(&folder)
            .read_dir()
            .unwrap()
        {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_name().to_str().unwrap().starts_with('.') {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    pages.sort();
    pages
}

/// A block of code: fenced, with its language, or indented, which has none.
pub(crate) struct Block {
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) text: String,
}

pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut fenced, mut indented, mut blank) = (false, false, true);
    for (number, line) in (1..).zip(page.lines()) {
        let starts = |language: &str| Block {
            line: number + 1,
            language: language.to_owned(),
            text: String::new(),
        };
        let code = line.strip_prefix("    ");
        if let Some(language) = line.strip_prefix("```") {
            fenced = !fenced;
            if fenced {
                blocks.push(starts(language));
            }
            indented = false;
        } else if fenced {
            blocks.last_mut().unwrap().text += &format!("{line}\n");
        } else if code.is_some() && (indented || blank) {
            if !indented {
                blocks.push(starts(""));
            }
            indented = true;
            blocks.last_mut().unwrap().text += &format!("{}\n", code.unwrap());
        } else if !line.is_empty() {
            indented = false;
        }
        blank = line.is_empty();
    }
    blocks
}

/// Whether a stream's one rendition is its source's own, which has the source's framerate.
fn copies(stream: &Table) -> bool {
    let renditions = stream.get("renditions").and_then(Value::as_array);
    renditions.is_some_and(|all| {
        all.iter()
            .any(|one| one.get("codec").and_then(Value::as_str) == Some("copy"))
    })
}

/// A block is a whole config, or a part of one: then it adds to what an earlier block of its page says of the same stream, which is in
/// `streams`. A block that has a stream's framerate or source begins it anew; a stream of which the page has neither gets 30 a second, and
/// a config without one gets a stream.
fn completed(mut config: Table, streams: &mut Table) -> Table {
    let any = "[door]\nframerate = 30".parse().unwrap();
    let parts = config.entry("streams").or_insert(Value::Table(any));
    for (name, part) in parts.as_table_mut().unwrap() {
        let part = part.as_table_mut().unwrap();
        let begins = part.contains_key("framerate") || part.contains_key("source");
        let earlier = streams.get(name).filter(|_| !begins);
        let mut whole = earlier.map_or_else(Table::new, |all| all.as_table().unwrap().clone());
        whole.extend(std::mem::take(part));
        if !copies(&whole) {
            whole.entry("framerate").or_insert(Value::Integer(30));
        }
        streams.insert(name.clone(), Value::Table(whole.clone()));
        *part = whole;
    }
    config
}

#[test]
fn every_config_in_the_docs_is_good() {
    let mut seen = 0;
    for page in pages() {
        let mut streams = Table::new();
        for block in blocks(&repository(&page)) {
            let place = format!("{page}:{}", block.line);
            if block.language != "toml" {
                let stream = block.text.contains("[streams.");
                assert!(!stream, "{place}: a config's block is ```toml");
                continue;
            }
            seen += 1;
            let config = block.text.parse();
            let config = config.unwrap_or_else(|error| panic!("{place}: {error}"));
            let text = toml::to_string(&completed(config, &mut streams)).unwrap();
            let loaded = config::parse(&text, Path::new(&place), &Environment::TEXT_ONLY);
            let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}\nof:\n{text}"));
            assert_eq!(loaded.warnings, [], "{place}");
        }
    }
    assert!(seen > 10, "{seen}");
}

/// The words of each call of `program` in a block of shell commands: behind pipes, `sudo`, variables and loops, and over lines that
/// end with a backslash.
fn calls(text: &str, program: &str) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    for line in text.replace("\\\n", " ").lines() {
        let command = line.split(" #").next().unwrap();
        for part in command.split(['|', ';', '&', '<', '>', '(', ')']) {
            let words: Vec<_> = part.split_whitespace().collect();
            let lead = |word: &&str| {
                ["sudo", "-u", "-n", "do", "then", "exec", "$"].contains(word) || word.contains('=')
            };
            // The user's name after -u may be the program's.
            let mut start = words.iter().take_while(|word| lead(word)).count();
            if start > 0 && words[start - 1] == "-u" {
                start += 1;
            }
            if words.get(start) == Some(&program) {
                let words = words[start..]
                    .iter()
                    .map(|word| word.trim_matches(['"', '\'']));
                calls.push(words.map(str::to_owned).collect());
            }
        }
    }
    calls
}

#[test]
fn every_command_in_the_docs_is_one_that_the_program_takes() {
    let mut seen = 0;
    for page in pages() {
        for block in blocks(&repository(&page)) {
            if !["", "sh", "console"].contains(&block.language.as_str()) {
                continue;
            }
            for words in calls(&block.text, "ringgear") {
                seen += 1;
                let parsed = ringgear::cli::command().try_get_matches_from(&words);
                if let Err(error) = parsed {
                    panic!("{page}:{}: {}\n{error}", block.line, words.join(" "));
                }
            }
        }
    }
    assert!(seen > 10, "{seen}");
}

/// `ringgear push NAME [--unpaced]` within a sentence or a table: a subcommand, and options that it has.
#[test]
fn every_command_within_a_sentence_has_the_options_that_it_names() {
    let program = ringgear::cli::command();
    let mut seen = 0;
    for page in pages() {
        let text = repository(&page);
        let spans = text.split('`').skip(1).step_by(2);
        for span in spans.filter_map(|span| span.strip_prefix("ringgear ")) {
            let mut words = span.split([' ', '[', ']', '\n', '=']);
            let name = words.next().unwrap();
            let known = program.find_subcommand(name);
            let known = known.unwrap_or_else(|| panic!("{page}: `ringgear {span}`"));
            for option in words.filter_map(|word| word.strip_prefix("--")) {
                let own = known.get_opts().chain(program.get_opts());
                assert!(
                    own.filter_map(|own| own.get_long())
                        .any(|long| long == option),
                    "{page}: `ringgear {span}` has no --{option}"
                );
            }
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn every_make_target_and_file_that_a_command_names_is_there() {
    let makefile = repository("Makefile");
    for page in pages() {
        for block in blocks(&repository(&page)) {
            let place = format!("{page}:{}", block.line);
            for words in calls(&block.text, "make") {
                for target in words[1..].iter().take_while(|word| !word.starts_with('-')) {
                    let rule = format!("\n{target}:");
                    assert!(makefile.contains(&rule), "{place}: make {target}");
                }
            }
            if !["", "sh", "console"].contains(&block.language.as_str()) {
                continue;
            }
            let ours = ["config/", "systemd/", "scripts/", "clients/"];
            let words = block.text.split_whitespace();
            for word in words.filter(|word| ours.iter().any(|folder| word.starts_with(folder))) {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(word);
                assert!(path.exists(), "{place}: {word}");
            }
        }
    }
}

/// A heading's place in its page, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    };
    heading.chars().filter_map(kept).collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    let page = prose(page);
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect()
}

/// A page without its blocks of code.
fn prose(page: &str) -> String {
    let mut text = page.to_owned();
    for block in blocks(page) {
        text = text.replace(&format!("{}```", block.text), "```");
    }
    text
}

/// The targets of a page's links.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    let targets = prose.split("](").skip(1);
    targets
        .map(|rest| rest.split(')').next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_link_between_pages_leads_to_a_page_and_a_heading() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for page in pages() {
        for link in links(&repository(&page)) {
            if link.contains("://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((&link, ""));
            let here = root.join(&page);
            let target = if path.is_empty() {
                here
            } else {
                here.parent().unwrap().join(path)
            };
            assert!(target.exists(), "{page}: {link}");
            if !heading.is_empty() {
                let text = std::fs::read_to_string(target).unwrap();
                assert!(anchors(&text).contains(heading), "{page}: {link}");
            }
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
}

/// Without its head, what looks like a row of a table is shown as text.
#[test]
fn every_row_of_a_table_is_below_the_tables_head() {
    let mut seen = 0;
    for page in pages() {
        let text = prose(&repository(&page));
        let is_row = |line: &str| line.starts_with('|');
        let mut lines = text.lines();
        while let Some(head) = lines.find(|line| is_row(line)) {
            let rule = lines.next().unwrap_or_default();
            let is_rule = is_row(rule) && rule.chars().all(|c| "|-: ".contains(c));
            assert!(is_rule, "{page}: no rule is below the table's head {head}");
            seen += lines.by_ref().take_while(|line| is_row(line)).count();
        }
    }
    assert!(seen > 300, "{seen}");
}

#[test]
fn the_book_has_every_page_once() {
    let mut listed: Vec<_> = links(&repository("docs/SUMMARY.md"));
    listed.sort();
    let mut all: Vec<_> = pages()
        .iter()
        .filter_map(|page| page.strip_prefix("docs/"))
        .filter(|page| *page != "SUMMARY.md")
        .map(str::to_owned)
        .collect();
    all.sort();
    assert_eq!(listed, all);
}

/// A block of each of these languages is a whole text of it.
const READERS: [(&str, &str, &[&str]); 3] = [
    ("sh", "bash", &["-n"]),
    ("js", "node", &["--check", "-"]),
    (
        "python",
        "python3",
        &["-c", "import ast, sys; ast.parse(sys.stdin.read())"],
    ),
];

#[test]
fn every_block_is_of_the_language_that_it_names() {
    let mut seen = 0;
    for page in pages() {
        for block in blocks(&repository(&page)) {
            let place = format!("{page}:{}", block.line);
            if block.language == "json" {
                for line in block.text.lines() {
                    let read = serde_json::from_str::<serde_json::Value>(line);
                    read.unwrap_or_else(|error| panic!("{place}: {error}"));
                }
            }
            let Some((_, program, arguments)) = READERS
                .iter()
                .find(|(language, ..)| *language == block.language)
            else {
                continue;
            };
            seen += 1;
            let mut reading = Command::new(program)
                .args(*arguments)
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("{program}: {error}"));
            let mut stdin = reading.stdin.take().unwrap();
            stdin.write_all(block.text.as_bytes()).unwrap();
            drop(stdin);
            let read = reading.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&read.stderr);
            assert!(read.status.success(), "{place}: {said}");
        }
    }
    assert!(seen > 20, "{seen}");
}
