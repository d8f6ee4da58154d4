//! Progress: what a person sees while much is appended.
//!
//! Owns:   the choice between bar, spinner and nothing. It goes to standard error.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar where `size` bytes are known to come, else a spinner; nothing where nobody would see it, or where it
/// would mix with `printing` to the same terminal.
pub(crate) fn progress(size: Option<u64>, printing: bool) -> ProgressBar {
    if !io::stderr().is_terminal() || (printing && io::stdout().is_terminal()) {
        return ProgressBar::hidden();
    }
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{bar:30} {percent:>3} %  {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}, {bytes_per_sec}, {elapsed}"),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    // A template that does not parse would be our mistake, and no reason to append nothing.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_bar_does_no_harm() {
        // Tests have no terminal.
        let bar = progress(Some(10), true);
        bar.inc(5);
        bar.finish_and_clear();
        assert_eq!(bar.position(), 5);
    }
}
