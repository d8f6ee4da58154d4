//! How fast the client alone is: appends through one pipeline on one connection to a stand-in that answers at once and keeps nothing.
//!
//! With more than one node the others take uploads; the share of them that arrived is printed.
//!
//! `cargo run --release -p loglog-client --example append_speed [PAYLOAD_BYTES] [IN_FLIGHT] [SECONDS] [NODES]`

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use loglog_client::{Appended, Client, ClusterId, Length, Offset, PipelineOptions, Term, Welcome};
use loglog_proto::request::{Request, RequestBody};
use loglog_proto::response::{MemberAddress, Response, ResponseBody, WireLimits};
use loglog_proto::{NodeId, entry, frame, limits};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut number = |default| numbers.next().unwrap_or(Ok(default));
    let (payload, entries_max, seconds, nodes) = (number(100)?, number(1024)?, number(3)? as u64, number(1)?);
    let listeners = (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let mut members = Vec::new();
    for (listener, id) in listeners.iter().zip(1..) {
        let node = NodeId::new(id).ok_or("no node zero")?;
        members.push(MemberAddress { node, address: listener.local_addr()?.to_string() });
    }
    let (address, uploads) = (members[0].address.clone(), Arc::new(AtomicU64::new(0)));
    for (listener, node) in listeners.into_iter().zip(members.iter().map(|member| member.node)) {
        let (members, uploads) = (members.clone(), uploads.clone());
        std::thread::spawn(move || {
            listener.incoming().flatten().try_for_each(|stream| serve(stream, node, &members, &uploads))
        });
    }

    let client = Client::connect(address).await?;
    let payload = Bytes::from(vec![7; payload]);
    let began = Instant::now();
    let appending = tokio::spawn(async move {
        let pipeline = client.pipeline(PipelineOptions { entries_max, ..PipelineOptions::default() });
        let mut appended = 0_u64;
        let mut tickets = std::collections::VecDeque::with_capacity(2 * entries_max);
        while began.elapsed() < Duration::from_secs(seconds) {
            tickets.push_back(pipeline.append(payload.clone()).await?);
            // As many in hand as in flight: what a caller that waits for each outcome does.
            if tickets.len() > entries_max
                && let Some(ticket) = tickets.pop_front()
            {
                ticket.await?;
                appended += 1;
            }
        }
        pipeline.flush().await?;
        Ok::<_, loglog_client::AppendError>(appended + tickets.len() as u64)
    });
    let appended = appending.await??;
    let took = began.elapsed();
    println!("{appended} appends in {took:.2?}: {:.0} per second", appended as f64 / took.as_secs_f64());
    if nodes > 1 {
        std::thread::sleep(Duration::from_millis(100));
        let share = uploads.load(Ordering::Relaxed) as f64 / (appended * (nodes as u64 - 1)) as f64;
        println!("{:.1} % of the payloads were uploaded to the other nodes", 100.0 * share);
    }
    Ok(())
}

fn serve(
    stream: TcpStream,
    node: NodeId,
    members: &[MemberAddress],
    uploads: &AtomicU64,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = (stream.try_clone()?, stream);
    let (mut received, mut out) = (BytesMut::new(), BytesMut::new());
    let (mut chunk, mut end) = (vec![0; 256 << 10], Offset::ZERO);
    loop {
        let count = reader.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        received.extend_from_slice(&chunk[..count]);
        while let Some(frame) =
            frame::split(&mut received, limits::FRAME_BYTES_MAX).map_err(std::io::Error::other)?
        {
            let request = Request::decode(&frame).map_err(std::io::Error::other)?;
            let body = match request.body {
                RequestBody::Append(append) => {
                    let length = append.payload.map_or(0, |payload| payload.len()) + entry::OVERHEAD;
                    let offset = end;
                    end += Length::of(length);
                    ResponseBody::Appended(Appended { offset, end, term: Term::new(1) })
                }
                RequestBody::Hello { .. } => ResponseBody::Welcome(Box::new(welcome(node, members))),
                RequestBody::Upload(upload) => {
                    uploads.fetch_add(upload.parts.len() as u64, Ordering::Relaxed);
                    ResponseBody::Uploaded
                }
                _ => ResponseBody::End { start: Offset::ZERO, end },
            };
            Response { id: request.id, body }.encode(&mut out);
        }
        writer.write_all(&out)?;
        out.clear();
    }
}

fn welcome(node: NodeId, members: &[MemberAddress]) -> Welcome {
    let limits = WireLimits {
        payload_bytes_max: limits::PAYLOAD_BYTES_MAX as u64,
        frame_bytes_max: limits::FRAME_BYTES_MAX as u64,
        read_bytes_max: limits::READ_BYTES_MAX as u64,
        read_wait_ms_max: limits::READ_WAIT_MS_MAX,
        writer_appends_max: limits::WRITER_SEQUENCES_MAX as u64,
        connection_bytes_max: 64 << 20,
    };
    Welcome {
        version: 1,
        cluster: ClusterId::new(1).expect("not zero"),
        node,
        leader: NodeId::new(1),
        members: members.to_vec(),
        limits,
        start: Offset::ZERO,
        end: Offset::ZERO,
    }
}
