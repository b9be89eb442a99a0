//! Answers: status, headers and body of everything that the origin says, so that rules 7 and 24 are kept in one place.

use std::any::Any;
use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use hyper::http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW,
    CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderName, IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE, RETRY_AFTER, VARY,
};
use hyper::http::uri::Authority;
use hyper::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};

use super::body::{Body, Response};
use super::guard;
use super::range::{ByteRange, Slices};
use super::text::{Coding, Effort, Text};

const JSON: &str = "application/json";

/// What an answer depends on besides what its path names.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    /// The address that its share of what is dear is counted by; none if it stands for many.
    pub(super) counted: Option<IpAddr>,
    /// How many folders its path goes down.
    pub(super) depth: usize,
}

impl Drop for Asked {
    fn drop(&mut self) {
        spare(std::mem::take(&mut self.headers));
    }
}

impl Asked {
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The answer to HEAD: what GET would have been answered, with its length, without its body (RFC 9110, 9.3.2).
pub(super) fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        let length = HeaderValue::from(length);
        parts.headers.entry(CONTENT_LENGTH).or_insert(length);
    }
    Response::from_parts(parts, Slices::default().into())
}

/// How long an answer may be reused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cache {
    /// Never.
    NoStore,
    /// Only after asking again.
    Revalidate,
    /// For a while.
    For(Duration),
    /// For as long as it is there: its content never changes.
    Immutable(Duration),
}

impl Cache {
    fn value(self) -> HeaderValue {
        let text = match self {
            Self::NoStore => return HeaderValue::from_static("no-store"),
            Self::Revalidate => return HeaderValue::from_static("no-cache"),
            Self::For(time) => format!("public, max-age={}", time.as_secs()),
            Self::Immutable(time) => format!("public, max-age={}, immutable", time.as_secs()),
        };
        header_value(text)
    }
}

pub(super) fn header_value(text: String) -> HeaderValue {
    let value = HeaderValue::from_maybe_shared(Bytes::from(text));
    value.expect("our own header values are visible ASCII")
}

thread_local! {
    /// Maps of headers that requests had: answers fill them again, for a new one is so large that the C library searches for its memory.
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// The most headers that an answer has, those for other origins included: a map that grows is built twice.
const MOST_HEADERS: usize = 12;
const MOST_SPARE: usize = 8;

/// Takes a map that is not needed any more.
fn spare(mut headers: HeaderMap) {
    if (MOST_HEADERS..=4 * MOST_HEADERS).contains(&headers.capacity()) {
        headers.clear();
        // A thread that ends keeps none.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MOST_SPARE {
                spare.push(headers);
            }
        });
    }
}

/// An answer of `body` without any headers.
fn bare(body: Body) -> Response {
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
    let mut response = Response::new(body);
    *response.headers_mut() = match spare {
        Ok(Some(headers)) => headers,
        _ => HeaderMap::with_capacity(MOST_HEADERS),
    };
    response
}

/// `body`, whole.
pub(super) fn whole(content_type: &'static str, cache: Cache, body: Slices) -> Response {
    response(StatusCode::OK, content_type, cache, body)
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    cache: Cache,
    body: impl Into<Body>,
) -> Response {
    let mut response = growing(content_type, cache, body.into());
    *response.status_mut() = status;
    response
}

/// Bytes out of the window, or the range of them that was asked for.
pub(super) fn media(
    asked: &Asked,
    content_type: &'static str,
    cache: Cache,
    slices: impl IntoIterator<Item = Bytes>,
) -> Response {
    let body = Slices::new(slices);
    let total = body.len();
    ranged(asked, content_type, cache, total, |first, end| {
        if end - first == total {
            return body;
        }
        body.cut(first, end - 1)
    })
}

