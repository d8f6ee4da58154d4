//! Screen: the terminal while `top` has it.
//!
//! Owns:   its mode and its second screen. Both are given back when this is dropped, also by a panic.
//! Keeps:  a picture is one write, and a line is never longer than the screen is wide.

use std::io::{self, IsTerminal, Read, Write};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::frame::Line;
use crate::exit::{Outcome, Stop};

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// What a person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Next,
    Previous,
    Other,
}

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// The terminal.
pub(super) struct Screen {
    /// How it was; `None` if keys come from elsewhere.
    before: Option<Termios>,
    has_colours: bool,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn enter() -> Outcome<Self> {
        let before = if io::stdin().is_terminal() { raw()? } else { None };
        let screen =
            Self { before, has_colours: std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()) };
        write(ENTER)?;
        Ok(screen)
    }

    pub(super) fn size(&self) -> Size {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
            }
            _ => Size { columns: 80, rows: 24 },
        }
    }

    /// Shows `lines` in place of what is there.
    pub(super) fn show(&mut self, lines: &[Line], size: Size) -> Outcome {
        let mut text = String::from("\x1b[H");
        for (row, line) in lines.iter().take(size.rows).enumerate() {
            if row > 0 {
                text.push_str("\r\n");
            }
            text.push_str(&line.ansi(size.columns, self.has_colours));
            text.push_str("\x1b[K");
        }
        // Below it there may be something left of a longer one.
        text.push_str("\x1b[J");
        write(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Whoever cannot be written to has no screen to be given back.
        let _ = write(LEAVE);
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Keys one by one, unseen; returns how it was before.
fn raw() -> Outcome<Option<Termios>> {
    let cannot = |error: rustix::io::Errno| Stop::failed(format!("cannot set the terminal's mode: {error}"));
    let before = tcgetattr(io::stdin()).map_err(cannot)?;
    let mut mode = before.clone();
    mode.make_raw();
    tcsetattr(io::stdin(), OptionalActions::Now, &mode).map_err(cannot)?;
    Ok(Some(before))
}

fn write(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Stop::output(&error))
}

/// What is typed, from now on. Its thread ends with the process: nothing else wakes a thread that reads a terminal.
pub(super) fn keys() -> mpsc::Receiver<Key> {
    let (tell, told) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut typed = [0; 64];
        while let Ok(count @ 1..) = io::stdin().read(&mut typed) {
            if tell.blocking_send(key(&typed[..count])).is_err() {
                break;
            }
        }
    });
    told
}

/// What came at once is one key.
fn key(typed: &[u8]) -> Key {
    match typed {
        // A raw terminal sends Ctrl-C as a byte.
        b"q" | b"Q" | b"\x1b" | b"\x03" => Key::Quit,
        b"\t" | b"\x1b[C" | b"\x1bOC" | b"n" => Key::Next,
        b"\x1b[Z" | b"\x1b[D" | b"\x1bOD" | b"p" => Key::Previous,
        _ => Key::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_is_no_escape() {
        let keys = [&b"\x1b"[..], b"\x03", b"q", b"\x1b[C", b"\t", b"\x1b[Z", b"x"].map(key);
        assert_eq!(keys, [Key::Quit, Key::Quit, Key::Quit, Key::Next, Key::Next, Key::Previous, Key::Other]);
    }
}
