//! Peer socket: whole peer messages over a TCP connection that this node opened.
//!
//! Owns:   connecting, the handshake, reading and writing of frames.

use std::io;
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
