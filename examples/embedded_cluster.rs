//! Three nodes in one program, which keep one log: any one of them may stop.
//!
//! ```sh
//! cargo run --example embedded_cluster
//! ```
//!
//! One program with three nodes is for trying it out, and for tests. With one node in each of three programs, on three machines, it is the same
//! code: each starts the member that it is. A daemon (`loglogd`) can be one of them, or take over a directory.

use std::net::TcpListener;
use std::path::Path;
use std::time::Instant;

use futures_util::StreamExt;
use loglog::{Client, ClusterId, Node};
use rand::Rng;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where a member listens: for the other nodes, and for clients.
struct Addresses {
    peer: String,
    client: String,
}

/// Starts one of the members; done when it serves.
async fn start(id: u32, all: &[Addresses; 3], cluster: ClusterId, folder: &Path) -> Result<Node, Failure> {
    let mut builder = Node::builder().id(id).cluster(cluster).data_dir(folder.join(format!("node-{id}")));
    for (id, Addresses { peer, client }) in (1..).zip(all) {
        builder = builder.member(id, peer, client);
    }
    Ok(builder.start().await?)
}

/// An address that nobody has now. The ports are below those that the system gives to outgoing connections.
fn free_address() -> String {
    loop {
        let address = format!("127.0.0.1:{}", rand::rng().random_range(10_000..32_000));
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// Every entry that the log has now.
async fn all(log: &Client) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    let mut entries = log.entries(..);
    while let Some(entry) = entries.next().await {
        found.push(String::from_utf8_lossy(&entry?.payload).into_owned());
    }
    Ok(found)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    // Chosen once and written down, in a real program: a member is always found there.
    let addresses = [(); 3].map(|()| Addresses { peer: free_address(), client: free_address() });
    let cluster: ClusterId = "10ca1c1057e4".parse()?;

    println!("-- three nodes start together: a new cluster forms when all are there");
    let (one, two, three) = tokio::try_join!(
        start(1, &addresses, cluster, folder),
        start(2, &addresses, cluster, folder),
        start(3, &addresses, cluster, folder),
    )?;

    println!("-- each of them has the log");
    let logs = [one.log(), two.log(), three.log()];
    for (id, log) in (1..).zip(&logs) {
        let place = log.append(format!("through node {id}")).await?;
        println!("appended through node {id}, at {}: on the disks of two nodes at least", place.offset);
    }
    println!("node 3 reads {:?}", all(&logs[2]).await?);

    let leader = logs[0].status().await?.leader.unwrap_or(1);
    println!("-- the leader stops: node {leader}");
    let mut nodes = [Some(one), Some(two), Some(three)];
    let at = usize::try_from(leader)? - 1;
    if let Some(node) = nodes[at].take() {
        node.shutdown().await?;
    }
    let (next, began) = (&logs[(at + 1) % 3], Instant::now());
    let place = next.append("while one is away").await?;
    println!("the other two go on: appended at {} after {} ms", place.offset, began.elapsed().as_millis());

    println!("-- it starts again, and gets what it missed");
    let node = start(leader, &addresses, cluster, folder).await?;
    let found = all(&node.log()).await?;
    println!("node {leader} reads {found:?}");
    assert_eq!(found.len(), 4);

    node.shutdown().await?;
    for node in nodes.into_iter().flatten() {
        node.shutdown().await?;
    }
    println!("done");
    Ok(())
}
