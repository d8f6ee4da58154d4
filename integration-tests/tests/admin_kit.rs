//! What the stories of the admin endpoint share.

use bytes::Bytes;
use loglog_integration_tests::RawClient;
use loglog_proto::request::{Append, RequestBody};
use loglog_proto::response::{Appended, ResponseBody};
use loglog_proto::{Offset, Sequence, WriterId};

/// Appends the entry of this number, counted from 1, and waits for its place.
pub(crate) fn append(client: &mut RawClient, sequence: u64) -> Appended {
    let append = Append {
        writer: WriterId::new(77),
        previous: (sequence > 1).then(|| Sequence::new(sequence - 1)),
        sequence: Sequence::new(sequence),
        known_end: Some(Offset::ZERO),
        expect_end: None,
        crc: None,
        payload: Some(Bytes::from(vec![7; 100])),
    };
    match client.ask(RequestBody::Append(append)) {
        ResponseBody::Appended(appended) => appended,
        other => panic!("{other:?}"),
    }
}
