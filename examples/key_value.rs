//! A replicated key-value store: three replicas that apply the same commands in the same order.
//!
//! ```sh
//! cargo run --example key_value                      # three nodes in this program
//! cargo run --example key_value 127.0.0.1:19194      # or nodes that run already
//! ```
//!
//! A write is an entry of the log. A replica that has applied all entries up to some place has what every other has at that place.

mod common;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use common::{Failure, Logs};
use loglog::{ApplyError, Client, Entry, Offset, Replica, ReplicaOptions, StateMachine};

/// The state. A `BTreeMap`, whose order is the same everywhere: a snapshot is the same bytes on every replica.
#[derive(Default)]
struct Pairs(BTreeMap<String, String>);

/// Commands are lines: `kv set KEY VALUE` and `kv delete KEY`, keys without spaces.
impl StateMachine for Pairs {
    fn apply(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        // The log may hold other programs' entries. All replicas pass over them alike.
        let Ok(text) = std::str::from_utf8(&entry.payload) else { return Ok(()) };
        let mut words = text.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("kv"), Some("set"), Some(key), Some(value)) => {
                self.0.insert(key.to_owned(), value.to_owned());
            }
            (Some("kv"), Some("delete"), Some(key), None) => {
                self.0.remove(key);
            }
            _ => {}
        }
        Ok(())
    }

    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
        Ok(serde_json::to_writer(to, &self.0)?)
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.0 = serde_json::from_reader(from)?;
        Ok(())
    }
}

/// What the store's users see.
struct Store {
    replica: Replica<Client, Pairs>,
}

impl Store {
    async fn open(log: Client, snapshot: PathBuf) -> Result<Self, Failure> {
        let options = ReplicaOptions { snapshot: Some(snapshot), ..ReplicaOptions::default() };
        Ok(Self { replica: Replica::open(log, Pairs::default(), options).await? })
    }

    /// Done once the write is on a majority's disks. Returns where it ends: whoever has read up to there sees it.
    async fn set(&self, key: &str, value: &str) -> Result<Offset, Failure> {
        Ok(self.replica.log().append(format!("kv set {key} {value}")).await?.end)
    }

    async fn delete(&self, key: &str) -> Result<Offset, Failure> {
        Ok(self.replica.log().append(format!("kv delete {key}")).await?.end)
    }

    /// As of now: sees every write that was done before this call, by anybody.
    async fn get(&mut self, key: &str) -> Result<Option<&str>, Failure> {
        self.replica.catch_up().await?;
        Ok(self.get_as_it_is(key))
    }

    /// Sees the writes up to `seen`, perhaps more: reads one's own writes, and asks nobody if they are here already.
    async fn get_after(&mut self, key: &str, seen: Offset) -> Result<Option<&str>, Failure> {
        self.replica.catch_up_to(seen).await?;
        Ok(self.get_as_it_is(key))
    }

    /// What this replica knows, which may be old.
    fn get_as_it_is(&self, key: &str) -> Option<&str> {
        self.replica.state().0.get(key).map(String::as_str)
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let logs = Logs::open().await?;
    let folder = tempfile::tempdir()?;
    let snapshot = |id: u32| folder.path().join(format!("replica-{id}.snapshot"));
    let [first, second, third] = logs.clients.clone();
    let mut first = Store::open(first, snapshot(1)).await?;
    let mut second = Store::open(second, snapshot(2)).await?;
    let third = Store::open(third, snapshot(3)).await?;

    println!("\n-- a write at one replica, reads at others");
    let written = first.set("colour", "red").await?;
    println!("replica 1: colour = red, ends at {written}");
    println!("replica 1 reads its own write: {:?}", first.get_after("colour", written).await?);
    println!("replica 2 reads as of now:     {:?}", second.get("colour").await?);
    println!("replica 3 without a look:      {:?}", third.get_as_it_is("colour"));

    println!("\n-- all replicas write; the log decides the order");
    let (one, two, three) = tokio::join!(
        first.set("winner", "replica 1"),
        second.set("winner", "replica 2"),
        third.set("winner", "replica 3"),
    );
    let last = one?.max(two?).max(three?);
    let here = first.get_after("winner", last).await?.map(str::to_owned);
    let there = second.get_after("winner", last).await?.map(str::to_owned);
    println!("replica 1 says {here:?}, replica 2 says {there:?}");
    assert_eq!(here, there);

    println!("\n-- a snapshot, and a restart");
    for number in 1..=100 {
        // One after the other; a `Client::pipeline` would have many on their way.
        first.set(&format!("key-{number}"), "value").await?;
    }
    first.replica.catch_up().await?;
    let at = first.replica.snapshot()?;
    println!("replica 1: snapshot at {at}; the log may be trimmed before it, once the others have theirs");
    first.delete("colour").await?;
    drop(first);
    let mut first = Store::open(logs.clients[0].clone(), snapshot(1)).await?;
    println!("replica 1 is back at {}, without having read the log", first.replica.at());
    assert_eq!(first.replica.at(), at);
    println!("what it knows: colour = {:?}", first.get_as_it_is("colour"));
    println!("as of now:     colour = {:?}", first.get("colour").await?);

    logs.close().await?;
    println!("\ndone");
    Ok(())
}
