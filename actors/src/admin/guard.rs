//! Guard: keeps web pages of others from using the browser of somebody who may reach this port.
//!
//! - A page of another site can have the browser send requests here, but not with `Content-Type: application/json` unless a
//!   preflight allows it, and none is ever answered with leave. So whatever changes something must say that.
//! - A page whose name is made to point at this machine (DNS rebinding) is no other site to the browser, but its name stands
//!   in `Host`. So whatever changes something, and everything where we listen on loopback only, must name an address.
//!
//! Owns:   the checks of `Host` and `Content-Type`; the headers that every answer carries.
//! Never:  knows who somebody is: there are no passwords yet.

use std::future::{Ready, ready};
use std::net::{IpAddr, SocketAddr};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{Error, ResponseError};
use futures_util::future::LocalBoxFuture;

use super::refused::Refused;

/// On every answer: nothing is kept, guessed, framed or loaded from elsewhere.
const HEADERS: [(&str, &str); 5] = [
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("content-security-policy", "default-src 'self'"),
];

/// The checks, for where we listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    address: SocketAddr,
}

impl Guard {
    pub(super) const fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refused> {
        let is_change = !matches!(*method, Method::GET | Method::HEAD);
        if (is_change || self.address.ip().to_canonical().is_loopback())
            && !names_an_address(headers.get(header::HOST))
        {
            return Err(Refused::forbidden(
                "the Host header must be an IP address or localhost: reach this node by its address, not by a name",
            ));
        }
        if is_change && !is_json(headers.get(header::CONTENT_TYPE)) {
            return Err(Refused::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "what changes something needs the header Content-Type: application/json",
            ));
        }
        Ok(())
    }
}

/// Whether `Host` is a literal address, or `localhost`, with or without a port. (Where we listen is a literal address, too.)
fn names_an_address(host: Option<&HeaderValue>) -> bool {
    let Some(host) = host.and_then(|host| host.to_str().ok()) else { return false };
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, "")) => name,
        Some((name, port)) if port.strip_prefix(':').is_some_and(is_port) => name,
        Some(_) => return false,
        None => match host.split_once(':') {
            Some((name, port)) if is_port(port) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn is_json(content_type: Option<&HeaderValue>) -> bool {
    let Some(text) = content_type.and_then(|value| value.to_str().ok()) else { return false };
    text.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

impl<S, B> Transform<S, ServiceRequest> for Guard
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Transform = Guarded<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(Guarded { guard: *self, service }))
    }
}

/// What lies behind a [`Guard`].
#[derive(Debug)]
pub(super) struct Guarded<S> {
    guard: Guard,
    service: S,
}

impl<S, B> Service<ServiceRequest> for Guarded<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Error>>;

    actix_web::dev::forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let answer = match self.guard.check(request.method(), request.headers()) {
            Ok(()) => Ok(self.service.call(request)),
            Err(refused) => Err(request.into_response(refused.error_response())),
        };
        Box::pin(async move {
            let mut response = match answer {
                Ok(answer) => answer.await?.map_into_boxed_body(),
                Err(refused) => refused,
            };
            for (name, value) in HEADERS {
                response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(listen: &str, method: &Method, host: Option<&str>, kind: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        let mut add = |name, value: Option<&str>| {
            value.map(|value| headers.insert(name, HeaderValue::from_str(value).unwrap()));
        };
        add(header::HOST, host);
        add(header::CONTENT_TYPE, kind);
        let guard = Guard::new(listen.parse().unwrap());
        guard.check(method, &headers).map_or_else(|refused| refused.status_code().as_u16(), |()| 200)
    }

    #[test]
    fn a_host_that_is_no_address_is_refused() {
        for good in [
            "127.0.0.1",
            "127.0.0.1:19196",
            "[::1]:19196",
            "[::1]",
            "localhost",
            "LOCALHOST:1",
            "10.0.0.7:80",
        ] {
            assert_eq!(status("127.0.0.1:1", &Method::GET, Some(good), None), 200, "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:19196",
            "127.0.0.1.evil.example",
            "localhost.evil.example:1",
            "127.0.0.1:x",
            "127.0.0.1:",
            "[::1",
            "[::1]x",
            "[evil]:1",
            "",
            "::1",
        ] {
            assert_eq!(status("127.0.0.1:1", &Method::GET, Some(bad), None), 403, "{bad}");
        }
        assert_eq!(status("127.0.0.1:1", &Method::GET, None, None), 403);
    }

    #[test]
    fn by_a_name_one_may_read_what_is_open_to_others_but_change_nothing() {
        let (json, open) = (Some("application/json"), "0.0.0.0:1");
        assert_eq!(status(open, &Method::GET, Some("log-1.example"), None), 200);
        assert_eq!(status(open, &Method::HEAD, Some("log-1.example"), None), 200);
        assert_eq!(status(open, &Method::PUT, Some("log-1.example"), json), 403);
        assert_eq!(status(open, &Method::PUT, Some("10.0.0.7"), json), 200);
    }

    #[test]
    fn a_change_must_say_that_it_is_json() {
        let code = |method, kind| status("127.0.0.1:1", &method, Some("127.0.0.1"), kind);
        for kind in
            [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp")]
        {
            assert_eq!(code(Method::POST, kind), 415, "{kind:?}");
        }
        assert_eq!(code(Method::POST, Some("application/json")), 200);
        assert_eq!(code(Method::PUT, Some("Application/JSON; charset=utf-8")), 200);
        assert_eq!(code(Method::OPTIONS, None), 415, "a preflight gets no leave");
        assert_eq!(code(Method::GET, None), 200);
    }
}
