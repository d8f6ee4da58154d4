//! The layers and their mistakes.

use std::collections::BTreeSet;
use std::io::Write as _;

use config::Map;

use super::keys::KEYS;
use super::*;

const DEFAULT_TOML: &str = include_str!("../../configs/default.toml");

/// Loads from `file`'s text, `environment` and `set`.
fn load(file: &str, environment: &[(&str, &str)], set: &[&str]) -> Result<Effective, ConfigError> {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    let environment: Map<String, String> =
        environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let set = set.iter().map(|s| (*s).to_owned()).collect();
    Sources { file: Some(on_disk.path().to_owned()), environment: Some(environment), set }.load()
}

fn message(file: &str, environment: &[(&str, &str)], set: &[&str]) -> String {
    load(file, environment, set).unwrap_err().to_string()
}

#[test]
fn nothing_at_all_gives_the_defaults() {
    assert_eq!(load("", &[], &[]).unwrap(), Effective::default());
    assert_eq!(Effective::default().summary(), "all defaults");
}

#[test]
fn default_toml_says_exactly_the_defaults_and_names_every_key() {
    let effective = load(DEFAULT_TOML, &[], &[]).unwrap();
    assert_eq!(effective.config, NodeConfig::default());
    let named: BTreeSet<&str> =
        effective.entries().filter(|(_, _, l)| **l != Layer::Default).map(|(name, _, _)| name).collect();
    assert_eq!(named, KEYS.iter().map(|key| key.name).collect());
}

#[test]
fn default_toml_writes_values_as_they_are_printed() {
    for (name, value, _) in Effective::default().entries() {
        let (_, key) = name.split_once('.').unwrap();
        assert!(DEFAULT_TOML.contains(&format!("\n{key} = {value}\n")), "{name} = {value}");
    }
}

#[test]
fn a_later_layer_wins_and_is_remembered() {
    let file = "[data]\ndir = \"/file\"\nfree_min = \"1 GiB\"\n[raft]\ntick = \"50 ms\"";
    let environment =
        [("LOGLOGD_DATA__DIR", "/env"), ("LOGLOGD_DATA__FREE_MIN", "2 GiB"), ("LOGLOG_ENDPOINTS", "x")];
    let effective = load(file, &environment, &["data.dir=/one", "data.dir=/two"]).unwrap();
    assert_eq!(effective.config.data.dir, PathBuf::from("/two"));
    assert_eq!(effective.config.data.free_min, Length::new(2 << 30));
    assert_eq!(effective.config.raft.tick, Duration::from_millis(50));
    let layer_of = |name| effective.entries().find(|(n, _, _)| *n == name).unwrap().2.clone();
    assert_eq!(layer_of("data.dir"), Layer::Flag);
    assert_eq!(layer_of("data.free_min"), Layer::Variable("LOGLOGD_DATA__FREE_MIN".to_owned()));
    assert!(matches!(layer_of("raft.tick"), Layer::File(_)));
    assert_eq!(layer_of("node.id"), Layer::Default);
    assert_eq!(effective.summary(), "data.dir = \"/two\", data.free_min = \"2 GiB\", raft.tick = \"50 ms\"");
}

#[test]
fn every_key_can_be_set_by_every_layer() {
    for (name, value, _) in Effective::default().entries() {
        let text = value.trim_matches('"');
        let variable = format!("LOGLOGD_{}", name.to_uppercase().replace('.', "__"));
        assert_eq!(load("", &[(&variable, text)], &[]).unwrap().config, NodeConfig::default(), "{variable}");
        assert_eq!(load("", &[], &[&format!("{name}={text}")]).unwrap().config, NodeConfig::default());
        assert_eq!(load(&format!("{name} = {value}"), &[], &[]).unwrap().config, NodeConfig::default());
    }
}

#[test]
fn what_is_printed_is_a_file_that_says_the_same() {
    let nodes = r#"cluster.nodes=[{id=1,peer="a:1",client="b:2"},{id=7,peer="c:3",client="[::1]:4"}]"#;
    let odd = "data.dir=/a \"quoted\" \\ path\u{7f}\n";
    let set = ["cluster.id=ab", nodes, odd, "node.id=7", "raft.tick=1.5 s", "log.level=warning,raft=debug"];
    let effective = load("", &[], &set).unwrap();
    assert_eq!(effective.config.cluster.nodes.len(), 2);
    let printed = effective.to_toml();
    assert_eq!(load(&printed, &[], &[]).unwrap().config, effective.config, "{printed}");
}

