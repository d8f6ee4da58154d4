//! Raw client: a socket and the protocol's own messages, for what no decent client would send.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use loglog_proto::frame::{LENGTH, split};
use loglog_proto::request::{Append, PROTOCOL_VERSION, Request, RequestBody};
use loglog_proto::response::{Response, ResponseBody};
use loglog_proto::{Offset, RequestId, Sequence, WriterId, error::Code};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The next append of the one writer of a test, numbered from 1; without a payload it was uploaded before.
#[must_use]
pub fn append(sequence: u64, payload: Option<Bytes>) -> Append {
    Append {
        writer: WriterId::new(7),
        previous: (sequence > 1).then(|| Sequence::new(sequence - 1)),
        sequence: Sequence::new(sequence),
        known_end: Some(Offset::ZERO),
        expect_end: None,
        crc: None,
        payload,
    }
}

/// A blocking connection.
#[derive(Debug)]
pub struct RawClient {
    socket: TcpStream,
    received: BytesMut,
    next: u64,
}

impl RawClient {
    /// Connects and says nothing.
    ///
    /// # Panics
    /// If nobody listens.
    #[must_use]
    pub fn silent(address: &str) -> Self {
        let socket = TcpStream::connect(address).expect("somebody listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        socket.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Self { socket, received: BytesMut::new(), next: 1 }
    }

    /// Connects and says hello.
    ///
    /// # Panics
    /// If the node does not welcome it.
    #[must_use]
    pub fn connect(address: &str) -> Self {
        let mut client = Self::silent(address);
        let hello = RequestBody::Hello { version: PROTOCOL_VERSION, cluster: None, credentials: None };
        let answer = client.ask(hello);
        assert!(matches!(answer, ResponseBody::Welcome(_)), "{answer:?}");
        client
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// As the socket.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Sends bytes as the content of a frame.
    ///
    /// # Panics
    /// If the connection is gone.
    pub fn send_frame(&mut self, content: &[u8]) {
        let length = u32::try_from(content.len()).expect("a frame's length");
        self.send_bytes(&[&length.to_be_bytes(), content].concat()).expect("the node listens");
    }

    /// Sends a request; returns its id.
    ///
    /// # Errors
    /// As the socket.
    pub fn send(&mut self, body: RequestBody) -> io::Result<RequestId> {
        let id = RequestId::new(self.next);
        self.next += 1;
        let mut out = BytesMut::new();
        Request { id, body }.encode(&mut out);
        self.send_bytes(&out)?;
        Ok(id)
    }

    /// Sends requests in one go; returns their ids.
    ///
    /// # Errors
    /// As the socket.
    pub fn send_together(
        &mut self,
        bodies: impl IntoIterator<Item = RequestBody>,
    ) -> io::Result<Vec<RequestId>> {
        let (mut ids, mut out) = (Vec::new(), BytesMut::new());
        for body in bodies {
            let id = RequestId::new(self.next);
            self.next += 1;
            Request { id, body }.encode(&mut out);
            ids.push(id);
        }
        self.send_bytes(&out)?;
        Ok(ids)
    }

    /// Connects and says hello; gives up on whatever takes longer than `patience`.
    ///
    /// # Errors
    /// As the socket, also if the node does not welcome us.
    pub fn open(address: &str, patience: Duration) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address.parse().map_err(io::Error::other)?, patience)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        let mut client = Self { socket, received: BytesMut::new(), next: 1 };
        match client.try_ask(RequestBody::Hello {
            version: PROTOCOL_VERSION,
            cluster: None,
            credentials: None,
        })? {
            ResponseBody::Welcome(_) => Ok(client),
            other => Err(io::Error::other(format!("not welcome: {other:?}"))),
        }
    }

    /// The content of the next frame; `None` when the node has closed the connection.
    ///
    /// # Errors
    /// As the socket, also if nothing comes in time.
    pub fn receive_frame(&mut self) -> io::Result<Option<Bytes>> {
        let mut chunk = [0; 64 << 10];
        loop {
            if let Some(frame) = split(&mut self.received, usize::MAX - LENGTH).map_err(io::Error::other)? {
                return Ok(Some(frame));
            }
            match self.socket.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(read) => self.received.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                // A read with a time limit ends with any signal that the process gets.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next response.
    ///
    /// # Errors
    /// As the socket, also at its end, and if nothing comes in time.
    pub fn try_receive(&mut self) -> io::Result<Response> {
        let frame = self.receive_frame()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Response::decode(&frame).map_err(io::Error::other)
    }

    /// Sends a request and returns what is answered to it.
    ///
    /// # Errors
    /// As the socket, also if another request is answered, and if nothing comes in time.
    pub fn try_ask(&mut self, body: RequestBody) -> io::Result<ResponseBody> {
        let id = self.send(body)?;
        let response = self.try_receive()?;
        if response.id == id {
            Ok(response.body)
        } else {
            Err(io::Error::other(format!("not an answer to {id:?}: {response:?}")))
        }
    }

    /// The next response; `None` when the node has closed the connection.
    ///
    /// # Panics
    /// If nothing comes, or no response.
    pub fn receive(&mut self) -> Option<Response> {
        let frame = self.receive_frame().unwrap_or_else(|error| panic!("no answer: {error}"))?;
        Some(Response::decode(&frame).expect("a response"))
    }

    /// Sends a request and returns what is answered to it.
    ///
    /// # Panics
    /// If the connection ends first, or another request is answered.
    pub fn ask(&mut self, body: RequestBody) -> ResponseBody {
        let id = self.send(body).expect("the node listens");
        let response = self.receive().expect("an answer");
        assert_eq!(response.id, id, "{response:?}");
        response.body
    }

    /// Sends a request that must be refused; returns the code.
    ///
    /// # Panics
    /// If it is not.
    pub fn refused(&mut self, body: RequestBody) -> Code {
        match self.ask(body) {
            ResponseBody::Refused(refusal) => refusal.code,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Sends no more.
    ///
    /// # Panics
    /// If the connection is gone.
    pub fn finish(&self) {
        self.socket.shutdown(Shutdown::Write).expect("it is open");
    }

    /// The socket's receive buffer takes nothing from now on but what fits into the smallest one.
    #[must_use]
    pub const fn socket(&self) -> &TcpStream {
        &self.socket
    }
}
