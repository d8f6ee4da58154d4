//! Damage: which node gave bytes that do not hold, what is told of it, and the offer that it repair itself.
//!
//! ```text
//!     read ─► who gave it ─► an entry does not hold ─► one node gave all of it ─► that one: Damage, Check ─► read elsewhere
//!                                                  └─► several did ─► each: Check, Damage if it says so itself ─► read elsewhere, whole
//! ```
//!
//! Owns:   for each reading, who gave the bytes of the entry that is not whole yet, and what was offered because of it.
//! Keeps:  a node is named only for bytes that it gave, all of the entry, by the connection over which they came; or when it says itself that
//!         its copy is damaged. One offer to a node at a time.
//! Never:  holds up a reading that goes on: offers are made beside it. Only its end, or its error, waits for what they come to.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use loglog_proto::check::Verdict;
use loglog_proto::entry::EntryError;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::request::RequestBody;
use loglog_proto::response::{Data, ResponseBody};
use loglog_proto::{NodeId, Offset};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::connection::Connection;
use crate::error::Error;
use crate::hub::Hub;
use crate::read::{Entry, Splitter};

/// So many reads in a row may bring damaged bytes, each from another node than the one before.
const DAMAGED_READS: u32 = 5;

/// A node gave bytes that are not what was written. Whoever reads gets the right ones from another node, if there is one that has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The node.
    pub node: NodeId,
    /// Where it was reached.
    pub address: String,
    /// The entry that does not hold, or where one should begin.
    pub offset: Offset,
    /// What does not hold.
    pub what: EntryError,
    /// What became of the offer to repair it.
    pub offer: Offer,
}

/// What a node answered when it was told that its bytes do not hold. It believes nobody and looks for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Offer {
    /// Its copy is sound now: it was repaired meanwhile, or the bytes were damaged on the way from disk to here.
    Sound,
    /// Its copy is damaged, and it repairs it from the other nodes.
    Repairing,
    /// Its copy is damaged and stays so for now: why, and what can be done.
    Damaged(String),
    /// It could not be offered: the node is busy with such, too old to know the request, or gone.
    Failed(Error),
}

impl Offer {
    /// Whether the node itself says that its copy is damaged.
    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        matches!(self, Self::Repairing | Self::Damaged(_))
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sound => f.write_str("it finds its copy sound now"),
            Self::Repairing => f.write_str("it repairs its copy from the other nodes"),
            Self::Damaged(why) => write!(f, "its copy stays damaged: {why}"),
            Self::Failed(error) => write!(f, "its repair could not be offered: {error}"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, address, offset, what, offer } = self;
        write!(f, "node {node} at {address} gave damaged bytes at offset {offset} ({what}); {offer}")
    }
}

type Tell = dyn Fn(&Damage) + Send + Sync;

/// Whom to tell of damage.
#[derive(Clone, Default)]
pub(crate) struct OnDamage(Option<Arc<Tell>>);

impl OnDamage {
    pub(crate) fn new(tell: impl Fn(&Damage) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }
}

impl fmt::Debug for OnDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "OnDamage" } else { "nobody" })
    }
}

/// What all readings of a client share.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    under_way: Mutex<HashSet<NodeId>>,
}

impl Offers {
    /// Whether the node may be asked now; then it is, until [`Offers::end`].
    fn begin(&self, node: NodeId) -> bool {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(node)
    }

    fn end(&self, node: NodeId) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }
}

/// Where the bytes of one reading came from, and what was done about those that do not hold.
#[derive(Debug)]
pub(crate) struct Sources {
    hub: Arc<Hub>,
    /// Where the reading begins.
    from: Offset,
    /// Whether an entry surely begins there: else it is its caller's word.
    is_sure: bool,
    /// Who gave the bytes of the entry that is not whole yet, each node once.
    of_head: Vec<Connection>,
    /// What did not hold where the reading began, until another node has shown that an entry begins there; and whether its node gave all of it.
    held: Vec<(Connection, EntryError, bool)>,
    /// Reads since the last entry that was handed out that brought damaged bytes.
    damaged: u32,
    offers: Vec<JoinHandle<()>>,
}

impl Sources {
    /// A reading that begins at `from`.
    pub(crate) fn new(hub: &Arc<Hub>, from: Offset) -> Self {
        let (of_head, held, offers) = (Vec::new(), Vec::new(), Vec::new());
        Self { hub: hub.clone(), from, is_sure: from == Offset::ZERO, of_head, held, damaged: 0, offers }
    }

    /// It begins where the log does.
    pub(crate) fn at_start(mut self) -> Self {
        self.is_sure = true;
        self
    }

    /// An entry was handed out.
    pub(crate) fn reset(&mut self) {
        self.damaged = 0;
    }

    /// Takes the bytes at [`Splitter::wanted`], which came over `connection`. Where an entry does not hold, `splitter` begins it again, and the
    /// next read goes to another node.
    ///
    /// # Errors
    /// What does not hold, once no other node is left to be asked.
    pub(crate) fn feed(
        &mut self,
        splitter: &mut Splitter,
        (data, connection): (Data, Connection),
        ready: &mut VecDeque<Entry>,
    ) -> Result<(), Error> {
        let (at, wanted) = (splitter.at(), splitter.wanted());
        if at == wanted {
            self.of_head.clear();
        }
        note(&mut self.of_head, &connection);
        match splitter.feed(data.bytes, ready) {
            Ok(()) => {
                if splitter.at() >= wanted {
                    self.of_head = vec![connection];
                }
                if splitter.at() > self.from {
                    for (connection, what, is_sure) in std::mem::take(&mut self.held) {
                        self.offer(&connection, place(&what), what, is_sure);
                    }
                }
                Ok(())
            }
            Err(what) => {
                if place(&what) >= wanted {
                    self.of_head = vec![connection];
                }
                self.met(splitter, ready, what)
            }
        }
    }

