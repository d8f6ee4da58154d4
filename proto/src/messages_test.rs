//! Golden bytes of every message, round trips, and frames that nobody should send.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use crate::check::{Checked, Verdict};
use crate::error::{Code, Detail, Refusal};
use crate::frame::{FrameError, split};
use crate::ids::{ClusterId, NodeId, RequestId, Sequence, WriterId};
use crate::limits::FRAME_BYTES_MAX;
use crate::manage::{Change, Manage, Managed, MemberStatus, NewMember};
use crate::position::{Offset, Term};
use crate::request::{Append, PROTOCOL_VERSION, Part, Read, Request, RequestBody, Upload};
use crate::response::{Appended, Data, MemberAddress, Response, ResponseBody, Status, Welcome, WireLimits};

const ID: RequestId = RequestId::new(9);

fn append() -> Append {
    Append {
        writer: WriterId::new(7),
        previous: None,
        sequence: Sequence::new(1),
        known_end: Some(Offset::new(300)),
        expect_end: None,
        crc: Some(0x9a71_bb4c),
        payload: Some(Bytes::from_static(b"hello")),
    }
}

fn manage(what: Change, dry_run: bool) -> RequestBody {
    RequestBody::Manage(Box::new(Manage { what, dry_run }))
}

fn requests() -> Vec<(RequestBody, &'static str)> {
    let node = |id| NodeId::new(id).unwrap();
    let new = NewMember { node: node(4), peer: Some("h:2".into()), client: Some("h:1".into()) };
    let same_place = NewMember { node: node(4), peer: None, client: None };
    let read = Read { offset: Offset::new(64), limit: 65536, wait_ms: 1000, min_end: None };
    let one = Upload::one(WriterId::new(7), Sequence::new(1), Bytes::from_static(b"hello"));
    let parts = vec![one.parts[0], Part::of(b""), Part::of(b"hi")];
    let three = Upload { parts, payloads: Bytes::from_static(b"hellohi"), ..one.clone() };
    let hello = |cluster| RequestBody::Hello { version: PROTOCOL_VERSION, cluster, credentials: None };
    let uploaded_before = Append { payload: None, crc: None, previous: Some(Sequence::new(0)), ..append() };
    vec![
        (hello(None), "00000006 95 01 09 01 c0 c0"),
        (hello(ClusterId::new(0xab)), "00000007 95 01 09 01 ccab c0"),
        (RequestBody::Upload(one), "00000016 96 02 09 07 01 c408 00000005 9a71bb4c c405 68656c6c6f"),
        (
            RequestBody::Upload(three),
            "00000028 96 02 09 07 01 c418 00000005 9a71bb4c 00000000 00000000 00000002 f59dd9c2 c407 68656c6c6f6869",
        ),
        (RequestBody::Append(append()), "00000016 99 03 09 07 c0 01 cd012c c0 ce9a71bb4c c405 68656c6c6f"),
        (RequestBody::Append(uploaded_before), "0000000c 99 03 09 07 00 01 cd012c c0 c0 c0"),
        (RequestBody::Read(read), "0000000d 96 04 09 40 ce00010000 cd03e8 c0"),
        (RequestBody::End { linearizable: true }, "00000004 93 05 09 c3"),
        (RequestBody::Status, "00000003 92 06 09"),
        (RequestBody::Fault { actor: "a".into(), how: "b".into() }, "00000007 94 07 09 a161 a162"),
        (manage(Change::List, false), "00000017 93 08 09 82 a477686174 a46c697374 a76472795f72756e c2"),
        (
            manage(Change::Trim(Offset::new(300)), true),
            "0000001b 93 08 09 82 a477686174 81 a47472696d cd012c a76472795f72756e c3",
        ),
        (
            manage(Change::Add(new), false),
            "00000032 93 08 09 82 a477686174 81 a3616464 83 a46e6f6465 04 a470656572 a3683a32 a6636c69656e74 a3683a31 \
             a76472795f72756e c2",
        ),
        (
            manage(Change::Promote(node(4)), false),
            "0000001c 93 08 09 82 a477686174 81 a770726f6d6f7465 04 a76472795f72756e c2",
        ),
        (
            manage(Change::Remove(node(4)), false),
            "0000001b 93 08 09 82 a477686174 81 a672656d6f7665 04 a76472795f72756e c2",
        ),
        (
            manage(Change::Replace(same_place), false),
            "00000030 93 08 09 82 a477686174 81 a77265706c616365 83 a46e6f6465 04 a470656572 c0 a6636c69656e74 c0 \
             a76472795f72756e c2",
        ),
        (
            manage(Change::Lead(node(2)), false),
            "00000019 93 08 09 82 a477686174 81 a46c656164 02 a76472795f72756e c2",
        ),
        (RequestBody::Check { offset: Offset::new(300) }, "00000006 93 09 09 cd012c"),
    ]
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        cluster: ClusterId::new(0xab).unwrap(),
        node: NodeId::new(1).unwrap(),
        leader: None,
        members: vec![MemberAddress { node: NodeId::new(1).unwrap(), address: "h:1".into() }],
        limits: WireLimits {
            payload_bytes_max: 1,
            frame_bytes_max: 2,
            read_bytes_max: 3,
            read_wait_ms_max: 4,
            writer_appends_max: 5,
            connection_bytes_max: 6,
        },
        start: Offset::ZERO,
        end: Offset::new(32),
    }
}

