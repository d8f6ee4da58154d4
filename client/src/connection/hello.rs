//! Hello: opens a socket to a node and exchanges the first frames.
//!
//! Owns:   nothing; what it opens is handed to the task that will own it.
//! Keeps:  only a node of the version and the cluster that are meant gets through.
//! Never:  takes longer than it was told to.

use std::time::Duration;

use bytes::BytesMut;
use loglog_proto::error::Code;
use loglog_proto::frame;
use loglog_proto::limits::FRAME_BYTES_MAX;
use loglog_proto::request::{PROTOCOL_VERSION, Request, RequestBody};
use loglog_proto::response::{Response, ResponseBody, Welcome};
use loglog_proto::{ClusterId, RequestId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::task::RECEIVE_BYTES;
use crate::endpoints::Endpoint;
use crate::error::Error;

/// The hello's id; later requests count on from it.
pub(crate) const HELLO_ID: u64 = 1;

/// A socket on which the node has said who it is.
pub(crate) struct Greeted {
    pub(crate) reader: Box<dyn AsyncRead + Unpin + Send>,
    pub(crate) writer: Box<dyn AsyncWrite + Unpin + Send>,
    /// Bytes that came behind the welcome.
    pub(crate) received: BytesMut,
    pub(crate) welcome: Welcome,
}

/// Connects to a node and greets it, all within `timeout`.
pub(crate) async fn greet(
    endpoint: &Endpoint,
    cluster: Option<ClusterId>,
    timeout: Duration,
) -> Result<Greeted, Error> {
    let exchange = tokio::time::timeout(timeout, exchange(endpoint, cluster));
    exchange.await.unwrap_or_else(|_| Err(too_late(endpoint, timeout)))
}

pub(super) fn too_late(endpoint: &Endpoint, after: Duration) -> Error {
    Error::TimedOut { after, last: Some(format!("connecting to {endpoint}")) }
}

async fn exchange(endpoint: &Endpoint, cluster: Option<ClusterId>) -> Result<Greeted, Error> {
    let address = || endpoint.to_string();
    let lost = |error: std::io::Error| Error::Lost { address: address(), why: error.to_string() };
    let protocol = |what: String| Error::Protocol { address: address(), what };
    let (mut reader, mut writer): (Box<dyn AsyncRead + Unpin + Send>, Box<dyn AsyncWrite + Unpin + Send>) =
        match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(lost)?;
                stream.set_nodelay(true).map_err(lost)?;
                let (reader, writer) = stream.into_split();
                (Box::new(reader), Box::new(writer))
            }
            Endpoint::Unix(path) => {
                let (reader, writer) = UnixStream::connect(path).await.map_err(lost)?.into_split();
                (Box::new(reader), Box::new(writer))
            }
            // Uploads go to a node through its address, as to any other.
            Endpoint::Local(_) => return Err(protocol("a socket to what has none".to_owned())),
        };
    let hello = RequestBody::Hello { version: PROTOCOL_VERSION, cluster, credentials: None };
    let mut out = BytesMut::new();
    Request { id: RequestId::new(HELLO_ID), body: hello }.encode(&mut out);
    writer.write_all(&out).await.map_err(lost)?;

    let mut received = BytesMut::with_capacity(RECEIVE_BYTES);
    let reply = loop {
        let frame =
            frame::split(&mut received, FRAME_BYTES_MAX).map_err(|error| protocol(error.to_string()))?;
        if let Some(frame) = frame {
            break Response::decode(&frame).map_err(|error| protocol(error.to_string()))?;
        }
        if reader.read_buf(&mut received).await.map_err(lost)? == 0 {
            return Err(Error::Lost { address: address(), why: "closed during the hello".to_owned() });
        }
    };
    let welcome = welcome(reply, endpoint, cluster)?;
    Ok(Greeted { reader, writer, received, welcome })
}

/// What a node said to the hello, if it is one of the version and the cluster that are meant.
pub(super) fn welcome(
    reply: Response,
    endpoint: &Endpoint,
    cluster: Option<ClusterId>,
) -> Result<Welcome, Error> {
    let address = || endpoint.to_string();
    let welcome = match reply.body {
        ResponseBody::Welcome(welcome) => *welcome,
        ResponseBody::Refused(refusal) if refusal.code == Code::Version => {
            return Err(Error::Version { address: address(), why: refusal.message });
        }
        ResponseBody::Refused(refusal) => return Err(Error::Refused(refusal)),
        _ => {
            let what = "the answer to the hello is no welcome".to_owned();
            return Err(Error::Protocol { address: address(), what });
        }
    };
    if welcome.version != PROTOCOL_VERSION {
        let why = format!("it speaks {}, this client {PROTOCOL_VERSION}", welcome.version);
        return Err(Error::Version { address: address(), why });
    }
    if let Some(expected) = cluster.filter(|expected| *expected != welcome.cluster) {
        return Err(Error::WrongCluster { address: address(), expected, found: welcome.cluster });
    }
    Ok(welcome)
}
