"""Structural operators, pipelines and aggregates, judged on whole traces wherever their spans lie."""

import itertools

import pytest

from dataset import CLIENT, ERROR, MS, SECOND, SERVER, SPANS, TRACES, requests
from ledger import Ledger
from test_compaction import FAST, blocks, settle
from test_traceql import FILLS, NAMES_BY_ID
from traceql_oracle import Binary, By, Coalesce, Filter, Scalar, Select, Steps, judge, parent_of

STRUCTURAL = [form + relation for form in ("", "!", "&") for relation in (">>", "<<", ">", "<", "~")]
OPERATORS = STRUCTURAL + ["&&", "||"]

EVERY = Filter("{ }", lambda s: True)
NEVER = Filter("{ false }", lambda s: False)
ROOTS = Filter("{ nestedSetParent < 0 }", lambda s: not s.parent)
SHOP = Filter('{ resource.service.name = "shop" }', lambda s: s.service == "shop")
TREE = Filter('{ resource.service.name = "tree" }', lambda s: s.service == "tree")
ERRORS = Filter("{ status = error }", lambda s: s.status == ERROR)
SERVERS = Filter("{ kind = server }", lambda s: s.kind == SERVER)
CLIENTS = Filter("{ kind = client }", lambda s: s.kind == CLIENT)
LATE = Filter("{ name =~ `.*[23]` }", lambda s: s.name[-1:] in ("2", "3"))
SLOW = Filter("{ duration >= 10ms }", lambda s: s.duration >= 10 * MS)
NUMBERS = Filter("{ span.n != nil }", lambda s: "n" in s.attrs)
FILTERS = [EVERY, NEVER, ROOTS, SHOP, TREE, ERRORS, SERVERS, CLIENTS, LATE, SLOW]

PAIRS = [Binary(op, left, right)
         for op in OPERATORS for left, right in itertools.product(FILTERS, FILTERS)]


def count(operator, bound):
    return Scalar("count()", len, operator, str(bound), bound)


