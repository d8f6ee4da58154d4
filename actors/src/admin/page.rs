//! Page: the files of the page at `/`, embedded.
//!
//! Owns:   which files there are, and what type each has. They lie in `page/`.
//! Never:  reads a file at run time, or names another host.

use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Responder};

use super::api::{LOOK, look, takes};

/// Path, content type, content.
const FILES: &[(&str, &str, &[u8])] = &[("/", "text/html; charset=utf-8", include_bytes!("page/index.html"))];

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
