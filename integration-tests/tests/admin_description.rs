//! The description that the admin endpoint serves, and the examples in docs/admin.md, against what nodes answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jsonschema::Validator;
use loglog_integration_tests::http::{Reply, get, get_json, request, send};
use loglog_integration_tests::{Cluster, RawClient, until};
use serde_json::{Value, json};

use crate::admin_kit::append;
use crate::daemon;

const DEADLINE: Duration = Duration::from_secs(30);

/// The description, and what was checked against it.
struct Description {
    text: Value,
    seen: BTreeSet<(String, String)>,
}

impl Description {
    fn of(admin: &str) -> Self {
        Self { text: get_json(admin, "/api/openapi.json"), seen: BTreeSet::new() }
    }

    /// The operation's description of this answer is there, and the answer is like that.
    fn check(&mut self, method: &str, path: &str, reply: &Reply) {
        let responses = &self.text["paths"][path][method]["responses"];
        let described = &responses[reply.status.to_string()];
        assert!(described.is_object(), "{method} {path}: {} is not described: {}", reply.status, reply.body);
        let kind = reply.header("content-type");
        match described["content"].as_object() {
            None => assert_eq!(reply.body, "", "{method} {path}: no content is described"),
            Some(content) => {
                let (described, media) = content.iter().next().unwrap();
                assert!(
                    kind == described || kind == format!("{described}; charset=utf-8"),
                    "{method} {path}: {kind}"
                );
                if described == "application/json" {
                    self.matches(&media["schema"], &reply.json(), &format!("{method} {path}"));
                }
            }
        }
        self.seen.insert((method.to_owned(), path.to_owned()));
    }

    fn matches(&self, schema: &Value, answer: &Value, what: &str) {
        let problems = self.problems(schema, answer);
        assert!(problems.is_empty(), "{what}: {}\nin {answer:#}", problems.join("\n"));
    }

    fn problems(&self, schema: &Value, answer: &Value) -> Vec<String> {
        let mut whole = schema.clone();
        whole["components"] = self.text["components"].clone();
        let validator: Validator = jsonschema::draft202012::new(&whole).expect("a schema that can be used");
        let errors = validator.iter_errors(answer);
        errors.map(|error| format!("{error} at {}", error.instance_path())).collect()
    }
}

