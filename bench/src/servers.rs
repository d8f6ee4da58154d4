//! Servers: which programs are there.
//!
//! Owns:   finding them, and what they say their version is.
//! Never:  starts one to serve.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::args::Paths;
use crate::plan::Kind;

/// A program that was found.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    pub(crate) version: String,
}

/// Finds that kind's server, or says why it is not there.
pub(crate) fn find(kind: Kind, paths: &Paths) -> Result<Server, String> {
    let name = match kind {
        Kind::LogLog => "loglogd",
        Kind::Redis => "redis-server",
        Kind::Nats => "nats-server",
        Kind::Etcd => "etcd",
    };
    if kind == Kind::Etcd && !cfg!(feature = "etcd") {
        return Err("this program was built without etcd's client, which needs protoc".to_owned());
    }
    let program = match paths.of(kind) {
        Some(path) if is_file(path) => path.clone(),
        Some(path) => return Err(format!("--{name} {}: no such file", path.display())),
        None => beside(name)
            .filter(|_| kind == Kind::LogLog)
            .or_else(|| in_path(name))
            .ok_or_else(|| format!("{name} is not in PATH: install it, or tell where it is by --{name}"))?,
    };
    let version = version(&program)?;
    Ok(Server { kind, program, version })
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}

fn beside(name: &str) -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.parent()?.join(name);
    is_file(&path).then_some(path)
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| is_file(path))
}

fn version(program: &Path) -> Result<String, String> {
    let failed = |why: String| format!("{} --version: {why}", program.display());
    let output =
        Command::new(program).arg("--version").output().map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    number(&text).ok_or_else(|| failed(format!("not understood: {}", text.trim())))
}

/// The first word that begins with a digit, whatever stands before it.
fn number(text: &str) -> Option<String> {
    let words = text.split(|c: char| c.is_whitespace() || c == '=' || c == ',');
    let word = words
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))?;
    Some(word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_servers_say() {
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64";
        assert_eq!(number(redis).as_deref(), Some("7.0.15"));
        assert_eq!(number("nats-server: v2.15.1").as_deref(), Some("2.15.1"));
        assert_eq!(number("etcd Version: 3.4.23\nGit SHA: x").as_deref(), Some("3.4.23"));
        assert_eq!(number("loglogd 0.1.0").as_deref(), Some("0.1.0"));
        assert_eq!(number("hello"), None);
    }
}
