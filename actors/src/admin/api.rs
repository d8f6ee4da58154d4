//! Api: from a request to a snapshot, as JSON.
//!
//! Owns:   which addresses there are, and what each takes.
//! Keeps:  what is served is what `openapi.json` describes (a test compares them).
//! Never:  waits for anything but the request's own body, and for that not long.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Responder, Route, guard};
use bytes::BytesMut;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::metrics::{self, Metrics};
use super::refused::Refused;
use super::sources::Sources;
use super::{answers, health};
use crate::faults::How;

/// More than any request here needs.
const BODY_BYTES_MAX: usize = 4096;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// What an address takes that only shows.
pub(super) const LOOK: &str = "GET, HEAD";

type Answer = Result<HttpResponse, Refused>;

pub(super) fn routes(config: &mut ServiceConfig) {
    let mut shows = |path: &str, route: Route| {
        config.service(web::resource(path).route(route).default_service(takes(LOOK)));
    };
    shows("/api/actors", look().to(actors));
    shows("/api/actors/{name}", look().to(actor));
    shows("/api/cluster", look().to(cluster));
    shows("/api/log", look().to(log));
    shows("/api/config", look().to(configuration));
    shows("/api/history", look().to(history));
    shows("/api/openapi.json", look().to(description));
    shows("/health/live", look().to(live));
    shows("/health/ready", look().to(ready));
    shows("/metrics", look().to(scrape));
    config.service(
        web::resource("/api/log-level")
            .route(look().to(level))
            .route(web::put().to(set_level))
            .default_service(takes("GET, HEAD, PUT")),
    );
    config.service(web::resource("/api/faults").route(web::post().to(inject)).default_service(takes("POST")));
}

/// A route for those who only look.
pub(super) fn look() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// What any other method gets.
pub(super) fn takes(allow: &'static str) -> Route {
    web::route().to(move || async move { Answer::Err(Refused::method(allow)) })
}

pub(super) async fn not_found() -> Answer {
    Err(Refused::not_found("nothing is here; /api/openapi.json tells what there is"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActorsQuery {
    kind: Option<String>,
}

async fn actors(request: HttpRequest, sources: Data<Sources>) -> Answer {
    let query = web::Query::<ActorsQuery>::from_query(request.query_string());
    let query = query.map_err(|error| Refused::bad(format!("{error}; the one parameter there is: kind")))?;
    Ok(HttpResponse::Ok().json(answers::actors(&sources, query.kind.as_deref())))
}

async fn actor(name: web::Path<String>, sources: Data<Sources>) -> Answer {
    let detail = sources.registry.detail(&name);
    let missing = || {
        Refused::not_found(format!("no actor is called '{name}'; `loglog actors` and /api/actors list them"))
    };
    Ok(HttpResponse::Ok().json(detail.ok_or_else(missing)?))
}

async fn cluster(sources: Data<Sources>) -> Answer {
    let report = answers::cluster(&sources);
    let early = || Refused::not_yet("the cluster is not formed yet: try again when its nodes have met");
    Ok(HttpResponse::Ok().json(report.ok_or_else(early)?))
}

async fn log(sources: Data<Sources>) -> Answer {
    let report = answers::log(&sources);
    let early = || Refused::not_yet("the log is not recovered yet: try again later");
    Ok(HttpResponse::Ok().json(report.ok_or_else(early)?))
}

async fn configuration(sources: Data<Sources>) -> Answer {
    Ok(HttpResponse::Ok().json(answers::config(&sources)))
}

async fn history(sources: Data<Sources>) -> Answer {
    Ok(HttpResponse::Ok().json(answers::history(&sources)))
}

async fn description() -> impl Responder {
    HttpResponse::Ok().content_type("application/json").body(include_str!("openapi.json"))
}

async fn live() -> Answer {
    Ok(HttpResponse::Ok().json(health::live()))
}

async fn ready(sources: Data<Sources>) -> Answer {
    let ready = health::ready(&sources);
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(HttpResponse::build(status).json(ready))
}

async fn scrape(metrics: Data<Metrics>) -> Answer {
    Ok(HttpResponse::Ok().content_type(metrics::CONTENT_TYPE).body(metrics.text()))
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Level {
    level: String,
}

async fn level(sources: Data<Sources>) -> Answer {
    let log = sources.log.as_ref().ok_or_else(no_log)?;
    Ok(HttpResponse::Ok().json(Level { level: log.level() }))
}

async fn set_level(body: web::Payload, sources: Data<Sources>) -> Answer {
    let Level { level } = read(body).await?;
    let log = sources.log.as_ref().ok_or_else(no_log)?;
    log.set_level(&level).map_err(Refused::bad)?;
    Ok(HttpResponse::Ok().json(Level { level: log.level() }))
}

fn no_log() -> Refused {
    Refused::not_found("the log level is not this node's: it belongs to the program that the node runs in")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultRequest {
    actor: String,
    how: String,
    ms: Option<u64>,
}

async fn inject(body: web::Payload, sources: Data<Sources>) -> Answer {
    if !sources.are_faults_allowed {
        return Err(Refused::forbidden(
            "faults are not allowed on this node: start it with debug.faults = true",
        ));
    }
    let FaultRequest { actor, how, ms } = read(body).await?;
    let how = match (how.as_str(), ms) {
        ("stall", Some(ms)) => How::stall(ms),
        _ => how.parse(),
    };
    let how = how.map_err(Refused::bad)?;
    sources.faults.inject(&actor, how).map_err(Refused::not_found)?;
    Ok(HttpResponse::NoContent().finish())
}

/// A request's body, read as what it should be.
async fn read<T: DeserializeOwned>(mut body: web::Payload) -> Result<T, Refused> {
    let mut bytes = BytesMut::new();
    let all = async {
        while let Some(part) = body.next().await {
            bytes.extend_from_slice(&part.map_err(|error| Refused::bad(error.to_string()))?);
            if bytes.len() > BODY_BYTES_MAX {
                let words = format!("the body is larger than {BODY_BYTES_MAX} bytes");
                return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, words));
            }
        }
        Ok(())
    };
    let late = |_| Refused::new(StatusCode::REQUEST_TIMEOUT, "the body did not come");
    tokio::time::timeout(BODY_TIMEOUT, all).await.map_err(late)??;
    serde_json::from_slice(&bytes).map_err(|error| Refused::bad(format!("the body: {error}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_address_that_is_served_is_described_and_no_other() {
        let described: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        let described: BTreeSet<&str> =
            described["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let routes =
            include_str!("api.rs").split("fn routes(").nth(1).unwrap().split("\n}\n").next().unwrap();
        let served: BTreeSet<&str> = routes.split('"').filter(|text| text.starts_with('/')).collect();
        assert_eq!(served, &described - &BTreeSet::from(["/"]), "the page is served elsewhere");
    }
}
