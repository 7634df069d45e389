"""Random spans, sent, repeated, flushed and restarted in random order, against a naive model.

Whatever the storage did with the pieces of a trace, every answer is that of the whole (P2, P3, P9).
A failure prints its seed; the same seed gives the same run.
"""

import dataclasses
import random
import threading
import time

import pytest

from dataset import BASE, MISSING_ROOT, MS, SECOND, Span, Trace, requests
from ledger import Ledger

SERVICES = ["shop", "pay", "mail"]
NAMES = ["get", "put", "list"]
STATUSES = {"unset": 0, "ok": 1, "error": 2}
KINDS = {"internal": 1, "server": 2, "client": 3}


def random_traces(dice, count):
    """Traces within three hours, many of them at the same second; most with one root."""
    traces = []
    for number in range(count):
        start = BASE + dice.randrange(3 * 3_600) // 30 * 30 * SECOND
        spans = []
        for at in range(dice.choice([1, 1, 2, 3, 5, 8])):
            attrs = {}
            if dice.random() < 0.7:
                attrs["a"] = dice.randrange(4)
            if dice.random() < 0.7:
                attrs["b"] = dice.choice(["x", "y", "xy"])
            if dice.random() < 0.2:
                attrs["d"] = dice.sample(["p", "q", "r"], dice.choice([1, 2]))
            parent = spans[dice.randrange(at)].key if at else ""
            if at == 0 and dice.random() < 0.2:
                parent = "elsewhere"
            spans.append(Span(
                str(at), dice.choice(NAMES), parent, dice.choice(list(KINDS.values())),
                dice.choice(list(STATUSES.values())), at=dice.randrange(60_000) * MS,
                duration=dice.choice([1, MS, 50 * MS, 5 * SECOND, 90 * SECOND]), attrs=attrs,
                resource={"service.name": dice.choice(SERVICES)}))
        trace = Trace(str(number), spans, start, f"{dice.getrandbits(128):032x}")
        for span in spans:
            span.trace = trace
            span.id = f"{dice.getrandbits(64):016x}"
        traces.append(trace)
    return traces


def compare(value, operator, literal):
    if value is None:
        return False
    if isinstance(value, list):
        if operator == "!=":
            return all(each != literal for each in value)
        return any(compare(each, operator, literal) for each in value)
    return {"=": value == literal, "!=": value != literal, "<": value < literal,
            ">": value > literal}[operator]


def random_leaf(dice):
    """A condition as text and as a predicate over a span of what is stored."""
    kind = dice.randrange(9)
    operator = dice.choice(["=", "!=", "<", ">"])
    equal = dice.choice(["=", "!="])
    if kind == 0:
        number = dice.randrange(4)
        return f"span.a {operator} {number}", lambda s: compare(s.attrs.get("a"), operator, number)
    if kind == 1:
        text = dice.choice(["x", "y", "xy"])
        return f'.b {operator} "{text}"', lambda s: compare(s.attrs.get("b"), operator, text)
    if kind == 2:
        text = dice.choice(["p", "q", "r"])
        return f'span.d {equal} "{text}"', lambda s: compare(s.attrs.get("d"), equal, text)
    if kind == 3:
        text = dice.choice(SERVICES)
        return f'resource.service.name {equal} "{text}"', lambda s: compare(s.service, equal, text)
    if kind == 4:
        text = dice.choice(NAMES)
        return f'name {equal} "{text}"', lambda s: compare(s.name, equal, text)
    if kind == 5:
        word = dice.choice(list(STATUSES))
        return f"status {equal} {word}", lambda s: compare(s.status, equal, STATUSES[word])
    if kind == 6:
        key = dice.choice(["a", "b", "d"])
        absent = dice.random() < 0.5
        return f"span.{key} {'=' if absent else '!='} nil", lambda s: (key not in s.attrs) == absent
    if kind == 7:
        limit = dice.choice([MS, 50 * MS, SECOND, 30 * SECOND])
        operator = dice.choice("<>")
        if dice.random() < 0.5:
            return f"duration {operator} {limit}ns", lambda s: compare(s.duration, operator, limit)
        return (f"traceDuration {operator} {limit}ns",
                lambda s: compare(s.trace.duration, operator, limit))
    text = dice.choice(NAMES)
    return f'rootName = "{text}"', lambda s: s.root is not None and s.root.name == text


