//! Input: bytes of a file or of standard input, cut into payloads on a thread of its own.
//!
//! Owns:   reading in big chunks, cutting at newlines, the limit on a payload.
//! Keeps:  bytes as they are (text or not); what was read is handed on at once, so that a slow source is not waited for.
//! Never:  reads far ahead of the network: the channel holds a few chunks.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use loglog_proto::limits::PAYLOAD_BYTES_MAX;
use tokio::sync::mpsc;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;
/// Chunks that wait for the network.
const AHEAD: usize = 4;

/// What becomes an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Each line, without its newline.
    Lines,
    /// All of it.
    Whole,
}

/// Payloads that were read together, with the count of input bytes they came from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) payloads: Vec<Bytes>,
    pub(crate) input_bytes: u64,
}

/// Where the bytes come from.
pub(crate) struct Input {
    file: File,
    name: String,
    /// Bytes to come, where that is known.
    pub(crate) size: Option<u64>,
}

impl Input {
    /// Opens `path`, or standard input without one (or for `-`).
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, String> {
        let path = path.filter(|path| *path != Path::new("-")).map(PathBuf::from);
        let name =
            path.as_ref().map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
        let opened = match &path {
            Some(path) => File::open(path),
            // Past the locks and the small buffer of `std::io::stdin`.
            None => standard_input(),
        };
        let explain = |error: io::Error| format!("cannot read {name}: {error}");
        let file = opened.map_err(explain)?;
        let metadata = file.metadata().map_err(explain)?;
        if metadata.is_dir() {
            return Err(format!("{name} is a directory: name a file"));
        }
        let size = metadata.is_file().then_some(metadata.len());
        Ok(Self { file, name, size })
    }

    /// Reads on a thread of its own, until the end, an error, or nobody takes the chunks any more.
    pub(crate) fn read(self, shape: Shape) -> mpsc::Receiver<Result<Chunk, String>> {
        let (chunks, receiver) = mpsc::channel(AHEAD);
        let Self { file, name, .. } = self;
        std::thread::spawn(move || {
            let result = match shape {
                Shape::Lines => read_lines(file, |chunk| chunks.blocking_send(Ok(chunk)).is_ok()),
                Shape::Whole => read_whole(file, |chunk| chunks.blocking_send(Ok(chunk)).is_ok()),
            };
            if let Err(error) = result {
                let _ = chunks.blocking_send(Err(format!("cannot append all of {name}: {error}")));
            }
        });
        receiver
    }
}

