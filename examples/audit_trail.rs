//! An audit trail: small events, many to an entry, compressed, each with a checksum of its own; and what a damaged byte does.
//!
//! ```sh
//! cargo run --example audit_trail
//! ```
//!
//! Checksums tell damage. They do not tell forgery: whoever may write to the disks can make new ones. Against that, put a cryptographic hash of the
//! pack before into each pack, and lay the newest hash down where the same people cannot write.

use futures_util::{StreamExt, TryStreamExt};
use loglog::{
    Compression, EntriesOptions, Error, Length, Log, MemoryLog, Node, Offset, PackBuilder, PackOptions,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Records `packs` packs of a hundred events each, through a pipeline: in order, each once. Returns where the packs are.
async fn record(log: &impl Log, options: PackOptions, packs: usize) -> Result<Vec<Offset>, Failure> {
    let pipeline = log.pipeline(Default::default());
    let mut tickets = Vec::new();
    for number in 0..packs {
        let mut pack = PackBuilder::with(options);
        for event in 0..100 {
            pack.push(
                format!("{{\"user\": {}, \"does\": \"sign in\", \"number\": {event}}}", number + event % 7)
                    .as_bytes(),
            )?;
        }
        tickets.push(pipeline.append(pack.finish()).await?);
    }
    let mut places = Vec::new();
    for ticket in tickets {
        places.push(ticket.await?.offset);
    }
    Ok(places)
}

/// What an auditor finds.
#[derive(Default)]
struct Found {
    events: usize,
    bytes: usize,
    /// What is not as it was recorded, in words.
    damaged: Vec<String>,
}

/// Reads all of the trail. An entry's checksum would stop the reading at the first damaged entry, so it is left to the events' own: these name the
/// event, and the entries behind it can be read all the same.
async fn audit(log: &impl Log) -> Result<Found, Failure> {
    let mut found = Found::default();
    let mut entries = log.entries_with(.., EntriesOptions { checked: false, ..EntriesOptions::default() });
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        found.bytes += entry.payload.len();
        match entry.events() {
            Ok(events) => found.events += events.len(),
            Err(error) => found.damaged.push(format!("entry {}: {error}", entry.offset)),
        }
    }
    Ok(found)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    println!("-- a trail on disk, with and without compression");
    let folder = tempfile::tempdir()?;
    for compression in [Compression::None, Compression::Lz4] {
        let node = Node::builder().data_dir(folder.path().join(format!("{compression:?}"))).start().await?;
        let options = PackOptions { compression, checksums: true };
        record(&node.log(), options, 10).await?;
        let Found { events, bytes, damaged } = audit(&node.log()).await?;
        println!("{compression:?}: {events} events in {bytes} bytes, {} entries damaged", damaged.len());
        assert!(events == 1000 && damaged.is_empty());
        node.shutdown().await?;
    }

    println!("\n-- a byte changes (in a log in memory, where we may do that)");
    let log = MemoryLog::new();
    let options = PackOptions { checksums: true, ..PackOptions::default() };
    let places = record(&log, options, 3).await?;
    // Somewhere in the middle of the second pack.
    log.damage(places[1] + Length::new(2000));

    // Whoever reads as ever is stopped there: every entry has a checksum.
    let read: Result<Vec<_>, _> = log.entries(..).try_collect().await;
    let stopped = read.err().ok_or("the damage was not noticed")?;
    println!("a reader is stopped: {stopped}");
    assert!(matches!(stopped, Error::Damaged { .. }));

    // The auditor knows which event it is.
    let Found { events, damaged, .. } = audit(&log).await?;
    println!("the auditor: {events} events are good");
    damaged.iter().for_each(|what| println!("  {what}"));
    assert!(events == 200 && damaged.len() == 1);

    // In a cluster the client would have read the entry from another node, and have the bad copy mended.
    println!("\ndone");
    Ok(())
}
