"""Spans that no SDK should send, and some do: each is stored and found once, or counted as refused."""

import json
import time

import pytest

from ledger import Ledger, request, span

NOW = time.time_ns()


@pytest.fixture(scope="module")
def server(clew_of_module):
    return clew_of_module()


@pytest.fixture
def ledger(server, request):
    # A seed of its own for each test: they share one server.
    return Ledger(server, seed=request.node.name)


def stored_once(server, ledger, spans, trace_id):
    """Each span acknowledged is found once; each refused is counted."""
    answer = ledger.stub.Export(request(spans))
    count = answer.partial_success.rejected_spans
    found = server.trace_spans(trace_id.hex())
    assert len(found) == len(spans) - count
    assert (count == 0) == (answer.partial_success.error_message == "")
    return count


YEAR_2100 = 4_102_444_800 * 10**9

TIMES = {
    "1970": (1, 10), "2100": (YEAR_2100, YEAR_2100 + 5), "ends before it starts": (NOW, NOW - 10**9),
    "zero": (0, 0), "no start": (0, NOW), "no end": (NOW, 0), "the last nanosecond": (2**64 - 1, 2**64 - 1),
    "all of time": (1, 2**64 - 1), "half of time": (2**63, 2**63 + 1),
}


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("name", TIMES)
def test_any_time_is_stored_or_refused(server, ledger, name, flushed):
    start, end = TIMES[name]
    trace_id = ledger.random.randbytes(16)
    each = span(trace_id, b"12345678", odd__time=name)
    each.start_time_unix_nano, each.end_time_unix_nano = start, end
    count = stored_once(server, ledger, [each], trace_id)
    if flushed:
        server.flush()
    if count == 0:
        assert server.trace_spans(trace_id.hex()) == [b"12345678".hex()]
        assert trace_id.hex() in server.found_ids('{ span.odd.time = "%s" }' % name)
        body = server.get(f"/api/traces/{trace_id.hex()}").json()
        (shown,) = body["batches"][0]["scopeSpans"][0]["spans"]
        assert int(shown.get("startTimeUnixNano", 0)) == start
        assert int(shown.get("endTimeUnixNano", 0)) == end
    server.assert_alive()


def test_a_search_in_1970_and_2100_finds_what_was_then(server, ledger):
    for at, name in [(10 * 10**9, "then"), (YEAR_2100, "some day")]:
        trace_id = ledger.random.randbytes(16)
        assert ledger.send(request([span(trace_id, b"12345678", start=at, when=name)]))
        seconds = at // 10**9
        query = '{ span.when = "%s" }' % name
        assert server.found_ids(query, start=seconds - 5, end=seconds + 5) == [trace_id.hex()]
        assert server.found_ids(query, start=seconds + 100, end=seconds + 200) == []


def test_a_span_id_used_twice_in_a_trace(server, ledger):
    """Equal identity with different bytes: one wins, and always the same (P3)."""
    trace_id = ledger.random.randbytes(16)
    first = span(trace_id, b"samesame", name="first", which=1)
    second = span(trace_id, b"samesame", name="second", which=2)
    for each in [first, second, first]:
        assert ledger.send(request([each]))
    assert server.trace_spans(trace_id.hex()) == [b"samesame".hex()]
    found = [server.found_ids("{ trace:id = \"%s\" && span.which = %d }" % (trace_id.hex(), n))
             for n in (1, 2)]
    assert sorted(found) == [[], [trace_id.hex()]]
    server.flush()
    assert ledger.send(request([second]))
    assert ledger.send(request([first]))
    assert server.trace_spans(trace_id.hex()) == [b"samesame".hex()]
    assert [server.found_ids("{ trace:id = \"%s\" && span.which = %d }" % (trace_id.hex(), n))
            for n in (1, 2)] == found
    (trace,) = server.search('{ trace:id = "%s" }' % trace_id.hex())["traces"]
    assert trace["spanSet"]["matched"] == 1
    assert trace["serviceStats"]["shop"]["spanCount"] == 1


def test_a_client_and_a_server_span_may_share_an_id(server, ledger):
    """Zipkin style: the server span gets a new id, and the old one becomes its parent."""
    trace_id = ledger.random.randbytes(16)
    client = span(trace_id, b"sharedid", name="call", kind=3)
    answer = span(trace_id, b"sharedid", name="serve", kind=2)
    assert ledger.send(request([client, answer]))
    assert len(set(server.trace_spans(trace_id.hex()))) == 2
    spans = {s.name: s for r in server.trace(trace_id.hex())[0] for c in r.scope_spans
             for s in c.spans}
    assert spans["call"].span_id == b"sharedid"
    assert spans["serve"].span_id != b"sharedid" and spans["serve"].parent_span_id == b"sharedid"
    for _ in range(2):
        (trace,) = server.search('{ trace:id = "%s" }' % trace_id.hex())["traces"]
        assert trace["spanSet"]["matched"] == 2
        assert trace["serviceStats"]["shop"]["spanCount"] == 2
        assert ledger.send(request([answer, client]))
        server.flush()
    assert len(set(server.trace_spans(trace_id.hex()))) == 2


