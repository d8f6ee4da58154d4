//! Formation: how a static cluster comes to be, once, with all its nodes present (S24).
//!
//! ```text
//!   incarnation drawn and synced ─► announced to every other node ─► all known ─► meta formed, the same on each
//! ```
//!
//! Every node knows every incarnation before any of them votes, so a directory that is wiped later can never pass for the one
//! that was there.
//!
//! Owns:   the `forming` file, which holds this node's incarnation until `meta` does.
//! Never:  forms a cluster that lacks a node.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use loglog_proto::peer::{Announcement, PeerMessage};
use loglog_proto::{ClusterId, Incarnation, Index, NodeId, RaftId};
use loglog_storage::{Member, Membership};
use slog::{Logger, info, warn};

use super::{PeerIdentity, socket};

/// This node's incarnation, between being drawn and being part of `meta`.
const FILE: &str = "forming";
/// Wait between two rounds over the nodes that are not there yet.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is told who is waited for.
const TELL: Duration = Duration::from_secs(5);

/// A node of the cluster to be, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// Which.
    pub id: NodeId,
    /// Where peers reach it.
    pub peer: String,
    /// Where clients reach it.
    pub client: String,
}

/// Why a cluster cannot form.
#[derive(Debug, thiserror::Error)]
pub enum FormationError {
    /// The configuration contradicts itself.
    #[error("cluster.nodes: {0}")]
    Nodes(String),
    /// The incarnation cannot be kept.
    #[error("cannot keep this node's incarnation in {file}: {source}")]
    File {
        /// The file.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// A node that is there does not belong to this cluster, or we do not.
    #[error("node {node} at {address} says: {why}")]
    Refused {
        /// Which.
        node: NodeId,
        /// Where.
        address: String,
        /// What it says.
        why: String,
    },
}

/// Checks that the nodes are a cluster with this node in it; returns its id.
///
/// # Errors
/// [`FormationError::Nodes`] says what is wrong.
pub fn check(
    nodes: &[ClusterNode],
    own: NodeId,
    cluster: Option<ClusterId>,
) -> Result<ClusterId, FormationError> {
    let mut ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
    ids.sort_unstable();
    if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(FormationError::Nodes(format!("node {} is named twice", twice[0])));
    }
    if !ids.contains(&own) {
        return Err(FormationError::Nodes(format!("this node, {own} (node.id), is not among them")));
    }
    cluster.ok_or_else(|| {
        FormationError::Nodes(
            "several nodes need a cluster.id, the same on each: draw 16 hex digits".to_owned(),
        )
    })
}

/// This node's incarnation: the one kept, or a new one, synced before anybody hears of it (S22).
///
/// # Errors
/// [`FormationError::File`].
pub fn incarnation(dir: &Path, draw: impl FnOnce() -> Incarnation) -> Result<Incarnation, FormationError> {
    let file = dir.join(FILE);
    let failed = |source| FormationError::File { file: file.display().to_string(), source };
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            let kept = u32::from_str_radix(text.trim(), 16).ok().and_then(Incarnation::new);
            kept.ok_or_else(|| {
                failed(io::Error::other("it holds no incarnation: remove it, nobody knows it yet"))
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let incarnation = draw();
            write(dir, &file, incarnation).map_err(failed)?;
            Ok(incarnation)
        }
        Err(error) => Err(failed(error)),
    }
}

/// `meta` holds the incarnation now.
pub fn forget(dir: &Path) {
    // Left behind it is harmless: it is only read where there is no meta.
    let _ = std::fs::remove_file(dir.join(FILE));
}

fn write(dir: &Path, file: &Path, incarnation: Incarnation) -> io::Result<()> {
    let unfinished = file.with_extension("tmp");
    let mut to = std::fs::File::create(&unfinished)?;
    writeln!(to, "{incarnation}")?;
    to.sync_all()?;
    std::fs::rename(&unfinished, file)?;
    std::fs::File::open(dir)?.sync_all()
}