#[test]
fn every_answer_is_as_its_description_says() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3);
    let (leader, _) = cluster.leader();
    let mut client = RawClient::connect(cluster.client(leader));
    for sequence in 1..=200 {
        append(&mut client, sequence);
    }
    let admins: Vec<String> = cluster.ids().map(|id| cluster.admin(id)).collect();
    let leads = cluster.admin(leader);
    let mut description = Description::of(&leads);
    // A panic, so that there is one to describe.
    let fault = send(&leads, "POST", "/api/faults", r#"{"actor":"read-waiters","how":"handler"}"#);
    description.check("post", "/api/faults", &fault);
    until("the panic is shown", DEADLINE, || {
        !get_json(&leads, "/api/actors/read-waiters")["last_panic"].is_null()
    });
    until("there is a history", DEADLINE, || {
        get_json(&leads, "/api/history")["samples"].as_array().is_some_and(|samples| samples.len() > 2)
    });
    let (mut kinds, mut tell) = (BTreeSet::new(), BTreeSet::new());
    let documented = documented();
    for admin in &admins {
        for path in [
            "/",
            "/api/cluster",
            "/api/log",
            "/api/config",
            "/api/history",
            "/api/log-level",
            "/api/openapi.json",
            "/health/live",
            "/health/ready",
            "/metrics",
            "/api/actors",
        ] {
            description.check("get", path, &get(admin, path));
        }
        let actors = get_json(admin, "/api/actors");
        for actor in actors["actors"].as_array().unwrap() {
            let detail = get(admin, &format!("/api/actors/{}", actor["name"].as_str().unwrap()));
            // A connection may be gone by now: that is described, too.
            description.check("get", "/api/actors/{name}", &detail);
            let kind = actor["kind"].as_str().unwrap();
            if let Some(observed) = detail.json()["observed"].as_object() {
                let told: BTreeSet<String> = observed.keys().cloned().collect();
                assert_eq!(documented.get(kind), Some(&told), "what a {kind} tells of itself");
                tell.insert(kind.to_owned());
            }
            kinds.insert(kind.to_owned());
        }
        let of_a_kind = get(admin, "/api/actors?kind=PeerLink");
        description.check("get", "/api/actors", &of_a_kind);
        assert_eq!(of_a_kind.json()["actors"].as_array().unwrap().len(), 2, "{}", of_a_kind.body);
        let level = get_json(admin, "/api/log-level").to_string();
        description.check("put", "/api/log-level", &send(admin, "PUT", "/api/log-level", &level));
    }
    for kind in [
        "Node",
        "Group",
        "Consensus",
        "SegmentWriter",
        "SegmentKeeper",
        "UploadBuffer",
        "ReadWaiters",
        "Listener",
        "Connection",
        "PeerListener",
        "PeerConnection",
        "PeerLink",
        "Fetcher",
    ] {
        assert!(kinds.contains(kind), "no actor of kind {kind} among {kinds:?}");
    }
    assert_eq!(tell, documented.keys().cloned().collect(), "each kind that is documented was seen to tell");
    // What is refused.
    for (path, name) in [("/api/actors?x=1", "/api/actors"), ("/api/actors/nobody", "/api/actors/{name}")] {
        description.check("get", name, &get(&leads, path));
    }
    description.check("put", "/api/log-level", &send(&leads, "PUT", "/api/log-level", "{}"));
    let bare = request(&leads, "PUT", "/api/log-level", &[("Host", &leads)], "{}");
    description.check("put", "/api/log-level", &bare);
    let large = format!(r#"{{"level":"{}"}}"#, "x".repeat(10_000));
    description.check("put", "/api/log-level", &send(&leads, "PUT", "/api/log-level", &large));
    for body in ["{}", r#"{"actor":"nobody","how":"handler"}"#, r#"{"actor":"listener","how":"sideways"}"#] {
        description.check("post", "/api/faults", &send(&leads, "POST", "/api/faults", body));
    }
    let evil = request(&leads, "GET", "/api/cluster", &[("Host", "evil.example")], "");
    description.check("get", "/api/cluster", &evil);
    // And what is not there.
    let error = json!({"$ref": "#/components/schemas/Error"});
    let paths = description.text["paths"].as_object().unwrap().clone();
    for (path, operations) in &paths {
        let allowed: BTreeSet<String> =
            operations.as_object().unwrap().keys().map(|it| it.to_uppercase()).collect();
        let reply = send(&leads, "DELETE", &path.replace("{name}", "consensus"), "");
        assert_eq!(reply.status, 405, "{path}");
        let told: BTreeSet<String> = reply.header("allow").split(", ").map(str::to_owned).collect();
        assert_eq!(
            told.difference(&BTreeSet::from(["HEAD".to_owned()])).cloned().collect::<BTreeSet<_>>(),
            allowed,
            "{path}"
        );
        description.matches(&error, &reply.json(), path);
    }
    let nowhere = get(&leads, "/api/nowhere");
    assert_eq!(nowhere.status, 404);
    description.matches(&error, &nowhere.json(), "/api/nowhere");

    let all: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, operations)| {
            operations.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone()))
        })
        .collect();
    assert_eq!(description.seen, all, "every operation that is described was tried");

    // A cluster that is down to one node: what is not ready is described, too.
    let others: Vec<u32> = cluster.ids().filter(|id| *id != leader).collect();
    for other in others {
        cluster.kill(other);
    }
    until("it is not ready", DEADLINE, || get(&leads, "/health/ready").status == 503);
    description.check("get", "/health/ready", &get(&leads, "/health/ready"));
    description.check("get", "/api/cluster", &get(&leads, "/api/cluster"));
}

