//! Admin: asks a node's admin endpoint.
//!
//! Owns:   `--admin`; one HTTP request over one connection, as much of HTTP as our own endpoint speaks.
//! Never:  follows, caches or decrypts anything: what listens there is a node.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

use crate::exit::{Exit, Outcome, Stop};

/// How long a node may take to take the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take with each part of its answer.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// More than ten thousand connections take to describe.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Where a node's admin endpoint is.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct AdminAt {
    /// Where the node's admin endpoint is (its listen.admin).
    #[arg(long, value_name = "HOST:PORT", env = "LOGLOG_ADMIN", default_value = "127.0.0.1:19196")]
    admin: String,
}

impl AdminAt {
    /// What the endpoint answers to a GET of `path`.
    pub(crate) fn get(&self, path: &str) -> Outcome<Value> {
        get(&self.admin, path)
    }
}

/// What the endpoint at `admin` answers to a GET of `path`.
pub(crate) fn get(admin: &str, path: &str) -> Outcome<Value> {
    let (status, body) = ask(admin, path)?;
    let value: Value = serde_json::from_slice(&body).map_err(|_| no_endpoint(admin))?;
    match status {
        200 => Ok(value),
        // Not being ready is an answer, too.
        503 if value.get("ready").is_some() => Ok(value),
        _ => {
            let words = value["error"].as_str().unwrap_or("the admin endpoint refuses");
            let exit = if status == 503 { Exit::Unavailable } else { Exit::Failed };
            Err(Stop::new(exit, words))
        }
    }
}

/// The same where the answer is a text.
pub(crate) fn get_text(admin: &str, path: &str) -> Outcome<String> {
    match ask(admin, path)? {
        (200, body) => String::from_utf8(body).map_err(|_| no_endpoint(admin)),
        _ => Err(no_endpoint(admin)),
    }
}

fn no_endpoint(admin: &str) -> Stop {
    unavailable(host(admin), "something that is no admin endpoint answers")
}

fn host(admin: &str) -> &str {
    admin.strip_prefix("http://").unwrap_or(admin).trim_end_matches('/')
}

fn unavailable(host: &str, what: &str) -> Stop {
    let message = format!(
        "{what} at {host} (--admin or LOGLOG_ADMIN say where to look; a node's listen.admin is where it listens)"
    );
    Stop::new(Exit::Unavailable, message)
}

/// Status and body.
fn ask(admin: &str, path: &str) -> Outcome<(u16, Vec<u8>)> {
    let host = host(admin);
    if host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err(Stop::new(Exit::Usage, format!("'{host}' is no host:port of an admin endpoint")));
    }
    let addresses =
        host.to_socket_addrs().map_err(|error| unavailable(host, &format!("no such host ({error})")))?;
    let mut socket =
        connect(addresses).map_err(|error| unavailable(host, &format!("no admin endpoint: {error}")))?;
    let answer = exchange(&mut socket, host, path)
        .map_err(|error| unavailable(host, &format!("no answer from the admin endpoint: {error}")))?;
    let (status, body) = split(&answer).ok_or_else(|| no_endpoint(admin))?;
    Ok((status, body.to_vec()))
}

/// `text` as one part of a path.
pub(crate) fn in_path(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn connect(addresses: impl Iterator<Item = SocketAddr>) -> std::io::Result<TcpStream> {
    let mut last = std::io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(socket: &mut TcpStream, host: &str, path: &str) -> std::io::Result<Vec<u8>> {
    socket.set_read_timeout(Some(READ_TIMEOUT))?;
    socket.set_write_timeout(Some(READ_TIMEOUT))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json, */*\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Status and body of an answer that came whole. The endpoint always says how long its body is.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    (body.len() == length).then_some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_and_half_of_one_is_none() {
        let whole = b"HTTP/1.1 404 Not Found\r\ncontent-type: x\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(split(whole), Some((404, &b"{}"[..])));
        assert_eq!(split(&whole[..whole.len() - 1]), None);
        assert_eq!(split(b"HTTP/1.1 200 OK\r\n\r\n"), None, "no length");
        assert_eq!(split(b"SSH-2.0-x\r\n"), None);
    }

    #[test]
    fn a_name_becomes_one_part_of_a_path() {
        assert_eq!(in_path("peer-link-2"), "peer-link-2");
        assert_eq!(in_path("../a b?\u{e9}"), "..%2Fa%20b%3F%C3%A9");
    }
}
