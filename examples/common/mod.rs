//! Common: where the examples' logs come from.
//!
//! With endpoints, as the first argument or in `LOGLOG_ENDPOINTS`, the log of nodes that run already; without, three nodes in this program, which
//! keep their logs in a folder that goes when the example ends. `embedded_cluster` shows such nodes by themselves.

use std::net::TcpListener;

use loglog::{Client, ClusterId, Node};
use rand::Rng;

/// An example's errors, whatever they are.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One log, and three ways to it: each as another program would have.
pub(crate) struct Logs {
    pub(crate) clients: [Client; 3],
    nodes: Vec<Node>,
    _folder: tempfile::TempDir,
}

impl Logs {
    pub(crate) async fn open() -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let endpoints = std::env::args().nth(1).or_else(|| std::env::var("LOGLOG_ENDPOINTS").ok());
        if let Some(endpoints) = endpoints {
            println!("using the nodes at {endpoints}");
            let connect = || Client::connect(&endpoints);
            let clients = [connect().await?, connect().await?, connect().await?];
            return Ok(Self { clients, nodes: Vec::new(), _folder: folder });
        }
        println!("starting three nodes in this program");
        let addresses = [(); 3].map(|()| (free_address(), free_address()));
        let cluster = ClusterId::new(rand::random::<u64>() | 1).ok_or("a cluster's id is not 0")?;
        let start = |id: u32| {
            let mut builder =
                Node::builder().id(id).cluster(cluster).data_dir(folder.path().join(id.to_string()));
            for (id, (peer, client)) in (1..).zip(&addresses) {
                builder = builder.member(id, peer, client);
            }
            builder.start()
        };
        // Together: a cluster forms when all its members are there.
        let (one, two, three) = tokio::try_join!(start(1), start(2), start(3))?;
        let clients = [one.log(), two.log(), three.log()];
        Ok(Self { clients, nodes: vec![one, two, three], _folder: folder })
    }

    pub(crate) async fn close(self) -> Result<(), Failure> {
        for node in self.nodes {
            node.shutdown().await?;
        }
        Ok(())
    }
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