#[test]
fn an_unknown_key_is_an_error_in_every_layer_and_the_nearest_is_named() {
    let said = message("[data]\ndri = \"/x\"", &[], &[]);
    assert!(said.starts_with("unknown key 'data.dri' in file /"), "{said}");
    assert!(said.ends_with("did you mean 'data.dir'?"), "{said}");
    let said = message("", &[("LOGLOGD_DATA_DIR", "/x")], &[]);
    assert_eq!(said, "unknown key 'data_dir' in variable LOGLOGD_DATA_DIR; did you mean LOGLOGD_DATA__DIR?");
    let said = message("", &[], &["listen.clint=1.2.3.4:5"]);
    assert_eq!(said, "unknown key 'listen.clint' in flag --set; did you mean 'listen.client'?");
    let said = message("", &[], &["colour=blue"]);
    assert!(said.ends_with("`loglogd --print-config` lists all keys"), "{said}");
    assert!(message("", &[("LOGLOGD_PORT_80_TCP", "tcp://x")], &[]).contains("enableServiceLinks"));
}

#[test]
fn a_section_is_no_key_and_a_key_no_section() {
    assert!(message("data = 5", &[], &[]).contains("section of data.dir, data.free_min, data.accept_loss"));
    assert!(message("[data.dir]\nx = 1", &[], &[]).contains("unknown key 'data.dir.x'"));
    assert!(message("[nonsense]", &[], &[]).contains("unknown key 'nonsense'"));
    assert!(load("[data]", &[], &[]).is_ok());
}

#[test]
fn a_bad_value_names_key_value_layer_and_what_is_expected() {
    let said = message("", &[("LOGLOGD_DATA__FREE_MIN", "67108864")], &[]);
    assert_eq!(
        said,
        "bad value \"67108864\" for 'data.free_min' in variable LOGLOGD_DATA__FREE_MIN: a unit is missing: \
         write \"67108864 B\" or \"64 MiB\""
    );
    let said = message("raft.tick = 5", &[], &[]);
    assert!(said.starts_with("bad value 5 for 'raft.tick' in file "), "{said}");
    assert!(said.ends_with("write \"5 s\" or \"5 ms\""), "{said}");
    for (set, expected) in [
        ("segment.bytes_max=1 KiB", "expected from 64 KiB to 1 GiB"),
        ("segment.bytes_max=2 GiB", "expected from 64 KiB to 1 GiB"),
        ("connection.bytes_max=1 MiB", "expected from 16 MiB to 1 TiB"),
        ("connection.max=0", "expected a whole number from 1 to 1000000"),
        ("connection.max=many", "expected a whole number"),
        ("connection.busy_poll=11 ms", "expected from"),
        ("peers.bulk_bytes_per_second=5", "a unit is missing"),
        ("node.id=0", "expected a whole number from 1"),
        ("data.accept_loss=yes", "expected true or false"),
        ("data.dir=", "expected the path of a directory"),
        ("listen.client=localhost", "such as 127.0.0.1:19194"),
        ("listen.client=19194", "or \"\" for nowhere"),
        ("listen.unix_mode=rw", "octal"),
        ("listen.unix_mode=1777", "octal"),
        ("listen.admin=localhost", "or \"\" for nowhere"),
        ("cluster.id=xyz", "hex digits"),
        ("cluster.nodes=[1]", "expected a list"),
        ("cluster.nodes=[{id=1}]", "lacks its 'peer'"),
        ("cluster.nodes=[{id=1,peer=\"a\",client=\"b:1\"}]", "no host:port"),
        ("cluster.nodes=[{id=1,peer=\"a:1\",client=\"b:1\",x=1}]", "unknown field 'x'"),
        ("cluster.nodes=[]\nx=1", "expected a list"),
        ("cluster.join=yes", "expected true or false"),
        ("advertise.client=host", "no host:port"),
        ("advertise.peer=host:0", "no host:port"),
        ("advertise.peer=0.0.0.0:19195", "nobody can connect to 0.0.0.0"),
        ("log.level=loud", "info"),
        ("log.format=xml", "auto, terminal or json"),
        ("raft.tick=1 ms", "expected from 10 ms to 10 s"),
    ] {
        let said = message("", &[], &[set]);
        assert!(said.starts_with("bad value ") && said.contains(expected), "{set}: {said}");
    }
    assert!(message("cluster.id = 12", &[], &[]).contains("write it in quotes"));
}