def random_filter(dice, depth=2):
    if depth == 0 or dice.random() < 0.3:
        return random_leaf(dice)
    if dice.random() < 0.15:
        text, holds = random_filter(dice, depth - 1)
        return f"!({text})", lambda s: not holds(s)
    left, left_holds = random_filter(dice, depth - 1)
    right, right_holds = random_filter(dice, depth - 1)
    if dice.random() < 0.5:
        return f"({left}) && ({right})", lambda s: left_holds(s) and right_holds(s)
    return f"({left}) || ({right})", lambda s: left_holds(s) or right_holds(s)


class World:
    """A server, and what it acknowledged."""

    def __init__(self, server, dice):
        self.server = server
        self.ledger = Ledger(server, seed=dice.random())
        self.dice = dice
        self.sent = {}
        self.history = []

    def send(self, spans):
        assert self.ledger.send(requests(spans))
        for span in spans:
            self.sent.setdefault(span.trace.id, {})[span.id] = span

    def stored(self):
        """The traces as far as they were sent."""
        traces = []
        for trace_id, spans in self.sent.items():
            copies = [dataclasses.replace(span) for span in spans.values()]
            first = copies[0]
            trace = Trace(first.trace.key, copies, first.trace.start, trace_id)
            for span in copies:
                span.trace = trace
            traces.append(trace)
        return traces

    def step(self, name, action):
        self.history.append(name)
        action()

    def restart(self):
        if self.dice.random() < 0.5:
            self.server.kill9()
        else:
            assert self.server.stop() == 0
        self.server.start()
        self.ledger.connect()

    def check_search(self):
        text, holds = random_filter(self.dice)
        text = "{ %s }" % text
        wanted = {}
        for trace in self.stored():
            spans = {span.id for span in trace.spans if holds(span)}
            if spans:
                wanted[trace.id] = (trace, spans)
        limit = self.dice.choice([1, 5, 20, 5_000])
        found = self.server.search(text, limit=limit, spss=100)["traces"]
        where = f"{text} limit {limit} after {self.history}"
        starts = [int(each["startTimeUnixNano"]) for each in found]
        newest = sorted((first_of(trace) for trace, _ in wanted.values()), reverse=True)[:limit]
        assert starts == newest, where
        for each in found:
            trace, spans = wanted[each["traceID"].rjust(32, "0")]
            assert {span["spanID"] for span in each["spanSet"]["spans"]} == spans, where
            check_summary(each, trace, where)
        again = self.server.search(text, limit=limit, spss=100)["traces"]
        assert again == found, f"{where}: a second time"

    def check_range(self):
        start = BASE // SECOND + self.dice.randrange(-100, 11_000)
        end = start + self.dice.choice([0, 10, 300, 4_000])
        found = set(self.server.found_ids("{}", start=start, end=end, limit=5_000))
        traces = self.stored()
        # A second at the border may or may not count.
        must = {t.id for t in traces if overlaps(t, start + 1, end - 1)}
        may = {t.id for t in traces if overlaps(t, start - 1, end + 1)}
        assert must <= found <= may, f"{start} to {end} after {self.history}"

    def check_ids(self, count):
        for trace_id in self.dice.sample(list(self.sent), min(count, len(self.sent))):
            found = self.server.trace_spans(trace_id)
            assert sorted(found) == sorted(self.sent[trace_id]), f"{trace_id} after {self.history}"

    def check_tags(self):
        spans = [span for spans in self.sent.values() for span in spans.values()]
        name = self.dice.choice(NAMES)
        answer = self.server.get("/api/v2/search/tag/span.a/values", q='{ name = "%s" }' % name)
        found = {each["value"] for each in answer.json()["tagValues"]}
        assert found == {str(s.attrs["a"]) for s in spans if s.name == name and "a" in s.attrs}
        answer = self.server.get("/api/v2/search/tags", scope="span", q='{ name = "%s" }' % name)
        found = {tag for scope in answer.json()["scopes"] for tag in scope["tags"]}
        assert found == {key for s in spans if s.name == name for key in s.attrs}


def first_of(trace):
    return trace.start + min(span.at for span in trace.spans)


