//! A live stream's past: its recordings, each of which is served as a window of its own.

use std::sync::Arc;

use hyper::http::StatusCode;
use tokio::sync::watch;

use super::assets::Assets;
use super::body::Response;
use super::origin;
use super::reply::{self, Asked};
use super::route::{Item, Past};
use super::{Site, StreamPort};
use crate::archive::{Archive, ReelView};

/// Answers what is asked of the past of the stream at `port`.
pub(super) async fn answer(
    site: &Site,
    asked: &Asked,
    port: &StreamPort,
    past: Past<'_>,
    query: Option<&str>,
) -> Response {
    let Some(archive) = &port.archive else {
        return match past {
            Past::Page => origin::missing_page(asked),
            _ => not_recorded(port),
        };
    };
    match past {
        Past::Bare => origin::to_the_slash(crate::config::defaults::RECORD_FOLDER),
        Past::Page => origin::page(asked, &Assets::get().past),
        Past::List => reply::json(asked, &list(archive)),
        Past::BareReel(name) => origin::to_the_slash(name),
        Past::Reel(name, item) => match view(archive, name).await {
            // The page of all of them plays it.
            Some(_) if item == Item::Player => origin::elsewhere(
                StatusCode::TEMPORARY_REDIRECT,
                &format!("../#{name}"),
                "the page of all recordings plays it",
            ),
            // These know of all recordings, and of the window.
            Some(_) if matches!(item, Item::Snapshot | Item::Clip) => {
                let name = &port.name;
                let message = format!(
                    "take /{name}/snapshot.jpg?at=TIME or /{name}/clip.mp4?from=TIME&to=TIME"
                );
                reply::not_found("recorded", &message)
            }
            Some(view) => {
                let reel = as_stream(port, &view);
                origin::answer_item(site, asked, &reel, item, query).await
            }
            None => {
                let message = format!(
                    "stream '{}' has no recording '{name}': /{}/recordings/index.json names all",
                    port.name, port.name
                );
                reply::not_found("unknown_recording", &message)
            }
        },
    }
}

/// 404, with the mend.
fn not_recorded(port: &StreamPort) -> Response {
    let name = &port.name;
    let message =
        format!("stream '{name}' is not recorded: [streams.{name}.record] in the config does that");
    reply::not_found("not_recorded", &message)
}

async fn view(archive: &Archive, name: &str) -> Option<Arc<ReelView>> {
    let (archive, name) = (archive.clone(), name.to_owned());
    let found = tokio::task::spawn_blocking(move || archive.view(&name));
    found.await.ok()?
}

/// A recording as a stream whose window it is.
fn as_stream(port: &StreamPort, view: &ReelView) -> StreamPort {
    let (_, window) = watch::channel(Arc::clone(view.snapshot()));
    let (_, picture) = watch::channel(None);
    let (status, manifests) = (Arc::clone(&port.status), Arc::clone(&port.manifests));
    let mut reel = StreamPort::new(port.name.clone(), window, picture, status, manifests);
    reel.hls = port.hls;
    reel.dash = port.dash;
    reel.folder = Some(Arc::from(view.folder()));
    reel.texts = Arc::clone(view.texts());
    reel
}

/// The recordings, newest first.
fn list(archive: &Archive) -> serde_json::Value {
    let reels = archive.reels().into_iter().rev().map(|reel| {
        serde_json::json!({
            "name": reel.name,
            "from": reel.starts.rfc3339(),
            "to": reel.ends.rfc3339(),
            "segments": reel.segments,
            "bytes": reel.bytes,
        })
    });
    serde_json::json!({"recordings": reels.collect::<Vec<_>>()})
}