fn standard_input() -> io::Result<File> {
    use std::os::fd::AsFd;
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Reads into `scratch`, again where a signal came between.
fn read_some(source: &mut impl Read, scratch: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(scratch) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Cuts `source` into lines; a last one without newline counts. `take` returns whether to go on.
fn read_lines(mut source: impl Read, mut take: impl FnMut(Chunk) -> bool) -> Result<(), String> {
    let mut scratch = vec![0; CHUNK];
    let mut rest = BytesMut::new();
    let mut lines = 0_u64;
    loop {
        let count = read_some(&mut source, &mut scratch).map_err(|error| error.to_string())?;
        let newline = scratch[..count].iter().rposition(|byte| *byte == b'\n');
        let whole = newline.map_or(0, |at| rest.len() + at + 1);
        rest.extend_from_slice(&scratch[..count]);
        // At the end of the input, what is left is a line.
        let ready = if count == 0 { rest.split() } else { rest.split_to(whole) };
        let chunk = cut(ready.freeze());
        let too_long = chunk.payloads.iter().position(|payload| payload.len() > PAYLOAD_BYTES_MAX);
        let too_long = too_long.or((rest.len() > PAYLOAD_BYTES_MAX).then_some(chunk.payloads.len()));
        if let Some(at) = too_long {
            // What precedes it is appended, as if the input had ended there.
            let number = lines + at as u64 + 1;
            let mut before = chunk;
            before.payloads.truncate(at);
            take(before);
            return Err(format!(
                "line {number} is longer than the largest payload ({PAYLOAD_BYTES_MAX} bytes); the lines before it were read"
            ));
        }
        lines += chunk.payloads.len() as u64;
        if !chunk.payloads.is_empty() && !take(chunk) {
            return Ok(());
        }
        if count == 0 {
            return Ok(());
        }
    }
}

/// Whole lines, the last perhaps without newline, as payloads that share their memory.
fn cut(bytes: Bytes) -> Chunk {
    let input_bytes = bytes.len() as u64;
    let mut payloads = Vec::new();
    let mut begin = 0;
    while begin < bytes.len() {
        let length = bytes[begin..].iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len() - begin);
        payloads.push(bytes.slice(begin..begin + length));
        begin += length + 1;
    }
    Chunk { payloads, input_bytes }
}

/// One payload of all that `source` has.
fn read_whole(source: impl Read, mut take: impl FnMut(Chunk) -> bool) -> Result<(), String> {
    let mut all = Vec::new();
    source.take(PAYLOAD_BYTES_MAX as u64 + 1).read_to_end(&mut all).map_err(|error| error.to_string())?;
    if all.len() > PAYLOAD_BYTES_MAX {
        return Err(format!(
            "it is larger than the largest payload ({PAYLOAD_BYTES_MAX} bytes): cut it up, or use --lines"
        ));
    }
    let input_bytes = all.len() as u64;
    take(Chunk { payloads: vec![Bytes::from(all)], input_bytes });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes in the pieces it was made of.
    struct Pieces(Vec<&'static [u8]>);

    impl Read for Pieces {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            to[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    fn lines(source: impl Read) -> (Vec<Vec<Bytes>>, Result<(), String>) {
        let mut chunks = Vec::new();
        let result = read_lines(source, |chunk| {
            chunks.push(chunk.payloads);
            true
        });
        (chunks, result)
    }

    #[test]
    fn lines_come_as_they_are_read() {
        let (chunks, result) = lines(Pieces(vec![b"a\nb", b"c\n\n", b"\xff\0\r\nlast"]));
        result.unwrap();
        let expected: Vec<Vec<&[u8]>> = vec![vec![b"a"], vec![b"bc", b""], vec![b"\xff\0\r"], vec![b"last"]];
        assert_eq!(chunks, expected);
    }

    #[test]
    fn an_end_behind_a_newline_is_no_line() {
        assert_eq!(lines(&b"a\n"[..]).0, vec![vec![&b"a"[..]]]);
        assert_eq!(lines(&b""[..]).0, Vec::<Vec<Bytes>>::new());
        assert_eq!(lines(&b"\n"[..]).0, vec![vec![&b""[..]]]);
    }

    #[test]
    fn all_input_bytes_are_counted() {
        let mut counted = 0;
        read_lines(Pieces(vec![b"a\nb", b"c\nd"]), |chunk| {
            counted += chunk.input_bytes;
            true
        })
        .unwrap();
        assert_eq!(counted, 6);
    }

    #[test]
    fn a_line_that_is_too_long_is_named_and_the_ones_before_it_are_kept() {
        let mut input = b"one\ntwo\n".to_vec();
        input.resize(input.len() + PAYLOAD_BYTES_MAX, b'x');
        input.extend_from_slice(b"\n");
        let (chunks, result) = lines(&input[..]);
        result.unwrap();
        assert_eq!(chunks.concat().len(), 3);
        input.insert(8, b'x');
        let (chunks, result) = lines(&input[..]);
        assert!(result.unwrap_err().contains("line 3 is longer"));
        assert_eq!(chunks.concat(), ["one", "two"]);
    }

    #[test]
    fn reading_ends_when_nobody_takes() {
        let mut taken = 0;
        read_lines(Pieces(vec![b"a\n", b"b\n", b"c\n"]), |_| {
            taken += 1;
            taken < 2
        })
        .unwrap();
        assert_eq!(taken, 2);
    }

    #[test]
    fn the_whole_is_one_payload_even_if_empty() {
        for input in [&b""[..], b"a\nb\n"] {
            let mut chunks = Vec::new();
            read_whole(input, |chunk| {
                chunks.push(chunk);
                true
            })
            .unwrap();
            let payloads = vec![Bytes::from_static(input)];
            assert_eq!(chunks, [Chunk { payloads, input_bytes: input.len() as u64 }]);
        }
        assert!(read_whole(io::repeat(0), |_| true).unwrap_err().contains("use --lines"));
    }
}
