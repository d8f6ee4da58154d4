//! `loglog completions`: scripts that let a shell complete our commands.

use clap::CommandFactory;

use crate::exit::Outcome;
use crate::output::Output;

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = "For bash: `source <(loglog completions bash)` in ~/.bashrc.")]
pub(crate) struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

pub(crate) fn run<C: CommandFactory>(args: &Args) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "loglog", &mut script);
    let mut output = Output::new();
    output.bytes(&script)?;
    output.flush()
}