/// Waits until every other node has told its incarnation; the membership that follows is the same on each.
///
/// # Errors
/// [`FormationError::Refused`] if a node that is there does not belong here.
pub async fn gather(
    nodes: &[ClusterNode],
    identity: &PeerIdentity,
    log: &Logger,
) -> Result<Membership, FormationError> {
    let mut known = BTreeMap::from([(identity.node, identity.raft_id())]);
    let mut told = Instant::now();
    info!(log, "forming a cluster: waiting for every node"; "nodes" => nodes.len());
    while known.len() < nodes.len() {
        for node in nodes.iter().filter(|node| node.id != identity.node) {
            if known.contains_key(&node.id) {
                continue;
            }
            if let Some(theirs) = ask(node, identity).await? {
                info!(log, "found a node"; "node" => node.id.get(), "address" => &node.peer);
                known.insert(node.id, RaftId::new(theirs.node, theirs.incarnation));
            }
        }
        if told.elapsed() > TELL {
            told = Instant::now();
            let missing: Vec<&str> = nodes
                .iter()
                .filter(|node| !known.contains_key(&node.id))
                .map(|node| node.peer.as_str())
                .collect();
            warn!(log, "still waiting for nodes: a cluster forms only with all of them"; "missing" => missing.join(", "));
        }
        actix_rt::time::sleep(PAUSE).await;
    }
    let mut voters: Vec<Member> = nodes
        .iter()
        .filter_map(|node| {
            let id = *known.get(&node.id)?;
            Some(Member { id, peer_address: node.peer.clone(), client_address: node.client.clone() })
        })
        .collect();
    voters.sort_by_key(|member| member.id.node());
    Ok(Membership { index: Index::new(1), voters, learners: Vec::new() })
}

/// Who is at a node's address; `None` if nobody answers yet.
async fn ask(node: &ClusterNode, identity: &PeerIdentity) -> Result<Option<Announcement>, FormationError> {
    let refused = |why: String| FormationError::Refused { node: node.id, address: node.peer.clone(), why };
    match socket::announce(&node.peer, identity).await {
        Ok(PeerMessage::Announced(theirs)) if theirs.node != node.id => {
            Err(refused(format!("it is node {}", theirs.node)))
        }
        Ok(PeerMessage::Announced(theirs)) => match identity.check_announcement(&theirs) {
            Ok(()) => Ok(Some(theirs)),
            Err(refusal) => Err(refused(refusal.message)),
        },
        Ok(PeerMessage::Refused(refusal)) => Err(refused(refusal.message)),
        Ok(other) => Err(refused(format!("an unexpected answer: {other:?}"))),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32) -> ClusterNode {
        ClusterNode { id: NodeId::new(id).unwrap(), peer: String::new(), client: String::new() }
    }

    #[test]
    fn s24_a_configuration_that_is_no_cluster_is_refused() {
        let (own, cluster) = (NodeId::new(1).unwrap(), ClusterId::new(5));
        assert!(check(&[node(1), node(2), node(3)], own, cluster).is_ok());
        for (nodes, cluster, names) in [
            (vec![node(1), node(2), node(2)], cluster, "node 2 is named twice"),
            (vec![node(2), node(3)], cluster, "not among them"),
            (vec![node(1), node(2)], None, "cluster.id"),
        ] {
            let error = check(&nodes, own, cluster).unwrap_err().to_string();
            assert!(error.contains(names), "{error}");
        }
    }

    #[test]
    fn s22_an_incarnation_is_kept_before_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let first = incarnation(dir.path(), || Incarnation::new(7).unwrap()).unwrap();
        let again = incarnation(dir.path(), || panic!("it was kept")).unwrap();
        assert_eq!(first, again);
        forget(dir.path());
        assert_eq!(
            incarnation(dir.path(), || Incarnation::new(8).unwrap()).unwrap(),
            Incarnation::new(8).unwrap()
        );
    }
}
