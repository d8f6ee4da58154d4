//! `loglog tail`: the last entries, found by walking backwards, and those to come.

use std::pin::pin;
use std::task::Poll;

use futures_util::{StreamExt, poll};

use crate::connect::{Endpoints, stop};
use crate::exit::Outcome;
use crate::output::Output;
use crate::read::{self, FormArgs};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many entries to print.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    number: u64,

    /// Go on with new entries as they come, until interrupted.
    #[arg(short, long)]
    follow: bool,

    #[command(flatten)]
    form: FormArgs,
}

pub(crate) async fn run(args: Args, at: &Endpoints) -> Outcome {
    let client = at.connect().await?;
    let ends = client.ends(true).await.map_err(|error| stop(&error))?;
    let from = client.tail_start_before(ends, args.number).await.map_err(|error| stop(&error))?;
    let mut output = Output::new();
    if !args.follow {
        read::entries(&client, from, ends.end, args.form.form(), &mut output).await?;
        return output.flush();
    }
    let mut stream = pin!(client.follow(from));
    loop {
        let next = match poll!(stream.next()) {
            Poll::Ready(next) => next,
            Poll::Pending => {
                // A reader should see what there is while we wait for more.
                output.flush()?;
                stream.next().await
            }
        };
        match next {
            Some(entry) => output.entry(&entry.map_err(|error| stop(&error))?, args.form.form())?,
            None => return output.flush(),
        }
    }
}
