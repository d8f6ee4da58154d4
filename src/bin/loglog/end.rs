//! `loglog end`: the next byte to be committed.

use serde_json::json;

use crate::connect::{Endpoints, stop};
use crate::exit::Outcome;
use crate::output::Output;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Ask a quorum, so that the answer is no older than the question.
    #[arg(long)]
    linearizable: bool,

    /// Print start and end as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, at: &Endpoints) -> Outcome {
    let client = at.connect().await?;
    let log = client.ends(args.linearizable).await.map_err(|error| stop(&error))?;
    let mut output = Output::new();
    if args.json {
        output.json(&json!({ "start": log.start.get(), "end": log.end.get() }))?;
    } else {
        output.line(log.end)?;
    }
    output.flush()
}
