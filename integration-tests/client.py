"""A small LogLog client, written from docs/protocol.md alone. `python3 client.py HOST:PORT` tries it, on a log nobody else appends to."""
import collections, itertools, os, random, socket, struct, sys, threading, time
import msgpack

HELLO, APPEND, READ, END, REFUSED = 1, 3, 4, 5, 127
PAYLOAD_BYTES_MAX = 0xFFFFFF
TOO_LARGE, BEYOND_END, NOT_LEADER, CONFLICT, OUT_OF_ORDER, UNKNOWN_WRITER = 4, 6, 8, 9, 10, 11

def _row(value):
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value

_ROWS = [_row(value) for value in range(256)]

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _ROWS[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF

class LogLogError(Exception):
    """A refusal, or (code None) that the client gave up."""
    def __init__(self, code, retryable, may_have_happened, message, detail=None):
        super().__init__(f"{message} (code {code}, may have happened: {may_have_happened}, detail: {detail})")
        self.code, self.retryable, self.may_have_happened, self.message, self.detail = code, retryable, may_have_happened, message, detail

class Append:
    """An append, kept until its outcome is known: `place` or `error`."""
    def __init__(self, sequence, payload, expected_end=None):
        self.sequence, self.payload, self.expected_end, self.crc = sequence, payload, expected_end, crc32c(payload)
        self.cost = 256 + len(payload)       # of connection_bytes_max
        self.loose = self.forgotten = False  # some copy may have been written, or may yet be; answered UnknownWriter
        self.place = self.error = None

    def open(self):
        return not (self.place or self.error)

class LogLog:
    """Blocking, for one thread at a time. Tries for `patience` seconds without progress before it gives up."""
    def __init__(self, address, patience=30.0):
        self.addresses, self.patience = collections.deque([address]), patience
        self.socket, self.cluster, self.moved, self.ids = None, None, False, itertools.count(1)
        self._connect()
        self._new_writer(self.welcome["end"])

    def append(self, payload, expected_end=None):
        """(offset, end, term)"""
        return self.deliver([Append(next(self.sequences), payload, expected_end)])[0]

    def append_many(self, payloads):
        """A place for each. Where some fail the others are appended all the same, and the error has `places`, with None for the failed."""
        return self.deliver([Append(next(self.sequences), payload) for payload in payloads])

    def read(self, offset, limit, wait_ms=0):
        return self._patiently(lambda: self._ask(READ, offset, limit, wait_ms, None, timeout=30 + wait_ms / 1000))[2]

    def end(self, linearizable):
        """(start, end) of the log"""
        return tuple(self._patiently(lambda: self._ask(END, linearizable)))

    def entries(self, offset, end):
        """(offset, writer, sequence, payload) of each data entry from `offset`, where an entry must begin, to `end`."""
        buffer, at = b"", 0  # the entry at `offset` begins at buffer[at]
        while offset < end:
            left = len(buffer) - at
            if left < 24 or left < 32 + int.from_bytes(buffer[at:at + 3], "little"):
                more = self.read(offset + left, 1 << 18)
                if not more:
                    raise ValueError(f"the log ends inside the entry at {offset}")
                buffer, at = buffer[at:] + more, 0
                continue
            head, _term, writer, sequence = struct.unpack_from("<IIQQ", buffer, at)
            length, kind = head & 0xFFFFFF, head >> 24 & 0x7F
            payload = buffer[at + 24:at + 24 + length]
            behind, crc = struct.unpack_from("<II", buffer, at + 24 + length)
            covered = struct.pack("<Q", offset) + buffer[at:at + 24] + struct.pack("<II", crc32c(payload), length)
            if kind not in (1, 2, 3) or behind != length or crc32c(covered) != crc:
                raise ValueError(f"no valid entry at offset {offset}")
            if kind == 1:  # noops and controls are the cluster's own
                yield offset, writer, sequence, payload
            offset, at = offset + 32 + length, at + 32 + length

    # Exactly once.

    def _new_writer(self, known_end):
        self.writer, self.known_end = int.from_bytes(os.urandom(8), "big") or 1, known_end
        self.last, self.sequences = None, itertools.count(1)  # the last sequence known to be in the log

    def deliver(self, appends):
        for append in appends:
            if len(append.payload) > self.welcome["limits"]["payload_bytes_max"]:
                append.error = LogLogError(TOO_LARGE, False, False, "payload too large")
        try:
            self._patiently(lambda: self._round([append for append in appends if append.open()]))
        except LogLogError as why:
            for append in filter(Append.open, appends):
                append.error = LogLogError(why.code, False, append.loose, why.message, (self.writer, append.sequence))
        for error in [append.error for append in appends if append.error]:
            error.places = [append.place for append in appends]
            raise error
        return [append.place for append in appends]

    def _round(self, appends):
        """Sends in order, as far as limits and the first refusal let it, and reads every answer. True once all outcomes are known."""
        limits, queue, waiting, used, refused = self.welcome["limits"], collections.deque(appends), {}, 0, False
        previous = self.last
        try:
            while waiting or queue and not refused:
                frames = []
                while queue and not refused:
                    append, oldest = queue[0], next(iter(waiting.values()), queue[0])
                    full = used + append.cost > limits["connection_bytes_max"]
                    if waiting and (full or append.sequence - oldest.sequence >= limits["writer_appends_max"]):
                        break
                    # `previous` must be below the sequence. Where it is not this is a repeat, for which it is not looked at: nil.
                    before = previous if previous is not None and previous < append.sequence else None
                    number, frame = self._frame(APPEND, self.writer, before, append.sequence, self.known_end,
                                                append.expected_end, append.crc, append.payload)
                    waiting[number], used, append.forgotten = queue.popleft(), used + append.cost, False
                    previous = max(previous or 0, append.sequence)
                    frames.append(frame)
                self.socket.sendall(b"".join(frames))
                number, answer = self._receive(waiting)
                append = waiting.pop(number)
                used, refused = used - append.cost, refused or isinstance(answer, LogLogError)
                self._judge(append, answer)
        finally:
            for append in waiting.values():  # sent, perhaps, and not answered
                append.loose = True
        left = [append for append in appends if append.open()]
        if left and left[0].forgotten:
            known_end, old_writer, unknown = self._ask(END, False)[1], self.writer, left[0].loose
            self._new_writer(known_end)
            for append in left:
                if unknown and append.loose:
                    append.error = LogLogError(UNKNOWN_WRITER, False, True, "outcome unknown", (old_writer, append.sequence))
                else:  # not in the log, and never will be under the old writer
                    append.sequence, append.loose = next(self.sequences), False
        return not any(append.open() for append in left)

    def _judge(self, append, answer):
        if not isinstance(answer, LogLogError):
            append.place, self.last, self.progress = tuple(answer), max(self.last or 0, append.sequence), time.monotonic()
        elif answer.code == OUT_OF_ORDER:
            self.last = max(self.last or 0, answer.detail or 0) or None
        elif answer.code == UNKNOWN_WRITER:
            append.forgotten = True
        elif answer.retryable:
            append.loose |= answer.may_have_happened
        elif answer.code == CONFLICT and append.loose:
            if answer.detail > append.expected_end:  # certain; else a loose copy may still find its place: ask again
                append.error = answer
        else:
            answer.may_have_happened |= append.loose
            append.error = answer

    # The connection.

    def _patiently(self, attempt):
        """Repeats `attempt` until it returns something, on new connections where that is needed."""
        pause, self.progress = 0.01, time.monotonic()
        while True:
            try:
                if self.socket is None:
                    self._connect()
                if result := attempt():
                    return result
                why = "appends refused again and again"
            except OSError as lost:
                self._close()
                self.addresses.rotate(-1)
                why = lost
            except LogLogError as refused:
                if not refused.retryable:
                    raise
                why = refused
            if self.moved:
                self._close()
            if time.monotonic() > self.progress + self.patience:
                raise LogLogError(None, False, False, f"gave up: {why}")
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, 1)

    def _connect(self):
        """Connects to the first address, and says hello."""
        host, port = self.addresses[0].rsplit(":", 1)
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb")
        try:
            self.welcome = self._ask(HELLO, 1, self.cluster, None)[0]
        except LogLogError:
            self._close()
            raise
        self.cluster = self.welcome["cluster"]
        for member in self.welcome["members"]:
            if member["address"] not in self.addresses:
                self.addresses.append(member["address"])

    def _close(self):
        if self.socket:
            self.stream.close()
            self.socket.close()
        self.socket, self.moved = None, False

    def _frame(self, kind, *fields):
        number = next(self.ids)
        body = msgpack.packb([kind, number, *fields])
        return number, struct.pack(">I", len(body)) + body

    def _receive(self, expected, timeout=30):
        """(request id, fields or LogLogError) of the next answer"""
        self.socket.settimeout(timeout)
        kind, number, *fields = msgpack.unpackb(self._exactly(int.from_bytes(self._exactly(4), "big")))
        answer = LogLogError(*fields) if kind == REFUSED else fields
        if number not in expected:
            raise ConnectionError(f"an answer to no request: {answer}")
        if kind == REFUSED and answer.code == NOT_LEADER:  # connect there next, or to the next one known
            self.moved = True
            if answer.detail in self.addresses:
                self.addresses.remove(answer.detail)
            self.addresses.appendleft(answer.detail) if answer.detail else self.addresses.rotate(-1)
        return number, answer

    def _exactly(self, count):
        data = self.stream.read(count)
        if len(data) < count:
            raise ConnectionError("closed by the node")
        return data

    def _ask(self, kind, *fields, timeout=30):
        number, frame = self._frame(kind, *fields)
        self.socket.sendall(frame)
        answer = self._receive([number], timeout)[1]
        if isinstance(answer, LogLogError):
            raise answer
        return answer

