//! A leader among several programs: one holds the lease; when it is silent for too long another takes over; and a fencing token for when the
//! first one wakes up and does not know it yet.
//!
//! ```sh
//! cargo run --example leader_lease                      # three nodes in this program
//! cargo run --example leader_lease 127.0.0.1:19194      # or nodes that run already
//! ```

mod common;

use std::sync::Mutex;
use std::time::Duration;

use common::{Failure, Logs};
use loglog::{Client, Lease, Offset};
use tokio::time::sleep;

/// Some seconds in a real program: how long nobody leads when a leader has died.
const TIME: Duration = Duration::from_millis(500);

/// What only the leader may write to: a database, a device. It remembers the highest token it has seen, and refuses lower ones.
#[derive(Default)]
struct Resource {
    highest: Offset,
    writes: u32,
    refused: u32,
}

impl Resource {
    fn write(&mut self, who: &str, token: Offset) -> bool {
        let is_taken = token >= self.highest;
        if is_taken {
            self.highest = token;
            self.writes += 1;
        } else {
            self.refused += 1;
        }
        println!(
            "{who} writes with token {token}: {}",
            if is_taken { "taken" } else { "refused, it is too old" }
        );
        is_taken
    }
}

/// Waits until it leads, leads for a while, and gives the lease back; or it is stopped for too long in between, and does not notice.
async fn lead(
    who: &str,
    mut lease: Lease<Client>,
    is_stopped: bool,
    resource: &Mutex<Resource>,
) -> Result<(), Failure> {
    let token = lease.acquire().await?;
    println!("{who} leads, its token is {token}");
    for _ in 0..3 {
        // A last look at the clock, then the deed: between the two anything may happen.
        if lease.held() != Some(token) {
            break;
        }
        if is_stopped {
            println!("{who} is stopped, as by a machine that is too busy");
            // For so long that another has taken over and written.
            while resource.lock().map_err(|_| "a writer panicked")?.highest <= token {
                sleep(TIME / 10).await;
            }
            println!("{who} goes on, and believes that it leads");
        }
        let is_taken = resource.lock().map_err(|_| "a writer panicked")?.write(who, token);
        if !is_taken || lease.renew().await? != Some(token) {
            println!("{who} has learnt that it leads no more");
            return Ok(());
        }
        sleep(TIME / 10).await;
    }
    lease.release().await?;
    println!("{who} gives the lease back");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let logs = Logs::open().await?;
    let [one, two, three] = logs.clients.clone().map(|log| Lease::open(log, "leader of the example", TIME));
    let (mut one, two, three) = tokio::try_join!(one, two, three)?;
    let resource = Mutex::new(Resource::default());
    // So that it is the first; the others wait for it.
    one.acquire().await?;
    tokio::try_join!(
        lead("program 1", one, true, &resource),
        lead("program 2", two, false, &resource),
        lead("program 3", three, false, &resource),
    )?;

    let resource = resource.into_inner()?;
    println!("{} writes taken, {} refused", resource.writes, resource.refused);
    assert!(resource.refused > 0, "program 1 was too late");
    logs.close().await?;
    println!("done");
    Ok(())
}
