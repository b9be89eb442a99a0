//! Whom an answer is for. What a request shows (a token or a pass in `Authorization`, a pass in its path or in a cookie) is compared with what
//! its stream asks for; what only administrators may see is told from what viewers may. Where an address alone makes an administrator, browsers
//! are told from programs: a page of another site gets nothing by asking in its visitor's name.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use hyper::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HOST, REFERRER_POLICY,
    SET_COOKIE, WWW_AUTHENTICATE,
};
use hyper::http::uri::Authority;
use hyper::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

use super::body::Response;
use super::reply::{self, Asked, Cache};
use super::route::{Item, Past, Target};
use super::serve::Client;
use super::{Site, StreamPort, Streams};
use crate::config::defaults::RECORD_FOLDER;
use crate::status::{StreamStatus, StreamsStatus};
use crate::tick::UnixTime;

/// The cookie that holds a pass. Each stream has its own, for its own path.
const COOKIE_NAME: &str = "ringgear";
/// How many passes one request may show in cookies: each costs a signature.
const MAX_COOKIES: usize = 4;
const REFRESH: HeaderName = HeaderName::from_static("refresh");

/// What one request may see.
pub(super) struct Rights<'a> {
    streams: &'a Streams,
    /// Whether it may see everything: it came to the administrators' own address.
    administers: bool,
    /// Whether there is anything that viewers may not see, or a viewer from elsewhere.
    divided: bool,
    /// Whether it asks us by a name that anybody may have given this machine.
    by_name: bool,
    bearer: Option<&'a str>,
    passes: Vec<&'a str>,
    now: UnixTime,
}

impl<'a> Rights<'a> {
    /// Those of a request of `client` for `uri` with `headers`, and with the pass that its path has.
    pub(super) fn of(
        site: &Site,
        streams: &'a Streams,
        client: Option<Client>,
        (uri, headers): (&Uri, &'a HeaderMap),
        pass: Option<&'a str>,
    ) -> Self {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, shown) = value.to_str().ok()?.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then(|| shown.trim_start())
        });
        let cookies = headers.get_all(COOKIE).into_iter();
        let cookies = cookies.filter_map(|value| value.to_str().ok());
        let cookies = cookies.flat_map(|value| value.split(';'));
        let cookies = cookies.filter_map(|cookie| {
            let (name, value) = cookie.trim().split_once('=')?;
            (name == COOKIE_NAME).then_some(value)
        });
        let passes = pass.into_iter().chain(cookies.take(MAX_COOKIES));
        let by_name = host(uri, headers).is_some_and(|host| !is_an_address(host));
        let administers = site.administrators.as_ref().is_some_and(|who| {
            let who = who.borrow();
            match who.guarded {
                true => bearer.is_some_and(|shown| who.admits_token(shown)),
                false => !by_name,
            }
        });
        let guarded = || streams.values().any(|port| port.access.guarded);
        let from_elsewhere =
            client.is_some_and(|client| !client.address.to_canonical().is_loopback());
        Self {
            streams,
            administers,
            divided: from_elsewhere || site.has_administrators || guarded(),
            by_name,
            bearer,
            passes: passes.collect(),
            now: site.anchor.wall(),
        }
    }

    /// The streams that there are, whether the request may watch them or not.
    pub(super) fn streams(&self) -> &'a Streams {
        self.streams
    }

    /// Whether the request may see what viewers may not. If nothing is kept from viewers, all programs of this machine may.
    pub(super) fn see_all(&self) -> bool {
        self.administers || !self.divided && !self.by_name
    }

    /// Whether a page of any origin may read what `target` answers (rule 24): all but what the request gets for its address alone, as any page
    /// does that is looked at on this machine.
    pub(super) fn open_to_all_origins(&self, target: Target<'_>) -> bool {
        let status = matches!(
            target,
            Target::Metrics | Target::ApiStreams | Target::ApiStream(_)
        );
        !(status && self.see_all())
    }

    fn may_watch(&self, port: &StreamPort) -> bool {
        let access = &port.access;
        !access.guarded
            || self.administers
            || self.bearer.is_some_and(|shown| access.admits_token(shown))
            || self.expiry(port).is_some()
    }

    /// When the pass expires that opens this stream.
    fn expiry(&self, port: &StreamPort) -> Option<u64> {
        let shown = self.passes.iter().copied().chain(self.bearer);
        let mut good = shown.filter_map(|pass| port.access.admits_pass(&port.name, pass, self.now));
        good.next()
    }

    /// The refusal of `target`, if the request has no right to it.
    pub(super) fn refusal(
        &self,
        site: &Site,
        asked: &Asked,
        target: Target<'_>,
    ) -> Option<Response> {
        if let Some(who) = &site.administrators {
            // What tells a proxy or a person that the daemon lives stays open.
            let open = matches!(target, Target::Healthz | Target::Readyz);
            return (!self.administers && !open).then(|| match who.borrow().guarded {
                true => unauthorized("this is for administrators"),
                false => forbidden(
                    "this is for administrators, and any site may have named this machine so: ask by an IP address or localhost, like http://127.0.0.1:8081, or give [http] an admin_token_file",
                ),
            });
        }
        match target {
            Target::Metrics if !self.see_all() => Some(forbidden(match self.divided {
                true => "this is for administrators: ask at [http] admin_listen",
                false => {
                    "this is for administrators, and any site may have named this machine so: ask by an IP address or localhost, like http://127.0.0.1:8080"
                }
            })),
            _ => {
                let port = self.streams.get(target.stream()?)?;
                if self.may_watch(port) {
                    return None;
                }
                let is_page = matches!(
                    target,
                    Target::Bare(_)
                        | Target::BareRecording(..)
                        | Target::Stream(_, Item::Player)
                        | Target::Recording(_, _, Item::Player)
                        | Target::Past(_, Past::Bare | Past::Page)
                );
                if is_page {
                    return Some(with_challenge(super::origin::closed_page(asked)));
                }
                let message = format!(
                    "stream '{}' needs a token or a signed URL, and none that was shown is good (any longer)",
                    port.name
                );
                Some(unauthorized(&message))
            }
        }
    }

    /// Leaves in `status` what the request may see.
    pub(super) fn redact(&self, status: StreamsStatus) -> StreamsStatus {
        if self.see_all() {
            return status;
        }
        let may_watch = |stream: &StreamStatus| {
            let port = self.streams.get(&stream.name);
            port.is_some_and(|port| self.may_watch(port))
        };
        let streams = status.streams.into_iter().filter(may_watch);
        StreamsStatus {
            streams: streams.map(StreamStatus::for_viewers).collect(),
            ..status
        }
    }

    /// Likewise of one stream, which it may watch.
    pub(super) fn redact_stream(&self, status: StreamStatus) -> StreamStatus {
        match self.see_all() {
            true => status,
            false => status.for_viewers(),
        }
    }

    /// Keeps what `target` answered out of caches that others share.
    pub(super) fn keep_private(&self, target: Target<'_>, response: &mut Response) {
        let port = target.stream().and_then(|stream| self.streams.get(stream));
        let cache = response.headers().get(CACHE_CONTROL);
        let (Some(true), Some(cache)) = (port.map(|port| port.access.guarded), cache) else {
            return;
        };
        let shared = cache
            .to_str()
            .ok()
            .and_then(|text| text.strip_prefix("public"));
        let private = shared.map(|rest| HeaderValue::from_str(&format!("private{rest}")));
        if let Some(Ok(private)) = private {
            response.headers_mut().insert(CACHE_CONTROL, private);
        }
    }

    /// The answer to a signed URL that is opened as a page: the pass moves from the address into a cookie, and the page is at its own address. A
    /// redirect would not do: a browser that follows one from elsewhere leaves strict cookies out.
    pub(super) fn hand_over(&self, client: Option<Client>, target: Target<'_>) -> Response {
        let place = match target {
            Target::Recording(_, recording, _) => format!("../../{recording}/"),
            Target::Past(..) => format!("../../{RECORD_FOLDER}/"),
            _ => "../".to_owned(),
        };
        let page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<title>Ringgear</title>\n<a href=\"{place}\">To the player</a>\n</html>\n"
        );
        let html = "text/html; charset=utf-8";
        let body = super::range::Slices::new([Bytes::from(page)]);
        let mut response = reply::whole(html, Cache::NoStore, body);
        let headers = response.headers_mut();
        let mut put = |name: HeaderName, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        };
        put(REFRESH, format!("0; url={place}"));
        put(CONTENT_SECURITY_POLICY, "default-src 'none'".to_owned());
        put(REFERRER_POLICY, "no-referrer".to_owned());
        let port = target.stream().and_then(|stream| self.streams.get(stream));
        let guarded = port.filter(|port| port.access.guarded);
        if let (Some(port), Some(pass)) = (guarded, self.passes.first())
            && let Some(expires) = port.access.admits_pass(&port.name, pass, self.now)
        {
            let left = expires.saturating_sub(self.now.as_nanos() / 1_000_000_000);
            let secure = match client.is_some_and(|client| client.encrypted) {
                true => "; Secure",
                false => "",
            };
            put(
                SET_COOKIE,
                format!(
                    "{COOKIE_NAME}={pass}; Path=/{}/; Max-Age={left}; HttpOnly; SameSite=Strict{secure}",
                    port.name
                ),
            );
        }
        response
    }
}

