//! Pages and what they are made of, embedded at build time. An asset's name carries its hash, so that it may be cached
//! for ever and a new binary's pages fetch the new one.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::text::{Effort, Text, short_hash};

/// Scripts, styles, pictures and connections from here alone; players play from blobs, and hls.js works in a worker from one.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' blob:; \
    media-src 'self' blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; \
    form-action 'none'";

/// An asset under its hashed name.
#[derive(Debug)]
pub(super) struct Asset {
    pub(super) content_type: &'static str,
    pub(super) text: Text,
}

/// As deep as pages stand: `/{stream}/~{pass}/{recording}/` is three folders down.
const DEPTHS: usize = 4;

/// A page that is answered at any path: a text for each depth. Its URLs are relative, so that they hold behind a proxy with a prefix too.
#[derive(Debug)]
pub(super) struct Everywhere([Text; DEPTHS]);

impl Everywhere {
    /// That of a path that goes down `depth` folders.
    pub(super) fn at(&self, depth: usize) -> &Text {
        &self.0[depth.min(DEPTHS - 1)]
    }
}

/// All of them, made at the first request.
#[derive(Debug)]
pub(super) struct Assets {
    pub(super) index: Text,
    pub(super) player: Text,
    pub(super) recording: Text,
    pub(super) past: Text,
    pub(super) missing: Everywhere,
    pub(super) closed: Everywhere,
    assets: HashMap<String, Asset>,
}

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Name, type and content; the names of the built players are there even where their content is empty.
const SOURCES: [(&str, &str, &[u8]); 15] = [
    ("style.css", CSS, include_bytes!("../../web/src/style.css")),
    (
        "common.js",
        JAVASCRIPT,
        include_bytes!("../../web/src/common.js"),
    ),
    (
        "index.js",
        JAVASCRIPT,
        include_bytes!("../../web/src/index.js"),
    ),
    (
        "charts.js",
        JAVASCRIPT,
        include_bytes!("../../web/src/charts.js"),
    ),
    (
        "engines.js",
        JAVASCRIPT,
        include_bytes!("../../web/src/engines.js"),
    ),
    (
        "deck.js",
        JAVASCRIPT,
        include_bytes!("../../web/src/deck.js"),
    ),
    (
        "player.js",
        JAVASCRIPT,
        include_bytes!("../../web/src/player.js"),
    ),
    (
        "recorded.js",
        JAVASCRIPT,
        include_bytes!("../../web/src/recorded.js"),
    ),
    (
        "recording.js",
        JAVASCRIPT,
        include_bytes!("../../web/src/recording.js"),
    ),
    (
        "past.js",
        JAVASCRIPT,
        include_bytes!("../../web/src/past.js"),
    ),
    ("icon.svg", SVG, include_bytes!("../../web/src/icon.svg")),
    (
        "hls.min.js",
        JAVASCRIPT,
        include_bytes!(concat!(env!("OUT_DIR"), "/hls.min.js")),
    ),
    (
        "hls.LICENSE.txt",
        PLAIN,
        include_bytes!(concat!(env!("OUT_DIR"), "/hls.LICENSE.txt")),
    ),
    (
        "shaka.min.js",
        JAVASCRIPT,
        include_bytes!(concat!(env!("OUT_DIR"), "/shaka.min.js")),
    ),
    (
        "shaka.LICENSE.txt",
        PLAIN,
        include_bytes!(concat!(env!("OUT_DIR"), "/shaka.LICENSE.txt")),
    ),
];

static ASSETS: LazyLock<Assets> = LazyLock::new(Assets::build);

impl Assets {
    /// The binary's.
    pub(super) fn get() -> &'static Self {
        &ASSETS
    }

    /// The asset of a hashed name.
    pub(super) fn named(&self, name: &str) -> Option<&Asset> {
        self.assets.get(name)
    }

    fn build() -> Self {
        let hashed = SOURCES.map(|(name, content_type, content)| {
            let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
            let hashed = format!("{stem}-{}.{extension}", short_hash(content));
            (name, hashed, content_type, content)
        });
        let page = |template: &str| {
            let text = hashed
                .iter()
                .fold(template.to_owned(), |text, (name, hashed, ..)| {
                    text.replace(&format!("{{{{{name}}}}}"), hashed)
                });
            Text::new(text, Effort::Thorough)
        };
        let everywhere = |template: &str| {
            Everywhere(std::array::from_fn(|depth| {
                let root = match depth {
                    0 => "./".to_owned(),
                    _ => "../".repeat(depth),
                };
                page(&template.replace("{{root}}", &root))
            }))
        };
        Self {
            index: page(include_str!("../../web/src/index.html")),
            player: page(include_str!("../../web/src/player.html")),
            recording: page(include_str!("../../web/src/recording.html")),
            past: page(include_str!("../../web/src/past.html")),
            missing: everywhere(include_str!("../../web/src/missing.html")),
            closed: everywhere(include_str!("../../web/src/closed.html")),
            assets: hashed
                .iter()
                .map(|(_, hashed, content_type, content)| {
                    let text = Text::new(*content, Effort::Thorough);
                    (hashed.clone(), Asset { content_type, text })
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::text::Coding;

    #[test]
    fn pages_name_assets_that_are_there_and_nothing_of_another_host() {
        let assets = Assets::get();
        let placed = [
            &assets.index,
            &assets.player,
            &assets.recording,
            &assets.past,
        ];
        let everywhere = assets.missing.0.iter().chain(&assets.closed.0);
        for page in placed.into_iter().chain(everywhere) {
            let (html, _) = page.coded(Coding::Identity);
            let html = std::str::from_utf8(&html).unwrap();
            assert!(!html.contains("{{") && !html.contains("://"), "{html}");
            // Nor from the root, which a proxy may have elsewhere.
            assert!(!html.contains("=\"/"), "{html}");
            let named = html.split("assets/").skip(1);
            for name in named.map(|rest| rest.split('"').next().unwrap()) {
                assert!(assets.named(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn what_we_wrote_ourselves_stays_light() {
        let players = ["hls", "shaka"];
        let theirs = |name: &str| players.iter().any(|player| name.starts_with(player));
        let ours = SOURCES.iter().filter(|(name, ..)| !theirs(name));
        let bytes: usize = ours.map(|(.., content)| content.len()).sum();
        assert!(bytes < 70_000, "{bytes} bytes");
    }
}
