//! `loglog inspect`.
use crate::exit::Outcome;
/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {}
pub(crate) fn run(_: &Args) -> Outcome {
    Ok(())
}
