//! Who gets what of a site, asked without a socket.

use hyper::http::{HeaderMap, HeaderValue, Request, StatusCode};

use super::fixtures::{PlainManifests, snapshot, status};
use super::*;
use crate::access::Secret;
use crate::clock::SystemClock;
use crate::status::StreamState;

const TOKEN: &str = "a-token-of-administrators-alone";

/// A site with the stream `door`, which has nothing yet.
fn site(status: impl Fn() -> StreamStatus + Send + Sync + 'static) -> Site {
    let mut empty = Arc::into_inner(snapshot("door", 1, 0, 0)).unwrap();
    empty.tracks.clear();
    let (_, window) = watch::channel(Arc::new(empty));
    let (_, picture) = watch::channel(None);
    let manifests = Arc::new(PlainManifests::default());
    let name = "door".to_owned();
    let port = StreamPort::new(name.clone(), window, picture, Arc::new(status), manifests);
    let (_, streams) = watch::channel(Arc::new(Streams::from([(name, port)])));
    Site::new(Anchor::new(Arc::new(SystemClock)), streams)
}

/// What `site` answers to who asks `host` for `path`.
fn asked(site: &Arc<Site>, host: &str, path: &str, token: &str) -> (StatusCode, HeaderMap) {
    let request = Request::get(path)
        .header("host", host)
        .header("authorization", format!("Bearer {token}"))
        .body(())
        .unwrap();
    let (head, ()) = request.into_parts();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let answer = runtime.block_on(origin::answer(Arc::clone(site), None, head));
    (answer.status(), answer.headers().clone())
}

#[test]
fn where_an_address_makes_an_administrator_no_other_sites_page_is_one() {
    let waiting = || status("door", StreamState::Waiting, 0);
    let site_for = |access: Access| {
        let (_, administrators) = watch::channel(Arc::new(access));
        Arc::new(site(waiting).divided(administrators).1)
    };
    let open = site_for(Access::default());
    let by_token = site_for(Access {
        guarded: true,
        tokens: vec![Secret::new(TOKEN).unwrap()],
        ..Access::default()
    });
    let (here, named) = ("127.0.0.1:8081", "evil.example:8081");
    for (path, status) in [
        ("/metrics", 200),
        ("/api/v1/streams", 200),
        ("/door/status.json", 200),
        ("/door/", 200),
        ("/door/index.m3u8", 503),
        ("/time", 200),
    ] {
        for (site, host, token, status) in [
            (&open, here, "", status),
            (&open, "localhost:8081", "", status),
            (&open, named, "", 403),
            (&by_token, named, TOKEN, status),
            (&by_token, here, "another-token-of-somebody-else", 401),
        ] {
            let (got, headers) = asked(site, host, path, token);
            assert_eq!(got, status, "{host} {path}");
            let origins = headers.get("access-control-allow-origin");
            assert_eq!(origins, None, "{host} {path}");
        }
    }
    assert_eq!(asked(&open, named, "/healthz", "").0, 200);
}

#[test]
fn a_fault_costs_one_answer() {
    let site = Arc::new(site(|| panic!("a fault")));
    let (status, _) = asked(&site, "localhost", "/api/v1/streams", "");
    assert_eq!(status, 500);
    let (status, headers) = asked(&site, "localhost", "/time", "");
    assert_eq!(status, 200);
    let all = HeaderValue::from_static("*");
    assert_eq!(headers.get("access-control-allow-origin"), Some(&all));
}
