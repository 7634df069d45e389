"""A small fixed data set for TraceQL: every attribute type, odd names, odd shapes of traces.

Traces and spans have short names here; a query's expectation is written with them, or as a
predicate over `Span`, which knows the whole trace.
"""

import dataclasses
import hashlib

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

BASE = 1_700_000_000_000_000_000
MS = 1_000_000
SECOND = 1_000 * MS
MISSING_ROOT = "<root span not yet received>"

UNSPECIFIED, INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = range(6)
UNSET, OK, ERROR = range(3)


@dataclasses.dataclass
class Event:
    name: str
    at: int = 0
    attrs: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Link:
    trace: str
    span: str
    attrs: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Span:
    """One span; `trace` is filled in when the trace is put together."""

    key: str
    name: str = "op"
    parent: str = ""
    kind: int = INTERNAL
    status: int = UNSET
    message: str = ""
    at: int = 0
    duration: int = MS
    attrs: dict = dataclasses.field(default_factory=dict)
    resource: dict = dataclasses.field(default_factory=dict)
    scope: tuple = ("", "", {})
    events: list = dataclasses.field(default_factory=list)
    links: list = dataclasses.field(default_factory=list)
    id: str = ""
    trace: object = None

    @property
    def service(self):
        return self.resource.get("service.name")

    @property
    def root(self):
        return self.trace.root

    @property
    def children(self):
        return [each for each in self.trace.spans if each.parent == self.key]


@dataclasses.dataclass
class Trace:
    key: str
    spans: list
    start: int
    id: str = ""

    @property
    def root(self):
        """The only span without a parent, or nothing."""
        roots = [span for span in self.spans if not span.parent]
        return roots[0] if len(roots) == 1 else None

    @property
    def duration(self):
        first = min(span.at for span in self.spans)
        return max(span.at + span.duration for span in self.spans) - first


def digits(text, count):
    return hashlib.sha256(text.encode()).hexdigest()[:count]


def single(key, service, attrs=None, **fields):
    """A trace of one span."""
    return key, [Span("s", attrs=attrs or {}, resource={"service.name": service}, **fields)]


ODD_NAMES = [
    "a b", "emoji🚀", "with+plus", "with-minus", "with/slash", "with:colon", 'quote"d',
    "back\\slash", "dotted.name", "status", "duration", "name", "kind", "0digit", "paren(s)",
    "eq=als", "ünïcode", "nil", "true", "br{ace}", "com,ma", "star*", "per%cent", "at@", "#hash",
    "semi;colon", "a&b", "tilde~", "car^et", "new\nline", "tab\there", "span.x", "resource.x",
    "parent.x", "q'uote", "[0]", "$dollar", "?", "a..b", ".leading", "trailing.",
]

STRINGS = {
    "foo": "foo", "foobar": "foobar", "Foo": "Foo", "lines": "foo\nbar", "umlaut": "üñï",
    "quote": 'a"b', "slash": "a\\b", "rocket": "🚀", "empty": "", "tick": "a`b", "digits": "500",
    "tab": "a\tb", "dots": "a.b", "zed": "zzz",
}

VALUES = {
    "int5": 5, "int10": 10, "neg": -7, "zero": 0, "float5": 5.0, "float5h": 5.5, "str5": "5",
    "yes": True, "no": False, "arrstr": ["a", "b"], "arrint": [1, 5, 9], "arrfloat": [0.5, 5.5],
    "arrbool": [True, False], "arrmixed": ["a", 5], "arrone": ["a"], "big": 2**53 + 1,
    "max": 2**63 - 1, "min": -(2**63), "hello": "hello",
}

DURATIONS = {
    "d0": 0, "d1ns": 1, "d1us": 1_000, "d1ms": MS, "d1.5s": 1_500 * MS, "d1m": 60 * SECOND,
    "d1h30m": 5_400 * SECOND, "d2d": 172_800 * SECOND,
}