def overlaps(trace, start, end):
    first = first_of(trace)
    return first <= (end + 1) * SECOND - 1 and first + trace.duration >= start * SECOND


def check_summary(found, trace, where):
    stats = {}
    for span in trace.spans:
        stat = stats.setdefault(span.service, [0, 0])
        stat[0] += 1
        stat[1] += span.status == 2
    shown = {name: [stat["spanCount"], stat.get("errorCount", 0)]
             for name, stat in found["serviceStats"].items()}
    assert shown == stats, where
    assert found.get("durationMs", 0) == trace.duration // MS, where
    if trace.root is None:
        assert found["rootServiceName"] == MISSING_ROOT, where
    else:
        assert (found["rootServiceName"], found["rootTraceName"]) == (
            trace.root.service, trace.root.name), where


@pytest.mark.parametrize("seed,settings", [
    (1, []), (2, ["metastore.shards=3"]), (3, ["ingester.flush.spans_max=100"]),
    (4, ["metastore.shards=5", "querier.cache_bytes=0"]), (5, ["ingester.entry_bytes_max=64KiB"]),
])
def test_any_order_of_things_gives_the_answers_of_the_model(clew, seed, settings):
    dice = random.Random(seed)
    world = World(clew(*settings), dice)
    traces = random_traces(dice, 150)
    unsent = [span for trace in traces for span in trace.spans]
    dice.shuffle(unsent)
    while unsent:
        size = dice.choice([1, 10, 80])
        batch, unsent = unsent[:size], unsent[size:]
        world.step(f"send {size}", lambda batch=batch: world.send(batch))
        if dice.random() < 0.3:
            known = [span for spans in world.sent.values() for span in spans.values()]
            again = dice.sample(known, min(30, len(known)))
            world.step("repeat", lambda again=again: world.send(again))
        if dice.random() < 0.25:
            world.step("flush", world.server.flush)
        if dice.random() < 0.05:
            world.step("restart", world.restart)
        for _ in range(3):
            world.check_search()
        world.check_range()
        world.check_tags()
        world.check_ids(3)
    for _ in range(60):
        world.check_search()
        world.check_range()
    world.check_ids(1_000)


def test_answers_stay_whole_while_spans_come_and_heads_are_flushed(clew):
    """What was acknowledged before a query began is in its answer, whole and once."""
    server = clew("ingester.flush.spans_max=500", "metastore.shards=2")
    ledger = Ledger(server)
    stop, troubles = threading.Event(), []

    def guarded(work):
        def run():
            try:
                while not stop.is_set():
                    work()
            except Exception as trouble:  # Told to the main thread, whatever it is.
                troubles.append(trouble)
                stop.set()
        return threading.Thread(target=run)

    pieces = []

    def send():
        """A trace in three pieces, so that flushes fall between them."""
        trace_id = ledger.random.randbytes(16)
        sent = []
        for _ in range(3):
            message = ledger.batch(traces=1, spans=4, number=len(pieces))
            for span in message.resource_spans[0].scope_spans[0].spans:
                span.trace_id = trace_id
                sent.append(span.span_id.hex())
            ledger.stub.Export(message, timeout=30)
        pieces.append((trace_id.hex(), sent))

    def flush():
        server.flush()
        time.sleep(0.05)

    def read():
        if not pieces:
            return
        number = random.randrange(len(pieces))
        trace_id, sent = pieces[number]
        assert sorted(server.trace_spans(trace_id)) == sorted(sent)
        (found,) = server.search('{ trace:id = "%s" && traceDuration > 0s }' % trace_id, spss=100)["traces"]
        assert found["spanSet"]["matched"] == 12, (found["spanSet"]["matched"], number, len(pieces))
        assert found["serviceStats"]["shop"]["spanCount"] == 12
        newest = len(pieces)
        found = server.found_ids("{ span.batch.number < %d }" % newest, limit=5_000)
        assert len(found) == len(set(found)) == newest

    threads = [guarded(send), guarded(flush), guarded(read), guarded(read)]
    for thread in threads:
        thread.start()
    stop.wait(8)
    stop.set()
    for thread in threads:
        thread.join()
    if troubles:
        raise troubles[0]
    assert len(pieces) > 20