def test_retries_are_found_once(server, ledger):
    message = ledger.batch(traces=1, spans=20)
    trace_id = message.resource_spans[0].scope_spans[0].spans[0].trace_id.hex()
    for at in range(6):
        assert ledger.send(message)
        if at == 3:
            server.flush()
    assert len(server.trace_spans(trace_id)) == 20
    (trace,) = server.search('{ trace:id = "%s" }' % trace_id, spss=100)["traces"]
    assert trace["spanSet"]["matched"] == 20
    assert trace["serviceStats"]["shop"]["spanCount"] == 20
    server.flush()
    assert len(server.trace_spans(trace_id)) == 20
    (trace,) = server.search('{ trace:id = "%s" }' % trace_id, spss=100)["traces"]
    assert trace["spanSet"]["matched"] == 20


SHAPES = {
    "a cycle": [("a", "b"), ("b", "c"), ("c", "a")],
    "its own parent": [("a", "a")],
    "no root": [("a", "gone"), ("b", "a")],
    "two roots": [("a", ""), ("b", "")],
    "a cycle beside a root": [("r", ""), ("a", "b"), ("b", "a")],
    "a thousand deep": [(str(n), str(n - 1) if n else "") for n in range(1_000)],
    "ten thousand children": [("root", "")] + [(f"c{n}", "root") for n in range(10_000)],
}


@pytest.mark.parametrize("name", SHAPES)
def test_any_shape_of_a_trace(server, ledger, name):
    trace_id = ledger.random.randbytes(16)
    pairs = SHAPES[name]
    spans = [span(trace_id, key.encode().ljust(8, b"."), parent.encode().ljust(8, b".") if parent else b"",
                  name=key, shape=name) for key, parent in pairs]
    assert stored_once(server, ledger, spans, trace_id) == 0
    query = '{ span.shape = "%s" && (nestedSetLeft >= 0 || span:childCount >= 0) }' % name
    for _ in range(2):
        (trace,) = server.search(query)["traces"]
        assert trace["traceID"].rjust(32, "0") == trace_id.hex()
        assert trace["spanSet"]["matched"] == len(pairs)
        server.flush()
    assert len(server.trace_spans(trace_id.hex())) == len(pairs)


def test_a_trace_of_20000_spans(server, ledger):
    trace_id = ledger.random.randbytes(16)
    ids = [n.to_bytes(8, "big") for n in range(1, 20_001)]
    for at in range(0, 20_000, 4_000):
        message = request([span(trace_id, each, ids[0] if n else b"", name="big", start=NOW + n)
                           for n, each in enumerate(ids[at:at + 4_000], at)])
        assert ledger.send(message, timeout=60)
        if at == 8_000:
            server.flush()
    assert sorted(server.trace_spans(trace_id.hex())) == [each.hex() for each in ids]
    (trace,) = server.search('{ name = "big" && rootName = "big" }', spss=1)["traces"]
    assert trace["spanSet"]["matched"] == 20_000
    assert len(trace["spanSet"]["spans"]) == 1


def test_many_attributes_events_and_links(server, ledger):
    trace_id = ledger.random.randbytes(16)
    each = span(trace_id, b"12345678", **{f"wide{n}": n for n in range(1_000)})
    for n in range(500):
        each.events.add(name=f"event{n}", time_unix_nano=each.start_time_unix_nano + n)
        each.links.add(trace_id=n.to_bytes(16, "big"), span_id=(n + 1).to_bytes(8, "big"))
    assert stored_once(server, ledger, [each], trace_id) == 0
    for _ in range(2):
        for query in ["{ span.wide999 = 999 }", '{ event:name = "event499" && span.wide0 = 0 }',
                      '{ link:spanID = "%016x" && event:name = "event1" }' % 500]:
            assert server.found_ids(query) == [trace_id.hex()], query
        server.flush()


def test_the_same_attribute_twice_is_no_crash(server, ledger):
    trace_id = ledger.random.randbytes(16)
    each = span(trace_id, b"12345678", twice=1)
    each.attributes.add(key="twice").value.int_value = 2
    each.attributes.add(key="").value.string_value = "an empty key"
    each.attributes.add(key="no value")
    assert stored_once(server, ledger, [each], trace_id) == 0
    for _ in range(2):
        assert server.found_ids("{ span.twice = 1 || span.twice = 2 }") == [trace_id.hex()]
        server.flush()


