//! Sendfile: the machine's own limit for bulk reads, a file sent to ourselves over loopback without any of our code.
//!
//! Owns:   the file, in a folder of its own, and the threads at both ends.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use rustix::fs::sendfile;

use super::folder::Folder;
use super::raw::BUFFER;
use crate::exit::{Outcome, Stop};

/// What is given to the system at once.
const CHUNK: u64 = 4 << 20;

/// A file to send.
#[derive(Debug)]
pub(super) struct Sendfile {
    folder: Folder,
    bytes: u64,
}

impl Sendfile {
    /// Writes a file of so many bytes below `within`.
    pub(super) fn new(within: &Path, bytes: u64) -> Outcome<Self> {
        let folder = Folder::make(within)?;
        let file = Self { folder, bytes };
        file.write().map_err(|error| {
            Stop::failed(format!("cannot write a file of {bytes} bytes below {}: {error}", within.display()))
        })?;
        Ok(file)
    }

    fn write(&self) -> io::Result<()> {
        let chunk: Vec<u8> = (0..1 << 20_u32).map(|at| u8::try_from(at * 31 % 251).unwrap_or(0)).collect();
        let (mut file, mut left) = (File::create(self.folder.path().join("file"))?, self.bytes);
        while left > 0 {
            let part = usize::try_from(left.min(chunk.len() as u64)).map_err(io::Error::other)?;
            file.write_all(&chunk[..part])?;
            left -= part as u64;
        }
        // What the disk has still to do is not to be part of a round.
        file.sync_all()
    }

    /// Sends all of it once, shared among so many connections. Returns how many bytes came.
    pub(super) fn send_all(&self, connections: u16) -> io::Result<u64> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let share = self.bytes.div_ceil(u64::from(connections));
        std::thread::scope(|scope| {
            let mut ends = Vec::new();
            for number in 0..u64::from(connections) {
                let (receiver, (sender, _)) = (TcpStream::connect(address)?, listener.accept()?);
                let part = (number * share).min(self.bytes)..((number + 1) * share).min(self.bytes);
                let file = File::open(self.folder.path().join("file"))?;
                scope.spawn(move || send(&sender, &file, part));
                ends.push(scope.spawn(move || receive(receiver)));
            }
            let joined = ends.into_iter().map(|end| {
                end.join().unwrap_or_else(|_| Err(io::Error::other("a thread that receives has panicked")))
            });
            joined.sum()
        })
    }
}

/// The other end notices what is missing.
fn send(socket: &TcpStream, file: &File, part: std::ops::Range<u64>) {
    let mut at = part.start;
    while at < part.end {
        let count = usize::try_from((part.end - at).min(CHUNK)).unwrap_or(0);
        match sendfile(socket, file, Some(&mut at), count) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn receive(mut socket: TcpStream) -> io::Result<u64> {
    let (mut buffer, mut received) = (vec![0; BUFFER], 0);
    loop {
        match socket.read(&mut buffer)? {
            0 => return Ok(received),
            count => received += count as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_arrives() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [0, 1, 5 << 20 | 7] {
            let file = Sendfile::new(dir.path(), bytes).unwrap_or_else(|stop| panic!("{stop:?}"));
            for connections in [1, 3] {
                assert_eq!(file.send_all(connections).unwrap(), bytes);
            }
        }
    }
}
