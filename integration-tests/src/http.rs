//! Http: one request to an admin endpoint, also such as no decent client would send.
//!
//! Owns:   the connection, closed after each answer.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 and so on.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: String,
}

impl Reply {
    /// One header; empty if there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }

    /// The content as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }
}

/// GET.
///
/// # Panics
/// If there is no answer.
#[must_use]
pub fn get(address: &str, path: &str) -> Reply {
    request(address, "GET", path, &[("Host", address)], "")
}

/// GET of what must be there, as JSON.
///
/// # Panics
/// If it is not.
#[must_use]
pub fn get_json(address: &str, path: &str) -> Value {
    let reply = get(address, path);
    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    reply.json()
}

/// PUT or POST of JSON.
///
/// # Panics
/// If there is no answer.
#[must_use]
pub fn send(address: &str, method: &str, path: &str, body: &str) -> Reply {
    request(address, method, path, &[("Host", address), ("Content-Type", "application/json")], body)
}

/// Any request, with these headers and no others but those that end it.
///
/// # Panics
/// If there is no answer.
#[must_use]
pub fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut text =
        format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    let mut socket = TcpStream::connect(address).expect("the admin endpoint listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    // One that is refused early may be cut off while its body is still on the way; what was answered is here all the same.
    let _ = socket.write_all(text.as_bytes());
    let mut answer = Vec::new();
    let mut part = vec![0; 64 << 10];
    // Not everybody closes the connection when all is said, though asked to: a browser's driver does not.
    while !is_whole(&answer) {
        match socket.read(&mut part) {
            Ok(count @ 1..) => answer.extend_from_slice(&part[..count]),
            // A read with a time limit ends with any signal that the process gets.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => break,
        }
    }
    parse(&String::from_utf8_lossy(&answer))
}

/// Whether as much came as its head says. One that does not say ends with its connection.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]);
    let fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = lengths.next().and_then(|(_, value)| value.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= end + 4 + length)
}

fn parse(answer: &str) -> Reply {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    Reply { status: status.expect("a status line"), headers, body: body.to_owned() }
}
