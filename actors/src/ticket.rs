//! Ticket: the duty to answer one request, once.
//!
//! It travels with the request through the actors. Wherever it is dropped unanswered (an actor panics, a queue dies with
//! it), the client learns that the outcome is unknown, and may ask again.
//!
//! Keeps:  every request is answered exactly once while its connection lives.

use std::sync::Arc;

use loglog_core::Answer;
use loglog_proto::RequestId;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::response::{Response, ResponseBody};

use crate::connection::{Connection, Replies};
use crate::credits::Credit;
use crate::measures::Measures;
use crate::supervisor::Handle;

/// Room for at most so many answers is made ahead.
const RUN_MAX: usize = 1024;

/// Where the answers of one batch of requests go, and the bytes they hold until then.
#[derive(Debug)]
pub struct Route {
    connection: Handle<Connection>,
    _credits: Vec<Credit>,
    /// When the batch was decoded; 0 where no times are taken.
    since: u64,
    measures: Arc<Measures>,
}

/// The duty to answer one request.
#[derive(Debug)]
pub struct Ticket {
    route: Arc<Route>,
    id: RequestId,
    is_open: bool,
}

impl Route {
    pub(crate) fn new(
        connection: Handle<Connection>,
        credits: Vec<Credit>,
        measures: Arc<Measures>,
    ) -> Arc<Self> {
        Arc::new(Self { connection, _credits: credits, since: measures.now(), measures })
    }
}

impl Ticket {
    pub(crate) fn new(route: &Arc<Route>, id: RequestId) -> Self {
        Self { route: Arc::clone(route), id, is_open: true }
    }

    /// Answers this one request.
    pub(crate) fn answer(self, answer: Answer) {
        answer_all([(self, answer)]);
    }

    fn close(&mut self, answer: Answer) -> Response {
        self.is_open = false;
        let body = match answer {
            Answer::Appended(appended) => ResponseBody::Appended(appended),
            Answer::Uploaded => ResponseBody::Uploaded,
            Answer::End { start, end } => ResponseBody::End { start, end },
            Answer::Managed(managed) => ResponseBody::Managed(managed),
            Answer::Refused(refusal) => ResponseBody::Refused(refusal),
        };
        Response { id: self.id, body }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.is_open {
            let message =
                "the node gave this request up half-way: it may have happened, send it again to know";
            let response = self.close(Answer::Refused(Refusal::new(Code::Interrupted, message)));
            // A connection that is gone needs no answer.
            let _ = self.route.connection.tell(Replies(vec![response]));
        }
    }
}

/// Answers many, with one message for each run of answers to one connection.
pub(crate) fn answer_all(answers: impl IntoIterator<Item = (Ticket, Answer)>) {
    let answers = answers.into_iter();
    let most = answers.size_hint().0.min(RUN_MAX);
    let mut run: Option<Run> = None;
    for (mut ticket, answer) in answers {
        let appended = u64::from(matches!(answer, Answer::Appended(_)));
        let response = ticket.close(answer);
        match &mut run {
            Some(run) if Arc::ptr_eq(&run.route, &ticket.route) => {
                run.appended += appended;
                run.responses.push(response);
            }
            Some(run) if run.route.connection.is_same(&ticket.route.connection) => {
                run.measure();
                (run.route, run.appended) = (Arc::clone(&ticket.route), appended);
                run.responses.push(response);
            }
            _ => {
                run.take().into_iter().for_each(Run::send);
                let mut responses = Vec::with_capacity(most);
                responses.push(response);
                run = Some(Run { route: Arc::clone(&ticket.route), appended, responses });
            }
        }
    }
    run.into_iter().for_each(Run::send);
}

/// Answers on their way to one connection.
struct Run {
    /// Where the last of them came from.
    route: Arc<Route>,
    /// Acknowledged appends that came from there.
    appended: u64,
    responses: Vec<Response>,
}

impl Run {
    /// The time that the appends of one batch of requests took.
    fn measure(&self) {
        self.route.measures.acknowledged(self.route.since, self.appended);
    }

    fn send(self) {
        self.measure();
        // A connection that is gone needs no answer.
        let _ = self.route.connection.tell(Replies(self.responses));
    }
}
