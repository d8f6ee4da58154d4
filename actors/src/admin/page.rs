//! Page: the files of the page at `/`, embedded.
//!
//! Owns:   which files there are, and what type each has. They lie in `page/`.
//! Never:  reads a file at run time, or names another host.

use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Responder};

use super::api::{LOOK, look, takes};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, content type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("page/index.html")),
    ("/page/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/page/page.css", CSS, include_str!("page/page.css")),
    ("/page/parts.css", CSS, include_str!("page/parts.css")),
    ("/page/page.js", SCRIPT, include_str!("page/page.js")),
    ("/page/actors.js", SCRIPT, include_str!("page/actors.js")),
    ("/page/cluster.js", SCRIPT, include_str!("page/cluster.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/page/drawer.js", SCRIPT, include_str!("page/drawer.js")),
    ("/page/figures.js", SCRIPT, include_str!("page/figures.js")),
    ("/page/format.js", SCRIPT, include_str!("page/format.js")),
    ("/page/log.js", SCRIPT, include_str!("page/log.js")),
    ("/page/node.js", SCRIPT, include_str!("page/node.js")),
    ("/page/rates.js", SCRIPT, include_str!("page/rates.js")),
    ("/page/spark.js", SCRIPT, include_str!("page/spark.js")),
];

pub(super) fn routes(config: &mut ServiceConfig) {
    for (path, ..) in FILES {
        config.service(web::resource(*path).route(look().to(file)).default_service(takes(LOOK)));
    }
}

async fn file(request: HttpRequest) -> impl Responder {
    let (_, kind, content) = FILES
        .iter()
        .find(|(path, ..)| *path == request.path())
        .expect("only paths of this list are routed here");
    HttpResponse::Ok().content_type(*kind).body(*content)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between `begin` and the next quotation mark, wherever it does.
    fn named<'a>(text: &'a str, begin: &'static str) -> impl Iterator<Item = &'a str> {
        text.split(begin).skip(1).filter_map(|rest| rest.split('"').next())
    }

    #[test]
    fn whatever_the_page_loads_is_here_and_nothing_is_loaded_from_elsewhere() {
        let is_here = |path: &str| FILES.iter().any(|(own, ..)| *own == path);
        let html = FILES[0].2;
        let assets: Vec<&str> = named(html, "=\"page/").collect();
        assert!(assets.len() >= 4, "{assets:?}");
        for name in assets {
            assert!(is_here(&format!("/page/{name}")), "{name}");
        }
        for (path, kind, text) in FILES {
            for name in named(text, " from \"./") {
                assert!(is_here(&format!("/page/{name}")), "{path} imports {name}");
            }
            // The one address in it names a language, and is never asked.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !text.contains("http://") && !text.contains("https://") && !text.contains("url("),
                "{path}"
            );
            if *kind == HTML {
                for inline in ["<style", "style=", "<script>", "onclick", "javascript:"] {
                    assert!(!text.contains(inline), "{path}: the policy refuses {inline}");
                }
            }
        }
    }
}