/// The same of `total` bytes that come from elsewhere: `cut` makes the body of those from its first argument to before its second.
pub(super) fn ranged<B: Into<Body>>(
    asked: &Asked,
    content_type: &'static str,
    cache: Cache,
    total: u64,
    cut: impl FnOnce(u64, u64) -> B,
) -> Response {
    // Range is defined for GET alone; If-Range never matches, as no answer has a strong validator.
    let range = match asked.header(RANGE) {
        Some(header) if asked.method == Method::GET && asked.header(IF_RANGE).is_none() => {
            ByteRange::parse(header, total)
        }
        _ => ByteRange::Whole,
    };
    let mut response = match range {
        ByteRange::Whole => {
            let whole = cut(0, total);
            response(StatusCode::OK, content_type, cache, whole)
        }
        ByteRange::Slice { first, last } => {
            let slice = cut(first, last + 1);
            let partial = StatusCode::PARTIAL_CONTENT;
            let mut response = response(partial, content_type, cache, slice);
            let place = header_value(format!("bytes {first}-{last}/{total}"));
            response.headers_mut().insert(CONTENT_RANGE, place);
            response
        }
        ByteRange::Unsatisfiable => {
            let mut response = error(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range_not_satisfiable",
                &format!("the range lies beyond the {total} bytes that there are"),
            );
            let place = header_value(format!("bytes */{total}"));
            response.headers_mut().insert(CONTENT_RANGE, place);
            response
        }
    };
    let bytes = HeaderValue::from_static("bytes");
    response.headers_mut().insert(ACCEPT_RANGES, bytes);
    response
}

/// Media whose length is not known yet: no ranges.
pub(super) fn growing(content_type: &'static str, cache: Cache, body: Body) -> Response {
    let mut response = bare(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, cache.value());
    response
}

/// A text in the best coding that the client takes, or 304 when it has it already. Ranges are of the uncompressed text.
pub(super) fn text(
    asked: &Asked,
    content_type: &'static str,
    cache: Cache,
    text: &Text,
) -> Response {
    let known = asked.header(IF_NONE_MATCH).is_some_and(|header| {
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let own = opaque(text.etag().to_str().unwrap_or_default());
        header
            .split(',')
            .any(|tag| tag.trim() == "*" || opaque(tag) == own)
    });
    let mut response = if known {
        let mut response = bare(Slices::default().into());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().insert(CACHE_CONTROL, cache.value());
        response
    } else {
        let accepted = match asked.header(ACCEPT_ENCODING) {
            Some(header) if asked.header(RANGE).is_none() => Coding::negotiate(header),
            _ => Coding::Identity,
        };
        let (bytes, coding) = text.coded(accepted);
        let mut response = media(asked, content_type, cache, [bytes]);
        let name = match coding {
            Coding::Identity => None,
            Coding::Gzip => Some("gzip"),
            Coding::Brotli => Some("br"),
        };
        if let Some(name) = name {
            let name = HeaderValue::from_static(name);
            response.headers_mut().insert(CONTENT_ENCODING, name);
        }
        response
    };
    if !response.status().is_client_error() {
        let headers = response.headers_mut();
        headers.insert(ETAG, text.etag().clone());
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    response
}

/// A value as JSON, of this moment only.
pub(super) fn json(asked: &Asked, value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(json) => text(asked, JSON, Cache::NoStore, &Text::new(json, Effort::Quick)),
        Err(cause) => {
            let message = format!("the answer can't be written as JSON: {cause}");
            error(StatusCode::INTERNAL_SERVER_ERROR, "internal", &message)
        }
    }
}

/// A value as JSON with another status than 200.
pub(super) fn json_status(status: StatusCode, value: &serde_json::Value) -> Response {
    let body = Slices::new([Bytes::from(value.to_string())]);
    response(status, JSON, Cache::NoStore, body)
}

/// An error: `{"error": {"code", "message"}}`, never cached.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let value = serde_json::json!({"error": {"code": code, "message": message}});
    json_status(status, &value)
}

/// 404.
pub(super) fn not_found(code: &str, message: &str) -> Response {
    error(StatusCode::NOT_FOUND, code, message)
}

/// What will be there, but is not yet: 503. A 404 would make hls.js give up, which never retries a 4xx; dash.js and Shaka
/// retry both.
pub(super) fn not_yet(message: &str) -> Response {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, "not_yet", message);
    let second = HeaderValue::from_static("1");
    response.headers_mut().insert(RETRY_AFTER, second);
    response
}

/// 503, for players go on after that and give up after a 429.
pub(super) fn too_many_requests() -> Response {
    let message = "too many requests from this address: ask more slowly";
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let mut response = error(unavailable, "too_many_requests", message);
    let second = HeaderValue::from_static("1");
    response.headers_mut().insert(RETRY_AFTER, second);
    open_to_all_origins(&mut response);
    response
}

