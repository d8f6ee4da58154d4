//! Client sockets: what clients come through: TCP, a Unix socket, or channels within this program.
//!
//! Owns:   a Unix socket's file: made with its permissions before anybody can find it, gone when it is closed.
//! Keeps:  nobody gets in between the making of the file and its permissions; another process' socket is not taken away.
//! Never:  knows what is said.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, IoSlice};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use loglog_proto::request::Request;
use loglog_proto::response::Response;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::{tcp, unix};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::connection::is_ready;

/// A client that was accepted.
#[derive(Debug)]
pub(crate) enum ClientSocket {
    /// From this machine or another.
    Tcp(std::net::TcpStream),
    /// From this machine.
    Unix(UnixStream),
    /// From this program.
    Local(LocalSocket),
}

/// The node's ends of the channels to a client in this program.
#[derive(Debug)]
pub(crate) struct LocalSocket {
    pub(crate) requests: UnboundedReceiver<Vec<Request>>,
    pub(crate) responses: UnboundedSender<Vec<Response>>,
}

/// A client's socket as its connection uses it.
pub(crate) enum Halves {
    Socket(ReceiveHalf, SendHalf),
    Local(LocalSocket),
}

/// What it sends.
#[derive(Debug)]
pub(crate) enum ReceiveHalf {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

/// What it is sent.
#[derive(Debug)]
pub(crate) enum SendHalf {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
}

impl ClientSocket {
    /// Where the client is, for people.
    pub(crate) fn peer(&self) -> Option<String> {
        match self {
            Self::Tcp(socket) => socket.peer_addr().ok().map(|address| address.to_string()),
            Self::Unix(_) => Some("unix".to_owned()),
            Self::Local(_) => Some("local".to_owned()),
        }
    }

    /// Both directions, in this thread's runtime.
    pub(crate) fn split(self) -> io::Result<Halves> {
        match self {
            Self::Tcp(socket) => {
                socket.set_nodelay(true)?;
                socket.set_nonblocking(true)?;
                let (receive, send) = tokio::net::TcpStream::from_std(socket)?.into_split();
                Ok(Halves::Socket(ReceiveHalf::Tcp(receive), SendHalf::Tcp(send)))
            }
            Self::Unix(socket) => {
                socket.set_nonblocking(true)?;
                let (receive, send) = tokio::net::UnixStream::from_std(socket)?.into_split();
                Ok(Halves::Socket(ReceiveHalf::Unix(receive), SendHalf::Unix(send)))
            }
            Self::Local(socket) => Ok(Halves::Local(socket)),
        }
    }
}

impl AsyncRead for ReceiveHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(task, into),
            Self::Unix(half) => Pin::new(half).poll_read(task, into),
        }
    }
}

impl SendHalf {
    /// Sends what goes at once.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.try_write(bytes),
            Self::Unix(half) => half.try_write(bytes),
        }
    }

    /// The same for many pieces.
    pub(crate) fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.try_write_vectored(pieces),
            Self::Unix(half) => half.try_write_vectored(pieces),
        }
    }

    /// Whether something goes at once, in truth and not as was last heard: others may have sent meanwhile.
    pub(crate) fn is_writable(&self) -> io::Result<bool> {
        let ask = || match is_ready(self, Duration::ZERO)? {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        };
        let asked = match self {
            Self::Tcp(half) => half.as_ref().try_io(Interest::WRITABLE, ask),
            Self::Unix(half) => half.as_ref().try_io(Interest::WRITABLE, ask),
        };
        match asked {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until something goes.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(half) => half.writable().await,
            Self::Unix(half) => half.writable().await,
        }
    }
}

impl AsFd for SendHalf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(half) => half.as_ref().as_fd(),
            Self::Unix(half) => half.as_ref().as_fd(),
        }
    }
}

/// What clients are accepted from.
#[derive(Debug)]
pub(crate) struct ClientSockets {
    pub(crate) tcp: Option<TcpListener>,
    pub(crate) unix: Option<UnixSocket>,
}

/// A Unix socket that listens, and its file, which goes with it.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file that is ours.
    file: (u64, u64),
}

impl UnixSocket {
    /// Listens at `path`, a file with these permissions. What a process left there that is gone is replaced.
    ///
    /// # Errors
    /// Another process listens there, something else lies there, or the file cannot be made.
    pub(crate) fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "something that is no socket lies there",
                ));
            }
            if !is_dead(path)? {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
            }
        }
        // In a folder that only we may enter, until the permissions are right; then at its place, in one step. Its name is no longer than
        // need be: the paths of sockets are short. What a process that was killed left there under such a name is nobody's.
        let hidden = path.with_file_name(format!(".{:x}", rand::random::<u32>()));
        DirBuilder::new().mode(0o700).create(&hidden)?;
        let bound = Self::bind_in(&hidden, path, mode);
        // What is in the way of that would have been in the way before.
        let _ = fs::remove_dir(&hidden);
        bound
    }

    fn bind_in(hidden: &Path, path: &Path, mode: u32) -> io::Result<Self> {
        let first = hidden.join("s");
        let made = UnixListener::bind(&first).and_then(|listener| {
            fs::set_permissions(&first, Permissions::from_mode(mode))?;
            let found = fs::symlink_metadata(&first)?;
            fs::rename(&first, path)?;
            Ok(Self { listener, path: path.to_owned(), file: (found.dev(), found.ino()) })
        });
        if made.is_err() {
            // It may not be there.
            let _ = fs::remove_file(&first);
        }
        made
    }
}

/// Whether nobody listens at this socket any more. Only its refusal says so for certain: one that may not be asked, or has no room in its queue, lives.
///
/// # Errors
/// It cannot be asked at all.
fn is_dead(path: &Path) -> io::Result<bool> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    // Without waiting: a process that has stopped has a full queue for ever.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let asking = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(connect(&asking, &SocketAddrUnix::new(path)?) == Err(rustix::io::Errno::CONNREFUSED))
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Another process may have put its own there meanwhile.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_its_permissions_and_goes_with_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.sock");
        let socket = UnixSocket::bind(&path, 0o620).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o620);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        UnixStream::connect(&path).unwrap();
        let error = UnixSocket::bind(&path, 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn who_lives_keeps_his_socket_also_where_he_takes_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.sock");
        // One that is spoken to in another way.
        let other = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert_eq!(UnixSocket::bind(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(other);
        fs::remove_file(&path).unwrap();
        // One whose queue is full.
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let flags = rustix::net::SocketFlags::NONBLOCK;
            let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
            let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
            let _ = rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap());
            waiting.push(socket);
        }
        assert_eq!(UnixSocket::bind(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn what_the_dead_left_is_replaced_and_what_is_no_socket_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as a process that is killed leaves it");
        let socket = UnixSocket::bind(&path, 0o600).unwrap();
        // Another's, put in its place.
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(other);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"precious").unwrap();
        assert_eq!(UnixSocket::bind(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert!(UnixSocket::bind(&dir.path().join("missing/x"), 0o600).is_err());
    }
}
