//! RESP: as much of Redis's protocol as appending needs.
//!
//! Owns:   commands to bytes, bytes to replies.
//! Never:  reads or writes a socket.

use std::io::Write as _;

/// Puts `XADD stream * d payload` behind what is in `out`.
pub(super) fn xadd(out: &mut Vec<u8>, stream: &str, payload: &[u8]) {
    command(out, &[b"XADD", stream.as_bytes(), b"*", b"d", payload]);
}

/// Puts a command behind what is in `out`.
pub(super) fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// How many bytes the first reply takes, once all of it is there. An error reply, or bytes that are none, is an error.
pub(super) fn reply(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(line_end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let line = String::from_utf8_lossy(&bytes[..line_end]);
    let after_line = line_end + 2;
    match line.split_at_checked(1) {
        Some(("+" | ":", _)) => Ok(Some(after_line)),
        Some(("-", message)) => Err(message.to_owned()),
        Some(("$", length)) => {
            let length: usize = length.parse().map_err(|_| format!("no length of a reply: {line}"))?;
            let end = after_line + length + 2;
            match bytes.get(end - 2..end) {
                None => Ok(None),
                Some(b"\r\n") => Ok(Some(end)),
                Some(_) => Err(format!("a reply does not end where it should: {line}")),
            }
        }
        _ => Err(format!("no reply: {line}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_strings() {
        let mut out = Vec::new();
        xadd(&mut out, "s", b"a\r\nb");
        assert_eq!(out, b"*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\nd\r\n$4\r\na\r\nb\r\n");
    }

    #[test]
    fn replies_are_taken_once_they_are_whole() {
        let bytes = b"$15\r\n1526919030474-0\r\n$3\r\nabc\r\n";
        for length in 0..22 {
            assert_eq!(reply(&bytes[..length]), Ok(None), "{length}");
        }
        assert_eq!(reply(bytes), Ok(Some(22)));
        assert_eq!(reply(&bytes[22..]), Ok(Some(9)));
        assert_eq!(reply(b"+PONG\r\n"), Ok(Some(7)));
        assert_eq!(reply(b":12\r\n+"), Ok(Some(5)));
    }

    #[test]
    fn errors_and_nonsense_are_errors() {
        assert_eq!(reply(b"-ERR no\r\n"), Err("ERR no".to_owned()));
        assert!(reply(b"hello\r\n").is_err());
        assert!(reply(b"\r\n").is_err());
        assert!(reply(b"$x\r\n").is_err());
        assert!(reply(b"$3\r\nabcde\r\n").is_err());
    }
}
