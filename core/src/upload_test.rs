use loglog_proto::request::Part;

use super::*;

fn key(sequence: u64) -> Key {
    (WriterId::new(1), Sequence::new(sequence))
}

fn buffer() -> UploadBuffer {
    UploadBuffer::new(UploadLimits { bytes_max: 2000, client_bytes_max: 1000, expiry_ms: 100 })
}

/// One upload of payloads of these lengths, all different.
fn run(sequence: u64, lengths: &[usize]) -> Upload {
    let (writer, first) = key(sequence);
    let fill = |(length, at)| vec![u8::try_from((sequence + at) % 251).unwrap(); length];
    let payloads: Vec<Vec<u8>> = lengths.iter().copied().zip(0..).map(fill).collect();
    let parts = payloads.iter().map(|it| Part::of(it)).collect();
    Upload { writer, sequence: first, parts, payloads: payloads.concat().into() }
}

fn reference(sequence: u64, length: usize) -> Reference {
    let part = run(sequence, &[length]).parts[0];
    let (writer, sequence) = key(sequence);
    Reference { writer, sequence, payload_len: part.length, payload_crc: part.crc }
}

fn put(buffer: &mut UploadBuffer, client: ClientId, sequence: u64, length: usize, now: u64) -> Option<Code> {
    buffer.upload(client, run(sequence, &[length]), now).err().map(|refusal| refusal.code)
}

#[test]
fn s33_one_client_cannot_fill_the_buffer_for_others() {
    let mut buffer = buffer();
    assert_eq!(put(&mut buffer, 1, 1, 700, 0), None);
    assert_eq!(put(&mut buffer, 1, 2, 700, 0), Some(Code::Busy));
    assert_eq!(put(&mut buffer, 2, 3, 700, 0), None);
    assert_eq!(put(&mut buffer, 3, 4, 700, 0), Some(Code::Busy));
    assert!(buffer.holds(key(1)));
}

#[test]
fn a_refused_upload_leaves_the_earlier_one_and_repeats_cost_nothing() {
    let mut buffer = buffer();
    assert_eq!(put(&mut buffer, 1, 1, 500, 0), None);
    assert_eq!(put(&mut buffer, 1, 1, 5000, 0), Some(Code::Busy));
    assert_eq!(buffer.get(key(1)).map(|(payload, _)| payload.len()), Some(500));
    for _ in 0..1000 {
        assert_eq!(put(&mut buffer, 1, 1, 700, 0), None);
    }
    assert!(buffer.order.len() < 100, "{}", buffer.order.len());
}

#[test]
fn what_an_append_has_named_yields_to_others() {
    let mut buffer = buffer();
    for sequence in 1..=10 {
        assert_eq!(put(&mut buffer, 1, sequence, 700, 0), None, "upload and append, one at a time, for ever");
        buffer.mark_used(key(sequence));
        assert!(buffer.holds(key(sequence)), "an append sent again finds it");
    }
    assert!(buffer.bytes() <= 2000);
    assert!(buffer.clients.is_empty());
}

#[test]
fn s33_uploads_expire() {
    let mut buffer = buffer();
    assert_eq!(put(&mut buffer, 1, 1, 700, 0), None);
    assert_eq!(put(&mut buffer, 1, 2, 700, 100), None);
    assert!(!buffer.holds(key(1)));
    buffer.expire(200);
    assert_eq!((buffer.bytes(), buffer.payloads()), (0, 0));
}

#[test]
fn an_upload_again_replaces_the_first_and_its_time() {
    let mut buffer = buffer();
    for now in [0, 60] {
        assert_eq!(put(&mut buffer, 1, 1, 700, now), None);
    }
    buffer.expire(110);
    assert!(buffer.holds(key(1)));
    buffer.remove_until(key(1));
    assert_eq!(buffer.bytes(), 0);
    assert!(buffer.clients.is_empty());
}

#[test]
fn payloads_of_one_upload_are_found_and_taken_one_by_one() {
    let mut buffer = buffer();
    buffer.upload(1, run(5, &[10, 0, 20]), 0).unwrap();
    assert!(
        !buffer.holds(key(4)) && !buffer.holds(key(8)) && !buffer.holds((WriterId::new(2), Sequence::new(6)))
    );
    assert_eq!(buffer.get(key(7)).unwrap().0, vec![7; 20]);
    let wanted = [reference(5, 10), reference(6, 0), reference(7, 20), reference(8, 5)];
    let longer = Reference { payload_len: 1, ..wanted[1] };
    assert_eq!(buffer.held_of(&[wanted[0], longer]), 1, "the CRC alone does not make it the same");
    assert_eq!(buffer.held_of(&[reference(u64::MAX, 1)]), 0);
    assert_eq!((buffer.held_of(&wanted), buffer.held_of(&wanted[3..])), (3, 0));
    assert_eq!(buffer.take(&wanted).unwrap_err(), 3);
    let other = Reference { payload_crc: 7, ..wanted[1] };
    assert_eq!(
        buffer.take(&[wanted[0], other]).unwrap_err(),
        1,
        "other bytes than the leader's are none (S31)"
    );
    assert_eq!(buffer.take(&wanted[1..3]).unwrap(), [Bytes::new(), vec![7; 20].into()]);
    assert!(buffer.holds(key(5)) && !buffer.holds(key(6)) && buffer.payloads() == 1);
    assert!(buffer.bytes() > 256, "paid for until the last of it has gone");
    buffer.upload(2, run(8, &[5]), 0).unwrap();
    assert_eq!(buffer.take(&[wanted[3], wanted[0]]).unwrap(), [vec![8; 5], vec![5; 10]]);
    assert_eq!((buffer.bytes(), buffer.payloads(), buffer.clients.len()), (0, 0, 0));
}

