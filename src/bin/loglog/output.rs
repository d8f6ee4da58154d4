//! Output: data on standard output, in big writes, and quietly over when nobody reads it.
//!
//! Owns:   the buffer in front of standard output; the forms in which an entry is printed.
//! Keeps:  words never go here: those are standard error's.

use std::io::{self, BufWriter, StdoutLock, Write};

use loglog_client::Entry;
use serde::Serialize;

use crate::exit::{Outcome, Stop};

/// Large enough that a write costs little, small enough to stay in cache.
const BUFFER: usize = 128 << 10;

/// How an entry is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Its payload and a newline.
    Payload,
    /// Its payload in hex, on one line.
    Hex,
    /// An object on one line.
    Json,
}

/// Standard output, buffered.
pub(crate) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub(crate) fn new() -> Self {
        Self(BufWriter::with_capacity(BUFFER, io::stdout().lock()))
    }

    pub(crate) fn entry(&mut self, entry: &Entry, form: Form) -> Outcome {
        write_entry(&mut self.0, entry, form).map_err(|error| Stop::output(&error))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Outcome {
        self.0.write_all(bytes).map_err(|error| Stop::output(&error))
    }

    pub(crate) fn line(&mut self, line: impl std::fmt::Display) -> Outcome {
        writeln!(self.0, "{line}").map_err(|error| Stop::output(&error))
    }

    /// A value as JSON for people: indented.
    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> Outcome {
        serde_json::to_writer_pretty(&mut self.0, value).map_err(|error| Stop::output(&error.into()))?;
        self.line("")
    }

    /// To be called at the end, and wherever a reader should not wait for more.
    pub(crate) fn flush(&mut self) -> Outcome {
        self.0.flush().map_err(|error| Stop::output(&error))
    }
}

/// An entry as JSON.
#[derive(Serialize)]
struct JsonEntry<'a> {
    offset: u64,
    end: u64,
    term: u32,
    /// As text: JSON numbers are not safe beyond 53 bits in many programs.
    writer: String,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<&'a str>,
}

fn write_entry(to: &mut impl Write, entry: &Entry, form: Form) -> io::Result<()> {
    match form {
        Form::Payload => to.write_all(&entry.payload)?,
        Form::Hex => write_hex(to, &entry.payload)?,
        Form::Json => {
            // Text stays legible; what is none comes as hex, under another name so that nobody takes one for the other.
            let text = std::str::from_utf8(&entry.payload).ok();
            let mut hex = Vec::new();
            if text.is_none() {
                write_hex(&mut hex, &entry.payload)?;
            }
            let fields = JsonEntry {
                offset: entry.offset.get(),
                end: entry.end.get(),
                term: entry.term.get(),
                writer: entry.writer.to_string(),
                sequence: entry.sequence.get(),
                payload: text,
                payload_hex: if text.is_none() { std::str::from_utf8(&hex).ok() } else { None },
            };
            serde_json::to_writer(&mut *to, &fields)?;
        }
    }
    to.write_all(b"\n")
}

fn write_hex(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut line = [0; 512];
    for part in bytes.chunks(line.len() / 2) {
        for (pair, byte) in line.chunks_exact_mut(2).zip(part) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        to.write_all(&line[..part.len() * 2])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use loglog_proto::{Offset, Sequence, Term, WriterId};

    use super::*;

    fn written(payload: &'static [u8], form: Form) -> String {
        let entry = Entry {
            offset: Offset::new(40),
            end: Offset::new(73),
            term: Term::new(2),
            writer: WriterId::new(0xab),
            sequence: Sequence::new(1),
            payload: Bytes::from_static(payload),
        };
        let mut out = Vec::new();
        write_entry(&mut out, &entry, form).unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn each_form_is_one_line() {
        let head = r#"{"offset":40,"end":73,"term":2,"writer":"00000000000000ab","sequence":1,"#;
        assert_eq!(written(b"a", Form::Payload), "a\n");
        assert_eq!(written(b"a\n\xff", Form::Hex), "610aff\n");
        assert_eq!(written(b"a\n", Form::Json), format!("{head}\"payload\":\"a\\n\"}}\n"));
        assert_eq!(written(b"\xff\0", Form::Json), format!("{head}\"payload_hex\":\"ff00\"}}\n"));
        assert_eq!(written(b"", Form::Json), format!("{head}\"payload\":\"\"}}\n"));
    }
}