def shop():
    """Traces of a web shop: several services, kinds, statuses."""
    web = {"service.name": "shop", "region": "eu", "deployment.environment": "prod", "replicas": 3}
    pay = {"service.name": "pay", "region": "us", "deployment.environment": "prod", "canary": True}
    http = ("lib.http", "1.2.3", {"lang": "py", "level": 2})
    yield "cart", [
        Span("root", "GET /cart", kind=SERVER, duration=100 * MS, resource=web, scope=http,
             attrs={"http.method": "GET", "http.status_code": 500, "user.id": "u-1"}),
        Span("charge", "charge", "root", CLIENT, ERROR, "card refused", 10 * MS, 40 * MS,
             {"http.status_code": 402, "region": "span-wins"}, web, http),
        Span("post", "POST /charge", "charge", SERVER, ERROR, "no funds", 15 * MS, 30 * MS,
             {"http.status_code": 402, "retry": False}, pay, ("lib.http", "2.0.0", {"lang": "go"})),
    ]
    yield "browse", [
        Span("root", "GET /items", kind=SERVER, status=OK, duration=20 * MS, resource=web,
             scope=http, attrs={"http.method": "GET", "http.status_code": 200, "user.id": "u-2"}),
        Span("select", "SELECT items", "root", CLIENT, at=2 * MS, duration=5 * MS,
             attrs={"db.system": "postgresql", "db.rows": 10}, resource=web,
             scope=("lib.db", "", {})),
    ]
    batch = {"service.name": "batch"}
    yield "batch", [
        Span("root", "nightly", duration=3 * SECOND, resource=batch),
        Span("out", "enqueue", "root", PRODUCER, at=SECOND, duration=MS, resource=batch),
        Span("in", "dequeue", "out", CONSUMER, at=2 * SECOND, duration=SECOND, resource=batch),
    ]
    yield "unspec", [Span("s", "mystery", kind=UNSPECIFIED, resource={"service.name": "odd"})]
    yield "noservice", [Span("s", "lonely", resource={"region": "eu"})]


def shapes():
    """Traces whose spans do not form one tree, and trees for the intrinsics of the trace."""
    tree = {"service.name": "tree"}

    def node(key, parent="", **fields):
        return Span(key, key, parent, resource=tree, **fields)

    yield "chain", [node("c1", duration=50 * MS), node("c2", "c1", at=MS), node("c3", "c2", at=2 * MS)]
    yield "fan", [node("f1", duration=30 * MS)] + [node(f"f1{n}", "f1", at=n * MS) for n in range(4)]
    yield "noroot", [node("n1", "gone"), node("n2", "n1", at=MS), node("n3", "gone", at=2 * MS)]
    yield "tworoots", [node("t1"), node("t2", at=5 * MS), node("t3", "t2", at=6 * MS)]
    yield "cycle", [node("y1", "y2"), node("y2", "y1", at=MS)]
    yield "selfish", [node("x1", "x1")]
    yield "early", [node("e1", at=10 * MS, duration=10 * MS), node("e2", "e1", duration=200 * MS)]
    yield "idzero", [
        Span("z1", "z1", resource=tree, id="00000000000000ff"),
        Span("z2", "z2", "z1", resource=tree, at=MS, id="00ab00000000cd00"),
    ]


def lists():
    """Events, links and instrumentation scopes."""
    def span(key, **fields):
        return single(key, "lists", **fields)

    yield span("ev2", duration=SECOND, events=[
        Event("one", 10 * MS, {"type": "x", "code": 1}),
        Event("two", 20 * MS, {"type": "y", "code": 2})])
    yield span("ev1", duration=SECOND, events=[Event("one", 300 * MS, {"type": "x", "code": 2})])
    yield span("evbare", events=[Event("bare")])
    yield span("evexc", events=[Event("exception", MS, {
        "exception.type": "ValueError", "exception.message": "card \"refused\"",
        "exception.escaped": True, "tries": [1, 2, 3], "share": 0.5})])
    yield span("evnone")
    yield span("ln2", links=[
        Link("cart", "root", {"why": "follows", "n": 1}), Link("browse", "root", {"why": "cause", "n": 2})])
    yield span("ln1", links=[Link("cart", "charge", {"why": "cause", "n": 1})])
    yield span("lnbare", links=[Link("batch", "in")])
    yield span("evln", events=[Event("seen", 0, {"code": 7})], links=[Link("chain", "c1", {"n": 7})])
    yield span("scoped", scope=("my lib", "0.1", {"flag": True, "ratio": 2.5, "tags": ["p", "q"]}))
    yield span("evflag", events=[Event("flag", 0, {"on": True}), Event("flag", MS, {"on": False})])