# Packs, versions 1 and 2.

def events(payload, checked=True):
    """The events of a pack, in order. ValueError if it is none or a bad one; unless `checked`, the events' checksums are not looked at."""
    if len(payload) < 8 or payload[:3] != b"LPk":
        raise ValueError("no pack")
    version, (count,), flags, sums = payload[3], struct.unpack_from("<I", payload, 4), 0, b""
    if version == 1:
        body = payload[8:]
    elif version == 2:
        if len(payload) < 12 or payload[11] & ~3:
            raise ValueError("a pack that is cut short, or has unknown flags")
        length, flags = int.from_bytes(payload[8:11], "little"), payload[11]
        behind = len(payload) - (4 * count if flags & 1 else 0)
        if len(payload) - behind + 12 + length > PAYLOAD_BYTES_MAX or behind < 12:
            raise ValueError("a pack whose header says too much")
        body, sums = payload[12:behind], payload[behind:]
        if flags & 2:
            body = unlz4(body, length)
        if len(body) != length:
            raise ValueError("a pack whose events have another length than its header says")
    else:
        raise ValueError(f"pack version {version}; this client reads 1 and 2")
    found, at = [], 0
    for number in range(count):
        length = 0
        for digit in range(4):
            if at == len(body):
                raise ValueError(f"event {number} is cut short")
            byte, at = body[at], at + 1
            length |= (byte & 0x7F) << 7 * digit
            if byte < 0x80:
                break
        if byte >= 0x80 or byte == 0 and digit > 0 or at + length > len(body):
            raise ValueError(f"event {number} has a bad length")
        event, at = body[at:at + length], at + length
        if flags & 1 and checked and crc32c(struct.pack("<I", number) + event) != struct.unpack_from("<I", sums, 4 * number)[0]:
            raise ValueError(f"event {number} is not what was packed")
        found.append(event)
    if at != len(body):
        raise ValueError("bytes behind the last event")
    return found