/// The host that a request asks, and its port: what stands in its URI, as HTTP/2 and proxies have it, or else in `Host`. None where no browser asks.
pub(super) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let named = || Some(headers.get(HOST)?.to_str().unwrap_or_default());
    uri.authority().map(Authority::as_str).or_else(named)
}

/// Whether `host` is an IP address or `localhost`: a page whose own name leads to this machine (DNS rebinding) can't ask by these.
fn is_an_address(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    if name.eq_ignore_ascii_case("localhost") {
        return port.bytes().all(|byte| byte.is_ascii_digit());
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    host.parse::<SocketAddr>().is_ok() || bare.unwrap_or(host).parse::<IpAddr>().is_ok()
}

/// 403.
fn forbidden(message: &str) -> Response {
    reply::error(StatusCode::FORBIDDEN, "forbidden", message)
}

/// 401.
fn unauthorized(message: &str) -> Response {
    with_challenge(reply::error(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        message,
    ))
}

fn with_challenge(mut response: Response) -> Response {
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let challenge = HeaderValue::from_static("Bearer realm=\"ringgear\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_from_a_name() {
        for (host, is) in [
            ("127.0.0.1:8081", true),
            ("192.0.2.7", true),
            ("[::1]:8081", true),
            ("localhost", true),
            ("LOCALHOST:8081", true),
            ("evil.example:8081", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example:8081", false),
            ("evil.localhost", false),
            ("", false),
            ("\u{fffd}", false),
        ] {
            assert_eq!(is_an_address(host), is, "{host:?}");
        }
    }

    #[test]
    fn what_is_in_the_uri_goes_before_the_header() {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("in.header:1"))]);
        for (uri, named) in [
            ("/metrics", "in.header:1"),
            ("http://in.uri/metrics", "in.uri"),
        ] {
            let uri = Uri::from_static(uri);
            assert_eq!(host(&uri, &headers), Some(named));
        }
        assert_eq!(host(&Uri::from_static("/"), &HeaderMap::new()), None);
    }
}
