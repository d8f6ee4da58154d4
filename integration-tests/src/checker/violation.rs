//! Violation: one way in which a history breaks what the log promises, with the facts that tell where to look.
//!
//! Keeps:  each is printed in one line.

use loglog_proto::entry::EntryError;
use loglog_proto::error::Code;
use loglog_proto::response::Appended;
use loglog_proto::{NodeId, Offset, Sequence, Term};

use super::fact::Fact;
use super::image::Source;
use crate::history::{Author, OpId, Tick};

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    // The log itself.
    /// Nothing to judge by.
    #[error("no node's final log was recorded")]
    NoFinalLog,
    /// A node has fewer bytes than it says are committed, or begins behind them.
    #[error("node {node}: its log from {start} to {end} does not reach its committed end {committed}")]
    FinalCutShort {
        /// Which.
        node: NodeId,
        /// Its first byte.
        start: Offset,
        /// Behind its last byte.
        end: Offset,
        /// What it says.
        committed: Offset,
    },
    /// Two nodes hold different committed bytes.
    #[error("byte {at} is {found:02x} in {of} and {known:02x} in {other}")]
    NodesDiffer {
        /// The first such byte.
        at: Offset,
        /// Where it was found.
        of: Source,
        /// The byte there.
        found: u8,
        /// Where it is otherwise.
        other: Source,
        /// The byte there.
        known: u8,
    },
    /// A reader got bytes that the log does not have there.
    #[error("byte {at} is {found:02x} in {of} and {known:02x} in {other}")]
    ReadDiffers {
        /// The first such byte.
        at: Offset,
        /// Where it was found.
        of: Source,
        /// The byte there.
        found: u8,
        /// A final log.
        other: Source,
        /// The byte there.
        known: u8,
    },
    /// Two readers got different bytes, from where the log is trimmed by now.
    #[error("byte {at} is {found:02x} in {of} and was {known:02x} in {other}")]
    ByteChanged {
        /// The first such byte.
        at: Offset,
        /// Where it was found.
        of: Source,
        /// The byte there.
        found: u8,
        /// Another read.
        other: Source,
        /// The byte there.
        known: u8,
    },
    /// No entry where one must begin.
    #[error("{0}")]
    NotFramed(EntryError),
    /// A final log ends within an entry.
    #[error("the entry at {at} is cut short by the end of what is known, {end}")]
    EntryCutShort {
        /// Where it begins.
        at: Offset,
        /// The end.
        end: Offset,
    },
    /// A node's committed end is none.
    #[error("node {node} says that it has committed up to {committed}, where no batch ends")]
    CommittedWithinBatch {
        /// Which.
        node: NodeId,
        /// What it says.
        committed: Offset,
    },
    /// A batch ends where it must not, or does not where it must.
    #[error("the batch before {at} has no end")]
    BatchNotEnded {
        /// What follows it.
        at: Offset,
    },
    /// An older term behind a newer one.
    #[error("the entry at {at} has term {found} behind one of term {before}")]
    TermSank {
        /// The entry.
        at: Offset,
        /// Its term.
        found: Term,
        /// The term before.
        before: Term,
    },
    /// A term that does not begin with a noop.
    #[error("term {term} begins at {at} without a noop")]
    TermNotOpened {
        /// Its first entry.
        at: Offset,
        /// The term.
        term: Term,
    },

    // What is in it.
    /// A payload that no operation has.
    #[error("the entry at {at} is nobody's: its payload is that of no operation")]
    Stranger {
        /// The entry.
        at: Offset,
    },
    /// A payload of an operation that was not invoked, or never sent.
    #[error("the entry at {at} is that of {op}, which nobody has sent")]
    NeverSent {
        /// The entry.
        at: Offset,
        /// Whose payload it has.
        op: OpId,
    },
    /// Writer or sequence of another.
    #[error(
        "the entry at {at} is that of {op} by {author}, but says writer {writer:016x}, sequence {sequence}"
    )]
    WrongAuthor {
        /// The entry.
        at: Offset,
        /// Whose payload it has.
        op: OpId,
        /// Who appended it.
        author: Author,
        /// What the entry says.
        writer: u64,
        /// What the entry says.
        sequence: Sequence,
    },
    /// An operation more than once.
    #[error("{op} is in the log twice, at {first} and at {second}")]
    Twice {
        /// Which.
        op: OpId,
        /// Here.
        first: Offset,
        /// And here.
        second: Offset,
    },
    /// A writer's sequences out of order, or one of them twice.
    #[error("writer {writer:016x}: sequence {found} at {at} behind sequence {before}")]
    SequenceOrder {
        /// Whose.
        writer: u64,
        /// The entry.
        at: Offset,
        /// Its sequence.
        found: Sequence,
        /// The one before.
        before: Sequence,
    },
    /// A pipeline's appends out of order.
    #[error("{op}, {author}, lies at {at}, behind {behind}, which was handed in later")]
    PipelineOrder {
        /// Which.
        op: OpId,
        /// Whose.
        author: Author,
        /// Where.
        at: Offset,
        /// The later one.
        behind: OpId,
    },
    /// An entry without the one that it was to follow.
    #[error("{op}, {author}, is at {at}; it named {named} as the entry before it, and that is {found}")]
    Hole {
        /// Which.
        op: OpId,
        /// Whose.
        author: Author,
        /// Where.
        at: Offset,
        /// What its attempts said.
        named: String,
        /// What is there.
        found: String,
    },

    // Answers to appends.
    /// Acknowledged, and not in the log.
    #[error("{op} was acknowledged for {} at {at}, and is not in the log", acknowledged.offset)]
    AcknowledgedLost {
        /// Which.
        op: OpId,
        /// When.
        at: Tick,
        /// As what.
        acknowledged: Appended,
    },
    /// Acknowledged as something else than what is in the log.
    #[error(
        "{op} was acknowledged as {} to {} in term {}, and is {} to {} in term {}",
        acknowledged.offset, acknowledged.end, acknowledged.term, found.offset, found.end, found.term
    )]
    AcknowledgedElsewhere {
        /// Which.
        op: OpId,
        /// As what.
        acknowledged: Appended,
        /// What it is.
        found: Appended,
    },
    /// Acknowledged with an extent that its payload cannot have.
    #[error("{op} was acknowledged as {offset} to {end}; its entry has {length} bytes")]
    AcknowledgedLength {
        /// Which.
        op: OpId,
        /// Its begin, as answered.
        offset: Offset,
        /// Its end, as answered.
        end: Offset,
        /// What it must have.
        length: u64,
    },
    /// Two operations in one place: at least one of them is not there, even where nobody can look any more.
    #[error("{one} and {other} were both acknowledged for byte {at}")]
    PlacesOverlap {
        /// The one.
        one: OpId,
        /// The other.
        other: OpId,
        /// Where.
        at: Offset,
    },
    /// Retries of one operation with different answers.
    #[error("{op} was acknowledged at {} in term {}, and again at {} in term {}", first.offset, first.term, again.offset, again.term)]
    RetriesDisagree {
        /// Which.
        op: OpId,
        /// The first.
        first: Appended,
        /// Another.
        again: Appended,
    },
    /// It was said that this is not in the log and never will be.
    #[error("{op} was refused for good ({code}), and is in the log at {at}")]
    RefusedInLog {
        /// Which.
        op: OpId,
        /// Where.
        at: Offset,
        /// As what it was refused.
        code: Code,
    },
    /// A refusal that proves that no attempt was or will be written, beside an acknowledgement.
    #[error("{op} was acknowledged at {acknowledged}, and refused since the log ends at {end}")]
    RefusedAndAcknowledged {
        /// Which.
        op: OpId,
        /// Where.
        acknowledged: Offset,
        /// Said by the refusal.
        end: Offset,
    },
    /// It is elsewhere than its condition allows.
    #[error("{op} was to lie at {expected} or nowhere, and lies at {found}")]
    ExpectedEndIgnored {
        /// Which.
        op: OpId,
        /// The condition.
        expected: Offset,
        /// Where.
        found: Offset,
    },
    /// A conflict that was none.
    #[error("{op} expected {expected:?} and was refused at {at} for an end {end}: {why}")]
    ConflictUntrue {
        /// Which.
        op: OpId,
        /// The condition.
        expected: Option<Offset>,
        /// The answer.
        end: Offset,
        /// When.
        at: Tick,
        /// What is wrong with it.
        why: &'static str,
    },

    // Time.
    /// An operation lies before one that was over before it began.
    #[error("{op} was invoked at {invoked} and lies at {at}, before the end that was known: {fact}")]
    RealTimeOrder {
        /// The one that was invoked later.
        op: OpId,
        /// When.
        invoked: Tick,
        /// Where it lies.
        at: Offset,
        /// The acknowledgement of the other.
        fact: Fact,
    },
    /// An operation lies in a part of the log that was seen as committed before the operation began.
    #[error("{op} was invoked at {invoked} and lies at {at}, before an end that was seen: {fact}")]
    WrittenIntoThePast {
        /// Which.
        op: OpId,
        /// When it was invoked.
        invoked: Tick,
        /// Where it lies.
        at: Offset,
        /// What was seen.
        fact: Fact,
    },
    /// A linearizable end before what was acknowledged.
    #[error("the linearizable end of node {node}, {end}, asked for at {invoked}, is older than this: {fact}")]
    StaleEnd {
        /// Who told it.
        node: NodeId,
        /// What.
        end: Offset,
        /// When it was asked for.
        invoked: Tick,
        /// What it must not lie before.
        fact: Fact,
    },
    /// A linearizable end before another one.
    #[error(
        "the linearizable end of node {node}, {end}, asked for at {invoked}, went back behind this: {fact}"
    )]
    EndWentBack {
        /// Who told it.
        node: NodeId,
        /// What.
        end: Offset,
        /// When it was asked for.
        invoked: Tick,
        /// What it must not lie before.
        fact: Fact,
    },
    /// A linearizable end before what somebody saw as committed.
    #[error(
        "the linearizable end of node {node}, {end}, asked for at {invoked}, is older than what was seen: {fact}"
    )]
    EndBehindSeen {
        /// Who told it.
        node: NodeId,
        /// What.
        end: Offset,
        /// When it was asked for.
        invoked: Tick,
        /// What it must not lie before.
        fact: Fact,
    },
    /// A conflict judged by an old end.
    #[error("{op}, sent at {sent}, was refused for an end {end} that is older than this: {fact}")]
    StaleConflict {
        /// Which.
        op: OpId,
        /// When.
        sent: Tick,
        /// The answer.
        end: Offset,
        /// What it must not lie before.
        fact: Fact,
    },

    // Readers.
    /// More than committed.
    #[error("the read of node {node} at {offset}: {length} bytes go beyond the end {end} that it tells")]
    ReadBeyondEnd {
        /// Who served it.
        node: NodeId,
        /// From here.
        offset: Offset,
        /// So many bytes.
        length: usize,
        /// The end.
        end: Offset,
    },
    /// More than asked for.
    #[error("the read of node {node} at {offset}: {length} bytes, {limit} asked for")]
    ReadTooLong {
        /// Who served it.
        node: NodeId,
        /// From here.
        offset: Offset,
        /// So many bytes.
        length: usize,
        /// The most wanted.
        limit: u64,
    },
    /// Told as committed, and not there in the end.
    #[error("an end beyond the final one, {last}: {fact}")]
    EndBeyondFinal {
        /// What was told.
        fact: Fact,
        /// The end of all final logs.
        last: Offset,
    },
    /// Told as an end, and within a batch or an entry.
    #[error("an end at which no batch ends: {0}")]
    EndWithinBatch(Fact),
    /// *Beyond the end*, of an offset that is not.
    #[error("node {node} refused {offset} as beyond the end {end}")]
    BeyondEndUntrue {
        /// Who.
        node: NodeId,
        /// What was asked for.
        offset: Offset,
        /// The end, as told.
        end: Offset,
    },
    /// A decoded entry that the log does not have there.
    #[error("reader {reader} saw {op:?} from {offset} to {end}, where it is not")]
    SightingDiffers {
        /// Who.
        reader: u64,
        /// Whose payload it was.
        op: Option<OpId>,
        /// Where.
        offset: Offset,
        /// Up to where.
        end: Offset,
    },
    /// A reader who met an entry again, or left one out.
    #[error("reader {reader} saw the entry at {offset} next, after the one at {before}")]
    SightingOrder {
        /// Who.
        reader: u64,
        /// What came.
        offset: Offset,
        /// What came before.
        before: Offset,
    },

    // Trims.
    /// The log begins behind what anybody has asked for.
    #[error("{what} says that the log starts at {start}, and nobody had asked for more than {asked}")]
    TrimmedTooFar {
        /// Who.
        what: String,
        /// The start.
        start: Offset,
        /// The most that was asked for until then.
        asked: Offset,
    },
    /// The start went back.
    #[error("{what} says that the log starts at {start}, and in the end no node's starts behind {last}")]
    StartWentBack {
        /// Who.
        what: String,
        /// The start.
        start: Offset,
        /// The greatest start of a final log.
        last: Offset,
    },
    /// The log begins within an entry.
    #[error("{what} says that the log starts at {start}, where no entry begins")]
    StartWithinEntry {
        /// Who.
        what: String,
        /// The start.
        start: Offset,
    },
    /// *Trimmed*, of an offset that is not.
    #[error("node {node} refused {offset} as trimmed, with the start {start}")]
    TrimmedUntrue {
        /// Who.
        node: NodeId,
        /// What was asked for.
        offset: Offset,
        /// The start, as told.
        start: Offset,
    },

    // The history itself.
    /// The run proves nothing.
    #[error("too little happened: {seen} of {wanted} {what}")]
    TooLittle {
        /// What.
        what: String,
        /// So often.
        seen: u64,
        /// So often at least.
        wanted: u64,
    },
    /// Two operations are one, by id or by author: whoever recorded this made a mistake.
    #[error("the history names {one} and {other} alike: {author}")]
    NamedAlike {
        /// The one.
        one: OpId,
        /// The other.
        other: OpId,
        /// Whose the second is.
        author: Author,
    },
}