#[test]
fn a_mistake_is_found_even_where_a_later_layer_covers_it() {
    assert!(load("raft.tick = 5", &[], &["raft.tick=100 ms"]).is_err());
}

#[test]
fn values_that_cannot_both_be_are_refused() {
    let said = message("", &[], &["listen.peer=127.0.0.1:19194"]);
    assert!(said.contains("'listen.peer'") && said.contains("'listen.client' too"), "{said}");
    assert!(load("", &[], &["listen.peer=127.0.0.1:0", "listen.client=127.0.0.1:0"]).is_ok());
    // A node alone may be reached by nobody, a member of a cluster must be by all.
    assert!(load("", &[], &["listen.peer=", "listen.client=", "listen.admin="]).is_ok());
    for key in ["listen.peer", "listen.client"] {
        let said = message("", &[], &["cluster.join=true", "cluster.id=1", &format!("{key}=")]);
        assert!(said.contains(key) && said.contains("must reach"), "{said}");
    }
    let said =
        message("node.id = 2\ncluster.nodes = [{ id = 1, peer = \"a:1\", client = \"a:2\" }]", &[], &[]);
    assert!(said.contains("none of the ids"), "{said}");
    let said = message("[cluster]\njoin = true", &[], &[]);
    assert!(said.starts_with("'cluster.join' (from file "), "{said}");
    assert!(said.contains("set 'cluster.id'"), "{said}");
    let nodes = r#"cluster.nodes=[{id=1,peer="a:1",client="a:2"}]"#;
    let said = message("", &[], &["cluster.join=true", "cluster.id=ab", nodes]);
    assert!(said.contains("'cluster.join' (from flag --set)") && said.contains("'cluster.nodes'"), "{said}");
    assert!(load("", &[], &["cluster.join=true", "cluster.id=ab"]).unwrap().config.cluster.join);
}

#[test]
fn the_admin_endpoint_can_be_turned_off() {
    let off = load("", &[], &["listen.admin="]).unwrap();
    assert_eq!(off.config.listen.admin, None);
    assert!(off.values().contains(&("listen.admin".to_owned(), "\"\"".to_owned())));
    assert_eq!(load(&off.to_toml(), &[], &[]).unwrap().config, off.config);
    let said = message("", &[], &["listen.admin=127.0.0.1:19194"]);
    assert!(said.contains("'listen.admin'") && said.contains("'listen.client' too"), "{said}");
}

#[test]
fn an_advertised_address_may_be_a_name() {
    let set = ["advertise.client=log-1.example:19194", "advertise.peer=[::1]:19195"];
    let config = load("", &[], &set).unwrap().config;
    assert_eq!(config.advertise.client.as_deref(), Some("log-1.example:19194"));
    assert_eq!(config.advertise.peer.as_deref(), Some("[::1]:19195"));
    assert_eq!(load("", &[], &["advertise.peer="]).unwrap().config.advertise.peer, None);
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_named() {
    let sources =
        Sources { file: Some("/nowhere/x.toml".into()), environment: Some(Map::new()), set: vec![] };
    assert!(sources.load().unwrap_err().to_string().contains("/nowhere/x.toml: No such file"));
    let said = message("[data\n", &[], &[]);
    assert!(said.contains("is not TOML") && said.contains("line 1"), "{said}");
    assert!(message("", &[], &["data.dir"]).contains("key=value"));
}

#[test]
fn the_flags_are_sound() {
    use clap::{CommandFactory as _, Parser as _};
    DaemonArgs::command().debug_assert();
    let args = DaemonArgs::parse_from(["loglogd", "--set", "node.id=3", "--set", "data.dir=/x"]);
    assert_eq!(args.set.len(), 2);
}
