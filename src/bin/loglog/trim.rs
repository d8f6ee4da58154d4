//! `loglog trim`: drops the log's beginning.

use std::str::FromStr;

use loglog_client::{Change, Managed, Offset};

use crate::connect::{Endpoints, stop};
use crate::exit::Outcome;
use crate::members::{How, ask, show};
use crate::output::Output;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The offset before which nothing is needed any more, rounded down to where a segment begins; `end`: everything committed, but
    /// for the segment in which the log ends. A segment begins with each new leader, too, so this may drop every entry.
    #[arg(long, value_name = "N|end")]
    before: Before,

    #[command(flatten)]
    how: How,
}

/// Where to trim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    At(Offset),
    End,
}

impl FromStr for Before {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "end" => Ok(Self::End),
            text => text
                .parse()
                .map(|offset| Self::At(Offset::new(offset)))
                .map_err(|_| "expected an offset, or 'end'".to_owned()),
        }
    }
}

pub(crate) async fn run(args: Args, at: &Endpoints) -> Outcome {
    let client = at.connect().await?;
    let before = match args.before {
        Before::At(offset) => offset,
        Before::End => client.end(true).await.map_err(|error| stop(&error))?,
    };
    let managed = ask(&client, Change::Trim(before), args.how.dry_run).await?;
    for words in remarks(args.before, &managed, args.how.dry_run) {
        eprintln!("loglog: {words}");
    }
    if args.how.json {
        return show(&managed, true);
    }
    let mut output = Output::new();
    output.line(managed.start)?;
    output.flush()
}

/// What is to be said beside where the log starts.
fn remarks(before: Before, managed: &Managed, dry_run: bool) -> Vec<String> {
    let rounded = match before {
        Before::At(wanted) if managed.start < wanted.get() => {
            Some(format!("{wanted} lies within a segment: rounded down to {}", managed.start))
        }
        Before::At(wanted) if managed.start > wanted.get() => {
            Some(format!("nothing to trim: the log starts at {}", managed.start))
        }
        _ => None,
    };
    let dry = dry_run.then(|| format!("dry run: the log would start at {}", managed.start));
    dry.into_iter().chain(rounded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_trim_is_an_offset_or_the_end() {
        assert_eq!("300".parse(), Ok(Before::At(Offset::new(300))));
        assert_eq!("end".parse(), Ok(Before::End));
        assert!("start".parse::<Before>().is_err() && "-1".parse::<Before>().is_err());
    }

    #[test]
    fn rounding_is_said_where_an_offset_was_given() {
        let managed = |start| Managed { start, ..Managed::default() };
        let at = |offset| Before::At(Offset::new(offset));
        assert!(remarks(at(300), &managed(300), false).is_empty());
        assert!(remarks(Before::End, &managed(256), false).is_empty());
        assert_eq!(
            remarks(at(300), &managed(256), false),
            ["300 lies within a segment: rounded down to 256"]
        );
        assert_eq!(remarks(at(3), &managed(256), false), ["nothing to trim: the log starts at 256"]);
        assert_eq!(remarks(at(300), &managed(300), true), ["dry run: the log would start at 300"]);
    }
}
