//! `/etc/hosts` and `/etc/resolv.conf`, read as the C library reads them (`man resolv.conf`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::time::Duration;

/// How many servers are asked; more are ignored.
const SERVERS: usize = 3;

/// Where to look for names.
#[derive(Debug)]
pub(super) struct Settings {
    hosts: String,
    pub(super) servers: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
    pub(super) timeout: Duration,
    pub(super) attempts: u32,
}

impl Settings {
    /// Reads both files; one that is missing says nothing.
    pub(super) fn read(resolv_conf: &Path, hosts: &Path) -> Settings {
        let text = |path: &Path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Settings::parse(&text(resolv_conf), text(hosts))
    }

    fn parse(resolv_conf: &str, hosts: String) -> Settings {
        let mut settings = Settings {
            hosts,
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in resolv_conf.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            match first {
                "nameserver" => {
                    let address = words.next().and_then(server);
                    settings.servers.extend(address.filter(|_| settings.servers.len() < SERVERS));
                }
                // The last one of these lines counts.
                "domain" | "search" => {
                    settings.search =
                        words.map(|domain| domain.trim_matches('.').to_owned()).collect();
                    settings.search.retain(|domain| !domain.is_empty());
                }
                "options" => words.for_each(|word| settings.option(word)),
                _ => {}
            }
        }
        if settings.servers.is_empty() {
            settings.servers.push((Ipv4Addr::LOCALHOST, 53).into());
        }
        settings
    }

    fn option(&mut self, word: &str) {
        let number = |name: &str, most: u32| -> Option<u32> {
            Some(word.strip_prefix(name)?.parse::<u32>().ok()?.min(most))
        };
        if let Some(dots) = number("ndots:", 15) {
            self.dots = dots as usize;
        } else if let Some(seconds) = number("timeout:", 30) {
            self.timeout = Duration::from_secs(u64::from(seconds.max(1)));
        } else if let Some(attempts) = number("attempts:", 5) {
            self.attempts = attempts.max(1);
        }
    }

    /// Returns what `/etc/hosts` says of a name.
    pub(super) fn hosts(&self, name: &str) -> Vec<IpAddr> {
        let name = name.trim_end_matches('.');
        let mut found = Vec::new();
        for line in self.hosts.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
            if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&address) {
                found.push(address);
            }
        }
        found
    }

    /// Returns the full names that a name may stand for, in the order to ask for them.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let mut names: Vec<String> =
            self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let at = if name.matches('.').count() >= self.dots { 0 } else { names.len() };
        names.insert(at, name.to_owned());
        names
    }
}

/// Reads a server's address, which for IPv6 may name its device by number.
fn server(word: &str) -> Option<SocketAddr> {
    match word.split_once('%') {
        None => Some(SocketAddr::new(word.parse().ok()?, 53)),
        Some((address, device)) => {
            let device = match device.parse() {
                Ok(number) => number,
                Err(_) => rustix::net::netdevice::name_to_index(probe()?, device).ok()?,
            };
            Some(SocketAddrV6::new(address.parse().ok()?, 53, 0, device).into())
        }
    }
}

fn probe() -> Option<std::net::UdpSocket> {
    std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_read_as_usual() {
        let hosts = "127.0.0.1 localhost\n10.0.0.7\tReg.site reg # ours\nbad x\n::7 reg.SITE\n";
        let text = "# x\ndomain old\nnameserver 10.0.0.1\nsearch a.site. site\n\
                    options ndots:2 timeout:1 attempts:9 rotate\nnameserver ::1\n\
                    nameserver fe80::1%3\nnameserver 10.0.0.4\n";
        let settings = Settings::parse(text, hosts.to_owned());
        let servers: Vec<String> = settings.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53", "[fe80::1%3]:53"]);
        assert_eq!((settings.timeout, settings.attempts), (Duration::from_secs(1), 5));
        let seven = [IpAddr::from([10, 0, 0, 7]), "::7".parse().unwrap()];
        assert_eq!(settings.hosts("reg.site."), seven);
        assert_eq!(settings.hosts("reg"), seven[..1]);
        assert_eq!(settings.candidates("reg"), ["reg.a.site", "reg.site", "reg"]);
        assert_eq!(settings.candidates("a.b.c"), ["a.b.c", "a.b.c.a.site", "a.b.c.site"]);
        assert_eq!(settings.candidates("reg."), ["reg."]);
        let empty = Settings::parse("", String::new());
        assert_eq!(empty.servers, [SocketAddr::from(([127, 0, 0, 1], 53))]);
        assert_eq!(empty.candidates("reg"), ["reg"]);
    }
}