def unlz4(block, limit):
    """What an LZ4 block holds: `limit` bytes at most, else ValueError."""
    out, stream = bytearray(), iter(block)
    def length(nibble):
        if nibble == 15:
            byte = 255
            while byte == 255:
                byte = next(stream)
                nibble += byte
        if len(out) + nibble > limit:
            raise ValueError("an LZ4 block of more than was said")
        return nibble
    try:
        while True:
            token = next(stream)
            literals = length(token >> 4)
            out += bytes(next(stream) for _ in range(literals))
            low = next(stream, None)
            if low is None:  # the last sequence has no match
                return bytes(out)
            distance, match = low | next(stream) << 8, length(token & 15) + 4
            if not 0 < distance <= len(out) or len(out) + match > limit:
                raise ValueError("an LZ4 block with a bad match")
            for _ in range(match):  # byte by byte: a match may reach into what it makes
                out.append(out[-distance])
    except (StopIteration, RuntimeError):
        raise ValueError("an LZ4 block that is cut short") from None

def check(holds, what):
    if not holds:
        raise AssertionError(what)

def try_packs():
    """The examples of docs/protocol.md, and each of them cut and changed everywhere."""
    expected, exes, sums = [b"hi", b"", b"x" * 130], "78" * 130, "9ad2d653 7fe12295 eec17884"
    block = "7f 0268690082 0178 0100 68 60 787878787878"
    for name, text in [("version 1", f"4c506b 01 03000000 02 6869 00 8201 {exes}"),
                       ("checksums", f"4c506b 02 03000000 880000 01 02 6869 00 8201 {exes} {sums}"),
                       ("LZ4", f"4c506b 02 03000000 880000 02 {block}"),
                       ("LZ4 and checksums", f"4c506b 02 03000000 880000 03 {block} {sums}")]:
        pack = bytes.fromhex(text)
        check(events(pack) == expected, f"the pack of the document, {name}")
        for at in range(len(pack)):
            check(bad(pack[:at]), f"cut at {at}, {name}")
            changed = pack[:at] + bytes([pack[at] ^ 0x10]) + pack[at + 1:]
            # Without checksums an event may have changed; with them it is found, unless another block says the same.
            check(bad(changed) or "checksums" not in name or events(changed) == expected, f"changed at {at}, {name}")
    print("read the packs of the document")