def traces():
    """All traces; each starts a second after the one before."""
    found = [*shop(), *shapes(), *lists()]
    found += [single(f"v-{key}", "values", {"v": value}) for key, value in VALUES.items()]
    found += [single("v-none", "values"), single("v-res", "values"), single("v-both", "values", {"v": "span"})]
    found += [single(f"s-{key}", "strings", {"s": value}) for key, value in STRINGS.items()]
    found += [single(key, "durations", duration=value) for key, value in DURATIONS.items()]
    found += [single(f"n-{n}", "numbers", {"n": n, "half": n / 2, "neg": -n}) for n in range(6)]
    found.append(single("names", "names", {name: f"is {name}" for name in ODD_NAMES}))
    found.append(single("nested", "nested", {
        "map": {"inner": "x", "deeper": {"most": 1}}, "deep": [["a"], ["b"]], "bytes": b"\x00\xff",
        "gone": [], "after": 1}))
    found.append(single("many", "many", {f"key.{n}": n for n in range(100)}))
    result = {}
    for number, (key, spans) in enumerate(found):
        trace = Trace(key, spans, BASE + number * SECOND, digits(f"trace {key}", 32))
        for span in spans:
            span.trace = trace
            span.id = span.id or digits(f"span {key}/{span.key}", 16)
        result[key] = trace
    for key in ("v-res", "v-both"):
        result[key].spans[0].resource["v"] = 5 if key == "v-res" else "res"
    result["idzero"].id = "00000000000000000000000000000abc"
    assert len({trace.id for trace in result.values()}) == len(result)
    return result


TRACES = traces()
SPANS = [span for trace in TRACES.values() for span in trace.spans]


def any_value(value):
    if isinstance(value, bool):
        return common_pb2.AnyValue(bool_value=value)
    if isinstance(value, int):
        return common_pb2.AnyValue(int_value=value)
    if isinstance(value, float):
        return common_pb2.AnyValue(double_value=value)
    if isinstance(value, bytes):
        return common_pb2.AnyValue(bytes_value=value)
    if isinstance(value, list):
        values = [any_value(each) for each in value]
        return common_pb2.AnyValue(array_value=common_pb2.ArrayValue(values=values))
    if isinstance(value, dict):
        return common_pb2.AnyValue(kvlist_value=common_pb2.KeyValueList(values=key_values(value)))
    return common_pb2.AnyValue(string_value=value)


def key_values(attributes):
    return [common_pb2.KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def span_id(trace, key):
    """The id of a span by its name; of one that is nowhere too."""
    found = [span.id for span in trace.spans if span.key == key]
    return bytes.fromhex(found[0] if found else digits(f"nowhere {key}", 16))


def message_of(span):
    trace = span.trace
    start = trace.start + span.at
    return trace_pb2.Span(
        trace_id=bytes.fromhex(trace.id), span_id=bytes.fromhex(span.id), name=span.name,
        parent_span_id=span_id(trace, span.parent) if span.parent else b"", kind=span.kind,
        start_time_unix_nano=start, end_time_unix_nano=start + span.duration,
        attributes=key_values(span.attrs),
        status=trace_pb2.Status(code=span.status, message=span.message),
        events=[trace_pb2.Span.Event(
            name=event.name, time_unix_nano=start + event.at, attributes=key_values(event.attrs))
            for event in span.events],
        links=[trace_pb2.Span.Link(
            trace_id=bytes.fromhex(TRACES[link.trace].id),
            span_id=span_id(TRACES[link.trace], link.span), attributes=key_values(link.attrs))
            for link in span.links])


def requests(spans):
    """The spans as one export request, in the order given."""
    resource_spans = []
    for span in spans:
        name, version, attributes = span.scope
        resource_spans.append(trace_pb2.ResourceSpans(
            resource=resource_pb2.Resource(attributes=key_values(span.resource)),
            scope_spans=[trace_pb2.ScopeSpans(
                scope=common_pb2.InstrumentationScope(
                    name=name, version=version, attributes=key_values(attributes)),
                spans=[message_of(span)])]))
    return trace_service_pb2.ExportTraceServiceRequest(resource_spans=resource_spans)
