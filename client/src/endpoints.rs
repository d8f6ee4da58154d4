//! Endpoints: where nodes listen for clients.
//!
//! Owns:   how addresses are written: `host:port` or `unix:/path`, several with commas between.
//! Never:  resolves a name or opens a socket.

use std::fmt;
use std::path::PathBuf;

use crate::local::LocalEndpoint;

/// Where one node listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `host:port`.
    Tcp(String),
    /// `unix:/path`.
    Unix(PathBuf),
    /// In this program. Not to be written as text.
    Local(LocalEndpoint),
}

/// Where the nodes of a cluster listen, in the order in which they are tried. A single one is enough: the others are learnt from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints(Vec<String>);

impl Endpoint {
    /// Reads one address.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err("no path behind unix:") } else { Ok(Self::Unix(path.into())) };
        }
        let (host, port) = text.rsplit_once(':').ok_or("no port: write host:port, or unix:/path")?;
        if host.is_empty() {
            return Err("no host: write host:port, or unix:/path");
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(Self::Tcp(text.to_owned())),
            _ => Err("the port is no number from 1 to 65535"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Local(node) => node.fmt(f),
        }
    }
}

impl Endpoints {
    /// The addresses as they were given, not yet checked.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    fn collect<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let addresses = texts.into_iter().flat_map(|text| text.split(',')).map(str::trim);
        Self(addresses.filter(|address| !address.is_empty()).map(str::to_owned).collect())
    }
}

impl From<&str> for Endpoints {
    fn from(text: &str) -> Self {
        Self::collect([text])
    }
}

impl From<String> for Endpoints {
    fn from(text: String) -> Self {
        Self::collect([text.as_str()])
    }
}

impl From<&String> for Endpoints {
    fn from(text: &String) -> Self {
        Self::collect([text.as_str()])
    }
}

impl From<Vec<String>> for Endpoints {
    fn from(texts: Vec<String>) -> Self {
        Self::collect(texts.iter().map(String::as_str))
    }
}

impl From<&[String]> for Endpoints {
    fn from(texts: &[String]) -> Self {
        Self::collect(texts.iter().map(String::as_str))
    }
}

impl<const N: usize> From<[&str; N]> for Endpoints {
    fn from(texts: [&str; N]) -> Self {
        Self::collect(texts)
    }
}

impl From<std::net::SocketAddr> for Endpoints {
    fn from(address: std::net::SocketAddr) -> Self {
        Self(vec![address.to_string()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_at_commas() {
        let endpoints = Endpoints::from("a:1, [::1]:2,,unix:/tmp/x");
        assert_eq!(endpoints.iter().collect::<Vec<_>>(), ["a:1", "[::1]:2", "unix:/tmp/x"]);
        let parsed: Vec<_> = endpoints.iter().map(|text| Endpoint::parse(text).unwrap()).collect();
        assert_eq!(parsed[2], Endpoint::Unix("/tmp/x".into()));
        assert_eq!(
            parsed.iter().map(Endpoint::to_string).collect::<Vec<_>>(),
            ["a:1", "[::1]:2", "unix:/tmp/x"]
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in ["", "host", ":1", "host:", "host:0", "host:65536", "host:x", "unix:"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