def durations(function, operator, literal, bound):
    work_out = {"min": min, "max": max, "sum": sum, "avg": lambda all: sum(all) // len(all)}[function]
    number = lambda spans: work_out([span.duration for span in spans])
    return Scalar(f"{function}(duration)", number, operator, literal, bound)


def numbers(function, operator, bound):
    work_out = {"min": min, "max": max, "sum": sum, "avg": lambda all: sum(all) / len(all)}[function]

    def number(spans):
        found = [span.attrs["n"] for span in spans if isinstance(span.attrs.get("n"), int)]
        return work_out(found) if found else None

    return Scalar(f"{function}(span.n)", number, operator, str(bound), bound)


BY_SERVICE = By("resource.service.name", lambda s: s.service)
BY_KIND = By("kind", lambda s: ["unspecified", "internal", "server", "client", "producer", "consumer"][s.kind])
BY_REGION = By(".region", lambda s: s.attrs.get("region", s.resource.get("region")))


def nested(left, op, right):
    return Steps([Binary(op, left, right)])


PIPELINES = [
    [EVERY, SHOP], [SHOP, ERRORS], [EVERY, ERRORS, CLIENTS], [SHOP, NEVER],
    *([EVERY, count(op, bound)] for op in (">", ">=", "<", "<=", "=", "!=") for bound in (0, 1, 3, 5)),
    *([TREE, count(op, 3)] for op in (">", "=", "!=")),
    *([EVERY, durations(f, op, "30ms", 30 * MS)]
      for f in ("min", "max", "sum", "avg") for op in (">", "<=", "=")),
    *([EVERY, numbers(f, op, 2)] for f in ("min", "max", "sum", "avg") for op in (">", "<", "=", "!=")),
    [EVERY, BY_SERVICE], [EVERY, BY_KIND], [EVERY, BY_REGION], [SHOP, BY_REGION],
    [EVERY, BY_SERVICE, BY_KIND], [EVERY, BY_SERVICE, count(">", 1)],
    [EVERY, BY_SERVICE, BY_KIND, count("=", 1)], [EVERY, BY_SERVICE, ERRORS],
    [EVERY, BY_SERVICE, durations("max", ">", "35ms", 35 * MS)],
    [EVERY, BY_SERVICE, Coalesce()], [EVERY, BY_KIND, count(">", 1), Coalesce(), count(">", 3)],
    [EVERY, count(">", 2), ERRORS], [ERRORS, count(">=", 2), BY_SERVICE],
    [EVERY, count(">", 1), durations("avg", "<", "60ms", 60 * MS)],
    [EVERY, Select("name, span.n")], [SHOP, Select("status"), count(">", 1)],
    [Binary(">>", SHOP, ERRORS), count(">", 1)], [Binary("&>>", EVERY, LATE), count("=", 3)],
    [Binary(">", EVERY, EVERY), Binary(">", EVERY, EVERY)],
    [EVERY, BY_SERVICE, Binary(">", EVERY, EVERY)],
    [Binary("&&", nested(ROOTS, ">>", LATE), ERRORS)],
    [Binary("||", nested(ROOTS, ">>", LATE), ERRORS)],
    [Binary(">>", nested(ROOTS, ">", EVERY), EVERY)],
    [Binary(">>", EVERY, nested(EVERY, ">", EVERY))],
    [Binary("<", nested(EVERY, "~", EVERY), ROOTS)],
    [Binary("&&", Steps([EVERY, count(">", 2)]), Steps([ERRORS, count(">", 1)]))],
    [Binary("||", Steps([TREE, count(">", 4)]), Steps([ERRORS, count(">", 1)]))],
    [Binary(">>", Steps([EVERY, count(">", 2)]), LATE)],
    [Binary(">>", Steps([EVERY, BY_SERVICE, Coalesce()]), ERRORS)],
    [Binary("&&", Steps([EVERY, BY_SERVICE]), ERRORS)],
]


@pytest.fixture(scope="module", params=FILLS)
def filled(request, clew_of_module):
    server = clew_of_module()
    FILLS[request.param](Ledger(server))
    yield server
    server.stop()


def value_of(attribute):
    (kind, value), = attribute["value"].items()
    return int(value) if kind == "intValue" else value


def shown(value, key):
    """A value of the oracle as an answer shows it."""
    if "(duration)" in key:
        return None
    return float(value) if key.startswith("avg(") else value


def wrong_sets(found, wanted):
    """What is wrong with the spansets of one trace."""
    if len(found) != len(wanted):
        return f"{len(found)} spansets, {len(wanted)} expected"
    for got, want in zip(found, wanted):
        ids = [span["spanID"] for span in got["spans"]]
        if ids != [span.id for span in want.spans] or got["matched"] != len(ids):
            return f"matched {got['matched']}, {ids}; expected {[s.key for s in want.spans]}"
        said = {each["key"]: value_of(each) for each in got.get("attributes", [])}
        if set(said) != set(want.said):
            return f"says {said}, expected {want.said}"
        for key, value in want.said.items():
            expected = shown(value, key)
            if expected is not None and said[key] != expected:
                return f"{key} is {said[key]!r}, expected {expected!r}"
    return None


def verdict(server, query, text):
    """What is wrong with the answer to a query, as text; nothing if it is right."""
    answer = server.get("/api/search", q=text, limit=1000, spss=100)
    if answer.status != 200:
        return f"status {answer.status}: {answer.text}"
    traces = answer.json()["traces"]
    starts = [int(trace["startTimeUnixNano"]) for trace in traces]
    if starts != sorted(starts, reverse=True):
        return "not newest first"
    wanted = {key: sets for key, trace in TRACES.items() if (sets := judge(query, trace))}
    found = {NAMES_BY_ID[trace["traceID"].rjust(32, "0")]: trace for trace in traces}
    if len(found) != len(traces) or set(found) != set(wanted):
        missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
        return f"missing {missing}, too many {extra} of {len(traces)}"
    for key, trace in found.items():
        if trace["spanSet"] != trace["spanSets"][0]:
            return f"{key}: spanSet is not the first of spanSets"
        if wrong := wrong_sets(trace["spanSets"], wanted[key]):
            return f"{key}: {wrong}"
    return None


def check_all(server, queries):
    judged = [(text, verdict(server, query, text)) for query, text in queries]
    wrong = [f"{text}\n    {what}" for text, what in judged if what]
    assert not wrong, f"{len(wrong)} of {len(judged)} are wrong:\n" + "\n".join(wrong[:20])


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_between_spansets(filled, operator):
    check_all(filled, [(query, query.text) for query in PAIRS if query.operator == operator])


def test_pipelines(filled):
    queries = [Steps(steps) for steps in PIPELINES]
    check_all(filled, [(query, query.text[1:-1]) for query in queries])


def test_operators_group_from_left_to_right(filled):
    a, b, c = TREE, LATE, ERRORS
    for first, second in itertools.product(["&&", "||"], repeat=2):
        query = Binary(second, nested(a, first, b), c)
        check_all(filled, [(query, f"{a.text} {first} {b.text} {second} {c.text}")])
    # Structural operators bind tighter than && and ||.
    query = Binary("&&", ROOTS, nested(EVERY, ">", LATE))
    check_all(filled, [(query, f"{ROOTS.text} && {EVERY.text} > {LATE.text}")])
    query = Binary("<", nested(ROOTS, ">", EVERY), ROOTS)
    check_all(filled, [(query, f"{ROOTS.text} > {EVERY.text} < {ROOTS.text}")])


def found_names(server, text):
    answer = server.search(text, limit=1000, spss=100)
    return {NAMES_BY_ID[trace["traceID"].rjust(32, "0")]: len(trace["spanSet"]["spans"])
            for trace in answer["traces"]}


def test_scalars_that_tempo_refuses(filled):
    for text, holds in [
        ("{ } | count() > avg(span.n)", lambda t: (n := [s.attrs["n"] for s in t.spans if isinstance(
            s.attrs.get("n"), int)]) and len(t.spans) > sum(n) / len(n)),
        ("{ } | max(duration) - min(duration) >= 30ms", lambda t: max(
            s.duration for s in t.spans) - min(s.duration for s in t.spans) >= 30 * MS),
        ("{ } | max(duration) > min(duration) * 9", lambda t: max(
            s.duration for s in t.spans) > 9 * min(s.duration for s in t.spans)),
        ("{ } | count() * 2 = 6", lambda t: len(t.spans) == 3),
        ("{ } | 3 = count()", lambda t: len(t.spans) == 3),
        ("{ } | count() > 1 + 1", lambda t: len(t.spans) > 2),
        ("({ status = error } | count()) * 3 = ({ } | count()) * 2", lambda t: len(
            [s for s in t.spans if s.status == ERROR]) * 3 == len(t.spans) * 2),
        ("({ kind = server } | count()) = ({ kind = client } | count())", lambda t: (
            n := len([s for s in t.spans if s.kind == SERVER])) > 0 and n == len(
                [s for s in t.spans if s.kind == CLIENT])),
    ]:
        wanted = {key for key, trace in TRACES.items() if holds(trace)}
        assert set(found_names(filled, text)) == wanted, text
        assert wanted, text


def test_attributes_of_the_parent(filled):
    cases = [
        ('{ parent.http.status_code = 402 }', lambda s, p: p.attrs.get("http.status_code") == 402),
        ('{ parent.span.http.method = "GET" }', lambda s, p: p.attrs.get("http.method") == "GET"),
        ('{ parent.resource.service.name = "shop" && resource.service.name != "shop" }',
         lambda s, p: p.service == "shop" and s.service not in (None, "shop")),
        ('{ parent.region != .region }', lambda s, p: None not in (
            a := p.attrs.get("region", p.resource.get("region")),
            b := s.attrs.get("region", s.resource.get("region"))) and a != b),
        ('{ parent.region =~ "e.*" && status = error }', lambda s, p: p.attrs.get(
            "region", p.resource.get("region", "")).startswith("e") and s.status == ERROR),
    ]
    for text, accept in cases:
        wanted = {}
        for span in SPANS:
            parent = parent_of(span)
            if parent is not None and accept(span, parent):
                wanted[span.trace.key] = wanted.get(span.trace.key, 0) + 1
        assert wanted, text
        assert found_names(filled, text) == wanted, text
    no_parent = found_names(filled, "{ parent.service.name = nil }")
    assert no_parent["cart"] == 1 and no_parent["unspec"] == 1 and no_parent["noroot"] == 2
    shown = filled.search('{ parent.http.status_code = 402 }')["traces"][0]["spanSet"]["spans"][0]
    assert shown["attributes"] == [{"key": "parent.http.status_code", "value": {"intValue": "402"}}]


def test_selected_fields_are_shown_on_every_span(filled):
    text = ("{ resource.service.name = `shop` } | select(status, name, kind, resource.region, "
            "span.http.status_code, nestedSetLeft, nestedSetRight, nestedSetParent, span:childCount)")
    cart, = [trace for trace in filled.search(text, spss=10)["traces"]
             if NAMES_BY_ID[trace["traceID"].rjust(32, "0")] == "cart"]
    root, charge = cart["spanSet"]["spans"]
    assert (root["name"], charge["name"]) == ("GET /cart", "charge")
    values = [{each["key"]: value_of(each) for each in span["attributes"]} for span in (root, charge)]
    assert values == [
        {"service.name": "shop", "status": "unset", "kind": "server", "region": "eu",
         "http.status_code": 500, "nestedSetLeft": 1, "nestedSetRight": 6, "nestedSetParent": -1,
         "span:childCount": 1},
        {"service.name": "shop", "status": "error", "kind": "client", "region": "eu",
         "http.status_code": 402, "nestedSetLeft": 2, "nestedSetRight": 5, "nestedSetParent": 1,
         "span:childCount": 1},
    ]


def test_limits_cut_the_newest_traces_and_first_spans(filled):
    text = "{ nestedSetParent < 0 } &>> { }"
    whole = filled.search(text, limit=1000, spss=100)["traces"]
    part = filled.search(text, limit=3, spss=1)["traces"]
    assert [trace["traceID"] for trace in part] == [trace["traceID"] for trace in whole[:3]]
    for few, many in zip(part, whole):
        assert few["spanSet"]["matched"] == many["spanSet"]["matched"]
        assert few["spanSet"]["spans"] == many["spanSet"]["spans"][:1]
    assert all(trace["spanSet"]["spans"] == [] for trace in filled.search(text, spss=0)["traces"])
    start = int(whole[2]["startTimeUnixNano"]) // SECOND
    inside = filled.search(text, limit=1000, start=start, end=start)["traces"]
    assert [trace["traceID"] for trace in inside] == [whole[2]["traceID"]]


def test_several_spansets_on_a_side_are_an_error_that_names_coalesce(filled):
    answer = filled.get("/api/search", q="({ } | by(name)) >> { }")
    assert answer.status == 400 and "coalesce()" in answer.text, answer
    filled.assert_alive()


def test_a_trace_flushed_into_five_blocks_is_one_trace(clew):
    """Every span of a chain is in a block of its own, the deepest first; later they are compacted."""
    server = clew("compactor.poll_interval=1h")
    ledger = Ledger(server)
    chain = [span for key in ("cart", "chain") for span in TRACES[key].spans]
    filler = TRACES["batch"].spans + TRACES["fan"].spans
    layers = [chain[5:6] + chain[2:3], chain[4:5], chain[1:2] + filler[:4], filler[4:], chain[3:4] + chain[0:1]]
    assert sum(map(len, layers)) == len(chain) + len(filler)
    for layer in layers:
        assert ledger.send(requests(layer))
        server.flush()
    assert len(blocks(server)) == 5
    judge_split_traces(server)
    assert server.stop() == 0
    server.settings = [*FAST, "compactor.fan_in=5"]
    server.start()
    settle(server, objects=1)
    judge_split_traces(server)


def judge_split_traces(server):
    present = {"cart", "chain", "batch", "fan"}
    for query in [
        Binary(">>", Filter('{ name = "c1" }', lambda s: s.name == "c1"),
               Filter('{ name = "c3" }', lambda s: s.name == "c3")),
        Binary(">", SHOP, ERRORS), Binary("&>>", SERVERS, SERVERS), Binary("!>>", TREE, TREE),
        Steps([EVERY, count("=", 3)]), Steps([EVERY, durations("sum", ">", "100ms", 100 * MS)]),
        Steps([EVERY, BY_SERVICE, count(">", 1)]),
        Filter("{ traceDuration >= 100ms }", lambda s: s.trace.duration >= 100 * MS),
        Filter('{ rootName = "GET /cart" && nestedSetLeft = 3 }',
               lambda s: s.key == "post" and s.trace.key == "cart"),
    ]:
        text = query.text[1:-1] if isinstance(query, Steps) else query.text
        wanted = {key: judge(query, TRACES[key]) for key in present}
        answer = server.search(text, spss=100)
        found = {NAMES_BY_ID[t["traceID"].rjust(32, "0")]: t["spanSets"] for t in answer["traces"]}
        assert set(found) == {key for key, sets in wanted.items() if sets}, text
        for key, sets in found.items():
            assert wrong_sets(sets, wanted[key]) is None, (text, key, wrong_sets(sets, wanted[key]))


DRILLDOWN = [
    "{nestedSetParent<0 && true}",
    "{nestedSetParent<0 && resource.service.name=\"shop\" && status!=error}",
    "{kind=server && true}",
    "{true && status = error} | select(resource.service.name, event.exception.message, "
    "event.exception.stacktrace) with(most_recent=true)",
    "({nestedSetParent<0} &>> {kind = server}) || ({nestedSetParent<0}) | select(status, "
    "resource.service.name, name, nestedSetParent, nestedSetLeft, nestedSetRight)",
    "{nestedSetParent<0} >> {status=error} | select(status, resource.service.name, name, "
    "nestedSetParent, nestedSetLeft, nestedSetRight)",
    "{.service.name=\"shop\"} && {} | select(status, .service_name, .node_id, .component, .upstream_cluster)",
]


@pytest.mark.parametrize("text", DRILLDOWN)
def test_queries_of_grafana_and_kiali(filled, text):
    answer = filled.search(text, limit=200, spss=20)
    assert answer["traces"]
    for trace in answer["traces"]:
        assert trace["spanSet"]["spans"] and trace["spanSet"] == trace["spanSets"][0]
        for span in trace["spanSet"]["spans"]:
            assert isinstance(span["startTimeUnixNano"], str) and isinstance(span["durationNanos"], str)
            keys = [each["key"] for each in span.get("attributes", [])]
            if "nestedSetLeft" in text:
                assert {"status", "nestedSetParent", "nestedSetLeft", "nestedSetRight"} <= set(keys)
