//! What the docs have other programs read: nginx and Prometheus take it as it stands there.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::docs::{Block, blocks, pages};
use crate::nginx::{self, Nginx};
use crate::repository;

/// Blocks of a page are parts of a server.
fn server(directives: &str) -> String {
    format!("server {{\nlisten 80;\n{directives}}}\n")
}

/// All blocks in `language`, with their places. What looks like one by `sign` is one.
fn written_in(language: &str, sign: &str) -> Vec<(String, Block)> {
    let mut found = Vec::new();
    for page in pages() {
        for block in blocks(&repository(&page)) {
            let place = format!("{page}:{}", block.line);
            if block.language == language {
                found.push((place, block));
            } else {
                assert!(!block.text.contains(sign), "{place}: it is ```{language}");
            }
        }
    }
    found
}

#[test]
fn nginx_takes_every_block_for_it() {
    let blocks = written_in("nginx", "proxy_pass ");
    assert!(blocks.len() >= 2, "{}", blocks.len());
    for (place, block) in blocks {
        let taken = nginx::check(&server(&block.text));
        taken.unwrap_or_else(|said| panic!("{place}: {said}"));
    }
}

#[test]
fn nginx_asks_the_origin_for_a_guarded_segment_by_what_its_viewer_shows() {
    let blocks = blocks(&repository("docs/access.md"));
    let directives = blocks.iter().filter(|block| block.language == "nginx");
    let directives: String = directives.map(|block| block.text.as_str()).collect();
    let nginx = Nginx::start(&server(&directives));
    let origin = UnixListener::bind(nginx.folder.path().join("origin")).unwrap();
    let (plain, asked) = ("/door/720p/1.m4s", "/door/status.json");
    for (path, shown, asked, good) in [
        (plain, "", asked, false),
        (plain, "Authorization: Bearer TOKEN\r\n", asked, true),
        (plain, "Cookie: ringgear=1800000000-5647b2\r\n", asked, true),
        (
            "/door/~1800000000-5647b2/720p/1.m4s",
            "",
            "/door/~1800000000-5647b2/status.json",
            true,
        ),
    ] {
        let answer = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut connection, _) = origin.accept().unwrap();
                let mut request = [0; 4096];
                let got = connection.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..got]);
                assert!(
                    request.starts_with(&format!("GET {asked} HTTP/1.1\r\n"))
                        && request.contains(shown),
                    "{request}"
                );
                let status = if good { "200 OK" } else { "401 Unauthorized" };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n");
                write!(connection, "{head}Connection: close\r\n\r\n").unwrap();
            });
            nginx.answer(path, shown)
        });
        let status = if good { "HTTP/1.1 200" } else { "HTTP/1.1 401" };
        assert!(answer.starts_with(status), "{path} {shown}\n{answer}");
        assert_eq!(answer.ends_with("\r\n\r\ncontent"), good, "{answer}");
    }
}

/// The alerts are where the page has them put: here they are the repository's.
#[test]
fn prometheus_takes_every_block_for_it() {
    let blocks = written_in("yaml", "scrape_configs:");
    assert!(!blocks.is_empty());
    for (place, block) in blocks {
        assert!(block.text.contains("scrape_configs:"), "{place}: whose?");
        let alerts = concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus-alerts.yml");
        let config = block
            .text
            .replace("/etc/prometheus/ringgear-alerts.yml", alerts);
        promtool("config", &config).unwrap_or_else(|said| panic!("{place}: {said}"));
    }
}

/// The dashboard's expressions are tried as rules, which have to be whole and mean something.
#[test]
fn prometheus_takes_every_expression_of_the_dashboard_which_keeps_daemons_apart() {
    let dashboard = repository("config/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    for (number, target) in targets.flatten().enumerate() {
        let expression = target["expr"].as_str().unwrap();
        let chosen = expression.contains(r#"instance=~"$instance""#);
        assert!(chosen, "not of the chosen daemons: {expression}");
        let together = expression.matches(" by (").count();
        let apart = expression.matches(" by (instance, ").count();
        assert_eq!(together, apart, "{expression}");
        let expression = expression.replace("$__rate_interval", "5m");
        rules += &format!("  - {{record: 'dashboard:{number}', expr: {expression:?}}}\n");
    }
    promtool("rules", &rules).unwrap_or_else(|said| panic!("{said}\nof:\n{rules}"));
}

/// What `promtool check` says against a file of this `kind`, if it is anything.
fn promtool(kind: &str, text: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prometheus.yml");
    std::fs::write(&file, text).unwrap();
    let mut promtool = Command::new("promtool");
    let out = promtool.args(["check", kind]).arg(file).output();
    let out = out.expect("promtool is installed: scripts/setup test");
    match out.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
            Err(said.into_owned())
        }
    }
}

#[test]
fn openssl_signs_by_the_commands_of_the_page_as_the_daemon_reads_it() {
    let blocks = blocks(&repository("docs/access.md"));
    let signs = |block: &&Block| block.language == "sh" && block.text.contains("-hmac");
    let block = blocks.iter().find(signs).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("door.keys");
    std::fs::write(
        &keys,
        "0123456789abcdef0123456789abcdef\nan-older-key-of-the-same\n",
    )
    .unwrap();
    let of_the_page = "/etc/ringgear/door.keys";
    assert!(block.text.contains(of_the_page));
    // The moment whose signature is known of the daemon's own.
    let text = block
        .text
        .replace(of_the_page, keys.to_str().unwrap())
        .replace("$(date +%s)", "1799996400");
    let out = Command::new("bash").arg("-ec").arg(&text).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(
        String::from_utf8_lossy(&out.stdout),
        "https://cam.example/door/~1800000000-5647b264cfda9bb2aecca03c91cba7a7c1bb4b44b03c177ead9e7bad4f027577/\n",
        "{said}"
    );
}
