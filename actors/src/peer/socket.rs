//! Peer socket: whole peer messages over a TCP connection that this node opened.
//!
//! Owns:   connecting, the handshake, reading and writing of frames, when the other side counts as gone.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use bytes::BytesMut;
use loglog_proto::RaftId;
use loglog_proto::frame::split;
use loglog_proto::peer::{PEER_FRAME_BYTES_MAX, PeerAccepted, PeerMessage};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::PeerIdentity;

/// How long a connection and its handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// How often a connection that is idle is tried, once it has been so for half of its patience.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long peers may be silent where an election takes `ticks` ticks at least: some elections, and never so short that a
/// busy machine loses a link by it.
pub(crate) fn patience(tick: Duration, election_ticks: usize) -> Duration {
    let elections = tick * u32::try_from(5 * election_ticks).unwrap_or(u32::MAX);
    elections.max(Duration::from_secs(5))
}

/// Has the kernel give a connection up whose other side has not acknowledged what was sent, or answered a probe, for
/// `patience`: a network that silently drops packets would else hold it for a quarter of an hour, or leave minutes
/// between the last attempts after it has healed.
///
/// A process that is merely stopped acknowledges still, until it has not read for so long that its window is closed; from
/// then on that counts as silence too. This is meant to be so: a link drops nothing that Raft does not send again, and
/// what has piled up behind a closed window is out of date by then.
pub(super) fn watch(socket: &impl AsFd, patience: Duration) -> io::Result<()> {
    use rustix::net::sockopt;
    // The kernel counts these in whole seconds.
    sockopt::set_tcp_keepidle(socket, (patience / 2).max(PROBE_INTERVAL))?;
    sockopt::set_tcp_keepintvl(socket, PROBE_INTERVAL)?;
    let probes = u32::try_from((patience / 2).as_secs().clamp(1, 100)).unwrap_or(1);
    sockopt::set_tcp_keepcnt(socket, probes)?;
    sockopt::set_socket_keepalive(socket, true)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(socket, u32::try_from(patience.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// Connects to `address` and says hello to the peer expected there.
pub(super) async fn open(address: &str, identity: &PeerIdentity, peer: RaftId) -> io::Result<TcpStream> {
    open_link(address, identity, peer).await.map(|(socket, _)| socket)
}

/// As [`open`]; also what the peer says it holds.
pub(super) async fn open_link(
    address: &str,
    identity: &PeerIdentity,
    peer: RaftId,
) -> io::Result<(TcpStream, PeerAccepted)> {
    let handshake = async {
        let mut socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        watch(&socket, identity.patience)?;
        match ask(&mut socket, &PeerMessage::Hello(identity.hello(peer)), &mut BytesMut::new()).await? {
            PeerMessage::Accepted(accepted) => Ok((socket, accepted)),
            other => Err(unexpected(other)),
        }
    };
    within(HANDSHAKE, handshake).await
}

/// Connects to `address` and asks who is there.
pub(crate) async fn announce(address: &str, identity: &PeerIdentity) -> io::Result<PeerMessage> {
    let exchange = async {
        let mut socket = TcpStream::connect(address).await?;
        ask(&mut socket, &PeerMessage::Announce(identity.announcement()), &mut BytesMut::new()).await
    };
    within(HANDSHAKE, exchange).await
}

/// Sends a message and reads the next one. `buffer` keeps what was received beyond it.
pub(super) async fn ask(
    socket: &mut TcpStream,
    message: &PeerMessage,
    buffer: &mut BytesMut,
) -> io::Result<PeerMessage> {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    socket.write_all(&out).await?;
    receive(socket, buffer).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The next message; `None` at the end.
pub(super) async fn receive(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Option<PeerMessage>> {
    loop {
        if let Some(frame) = split(buffer, PEER_FRAME_BYTES_MAX).map_err(io::Error::other)? {
            return PeerMessage::decode(&frame).map(Some).map_err(io::Error::other);
        }
        if buffer.capacity() == buffer.len() {
            buffer.reserve(64 << 10);
        }
        if socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

pub(super) fn unexpected(message: PeerMessage) -> io::Error {
    match message {
        PeerMessage::Refused(refusal) => io::Error::other(refusal),
        other => io::Error::other(format!("an unexpected answer: {other:?}")),
    }
}

pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_some_elections_and_some_seconds() {
        let ms = Duration::from_millis;
        assert_eq!(patience(ms(50), 10), ms(5000));
        assert_eq!(patience(ms(100), 10), ms(5000));
        assert_eq!(patience(ms(1000), 10), ms(50_000));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_reads_nothing_for_too_long_counts_as_gone() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_silent, _) = listener.accept().await.unwrap();
        watch(&socket, Duration::from_millis(300)).unwrap();
        let chunk = vec![0; 1 << 20];
        let pushing = async {
            loop {
                if let Err(error) = socket.write_all(&chunk).await {
                    return error;
                }
            }
        };
        let error = tokio::time::timeout(Duration::from_secs(30), pushing).await.unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
