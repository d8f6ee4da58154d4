//! Managing: what must be looked up before consensus can decide about an order.
//!
//! Owns:   finding the segment that a trim names, and asking a node that is to be taken in who it is.
//! Never:  decides whether an order is a good one: `core` does.

use std::sync::PoisonError;

use loglog_core::consensus::Order;
use loglog_core::membership::MemberChange;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::manage::{Change, Manage, NewMember};
use loglog_proto::peer::PeerMessage;
use loglog_proto::{NodeId, Offset, RaftId};
use loglog_storage::Member;

use crate::peer::{SharedIdentity, socket};
use crate::view::LogView;

/// The order that a request comes to.
///
/// # Errors
/// Why it comes to none.
pub(crate) async fn order(
    manage: Manage,
    view: &LogView,
    identity: &SharedIdentity,
) -> Result<Order, Refusal> {
    Ok(match manage.what {
        Change::List => Order::List,
        Change::Trim(before) => trim(before, view)?,
        Change::Promote(node) => Order::Members(MemberChange::Promote(node)),
        Change::Remove(node) => Order::Members(MemberChange::Remove(node)),
        Change::Lead(node) => Order::Lead(node),
        Change::Add(new) => {
            let (Some(peer), Some(client)) = (new.peer, new.client) else {
                let message = "a node that is taken in needs a peer address and a client address";
                return Err(Refusal::new(Code::BadRequest, message));
            };
            Order::Members(MemberChange::Add(find(new.node, peer, client, identity).await?))
        }
        Change::Replace(new) => {
            let (peer, client) = addresses(&new, identity)?;
            Order::Members(MemberChange::Replace(find(new.node, peer, client, identity).await?))
        }
    })
}

/// The order to trim what lies before an offset.
fn trim(before: Offset, view: &LogView) -> Result<Order, Refusal> {
    let unavailable = || Refusal::new(Code::Unavailable, "the log is being recovered: try again shortly");
    let reader = view.reader().ok_or_else(unavailable)?;
    Order::trim(&reader, before, view.committed())
}

/// Where the successor of a member is, if nothing else is said: where the member was.
fn addresses(new: &NewMember, identity: &SharedIdentity) -> Result<(String, String), Refusal> {
    let membership = identity.membership.read().unwrap_or_else(PoisonError::into_inner);
    let mut members = membership.iter().flat_map(|it| it.voters.iter().chain(&it.learners));
    let old = members.find(|it| it.id.node() == new.node);
    let old = old.ok_or_else(|| {
        Refusal::new(Code::BadRequest, format!("node {} is no member: use `members add`", new.node))
    })?;
    let or = |given: &Option<String>, before: &String| given.clone().unwrap_or_else(|| before.clone());
    Ok((or(&new.peer, &old.peer_address), or(&new.client, &old.client_address)))
}

/// The node at a peer address, with the incarnation that it tells.
async fn find(
    node: NodeId,
    peer_address: String,
    client_address: String,
    identity: &SharedIdentity,
) -> Result<Member, Refusal> {
    let bad = |message: String| Err(Refusal::new(Code::BadRequest, message));
    if identity.address.is_empty() {
        let message = "this node has no port for other nodes: start it again with listen.peer";
        return Err(Refusal::new(Code::Forbidden, message));
    }
    match socket::announce(&peer_address, identity).await {
        Ok(PeerMessage::Announced(theirs)) => {
            let id = RaftId::new(theirs.node, theirs.incarnation);
            if theirs.cluster != identity.cluster {
                let message = format!("the node at {peer_address} is of cluster {}", theirs.cluster);
                return Err(Refusal::new(Code::WrongCluster, message));
            }
            if theirs.node != node {
                let message = format!("the node at {peer_address} is node {}, not {node}", theirs.node);
                return Err(Refusal::new(Code::WrongNode, message));
            }
            if theirs.is_formed && identity.member(id).is_none() {
                return bad(format!(
                    "node {node} at {peer_address} has a log already: it must begin in an empty directory"
                ));
            }
            Ok(Member { id, peer_address, client_address })
        }
        Ok(PeerMessage::Refused(refusal)) => {
            let message = format!("node {node} at {peer_address} refuses: {}", refusal.message);
            Err(Refusal::new(refusal.code, message))
        }
        Ok(_) => bad(format!("what answers at {peer_address} is no node")),
        Err(error) => {
            let message = format!(
                "node {node} does not answer at {peer_address} ({error}): start it with cluster.join first"
            );
            Err(Refusal::new(Code::Unavailable, message))
        }
    }
}