#[test]
fn an_answer_that_is_not_as_described_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    append(&mut RawClient::connect(node.address()), 1);
    let description = Description::of(node.admin());
    let schema = json!({"$ref": "#/components/schemas/Log"});
    let good = get_json(node.admin(), "/api/log");
    assert!(description.problems(&schema, &good).is_empty());
    let broken: [fn(&mut Value); 4] = [
        |it| it["more"] = json!(1),
        |it| it["start"] = json!("0"),
        |it| it["segments"][0]["sealed"] = Value::Null,
        |it| drop(it.as_object_mut().unwrap().remove("repairs")),
    ];
    for change in broken {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(!description.problems(&schema, &bad).is_empty(), "{bad}");
    }
}

/// What each kind of actor tells of itself, as docs/admin.md has it.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/admin.md")).unwrap();
    let table = text.split("| kind | fields |").nth(1).unwrap().split("\n\n").next().unwrap();
    let rows =
        table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    let rows = rows.filter(|(kind, _)| *kind != "---");
    let fields = |text: &str| text.split(", ").map(|field| field.trim_matches('`').to_owned()).collect();
    rows.map(|(kind, text)| (kind.to_owned(), fields(text))).collect()
}

/// The commands of docs/admin.md, each with the JSON printed behind it, if there is one.
fn examples() -> Vec<(String, Option<Value>)> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/admin.md")).unwrap();
    let mut found: Vec<(String, Option<Value>)> = Vec::new();
    let mut blocks = text.split("\n```");
    blocks.next();
    while let (Some(block), next) = (blocks.next(), blocks.next()) {
        let (kind, content) = block.split_once('\n').unwrap();
        match kind {
            "sh" => found.extend(content.lines().map(|line| (line.to_owned(), None))),
            "json" => {
                let shown =
                    serde_json::from_str(content).unwrap_or_else(|error| panic!("{error} in {content}"));
                found.last_mut().expect("an answer follows its command").1 = Some(shown);
            }
            _ => {}
        }
        if next.is_none() {
            break;
        }
    }
    found
}

/// Whether all that is shown is there, with values of the same kind (null may stand for anything).
fn differs(shown: &Value, answer: &Value, at: &str) -> Option<String> {
    match (shown, answer) {
        (Value::Object(shown), Value::Object(answer)) => shown.iter().find_map(|(key, value)| {
            let at = format!("{at}.{key}");
            answer.get(key).map_or(Some(format!("{at} is not there")), |answer| differs(value, answer, &at))
        }),
        (Value::Array(shown), Value::Array(answer)) => {
            shown.iter().zip(answer).find_map(|(shown, answer)| differs(shown, answer, at))
        }
        (Value::Null, _) | (_, Value::Null) => None,
        _ if std::mem::discriminant(shown) == std::mem::discriminant(answer) => None,
        _ => Some(format!("{at}: {shown} is shown, {answer} was answered")),
    }
}

#[test]
fn the_examples_of_the_documentation_work_as_printed() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: needs curl");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set("debug.faults=true").start();
    let mut client = RawClient::connect(node.address());
    append(&mut client, 1);
    let examples = examples();
    assert!(examples.len() >= 14, "{examples:?}");
    for (command, shown) in examples {
        assert!(command.starts_with("curl -s "), "{command}");
        let here = command.replace("127.0.0.1:19196", node.admin());
        assert_ne!(here, command, "each names the default address");
        let output = Command::new("sh").args(["-c", &format!("{here} --fail-with-body")]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command}\n{said}{}", String::from_utf8_lossy(&output.stderr));
        println!("{command}: {} bytes", said.len());
        if let Some(shown) = shown {
            let answer: Value =
                serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said}"));
            assert_eq!(differs(&shown, &answer, ""), None, "{command}: {answer}");
        }
    }
}