/// To the same by TLS, which is spoken on the same port: 308, or 403 where a redirect leads nowhere.
pub(super) fn to_tls<B>(request: &Request<B>) -> Response {
    let place = || {
        let host: Authority = guard::host(request.uri(), request.headers())?
            .parse()
            .ok()?;
        let port = host.port_u16().unwrap_or(80);
        let is_plain = !host.host().is_empty() && !host.as_str().contains('@');
        let path = request.uri().path_and_query()?;
        let may_follow = [Method::GET, Method::HEAD].contains(request.method());
        let place = format!("https://{}:{port}{path}", host.host());
        HeaderValue::from_str(&place)
            .ok()
            .filter(|_| is_plain && may_follow)
    };
    let message = "this is served by TLS alone: ask by https://, on the same port";
    let mut response = match place() {
        Some(place) => {
            let mut response = error(StatusCode::PERMANENT_REDIRECT, "moved", message);
            response.headers_mut().insert(LOCATION, place);
            response
        }
        None => error(StatusCode::FORBIDDEN, "needs_tls", message),
    };
    open_to_all_origins(&mut response);
    response
}

/// 400, and the end of the connection: no request here has a body, and where one begins and ends is what proxies and servers disagree on.
pub(super) fn no_body_wanted() -> Response {
    let message = "a request has no body here";
    closing(error(StatusCode::BAD_REQUEST, "no_body", message))
}

/// The connection's last answer.
pub(super) fn closing(mut response: Response) -> Response {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

/// 405.
pub(super) fn method_not_allowed(method: &Method) -> Response {
    let message = format!("{method} is not allowed here: GET, HEAD and OPTIONS are");
    let mut response = error(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        &message,
    );
    let methods = HeaderValue::from_static("GET, HEAD, OPTIONS");
    response.headers_mut().insert(ALLOW, methods);
    response
}

/// The answer to a request for `path`, without what is secret in it, whose handling panicked.
pub(super) fn panicked(panic: &(dyn Any + Send), path: &str) -> Response {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(
        path,
        panic = text.unwrap_or("no text"),
        "a request's handling panicked"
    );
    let message = "a fault of the daemon; its log says more";
    error(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
}

/// Lets pages of all origins read it (rule 24). They show what they know themselves, for cookies are not sent from other sites.
pub(super) fn open_to_all_origins(response: &mut Response) {
    const EXPOSED: &str = "accept-ranges,cache-control,content-encoding,content-length,content-range,date,etag,retry-after";
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    let exposed = HeaderValue::from_static(EXPOSED);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
}

/// What such a page may ask for.
pub(super) fn preflight() -> Response {
    let mut response = bare(Slices::default().into());
    let headers = response.headers_mut();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET,HEAD,OPTIONS"),
        // The asterisk does not stand for the second one (Fetch, 4.8).
        (ACCESS_CONTROL_ALLOW_HEADERS, "*,authorization"),
        (ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_in_cleartext_is_sent_to_tls() {
        let asked = |method: &str, uri: &str, host: Option<&str>| {
            let request = Request::builder().method(method).uri(uri);
            let request = host
                .into_iter()
                .fold(request, |request, host| request.header("host", host));
            let answer = to_tls(&request.body(()).unwrap());
            let place = answer.headers().get(LOCATION);
            let place = place.map(|place| place.to_str().unwrap().to_owned());
            (answer.status().as_u16(), place)
        };
        let to = |place: &str| (308, Some(place.to_owned()));
        let host = Some("cam.example:8080");
        assert_eq!(
            asked("GET", "/door/index.m3u8?_HLS_msn=7", host),
            to("https://cam.example:8080/door/index.m3u8?_HLS_msn=7")
        );
        assert_eq!(
            asked("HEAD", "/", Some("[2001:db8::1]")),
            to("https://[2001:db8::1]:80/")
        );
        // As HTTP/2 has it.
        assert_eq!(
            asked("GET", "http://cam.example:8080/", None),
            to("https://cam.example:8080/")
        );
        for (method, host) in [
            ("POST", host),
            ("OPTIONS", host),
            ("GET", None),
            ("GET", Some("")),
            ("GET", Some("cam example")),
            ("GET", Some("cam.example/x")),
            ("GET", Some("somebody@cam.example")),
        ] {
            let answer = asked(method, "/door/", host);
            assert_eq!(answer, (403, None), "{method} {host:?}");
        }
    }
}
