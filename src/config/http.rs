//! `[http]`: whom the origin serves, and what viewers may use up.

use std::net::SocketAddr;
use std::time::Duration;

use super::access;
use super::error::Report;
use super::machine::Environment;
use super::sections::Http;
use super::table::Section;
use super::value::{Kind, Read, Refused};
use super::{Plan, defaults};
use crate::access::Access;
use crate::network::Network;

/// How many proxies the config may name.
const MOST_PROXIES: usize = 64;

/// Whom the origin serves, and what its viewers may use up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPlan {
    /// Whether everybody who reaches the origin from elsewhere may watch.
    pub allow_anyone: bool,
    /// Where administrators are served: everything, and alone what only they may see.
    pub admin_listen: Option<SocketAddr>,
    /// Who is one there.
    pub admin: Access,
    /// What viewers may use up.
    pub limits: ViewerLimits,
}

/// What viewers of the origin may use up. Addresses of this machine and of trusted proxies stand for many viewers: what is said of one
/// address is not said of those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewerLimits {
    /// Proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<Network>,
    /// Connections that are open at once; more wait.
    pub connections: u32,
    /// The same of one address; more are closed.
    pub connections_per_address: u32,
    /// Requests of one address in a second.
    pub requests_per_second: u32,
    /// A request's line and headers.
    pub header_bytes: usize,
    /// How long a request's headers may take, and how long a connection may rest before them.
    pub header_timeout: Duration,
    /// How long a viewer may take nothing of what was sent to it.
    pub stall_timeout: Duration,
}

impl Default for ViewerLimits {
    fn default() -> Self {
        defaults::VIEWER_LIMITS
    }
}

impl Kind for Network {
    fn write() -> String {
        "an address or a network in quotes, like \"10.0.0.7\", \"10.0.0.0/8\" or \"fd00::/8\""
            .into()
    }

    fn from_text(text: &str) -> Result<Self, Refused> {
        text.parse().map_err(|_| Refused::Value)
    }
}

/// Reads `[http]`, as far as it is about viewers and administrators.
pub(super) fn check(
    section: &Section<Http>,
    folder: &std::path::Path,
    environment: &Environment<'_>,
    report: &mut Report,
) -> HttpPlan {
    let given = &section.values;
    let default = defaults::VIEWER_LIMITS;
    macro_rules! or_default {
        ($key:ident) => {
            given
                .$key
                .as_ref()
                .map_or(default.$key, |entry| entry.get_ref().0.0)
        };
    }
    let limits = ViewerLimits {
        trusted_proxies: proxies(section, report),
        connections: or_default!(connections),
        connections_per_address: or_default!(connections_per_address),
        requests_per_second: or_default!(requests_per_second),
        header_bytes: given
            .header_bytes
            .as_ref()
            .and_then(|entry| usize::try_from(entry.get_ref().0.0).ok())
            .unwrap_or(default.header_bytes),
        header_timeout: or_default!(header_timeout),
        stall_timeout: or_default!(stall_timeout),
    };
    if let Some(at) = section.place_of("connections_per_address")
        && limits.connections_per_address > limits.connections
    {
        let what = format!(
            "connections_per_address is {}, but connections is {}, so it is never reached",
            limits.connections_per_address, limits.connections
        );
        let mend = "raise connections or lower connections_per_address";
        report.warning(at, what, mend);
    }
    let plan = HttpPlan {
        allow_anyone: given
            .allow_anyone
            .as_ref()
            .is_some_and(|entry| entry.get_ref().0.0),
        admin_listen: given.admin_listen.as_ref().map(|entry| entry.get_ref().0),
        admin: access::check_admin(section).read(folder, environment, report),
        limits,
    };
    check_admin(&plan, section, report);
    plan
}

fn proxies(section: &Section<Http>, report: &mut Report) -> Vec<Network> {
    let Some(list) = &section.values.trusted_proxies else {
        return Vec::new();
    };
    if list.get_ref().len() > MOST_PROXIES {
        let what = format!("trusted_proxies lists more than {MOST_PROXIES}");
        let mend = "name a network that they are all in, like \"10.0.0.0/8\"";
        report.error(list.span().start, what, mend);
    }
    let all = list.get_ref().iter().take(MOST_PROXIES);
    all.map(|entry| {
        let Read(network) = entry.get_ref();
        *network
    })
    .collect()
}

fn check_admin(plan: &HttpPlan, section: &Section<Http>, report: &mut Report) {
    let Some(address) = plan.admin_listen else {
        if let Some(at) = section.place_of("admin_token_file") {
            let what = "admin_token_file has no effect without admin_listen";
            report.error(
                at,
                what,
                "add admin_listen = \"127.0.0.1:8081\", or remove it",
            );
        }
        return;
    };
    let at = section.place_of("admin_listen").unwrap_or(section.at);
    if !is_this_machine(address) && !plan.admin.guarded {
        let what = format!("admin_listen {address} shows every stream to whoever reaches it");
        let mend =
            "add admin_token_file, or write an address of this machine, like \"127.0.0.1:8081\"";
        report.error(at, what, mend);
    }
    let listen = section.values.listen.as_ref();
    let listen = listen.map_or(defaults::LISTEN, |entry| entry.get_ref().0);
    if address == listen && address.port() != 0 {
        let what = format!("admin_listen {address} is where viewers are served");
        report.error(at, what, "take another port");
    }
}

/// Whether only programs of this machine reach `address`.
fn is_this_machine(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

impl Plan {
    /// Whether the origin may serve viewers at `address`, if it has TLS there: on this machine, or with what keeps others out, or if that is said not
    /// to be needed.
    ///
    /// # Errors
    /// What is wrong, and how to mend it.
    pub fn may_serve_at(&self, address: SocketAddr, has_tls: bool) -> Result<(), (String, String)> {
        if is_this_machine(address) || has_tls || self.http.allow_anyone {
            return Ok(());
        }
        let mut streams = self.streams.values();
        let Some(open) = streams.find(|stream| !stream.access.guarded) else {
            return Ok(());
        };
        let what = format!(
            "listen {address} lets other machines watch stream {:?}, without TLS and without a token",
            open.name
        );
        let mend = "give every stream a token_file or signing_key_file, or [http] a tls_certificate; or write allow_anyone = true in [http], if whoever comes may watch";
        Err((what, mend.to_owned()))
    }
}
