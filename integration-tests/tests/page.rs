//! The page of a node, in a browser: it shows what the node tells, as it happens, and says so when it loses it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use loglog_integration_tests::browser::{Browser, Device, ENTER, ESCAPE};
use loglog_integration_tests::{Cluster, Load, LoadOptions, http, until, within};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(60);

const DESK: Device = Device { width: 1280, height: 1800, is_dark: false };
const PHONE: Device = Device { width: 360, height: 2600, is_dark: false };

/// Takes a picture for people to look at, and checks that there is something on it.
fn picture(browser: &Browser, name: &str, device: Device) {
    browser.look(device);
    // Nothing sticks out to the right.
    let too_wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
    assert_eq!(browser.run(too_wide), json!(false), "{name}: it has to be moved sideways");
    let png = browser.screenshot();
    assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n", "{name} is a PNG");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    assert_eq!((number(16), number(20)), (device.width, device.height), "{name} is as large as the window");
    // A page without content is a few kilobytes at this size.
    assert!(png.len() > 25_000, "{name} is hardly empty: {} bytes", png.len());
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{name}.png"));
    std::fs::write(&file, png).unwrap();
    println!("{}", file.display());
}

/// The names in the table; what is folded is opened first.
fn shown(browser: &Browser) -> BTreeSet<String> {
    let names = browser.run(
        "document.querySelectorAll('#actors button[aria-expanded=false]').forEach((it) => it.click());
         return [...document.querySelectorAll('#actors tbody tr')].map((row) => row.dataset.key)
           .filter((key) => !key.includes('/'))",
    );
    names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// The text of one cell of an actor's row.
fn cell(browser: &Browser, actor: &str, class: &str) -> String {
    browser.text(&format!("#actors tr[data-key='{actor}'] .{class}")).unwrap_or_default()
}

fn is_lost(browser: &Browser) -> bool {
    browser.run("return !document.getElementById('banner').hidden") == json!(true)
}

#[test]
fn the_page_shows_a_cluster_at_work_a_restart_and_that_it_lost_its_node() {
    let browser = match Browser::start() {
        Ok(browser) => browser,
        Err(lack) => {
            println!("skipped: {lack}");
            return;
        }
    };
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3);
    let load = Load::start(cluster.clients(), LoadOptions { writers: 3, in_flight: 8, readers: 3 });
    load.progress(1000, DEADLINE);
    let (leader, _) = cluster.leader();
    let admin = cluster.admin(leader);

    browser.look(DESK);
    browser.open(&format!("http://{admin}/"));
    within("the page knows the node", DEADLINE, || {
        (browser.text("#title")? == format!("Node {leader}")).then_some(())
    });

    // All actors of that node, and none else.
    let told = || -> BTreeSet<String> {
        let answer = http::get_json(&admin, "/api/actors");
        let actors = answer["actors"].as_array().unwrap().clone();
        actors.iter().map(|actor| actor["name"].as_str().unwrap().to_owned()).collect()
    };
    let (names, took) = within("the page shows what the node tells", DEADLINE, || {
        let names = shown(&browser);
        (!names.is_empty() && names == told()).then_some(names)
    });
    for name in ["node", "consensus", "segment-writer", "segment-keeper", "upload-buffer", "read-waiters"] {
        assert!(names.contains(name), "{name} in {names:?}");
    }
    assert!(names.iter().filter(|name| name.starts_with("connection-")).count() >= 3, "{names:?}");
    println!("{} actors on the page after {took:?}", names.len());
    let fold = "document.querySelectorAll('#actors button[aria-expanded=true]').forEach((it) => it.click())";
    let _ = browser.run(fold);
    until("connections are one row again", DEADLINE, || shown_without_opening(&browser) < names.len());

    // It moves: appends, messages, all members in touch, the log's watermarks.
    let is_at_work =
        |text: Option<String>| text.is_some_and(|text| text.starts_with(|c| ('1'..='9').contains(&c)));
    until("appends are counted", DEADLINE, || is_at_work(browser.text("#appends .number")));
    until("syncs are timed", DEADLINE, || is_at_work(browser.text("#sync .number")));
    until("messages are counted", DEADLINE, || is_at_work(Some(cell(&browser, "consensus", "rate"))));
    until("both peers are in touch", DEADLINE, || {
        browser.text("#members").is_some_and(|text| text.matches("connected").count() == 2)
    });
    let before = browser.text("[data-fact=committed]");
    assert!(is_at_work(before.clone()), "{before:?}");
    until("the committed end moves", DEADLINE, || browser.text("[data-fact=committed]") != before);
    assert_eq!(browser.run("return document.querySelectorAll('.strip .blocks i').length > 0"), json!(true));

    picture(&browser, "light", DESK);
    picture(&browser, "dark", Device { is_dark: true, ..DESK });
    picture(&browser, "phone", PHONE);
    picture(&browser, "phone-dark", Device { is_dark: true, ..PHONE });
    browser.look(DESK);

    // The drawer, by keyboard.
    let _ = browser.run("document.querySelector(\"#actors tr[data-key='consensus'] button\").focus()");
    browser.type_keys(ENTER);
    until("the drawer tells of messages", DEADLINE, || {
        browser.text("#drawer .messages").is_some_and(|text| text.contains("handled"))
    });
    assert!(browser.text("#drawer .observed").is_some_and(|text| text.contains("commit index")));
    picture(&browser, "drawer", DESK);
    picture(&browser, "drawer-phone", PHONE);
    browser.look(DESK);
    browser.type_keys(ESCAPE);
    until("Esc closes it", DEADLINE, || {
        browser.run("return document.getElementById('drawer').open") == json!(false)
    });
    let focused = browser.run("return document.activeElement.closest('tr')?.dataset.key ?? null");
    assert_eq!(focused, json!("consensus"), "the focus is back where it was");

    // A restart.
    assert_eq!(cell(&browser, "upload-buffer", "restarts"), "0");
    let fault = json!({ "actor": "upload-buffer", "how": "handler" }).to_string();
    assert_eq!(http::send(&admin, "POST", "/api/faults", &fault).status, 204);
    let seen = until("the restart is seen", DEADLINE, || {
        cell(&browser, "upload-buffer", "restarts") == "1"
            && cell(&browser, "upload-buffer", "panic").contains("injected")
    });
    println!("a restart is on the page {seen:?} after the panic");
    let _ = browser.run("document.querySelector(\"#actors tr[data-key='upload-buffer'] button\").click()");
    until("the drawer tells of the panic", DEADLINE, || {
        browser.text("#drawer .panicked pre").is_some_and(|text| text.contains("injected"))
    });
    picture(&browser, "panic", DESK);
    browser.type_keys(ESCAPE);
    load.progress(1000, DEADLINE);

    // Nothing was refused by the page's own policy, and no script failed.
    let mut complaints = browser.complaints();
    // That a node is not ready comes with a status that browsers note; around a restart that is as it should be.
    complaints.retain(|it| !it.contains("/health/ready"));
    assert!(complaints.is_empty(), "{complaints:?}");

    // A node that is silent for a while, and one that is gone.
    assert!(!is_lost(&browser));
    cluster.freeze(leader);
    until("the page says that it lost the node", DEADLINE, || is_lost(&browser));
    cluster.thaw(leader);
    until("it is back by itself", DEADLINE, || !is_lost(&browser));
    cluster.kill(leader);
    let lost = until("the page says that it lost the node", DEADLINE, || is_lost(&browser));
    println!("the banner is there {lost:?} after the kill");
    let banner = browser.text("#banner").unwrap();
    assert!(banner.contains("has not answered since"), "{banner}");
    assert_eq!(browser.text("#pulse").unwrap(), "lost");
    assert_eq!(browser.run("return document.body.className"), json!("lost"));
    picture(&browser, "lost", DESK);
    picture(&browser, "lost-phone", PHONE);
}

fn shown_without_opening(browser: &Browser) -> usize {
    let rows = browser.run("return document.querySelectorAll('#actors tbody tr').length");
    usize::try_from(rows.as_u64().unwrap()).unwrap()
}