    /// An entry, of which all that was read lies in `splitter` or was fed to it last, does not hold.
    ///
    /// # Errors
    /// As [`Sources::feed`].
    pub(crate) fn met(
        &mut self,
        splitter: &mut Splitter,
        ready: &VecDeque<Entry>,
        what: EntryError,
    ) -> Result<(), Error> {
        let at = splitter.at();
        splitter.restart(ready);
        let culprits = std::mem::take(&mut self.of_head);
        let is_begin = place(&what) == self.from && at == self.from;
        let is_sure = culprits.len() == 1;
        for culprit in &culprits {
            if is_begin && !self.is_sure {
                self.held.push((culprit.clone(), what.clone(), is_sure));
            } else {
                self.offer(culprit, place(&what), what.clone(), is_sure);
            }
        }
        let error = match is_begin {
            true => Error::NotAnEntry { offset: self.from, source: what },
            false => Error::Damaged { source: what, node: only(&culprits) },
        };
        self.elsewhere(&culprits, error)
    }

    /// Bytes that end an entry at `at`, all from `culprits`, do not hold.
    ///
    /// # Errors
    /// As [`Sources::feed`].
    pub(crate) fn met_before(
        &mut self,
        at: Offset,
        culprits: &[Connection],
        what: EntryError,
    ) -> Result<(), Error> {
        // Where an entry ends, its caller says at first; and a length that is damaged leads anywhere: its last byte is what is certain.
        let is_sure = at != self.from && culprits.len() == 1;
        for culprit in culprits {
            self.offer(culprit, Offset::new(at.get().saturating_sub(1)), what.clone(), is_sure);
        }
        self.elsewhere(culprits, Error::Damaged { source: what, node: only(culprits) })
    }

    /// For long nothing has come of the rest of an entry: its length may be damaged, or the node lags. The node knows.
    pub(crate) fn doubt(&mut self, splitter: &Splitter) {
        let (at, wanted) = (splitter.at(), splitter.wanted());
        if wanted > at {
            let found = (wanted - at).as_usize();
            for culprit in std::mem::take(&mut self.of_head) {
                self.offer(&culprit, at, EntryError::Short { at, needed: found + 1, found }, false);
            }
        }
    }

    /// The next read goes to another node than these.
    fn elsewhere(&mut self, culprits: &[Connection], error: Error) -> Result<(), Error> {
        self.damaged += 1;
        if self.damaged > DAMAGED_READS || !self.hub.has_choice() {
            return Err(error);
        }
        match culprits {
            [one] => self.hub.pass_over_node(one),
            // Whichever of them it was: all of the entry from one node will tell.
            _ => self.hub.read_elsewhere(),
        }
        Ok(())
    }

    /// Waits until it is known what became of all offers.
    pub(crate) async fn settled(&mut self) {
        for offer in self.offers.drain(..) {
            // A callback that panicked has said so itself.
            let _ = offer.await;
        }
    }

    /// Tells a node that what it gave does not hold at `offset`, and tells of it: at any rate where that `is_sure`, else if the node says
    /// so too.
    fn offer(&mut self, culprit: &Connection, offset: Offset, what: EntryError, is_sure: bool) {
        let (hub, culprit) = (self.hub.clone(), culprit.clone());
        self.offers.retain(|offer| !offer.is_finished());
        self.offers.push(tokio::spawn(async move {
            let (node, address) = (culprit.welcome().node, culprit.endpoint().to_string());
            let offer = make(&hub, &culprit, offset).await;
            if let Some(tell) = &hub.options().on_damage.0
                && (is_sure || offer.is_confirmed())
            {
                tell(&Damage { node, address, offset: place(&what), what, offer });
            }
        }));
    }
}

/// Makes the offer.
async fn make(hub: &Hub, culprit: &Connection, offset: Offset) -> Offer {
    let node = culprit.welcome().node;
    if !hub.offers().begin(node) {
        let message = "another offer of this client to this node is under way";
        return Offer::Failed(Error::Refused(Refusal::new(Code::Busy, message)));
    }
    let after = hub.options().request_timeout;
    let answer = timeout(after, culprit.ask(RequestBody::Check { offset })).await;
    hub.offers().end(node);
    match answer {
        Ok(Ok(ResponseBody::Checked(checked))) => match checked.verdict {
            Verdict::Sound => Offer::Sound,
            Verdict::Repairing => Offer::Repairing,
            Verdict::Damaged | Verdict::Unknown => Offer::Damaged(checked.message),
        },
        // Also a node that does not know the request yet: a BadRequest.
        Ok(Ok(ResponseBody::Refused(refusal))) => Offer::Failed(Error::Refused(refusal)),
        Ok(Ok(_)) => Offer::Failed(culprit.unexpected()),
        Ok(Err(error)) => Offer::Failed(error),
        Err(_) => Offer::Failed(Error::TimedOut { after, last: None }),
    }
}

/// Adds who gave bytes, each node once.
pub(crate) fn note(to: &mut Vec<Connection>, connection: &Connection) {
    if to.iter().all(|known| known.welcome().node != connection.welcome().node) {
        to.push(connection.clone());
    }
}

fn only(culprits: &[Connection]) -> Option<NodeId> {
    match culprits {
        [one] => Some(one.welcome().node),
        _ => None,
    }
}

/// The entry that it is about.
fn place(what: &EntryError) -> Offset {
    match what {
        EntryError::Short { at, .. }
        | EntryError::Kind { at, .. }
        | EntryError::LengthMismatch { at, .. }
        | EntryError::Crc { at, .. } => *at,
    }
}