def bad(pack):
    try:
        events(pack)
        return False
    except ValueError:
        return True

def main(address):
    try_packs()
    log, other = LogLog(address), LogLog(address)
    print(f"connected: node {log.welcome['node']}, cluster {log.welcome['cluster']:016x}, end {log.welcome['end']}")

    first = log.append(b"the first")
    print("appended one:", first)

    payloads = [b""] + [random.randbytes(random.randrange(2000)) for _ in range(999)]
    places = log.append_many(payloads)
    check(len(places) == 1000, "1000 appends, 1000 places")
    check(all(a[1] <= b[0] for a, b in zip([first] + places, places)), "places lie in the order of the appends")
    check(all(end - offset == 32 + len(payload) for (offset, end, _), payload in zip(places, payloads)), "an entry is 32 + n bytes long")
    print(f"appended 1000 pipelined: {places[0]} to {places[-1]}")

    found = list(log.entries(first[0], places[-1][1]))
    check([(offset, payload) for offset, _, _, payload in found] ==
          list(zip([place[0] for place in [first] + places], [b"the first"] + payloads)), "what was read is what was written")
    check([(writer, sequence) for _, writer, sequence, _ in found] == [(log.writer, n) for n in range(1, 1002)], "writer and sequences")
    print(f"read {len(found)} entries back, all the same byte for byte")

    end = log.end(True)[1]
    again = log.deliver([Append(1001, payloads[-1])])[0]
    check(again == places[-1] and log.end(True)[1] == end, f"a repeat is answered with the first place, not {again}")
    print("repeated the last append with its old sequence:", again)

    woken = []
    def wait():
        began = time.monotonic()
        woken.append((log.read(end, 1 << 16, wait_ms=20_000), time.monotonic() - began))
    reader = threading.Thread(target=wait)
    reader.start()
    time.sleep(0.5)
    check(reader.is_alive(), "a read at the end waits")
    place = other.append(b"wake up")
    reader.join(25)
    check(woken and woken[0][1] < 10 and len(woken[0][0]) == place[1] - end, "a waiting read is woken by an append")
    check([entry[3] for entry in log.entries(*place[:2])] == [b"wake up"], "and finds it")
    print(f"a waiting read was woken after {woken[0][1]:.3f} s by an append at {place[0]} from a second connection")

    began, end = time.monotonic(), log.end(True)[1]
    check(log.read(end, 1 << 16, wait_ms=300) == b"", "a read at the end stays empty")
    check(0.25 < time.monotonic() - began < 5, "a read waits as long as it was told to")
    print(f"a read at the end timed out empty after {time.monotonic() - began:.3f} s")

    place = log.append(b"on condition", expected_end=end)
    check(place[0] == end, "a conditional append lies where it was expected")
    try:
        log.append(b"too late", expected_end=end)
        check(False, "a conditional append conflicts")
    except LogLogError as error:
        check((error.code, error.retryable, error.may_have_happened, error.detail) == (CONFLICT, False, False, place[1]), str(error))
        print("a conditional append conflicted:", error)
    check(log.append(b"after all")[0] == place[1], "the writer goes on after a conflict")

    start, end = log.end(True)
    try:
        log.read(end + 1, 100)
        check(False, "reading beyond the end is an error")
    except LogLogError as error:
        check((error.code, error.retryable, error.detail) == (BEYOND_END, False, end), str(error))
        print("reading beyond the end was refused:", error)
    print("all held")

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 client.py HOST:PORT")
    try:
        main(sys.argv[1])
    except Exception as error:
        sys.exit(f"FAILED: {type(error).__name__}: {error}")
