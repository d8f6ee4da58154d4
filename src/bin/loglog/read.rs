//! `loglog read`: the log from some offset through its end as it was at the start.
//!
//! Keeps:  `--raw` gives the log's bytes as they lie in the segments, headers left out, from any byte on; every
//!         other form gives data entries, and must begin where an entry begins.

use std::str::FromStr;

use futures_util::StreamExt;
use loglog_client::{Client, Error};
use loglog_proto::limits::{ENTRY_BYTES_MAX, READ_BYTES_MAX};
use loglog_proto::{Length, Offset};

use crate::connect::{Endpoints, stop};
use crate::exit::{Exit, Outcome, Stop};
use crate::output::{Form, Output};
use boundary::{Surroundings, surroundings};

mod boundary;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to begin: an offset, or the start of the log.
    #[arg(long, value_name = "N|start", default_value = "start")]
    from: From,

    /// Print at most this much of the log, counted in its bytes: a number, or with a unit ("10 MiB"). Entries are
    /// printed whole or not at all.
    #[arg(long, value_name = "BYTES", value_parser = loglog::units::parse_bytes_or_plain)]
    max: Option<u64>,

    #[command(flatten)]
    form: FormArgs,

    /// Raw log bytes, with each entry's prefix and suffix: what lies in the segment files, without their headers.
    #[arg(long, group = "form")]
    raw: bool,
}

/// How entries are printed.
#[derive(clap::Args)]
pub(crate) struct FormArgs {
    /// Each entry's payload and a newline (the default).
    #[arg(long, group = "form")]
    entries: bool,

    /// Each entry's payload in hex, on a line.
    #[arg(long, group = "form")]
    hex: bool,

    /// Each entry as a JSON object on a line: offset, end, term, writer, sequence, payload (or payload_hex, where it
    /// is no text).
    #[arg(long, group = "form")]
    json: bool,
}

impl FormArgs {
    pub(crate) const fn form(&self) -> Form {
        match (self.hex, self.json) {
            (true, _) => Form::Hex,
            (_, true) => Form::Json,
            _ => Form::Payload,
        }
    }
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Start,
    At(Offset),
}

impl FromStr for From {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "start" => Ok(Self::Start),
            number => number
                .parse()
                .map(|offset| Self::At(Offset::new(offset)))
                .map_err(|_| "expected an offset, or the word start"),
        }
    }
}

pub(crate) async fn run(args: Args, at: &Endpoints) -> Outcome {
    let client = at.connect().await?;
    // As of now, not of some moment before: who appended a moment ago wants to see it.
    let log = client.ends(true).await.map_err(|error| stop(&error))?;
    let from = match args.from {
        From::Start => log.start,
        From::At(offset) => offset,
    };
    if from > log.end {
        return Err(stop(&Error::BeyondEnd { offset: from, end: log.end }));
    }
    let until = args.max.map_or(log.end, |max| log.end.min(Offset::new(from.get().saturating_add(max))));
    let mut output = Output::new();
    if args.raw {
        raw(&client, from, until, &mut output).await?;
    } else {
        entries(&client, from, until, args.form.form(), &mut output).await?;
    }
    output.flush()
}

async fn raw(client: &Client, from: Offset, until: Offset, output: &mut Output) -> Outcome {
    let mut at = from;
    while at < until {
        let wanted = (until - at).get().min(READ_BYTES_MAX as u64);
        let data = client.read(at, Length::new(wanted)).await.map_err(|error| stop(&error))?;
        if data.bytes.is_empty() {
            // Another node may answer than the one that said where the log ends.
            return Err(stop(&Error::BeyondEnd { offset: at, end: data.end }));
        }
        output.bytes(&data.bytes)?;
        at += Length::of(data.bytes.len());
    }
    Ok(())
}

/// Prints the data entries that lie in `from..until`.
pub(crate) async fn entries(
    client: &Client,
    from: Offset,
    until: Offset,
    form: Form,
    output: &mut Output,
) -> Outcome {
    let mut stream = std::pin::pin!(client.entries(from..until));
    while let Some(entry) = stream.next().await {
        match entry {
            // With --max, the last one may reach beyond.
            Ok(entry) if entry.end > until => break,
            Ok(entry) => output.entry(&entry, form)?,
            Err(error) => {
                output.flush()?;
                return Err(explain(client, &error).await);
            }
        }
    }
    Ok(())
}

/// How to end after `error`; if no entry begins where reading was to begin, with the places nearby where one does.
async fn explain(client: &Client, error: &Error) -> Stop {
    let Error::NotAnEntry { offset, .. } = error else { return stop(error) };
    match around(client, *offset).await {
        Some(Surroundings { before, after }) => Stop::new(
            Exit::NotFound,
            format!(
                "no entry begins at offset {offset}: it lies inside the one at {before}; the next is at {after}"
            ),
        ),
        // Nor does any whole entry lie around it: so it is the bytes that are wrong, not the offset.
        None => Stop::new(Exit::Damaged, error.to_string()),
    }
}

/// The entry that `offset` is inside of.
async fn around(client: &Client, offset: Offset) -> Option<Surroundings> {
    let log = client.ends(true).await.ok()?;
    let reach = Length::of(ENTRY_BYTES_MAX);
    let begin = offset.saturating_back(reach).max(log.start);
    let end = log.end.min(offset + reach);
    let mut bytes = Vec::new();
    let mut at = begin;
    while at < end {
        let wanted = (end - at).get().min(READ_BYTES_MAX as u64);
        let data = client.read(at, Length::new(wanted)).await.ok().filter(|data| !data.bytes.is_empty())?;
        bytes.extend_from_slice(&data.bytes);
        at += Length::of(data.bytes.len());
    }
    surroundings(begin, &bytes, offset, log.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_to_begin_is_a_word_or_a_number() {
        assert_eq!("start".parse(), Ok(From::Start));
        assert_eq!("12".parse(), Ok(From::At(Offset::new(12))));
        assert!("-1".parse::<From>().is_err());
        assert!("end".parse::<From>().is_err());
    }
}