fn managed() -> Managed {
    let member = MemberStatus {
        node: 1,
        incarnation: "0000000b".into(),
        role: "voter".into(),
        leads: true,
        peer: "h:2".into(),
        client: "h:1".into(),
        active: Some(true),
        matched: Some(9),
        lag: Some(0),
        is_copying: Some(false),
    };
    Managed { message: "m".into(), start: 64, membership: 7, members: vec![member] }
}

fn checked() -> Checked {
    Checked { verdict: Verdict::Repairing, segment: 64, damaged_at: Some(300), message: "m".into() }
}

fn responses() -> Vec<(ResponseBody, &'static str)> {
    let appended = Appended { offset: Offset::new(32), end: Offset::new(69), term: Term::new(2) };
    let data = Data { offset: Offset::new(1), end: Offset::new(3), bytes: Bytes::from_static(b"xy") };
    let conflict = Refusal { code: Code::Conflict, message: "m".into(), detail: Detail::Number(69) };
    let not_leader =
        Refusal { code: Code::NotLeader, message: String::new(), detail: Detail::Text("h:1".into()) };
    vec![
        (ResponseBody::Uploaded, "00000003 92 42 09"),
        (ResponseBody::Appended(appended), "00000006 95 43 09 20 45 02"),
        (ResponseBody::Data(data), "00000009 95 44 09 01 03 c402 7879"),
        (ResponseBody::End { start: Offset::ZERO, end: Offset::new(200) }, "00000006 94 45 09 00 ccc8"),
        (ResponseBody::Injected, "00000003 92 47 09"),
        (ResponseBody::Refused(conflict), "00000009 97 7f 09 09 c2 c2 a16d 45"),
        (ResponseBody::Refused(not_leader), "0000000b 97 7f 09 08 c3 c2 a0 a3683a31"),
        (
            ResponseBody::Welcome(Box::new(welcome())),
            "000000c5 93 41 09 88 a776657273696f6e 01 a7636c7573746572 ccab a46e6f6465 01 a66c6561646572 c0 \
             a76d656d62657273 91 82 a46e6f6465 01 a761646472657373 a3683a31 \
             a66c696d697473 86 b17061796c6f61645f62797465735f6d6178 01 af6672616d655f62797465735f6d6178 02 \
             ae726561645f62797465735f6d6178 03 b0726561645f776169745f6d735f6d6178 04 \
             b27772697465725f617070656e64735f6d6178 05 b4636f6e6e656374696f6e5f62797465735f6d6178 06 \
             a57374617274 00 a3656e64 20",
        ),
        (
            ResponseBody::Managed(Box::new(managed())),
            "0000008e 93 48 09 84 a76d657373616765 a16d a57374617274 40 aa6d656d62657273686970 07 \
             a76d656d62657273 91 8a a46e6f6465 01 ab696e6361726e6174696f6e a83030303030303062 a4726f6c65 a5766f746572 \
             a56c65616473 c3 a470656572 a3683a32 a6636c69656e74 a3683a31 a6616374697665 c3 \
             a76d617463686564 09 a36c6167 00 aa69735f636f7079696e67 c2",
        ),
        (
            ResponseBody::Checked(Box::new(checked())),
            "00000037 93 49 09 84 a776657264696374 a9726570616972696e67 a77365676d656e74 40 \
             aa64616d616765645f6174 cd012c a76d657373616765 a16d",
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unspaced(golden: &str) -> String {
    golden.split_whitespace().collect()
}

fn frame(bytes: BytesMut) -> Bytes {
    let mut bytes = bytes;
    let frame = split(&mut bytes, FRAME_BYTES_MAX).unwrap().unwrap();
    assert!(bytes.is_empty());
    frame
}

#[test]
fn requests_have_golden_bytes_and_come_back() {
    for (body, golden) in requests() {
        let request = Request { id: ID, body };
        let mut out = BytesMut::new();
        request.encode(&mut out);
        assert_eq!(hex(&out), unspaced(golden), "{request:?}");
        assert_eq!(Request::decode(&frame(out)), Ok(request));
    }
}

#[test]
fn responses_have_golden_bytes_and_come_back() {
    for (body, golden) in responses() {
        let response = Response { id: ID, body };
        let mut out = BytesMut::new();
        response.encode(&mut out);
        assert_eq!(hex(&out), unspaced(golden), "{response:?}");
        assert_eq!(Response::decode(&frame(out)), Ok(response));
    }
}

#[test]
fn a_status_may_lack_and_have_more_names() {
    let mut out = BytesMut::new();
    let status = Status { node: 3, role: "leader".into(), ..Status::default() };
    Response { id: ID, body: ResponseBody::Status(Box::new(status.clone())) }.encode(&mut out);
    let back = Response::decode(&frame(out)).unwrap();
    assert_eq!(back.body, ResponseBody::Status(Box::new(status)));

    let mut older = BytesMut::new();
    older.put_slice(&[0x93, 0x46, 9, 0x82]);
    older.put_slice(b"\xa4node\x05\xa3new\xc3");
    let back = Response::decode(&older.freeze()).unwrap();
    assert_eq!(back.body, ResponseBody::Status(Box::new(Status { node: 5, ..Status::default() })));
}

#[test]
fn a_manage_may_lack_and_have_more_names() {
    let decode = |bytes: &[u8]| Request::decode(&Bytes::copy_from_slice(bytes)).map(|request| request.body);
    assert_eq!(decode(b"\x93\x08\x09\x81\xa4what\xa4list"), Ok(manage(Change::List, false)));
    let new = NewMember { node: NodeId::new(4).unwrap(), peer: None, client: None };
    assert_eq!(
        decode(b"\x93\x08\x09\x82\xa4what\x81\xa7replace\x82\xa4node\x04\xa3new\xc3\xa3new\x91\xc0"),
        Ok(manage(Change::Replace(new), false))
    );

    let answer = Response::decode(&Bytes::from_static(b"\x93\x48\x09\x82\xa5start\x05\xa3new\xc3")).unwrap();
    assert_eq!(answer.body, ResponseBody::Managed(Box::new(Managed { start: 5, ..Managed::default() })));
}

#[test]
fn a_checked_may_lack_and_have_more_names_and_say_a_word_of_a_later_version() {
    let decode =
        |bytes: &'static [u8]| Response::decode(&Bytes::from_static(bytes)).map(|response| response.body);
    let known = Checked { verdict: Verdict::Sound, segment: 5, ..Checked::default() };
    let bytes = b"\x93\x49\x09\x83\xa7verdict\xa5sound\xa7segment\x05\xa3new\xc3";
    assert_eq!(decode(bytes), Ok(ResponseBody::Checked(Box::new(known))));
    let later = b"\x93\x49\x09\x81\xa7verdict\xa5waits";
    assert_eq!(decode(later), Ok(ResponseBody::Checked(Box::default())));
    assert!(decode(b"\x93\x49\x09\x81\xa7verdict\x91\xc0").is_err());
}

#[test]
fn integers_are_those_of_messagepack() {
    let edges = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u64::MAX]);
    for value in edges {
        let mut out = BytesMut::new();
        Request { id: RequestId::new(value), body: RequestBody::Status }.encode(&mut out);
        let mut theirs = Vec::new();
        rmp::encode::write_uint(&mut theirs, value).unwrap();
        assert_eq!(out[6..], theirs, "{value}");
        assert_eq!(Request::decode(&frame(out)).unwrap().id.get(), value);
        // Any width that it fits in, signed ones too.
        let wide = [&[0x92, 0x06, 0xcf][..], &value.to_be_bytes()].concat();
        assert_eq!(Request::decode(&wide.into()).unwrap().id.get(), value);
        let signed = [&[0x92, 0x06, 0xd3][..], &value.to_be_bytes()].concat();
        assert_eq!(Request::decode(&signed.into()).is_ok(), value <= i64::MAX as u64);
    }
    for cut in [&b"\xcc"[..], b"\xcd\x01", b"\xce\x01\x01\x01", b"\xcf\x01\x01\x01\x01\x01\x01\x01"] {
        assert!(Request::decode(&[b"\x92\x06", cut].concat().into()).is_err(), "{cut:02x?}");
    }
}

#[test]
fn a_payload_stays_a_slice_of_its_frame() {
    let mut out = BytesMut::new();
    Request { id: ID, body: RequestBody::Append(append()) }.encode(&mut out);
    let frame = frame(out);
    let Request { body: RequestBody::Append(back), .. } = Request::decode(&frame).unwrap() else { panic!() };
    let payload = back.payload.unwrap();
    assert!(frame.as_ptr_range().contains(&payload.as_ptr()));
}

#[test]
fn what_is_wrong_is_named() {
    let cases: &[(&[u8], Option<u64>, &str)] = &[
        (b"", None, "MessagePack array"),
        (b"GET / HTTP/1.1", None, "MessagePack array"),
        (b"\x91\x01", None, "kind and request id"),
        (b"\x92\x63\x09", Some(9), "unknown kind 99"),
        (b"\x92\xcd\xff\xff\x09", Some(9), "unknown kind 65535"),
        (b"\x93\x06\x09\xc0", Some(9), "0 wanted"),
        (b"\x92\x06\x09\x00", Some(9), "bytes follow"),
        (b"\x95\x01\x09\x01\x00\xc0", Some(9), "cluster id is zero"),
        (b"\x96\x02\x09\x00\x01\xc4\x00\xc4\x00", Some(9), "writer is zero"),
        (b"\x96\x02\x09\x07\x01\xc4\x00\xc4\x00", Some(9), "1 to 4096 parts"),
        (b"\x96\x02\x09\x07\x01\xc4\x04\0\0\0\0\xc4\x00", Some(9), "1 to 4096 parts"),
        (b"\x96\x02\x09\x07\x01\xc4\x08\0\0\0\x02\0\0\0\0\xc4\x01a", Some(9), "1 to 4096 parts"),
        (b"\x99\x03\x09\x07\x05\x05\xc0\xc0\xc0\xc0", Some(9), "does not follow"),
        (b"\x96\x02\x09\x07\x01\xc0\xc4\x00", Some(9), "parts is not binary"),
        (b"\x96\x02\x09\x07\x01\xc4\x00\xc4\x7f", Some(9), "payloads is not binary"),
        (b"\x96\x02\x09\x07\x01\xc4\x00\xc6\xff\xff\xff\xff", Some(9), "payloads is not binary"),
        (b"\x93\x05\x09\x91\x91\x91", Some(9), "linearizable is not a boolean"),
        (b"\x92\x08\x09", Some(9), "1 wanted"),
        (b"\x93\x08\x09\x80", Some(9), "missing field `what`"),
        (b"\x93\x08\x09\x81\xa4what\xa4burn", Some(9), "unknown variant `burn`"),
        (b"\x93\x08\x09\x81\xa4what\x81\xa6remove\x00", Some(9), "an id that is not zero"),
        (b"\x93\x08\x09\x81\xa4what\x81\xa4trim\xff", Some(9), "manage: "),
        (b"\x93\x08\x09\x81\xa4what\xa4list\xc0", Some(9), "bytes follow"),
        (b"\x94\x08\x09\x81\xa4what\xa4list\xc0", Some(9), "1 wanted"),
        (b"\x92\x09\x09", Some(9), "1 wanted"),
        (b"\x93\x09\x09\xff", Some(9), "offset"),
        (b"\x93\x09\x09\x01\x01", Some(9), "bytes follow"),
    ];
    for (bytes, id, text) in cases {
        let error = Request::decode(&Bytes::from_static(bytes)).unwrap_err();
        let FrameError::Malformed { id: found, what } = &error else { panic!("{error}") };
        assert_eq!(*found, id.map(RequestId::new), "{bytes:02x?}");
        assert!(what.contains(text), "{bytes:02x?}: {what}");
    }
}

#[test]
fn an_oversize_length_is_refused_before_anything_is_reserved() {
    let mut buffer = BytesMut::from(&b"\xff\xff\xff\xff"[..]);
    let error = split(&mut buffer, FRAME_BYTES_MAX).unwrap_err();
    assert_eq!(error, FrameError::TooLarge { length: 0xffff_ffff, max: FRAME_BYTES_MAX });
    assert!(buffer.capacity() < 1024);
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    let mut deep = vec![0x93, 0x05, 0x09];
    deep.resize(1 << 20, 0x91);
    assert!(Request::decode(&Bytes::from(deep)).is_err());

    // Within a map, where unknown names are passed over.
    let mut deep = b"\x93\x08\x09\x82\xa4what\xa4list\xa1x".to_vec();
    deep.resize(1 << 20, 0x91);
    let error = Request::decode(&Bytes::from(deep)).unwrap_err();
    assert!(error.to_string().contains("depth"), "{error}");
}

proptest! {
    #[test]
    fn arbitrary_frames_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let frame = Bytes::from(bytes);
        let _ = Request::decode(&frame);
        let _ = Response::decode(&frame);
    }

    #[test]
    fn nearly_right_frames_never_panic(at in 0usize..256, to in any::<u8>(), which in 0usize..64) {
        let (requests, responses) = (requests(), responses());
        let mut out = BytesMut::new();
        match which % (requests.len() + responses.len()) {
            which if which < requests.len() => Request { id: ID, body: requests[which].0.clone() }.encode(&mut out),
            which => Response { id: ID, body: responses[which - requests.len()].0.clone() }.encode(&mut out),
        }
        let at = at % out.len();
        out[at] = to;
        if let Ok(Some(frame)) = split(&mut out, FRAME_BYTES_MAX) {
            let _ = Request::decode(&frame);
            let _ = Response::decode(&frame);
        }
    }

    #[test]
    fn arbitrary_maps_never_panic(kind in prop::sample::select(vec![0x08_u8, 0x41, 0x46, 0x48, 0x49]),
                                  bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut frame = vec![0x93, kind, 9];
        frame.extend(bytes);
        let frame = Bytes::from(frame);
        let _ = Request::decode(&frame);
        let _ = Response::decode(&frame);
    }

    #[test]
    fn any_manage_comes_back(
        which in 0..7, number in 1..u32::MAX, offset in any::<u64>(), dry_run in any::<bool>(),
        peer in proptest::option::of(".{0,40}"), client in proptest::option::of(".{0,40}"),
    ) {
        let node = NodeId::new(number).unwrap();
        let new = NewMember { node, peer, client };
        let what = match which {
            0 => Change::List,
            1 => Change::Trim(Offset::new(offset)),
            2 => Change::Add(new),
            3 => Change::Promote(node),
            4 => Change::Remove(node),
            5 => Change::Replace(new),
            _ => Change::Lead(node),
        };
        let request = Request { id: ID, body: manage(what, dry_run) };
        let mut out = BytesMut::new();
        request.encode(&mut out);
        prop_assert_eq!(Request::decode(&frame(out)), Ok(request));
    }

    #[test]
    fn any_append_comes_back(
        id in any::<u64>(), writer in 1u64.., previous in proptest::option::of(0u64..1000), step in 1u64..1000,
        known in proptest::option::of(any::<u64>()), expect in proptest::option::of(any::<u64>()),
        crc in proptest::option::of(any::<u32>()), payload in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..500)),
    ) {
        let request = Request { id: RequestId::new(id), body: RequestBody::Append(Append {
            writer: WriterId::new(writer), previous: previous.map(Sequence::new),
            sequence: Sequence::new(previous.unwrap_or(0) + step), known_end: known.map(Offset::new),
            expect_end: expect.map(Offset::new), crc, payload: payload.map(Bytes::from),
        })};
        let mut out = BytesMut::new();
        request.encode(&mut out);
        prop_assert_eq!(Request::decode(&frame(out)), Ok(request));
    }
}