def no_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_numbers_that_json_cannot_write(server, ledger):
    trace_id = ledger.random.randbytes(16)
    each = span(trace_id, b"12345678", nan=float("nan"), inf=float("inf"), less=float("-inf"),
                tiny=5e-324, huge=1.7e308, negative=-0.0, odd__numbers=True)
    assert stored_once(server, ledger, [each], trace_id) == 0
    for _ in range(2):
        text = server.get(f"/api/traces/{trace_id.hex()}").text
        body = json.loads(text, parse_constant=no_constant)
        (shown,) = body["batches"][0]["scopeSpans"][0]["spans"]
        values = {a["key"]: a["value"]["doubleValue"] for a in shown["attributes"][:-1]}
        assert [values["nan"], values["inf"], values["less"]] == ["NaN", "Infinity", "-Infinity"]
        assert values["tiny"] == 5e-324 and values["huge"] == 1.7e308
        query = "{ span.odd.numbers && span.nan != nil && span.inf != nil && span.tiny > 0 }"
        found = json.loads(server.get("/api/search", q=query).text, parse_constant=no_constant)
        assert len(found["traces"]) == 1
        assert server.found_ids("{ span.inf > 1e308 && span.less < -1e308 }") == [trace_id.hex()]
        assert server.found_ids("{ span.nan = span.nan || span.nan > 0 || span.nan <= 0 }") == []
        for tag in ["nan", "inf", "tiny"]:
            path = f"/api/v2/search/tag/span.{tag}/values"
            json.loads(server.get(path).text, parse_constant=no_constant)
        server.flush()


def test_control_characters_in_names_and_values(server, ledger):
    trace_id = ledger.random.randbytes(16)
    each = span(trace_id, b"12345678", name="nul\0name", control="a\0b\x01\x1f\x7f\u2028\ufffe")
    each.attributes.add(key="key\0nul").value.string_value = "v"
    each.attributes.add(key="key").value.string_value = "nul\0v"
    each.attributes.add(key="").value.string_value = "no key"
    assert stored_once(server, ledger, [each], trace_id) == 0
    for _ in range(2):
        for query in ['{ span.control = "a\\x00b\\x01\\x1f\\x7f\\u2028\\ufffe" }', '{ span.control =~ "a.b.*" }',
                      '{ name = "nul\\u0000name" }', '{ span."key\0nul" = "v" }']:
            assert server.found_ids(query) == [trace_id.hex()], query
        # A separator inside is no separator between.
        assert server.found_ids('{ span.key = "nul" }') == []
        values = server.get("/api/v2/search/tag/span.key/values").json()["tagValues"]
        assert {"type": "string", "value": "nul\0v"} in values and len(values) == 1
        assert server.get(f"/api/traces/{trace_id.hex()}").json()
        assert "key\0nul" in server.get("/api/search/tags", scope="span").json()["tagNames"]
        server.flush()


def test_a_service_name_that_is_no_text(server, ledger):
    for value in [5, 1.5, True, ""]:
        trace_id = ledger.random.randbytes(16)
        message = request([span(trace_id, b"12345678", odd__service=str(value))])
        message.resource_spans[0].resource.attributes[0].CopyFrom(
            request([], service=value).resource_spans[0].resource.attributes[0])
        assert ledger.send(message)
        literal = {True: "true", "": '""'}.get(value, value)
        for _ in range(2):
            query = '{ resource.service.name = %s && span.odd.service = "%s" }' % (literal, value)
            (trace,) = server.search(query)["traces"]
            assert trace["traceID"].rjust(32, "0") == trace_id.hex()
            assert sum(stat["spanCount"] for stat in trace["serviceStats"].values()) == 1
            server.flush()


def test_odd_events_and_links(server, ledger):
    trace_id = ledger.random.randbytes(16)
    each = span(trace_id, b"12345678", start=NOW, odd__events=True)
    each.events.add(name="before", time_unix_nano=NOW - 10**9)
    each.events.add(name="never", time_unix_nano=0)
    each.events.add(name="much later", time_unix_nano=2**64 - 1)
    each.events.add()
    each.links.add()
    each.links.add(trace_id=b"short", span_id=b"toolongforaspan")
    each.links.add(trace_id=b"\0" * 16, span_id=b"\0" * 8)
    count = stored_once(server, ledger, [each], trace_id)
    if count:
        return
    for _ in range(2):
        for query in ['{ event:name = "before" }', '{ event:name = "never" && span.odd.events }',
                      '{ event:name = "before" && event:timeSinceStart < 1s }']:
            assert server.found_ids(query) == [trace_id.hex()], query
        assert server.get(f"/api/traces/{trace_id.hex()}").json()
        server.flush()


def test_large_names_and_values(server, ledger):
    trace_id = ledger.random.randbytes(16)
    each = span(trace_id, b"12345678", name="n" * 50_000, large="v" * 200_000)
    each.attributes.add(key="k" * 50_000).value.string_value = "under a large key"
    array = each.attributes.add(key="list").value.array_value
    for n in range(20_000):
        array.values.add(int_value=n)
    count = stored_once(server, ledger, [each], trace_id)
    assert count == 0
    for _ in range(2):
        for query in ['{ span.large =~ "v{5}.*" }', "{ span.list = 19999 }",
                      '{ span.large != "v" && name =~ "nnn+" }', '{ name = "%s" }' % ("n" * 50_000),
                      '{ span.%s = "under a large key" }' % ("k" * 50_000)]:
            assert server.found_ids(query) == [trace_id.hex()], query[:50]
        server.flush()