#[test]
fn an_upload_replaces_those_that_it_overlaps() {
    let mut buffer = buffer();
    buffer.upload(1, run(1, &[1, 2]), 0).unwrap();
    buffer.upload(1, run(3, &[3]), 0).unwrap();
    buffer.upload(1, run(4, &[4, 5]), 0).unwrap();
    buffer.upload(2, run(2, &[2, 3]), 0).unwrap();
    let held: Vec<u64> = (0..9).filter(|sequence| buffer.holds(key(*sequence))).collect();
    assert_eq!((held, buffer.payloads(), buffer.held.len()), (vec![2, 3, 4, 5], 4, 2));
    assert_eq!(buffer.bytes(), cost(2, 5) + cost(2, 9));
}

#[test]
fn an_upload_counts_as_its_clients_until_all_of_it_is_named_or_gone() {
    let mut buffer = buffer();
    buffer.upload(1, run(1, &[1, 2, 3]), 0).unwrap();
    buffer.mark_used(key(2));
    buffer.mark_used(key(2));
    buffer.remove_until(key(1));
    buffer.remove_until(key(9));
    assert_eq!(buffer.clients.get(&1), Some(&cost(3, 6)));
    buffer.mark_used(key(3));
    assert!(buffer.clients.is_empty() && buffer.used.len() == 1 && buffer.payloads() == 2);
    buffer.remove_until(key(3));
    buffer.remove_until(key(2));
    buffer.remove_until(key(2));
    assert_eq!((buffer.bytes(), buffer.payloads()), (0, 0));
}

#[test]
fn what_does_not_match_its_crc_or_its_parts_is_refused_whole() {
    let mut buffer = buffer();
    let good = run(1, &[4, 4]);
    let mut damaged = good.clone();
    damaged.parts[1].crc ^= 1;
    let mut longer = good.clone();
    longer.parts[1].length = u32::MAX;
    let mut none = good.clone();
    none.parts.clear();
    let late = Upload { sequence: Sequence::new(u64::MAX), ..good.clone() };
    for (wrong, code) in [
        (damaged, Code::Damaged),
        (longer, Code::BadRequest),
        (none, Code::BadRequest),
        (late, Code::BadRequest),
    ] {
        assert_eq!(buffer.upload(1, wrong, 0).unwrap_err().code, code);
    }
    assert_eq!((buffer.bytes(), buffer.payloads()), (0, 0));
    buffer.upload(1, good, 0).unwrap();
    buffer.upload(1, run(u64::MAX, &[1]), 0).unwrap();
    buffer.mark_used(key(u64::MAX));
    assert!(buffer.holds(key(u64::MAX)) && buffer.payloads() == 3, "the last sequence there is");
}

#[test]
fn s33_a_small_payload_keeps_no_large_upload_alive() {
    let limits = UploadLimits { bytes_max: 32 << 20, client_bytes_max: 32 << 20, expiry_ms: 100 };
    let mut buffer = UploadBuffer::new(limits);
    let upload = run(1, &[1, 8 << 20]);
    let whole = upload.payloads.as_ptr_range();
    buffer.upload(1, upload, 0).unwrap();
    let [small, large] = [1, 2].map(|sequence| buffer.get(key(sequence)).unwrap().0);
    assert!(!whole.contains(&small.as_ptr()) && whole.contains(&large.as_ptr()));
}

#[test]
fn s33_notes_of_what_appends_have_named_do_not_pile_up() {
    let mut buffer = buffer();
    for now in 0..10_000 {
        assert_eq!(put(&mut buffer, 1, now + 1, 10, 1000 * now), None);
        buffer.mark_used(key(now + 1));
    }
    assert!(buffer.used.len() < 100, "{}", buffer.used.len());
}

#[test]
fn what_was_named_yields_after_a_refusal_too() {
    let mut buffer = UploadBuffer::new(UploadLimits { client_bytes_max: 4000, ..buffer().limits });
    assert_eq!(put(&mut buffer, 1, 1, 100, 0), None);
    buffer.mark_used(key(1));
    assert_eq!(put(&mut buffer, 1, 2, 1000, 0), None);
    assert_eq!(put(&mut buffer, 1, 1, 1000, 0), Some(Code::Busy));
    assert_eq!(put(&mut buffer, 1, 3, 300, 0), None, "the first makes room for it");
    assert!(!buffer.holds(key(1)));
}
