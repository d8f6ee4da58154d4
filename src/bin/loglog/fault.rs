//! `loglog fault`: makes an actor of the node fail, where `debug.faults` allows. For tests.

use crate::connect::{Endpoints, stop};
use crate::exit::Outcome;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The actor's name, as `loglog status` prints it.
    actor: String,

    /// Where it fails: handler, async or started; or that it gets stuck, for so many milliseconds: stall:5000.
    how: String,
}

pub(crate) async fn run(args: Args, at: &Endpoints) -> Outcome {
    let client = at.connect().await?;
    client.fault(args.actor, args.how).await.map_err(|error| stop(&error))
}
