"""The Tempo API as its clients see it: parameters, status codes, shapes, encodings."""

import base64
import gzip
import urllib.parse

import pytest

import wire
from dataset import BASE, ERROR, MISSING_ROOT, SECOND, SPANS, TRACES, requests
from harness import http
from ledger import Ledger, request, span

CART = TRACES["cart"]
PROTOBUF = {"Accept": "application/protobuf"}

INTRINSICS = {
    "duration", "name", "status", "statusMessage", "kind", "rootServiceName", "rootName",
    "traceDuration", "event:name", "event:timeSinceStart", "link:spanID", "link:traceID",
    "instrumentation:name", "instrumentation:version", "trace:id", "trace:rootName",
    "trace:rootService", "trace:duration", "span:id", "span:parentID", "span:status",
    "span:statusMessage", "span:duration", "span:name", "span:kind",
}


@pytest.fixture(scope="module")
def server(clew_of_module):
    """Half of the traces in blocks, the others in the head."""
    server = clew_of_module()
    ledger = Ledger(server)
    early = {key for number, key in enumerate(TRACES) if number % 2 == 0}
    assert ledger.send(requests([s for s in SPANS if s.trace.key in early]))
    server.flush()
    assert ledger.send(requests([s for s in SPANS if s.trace.key not in early]))
    return server


def ids(answer):
    return {trace["traceID"].rjust(32, "0") for trace in answer["traces"]}


def names(answer):
    by_id = {trace.id: key for key, trace in TRACES.items()}
    return {by_id[each] for each in ids(answer)}


# --- trace by id ---------------------------------------------------------------------------------


def v1_spans(body):
    return {span["spanId"]: (span, batch, scope) for batch in body["batches"]
            for scope in batch["scopeSpans"] for span in scope["spans"]}


def b64(hexadecimal):
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def attributes(entity):
    return {each["key"]: each["value"] for each in entity.get("attributes", [])}


@pytest.mark.parametrize("key", TRACES)
def test_v1_json_is_protobuf_json(server, key):
    trace = TRACES[key]
    answer = server.get(f"/api/traces/{trace.id}")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert "X-Clew-Partial" not in answer.headers
    body = answer.json()
    assert list(body) == ["batches"]
    found = v1_spans(body)
    assert set(found) == {b64(each.id) for each in trace.spans}
    kinds = ["", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
    for each in trace.spans:
        shown, batch, scope = found[b64(each.id)]
        assert shown["traceId"] == b64(trace.id)
        assert shown["name"] == each.name
        assert shown["startTimeUnixNano"] == str(trace.start + each.at)
        assert shown["endTimeUnixNano"] == str(trace.start + each.at + each.duration)
        assert shown.get("kind") == (f"SPAN_KIND_{kinds[each.kind]}" if each.kind else None)
        assert ("parentSpanId" in shown) == bool(each.parent)
        status = shown.get("status", {})
        codes = {0: None, 1: "STATUS_CODE_OK", 2: "STATUS_CODE_ERROR"}
        assert status.get("code") == codes[each.status]
        assert status.get("message") == (each.message or None)
        assert set(attributes(shown)) == set(each.attrs)
        assert set(attributes(batch.get("resource", {}))) == set(each.resource)
        assert scope.get("scope", {}).get("name", "") == each.scope[0]
        assert [e["name"] for e in shown.get("events", [])] == [e.name for e in each.events]
        assert len(shown.get("links", [])) == len(each.links)


def test_attribute_values_in_json(server):
    def value(key, attribute="v"):
        body = server.get(f"/api/traces/{TRACES[key].id}").json()
        return attributes(next(iter(v1_spans(body).values()))[0])[attribute]

    assert value("v-int5") == {"intValue": "5"}
    assert value("v-max") == {"intValue": "9223372036854775807"}
    assert value("v-min") == {"intValue": "-9223372036854775808"}
    assert value("v-float5h") == {"doubleValue": 5.5}
    assert value("v-float5") == {"doubleValue": 5}
    assert value("v-yes") == {"boolValue": True}
    # A value that is set to its zero is still set.
    assert value("v-no") == {"boolValue": False}
    assert value("v-zero") == {"intValue": "0"}
    assert value("s-empty", "s") == {"stringValue": ""}
    assert value("s-rocket", "s") == {"stringValue": "🚀"}
    assert value("v-arrmixed") == {
        "arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "5"}]}}
    assert value("nested", "bytes") == {"bytesValue": base64.b64encode(b"\0\xff").decode()}
    deeper = {"kvlistValue": {"values": [{"key": "most", "value": {"intValue": "1"}}]}}
    assert value("nested", "map") == {"kvlistValue": {"values": [
        {"key": "inner", "value": {"stringValue": "x"}}, {"key": "deeper", "value": deeper}]}}


def test_events_and_links_in_json(server):
    body = server.get(f"/api/traces/{TRACES['ln2'].id}").json()
    links = next(iter(v1_spans(body).values()))[0]["links"]
    assert links[0]["traceId"] == b64(CART.id) and links[0]["spanId"] == b64(CART.spans[0].id)
    body = server.get(f"/api/traces/{TRACES['ev2'].id}").json()
    events = next(iter(v1_spans(body).values()))[0]["events"]
    assert events[0]["timeUnixNano"] == str(TRACES["ev2"].start + 10_000_000)
    assert attributes(events[1]) == {"type": {"stringValue": "y"}, "code": {"intValue": "2"}}


def test_v2_wraps_the_same_trace(server):
    v1 = server.get(f"/api/traces/{CART.id}").json()
    v2 = server.get(f"/api/v2/traces/{CART.id}").json()
    assert v2["trace"]["resourceSpans"] == v1["batches"]
    assert "status" not in v2 and not v2.get("message")
    assert isinstance(v2["metrics"], dict)
    assert isinstance(v2["metrics"].get("inspectedBytes", ""), str)


def test_protobuf_by_accept_on_both_versions(server):
    from opentelemetry.proto.trace.v1 import trace_pb2

    for accept in ["application/protobuf", "application/protobuf, application/json;q=0.5"]:
        v1 = server.get(f"/api/traces/{CART.id}", headers={"Accept": accept})
        v2 = server.get(f"/api/v2/traces/{CART.id}", headers={"Accept": accept})
        assert v1.headers["Content-Type"].startswith("application/protobuf")
        assert v2.headers["Content-Type"].startswith("application/protobuf")
        whole = trace_pb2.TracesData.FromString(v1.body)
        assert wire.fields(v2.body)[1][0] == v1.body
        assert wire.number(v2.body, 3) == 0
        found = {s.span_id.hex(): s for r in whole.resource_spans for c in r.scope_spans
                 for s in c.spans}
        assert set(found) == {each.id for each in CART.spans}
        charge = found[CART.spans[1].id]
        assert charge.status.code == ERROR and charge.status.message == "card refused"
        assert charge.parent_span_id.hex() == CART.spans[0].id


@pytest.mark.parametrize("accept", [
    "application/json", "*/*", "text/html", "application/vnd.grafana.llm", "", "nonsense"])
def test_everything_else_is_json(server, accept):
    for path in [f"/api/traces/{CART.id}", f"/api/v2/traces/{CART.id}", "/api/search?q={}"]:
        answer = server.get(path, headers={"Accept": accept})
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("application/")
        assert answer.json()


@pytest.mark.parametrize("form", [
    str.upper, lambda i: i, lambda i: i.lstrip("0"), lambda i: "0" + i.lstrip("0"),
    lambda i: i.lstrip("0").upper()])
def test_an_id_may_be_short_and_upper_case(server, form):
    for trace in (TRACES["idzero"], CART):
        text = form(trace.id)
        if len(text) > 32:
            continue
        assert len(v1_spans(server.get(f"/api/traces/{text}").json())) == len(trace.spans)
        assert sorted(server.trace_spans(text)) == sorted(each.id for each in trace.spans)


def test_an_unknown_trace_is_404_on_v1_and_empty_on_v2(server):
    for unknown in ["1234", "f" * 32]:
        v1 = server.get(f"/api/traces/{unknown}")
        assert (v1.status, v1.body) == (404, b"")
        assert server.get(f"/api/traces/{unknown}", headers=PROTOBUF).status == 404
        v2 = server.get(f"/api/v2/traces/{unknown}")
        assert v2.status == 200
        assert not v2.json().get("trace", {}).get("resourceSpans")
        assert "status" not in v2.json()
        v2 = server.get(f"/api/v2/traces/{unknown}", headers=PROTOBUF)
        assert v2.status == 200
        assert wire.fields(v2.body).get(1, [b""])[0] == b"" and wire.number(v2.body, 3) == 0


@pytest.mark.parametrize("version", ["/api/traces", "/api/v2/traces"])
@pytest.mark.parametrize("path,parameters,words", [
    ("xyz", {}, "position 1"),
    ("12g4", {}, "position 3"),
    ("1" * 33, {}, "128 bits"),
    ("0" * 33, {}, "128 bits"),
    ("%20", {}, ""),
    ("%F0%9F%9A%80", {}, ""),
    ("-1", {}, ""),
    ("0x12", {}, ""),
    ("1" * 10_000, {}, ""),
    ("12", {"start": 5, "end": 5}, ""),
    ("12", {"start": 6, "end": 5}, ""),
    ("12", {"start": "x", "end": 5}, ""),
    ("12", {"start": -1}, ""),
    ("12", {"end": 4294967296}, ""),
])
def test_wrong_ids_and_ranges_are_400(server, version, path, parameters, words):
    answer = server.get(f"{version}/{path}", **parameters)
    assert answer.status == 400, answer
    assert words in answer.text
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_a_range_narrows_a_trace_by_id(server):
    start = BASE // SECOND
    for path in [f"/api/traces/{CART.id}", f"/api/v2/traces/{CART.id}"]:
        assert server.get(path, start=start - 10, end=start + 10).json() == server.get(path).json()


def test_answers_are_gzipped_when_the_client_accepts_it(server):
    for path in [f"/api/traces/{TRACES['many'].id}", "/api/search?q={}&limit=100",
                 "/api/v2/search/tags"]:
        plain = server.get(path)
        assert "Content-Encoding" not in plain.headers
        zipped = server.get(path, headers={"Accept-Encoding": "gzip"})
        assert zipped.headers["Content-Encoding"] == "gzip"
        assert len(zipped.body) < len(plain.body)
        unzipped = gzip.decompress(zipped.body)
        if "search?" not in path:
            assert unzipped == plain.body


# --- search --------------------------------------------------------------------------------------

NOW = BASE // SECOND


@pytest.mark.parametrize("parameters", [
    {"limit": 0}, {"limit": -1}, {"limit": "x"}, {"limit": "1.5"}, {"limit": 262145},
    {"limit": 99999999999999999999}, {"limit": 4294967297},
    {"spss": -1}, {"spss": 101}, {"spss": "x"}, {"spss": 4294967296},
    {"start": NOW}, {"end": NOW}, {"start": NOW, "end": NOW - 1},
    {"start": "x", "end": NOW}, {"start": NOW, "end": "x"}, {"start": -5, "end": NOW},
    {"start": NOW, "end": 4294967296}, {"start": 1.5, "end": 2.5},
    {"start": NOW, "end": NOW + 168 * 3600 + 1}, {"start": 1, "end": NOW},
    {"since": "x"}, {"since": "1"}, {"since": "-"},
    {"minDuration": "x"}, {"maxDuration": "x"}, {"minDuration": "2s", "maxDuration": "1s"},
    {"minDuration": "10"},
    {"tags": "a=b"},
])
def test_wrong_parameters_of_a_search_are_400(server, parameters):
    answer = server.get("/api/search", q="{}", **parameters)
    assert answer.status == 400, answer
    assert answer.text and answer.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("tags", ['a="x', "a=1 a=2", 'a=b"c', 'a="x"y', '"a=b', "=b"])
def test_wrong_logfmt_is_400(server, tags):
    assert server.get("/api/search", tags=tags).status == 400


@pytest.mark.parametrize("parameters", [
    {"limit": 1}, {"limit": 262144}, {"spss": 0}, {"spss": 100},
    {"start": NOW, "end": NOW}, {"start": NOW, "end": NOW + 168 * 3600}, {"since": "1h"},
    {"since": "1h30m"}, {"minDuration": "1.5ms", "maxDuration": "2h45m"}, {"minDuration": "100us"},
    {"maxDuration": "1s", "minDuration": "1s"}, {"unknown": "x"},
])
def test_right_parameters_of_a_search_are_200(server, parameters):
    assert server.get("/api/search", q="{}", **parameters).status == 200


def test_limit_is_20_by_default_and_keeps_the_newest(server):
    newest = [t.id for t in sorted(TRACES.values(), key=lambda t: -t.start)]
    assert server.found_ids("{}") == newest[:20]
    assert server.found_ids("{}", limit=1) == newest[:1]
    assert server.found_ids("{}", limit=33) == newest[:33]
    assert server.found_ids("{}", limit=5000) == newest


def test_spss_is_3_by_default_and_matched_counts_all(server):
    for parameters, shown in [({}, 3), ({"spss": 1}, 1), ({"spss": 0}, 0), ({"spss": 100}, 100)]:
        found = server.search('{ resource.service.name = "tree" && name =~ "f1.*" }', **parameters)
        (trace,) = found["traces"]
        assert trace["spanSet"]["matched"] == 5
        assert len(trace["spanSet"].get("spans", [])) == min(shown, 5)


def test_the_types_of_every_field_of_a_search(server):
    query = ('{ status = error && kind = server && resource.region = "us" && duration > 1ms '
             '&& span.http.status_code = 402 && span.retry = false && name != "" '
             '&& resource.service.name = "pay" && instrumentation:version = "2.0.0" '
             '&& rootName != "" && span:id != "" && trace:duration > 1ms }')
    body = server.search(query)
    (trace,) = body["traces"]
    assert trace["traceID"] == CART.id.lstrip("0")
    assert trace["rootServiceName"] == "shop" and trace["rootTraceName"] == "GET /cart"
    assert trace["startTimeUnixNano"] == str(CART.start)
    assert trace["durationMs"] == 100 and isinstance(trace["durationMs"], int)
    assert trace["spanSet"] == trace["spanSets"][0]
    assert trace["spanSet"]["matched"] == 1 and isinstance(trace["spanSet"]["matched"], int)
    assert trace["serviceStats"] == {
        "shop": {"spanCount": 2, "errorCount": 1}, "pay": {"spanCount": 1, "errorCount": 1}}
    (shown,) = trace["spanSet"]["spans"]
    post = CART.spans[2]
    assert shown["spanID"] == post.id and shown["name"] == "POST /charge"
    assert shown["startTimeUnixNano"] == str(CART.start + post.at)
    assert shown["durationNanos"] == str(post.duration)
    found = attributes(shown)
    assert found["http.status_code"] == {"intValue": "402"}
    assert found["retry"] == {"boolValue": False}
    assert found["region"] == {"stringValue": "us"}
    assert found["service.name"] == {"stringValue": "pay"}
    assert found["status"] == {"stringValue": "error"}
    assert found["kind"] == {"stringValue": "server"}
    # Ids, durations, the name and what is of the root are elsewhere.
    hidden = {"name", "duration", "rootName", "trace:rootName", "span:id", "traceDuration"}
    assert not hidden & set(found)
    for key, kind in [("inspectedTraces", int), ("totalBlocks", int), ("completedJobs", int),
                      ("totalJobs", int), ("inspectedBytes", str), ("totalBlockBytes", str),
                      ("inspectedSpans", str)]:
        assert isinstance(body["metrics"].get(key, kind()), kind), key
    assert "status" not in body and "message" not in body


@pytest.mark.parametrize("key,value", [
    ("v-float5h", {"doubleValue": 5.5}), ("v-int10", {"intValue": "10"}),
    ("v-hello", {"stringValue": "hello"}), ("v-yes", {"boolValue": True}),
    ("v-max", {"intValue": "9223372036854775807"}),
])
def test_referenced_attributes_are_shown_with_their_types(server, key, value):
    found = server.search('{ .v != nil && trace:id = "%s" }' % TRACES[key].id)["traces"]
    assert attributes(found[0]["spanSet"]["spans"][0])["v"] == value


def test_a_trace_without_root_says_so(server):
    (trace,) = server.search('{ name = "n2" }')["traces"]
    assert trace["rootServiceName"] == MISSING_ROOT
    assert not trace.get("rootTraceName")


def test_nothing_found_is_an_empty_list(server):
    body = server.search('{ name = "nobody" }')
    assert body["traces"] == [] and isinstance(body["metrics"], dict)
    assert server.search("{ false }")["traces"] == []
    values = server.get("/api/v2/search/tag/span.nobody/values").json()
    assert values["tagValues"] == []
    assert server.get("/api/search/tag/nobody/values").json()["tagValues"] == []


def test_search_in_protobuf_is_the_same_answer(server):
    query = ('{ status = error && span.http.status_code = 402 && name != "" '
             '&& resource.service.name = "pay" }')
    answer = server.get("/api/search", q=query, headers=PROTOBUF)
    assert answer.headers["Content-Type"].startswith("application/protobuf")
    (trace,) = wire.fields(answer.body)[1]
    assert wire.text(trace, 1) == CART.id.lstrip("0")
    assert wire.text(trace, 2) == "shop" and wire.text(trace, 3) == "GET /cart"
    assert wire.number(trace, 4) == CART.start and wire.number(trace, 5) == 100
    (spanset,) = wire.fields(trace)[7]
    assert wire.number(spanset, 2) == 1
    (shown,) = wire.fields(spanset)[1]
    assert wire.text(shown, 1) == CART.spans[2].id and wire.text(shown, 2) == "POST /charge"
    assert wire.number(shown, 4) == CART.spans[2].duration
    keys = {wire.text(attribute, 1) for attribute in wire.fields(shown)[5]}
    assert {"http.status_code", "status"} <= keys
    stats = {wire.text(each, 1): wire.fields(each)[2][0] for each in wire.fields(trace)[8]}
    assert wire.number(stats["shop"], 1) == 2 and wire.number(stats["pay"], 2) == 1


def test_a_range_is_by_overlap_in_seconds(server):
    first, last = NOW, NOW + len(TRACES)
    assert len(server.found_ids("{}", start=first - 100, end=last + 100, limit=1000)) == len(TRACES)
    assert server.found_ids("{}", start=first - 100, end=first - 10, limit=1000) == []
    inside = server.found_ids("{}", start=first + 20, end=first + 30, limit=1000)
    wanted = {t.id for t in TRACES.values() if first + 20 <= t.start // SECOND <= first + 30}
    # A second at either border may or may not count; the middle must.
    assert {t for t in wanted} <= set(inside)
    near = {t.id for t in TRACES.values()
            if t.start // SECOND <= first + 31
            and (t.start + t.duration) // SECOND >= first + 19}
    assert set(inside) <= near
    # The two-day trace overlaps a range that lies wholly inside it.
    far = first + 90_000
    assert names(server.search("{}", start=far, end=far + 10)) == {"d2d"}


# --- legacy search -------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters,wanted", [
    ({"tags": "service.name=batch"}, {"batch"}),
    ({"tags": 'service.name="batch"'}, {"batch"}),
    ({"tags": "service.name=atc"}, {"batch"}),
    ({"tags": "name=dequeue"}, {"batch"}),
    ({"tags": "name=queue"}, {"batch"}),
    ({"tags": 'name="GET /ca"'}, {"cart"}),
    ({"tags": "root.name=nightly"}, {"batch"}),
    ({"tags": "root.service.name=shop"}, {"cart", "browse"}),
    # Each tag holds somewhere in the trace, not on one span.
    ({"tags": "service.name=pay db.system=postgresql"}, set()),
    ({"tags": "service.name=pay user.id=u-1"}, {"cart"}),
    ({"tags": "service.name=shop name=POST"}, {"cart"}),
    ({"tags": "user.id=u-1"}, {"cart"}),
    ({"tags": "user.id=u-"}, set()),
    ({"tags": 's="a\\"b"'}, {"s-quote"}),
    ({"tags": "http.status_code=402"}, {"cart"}),
    ({"tags": "status.code=ok"}, {"browse"}),
    ({"tags": "status.code=error service.name=shop"}, {"cart"}),
    ({"tags": "status.code=unset name=nightly"}, {"batch"}),
    ({"tags": "service.name=batch", "minDuration": "2s"}, {"batch"}),
    ({"tags": "service.name=batch", "minDuration": "4s"}, set()),
    ({"tags": "service.name=batch", "maxDuration": "1s"}, set()),
    ({"tags": "service.name=batch", "maxDuration": "5s"}, {"batch"}),
    ({"service.name": "batch"}, {"batch"}),
    ({"service.name": "batch", "name": "dequeue"}, {"batch"}),
    ({"service.name": "batch", "limit": 5}, {"batch"}),
    ({"minDuration": "10h"}, {"d2d"}),
    ({"minDuration": "1h", "maxDuration": "2h"}, {"d1h30m"}),
])
def test_legacy_tag_search(server, parameters, wanted):
    answer = server.get("/api/search", **parameters)
    assert answer.status == 200, answer
    assert names(answer.json()) == wanted
    for trace in answer.json()["traces"]:
        assert "spanSets" not in trace and "spanSet" not in trace


def test_other_parameters_are_no_tags_beside_a_range(server):
    found = server.get("/api/search", **{
        "service.name": "batch", "start": NOW - 10, "end": NOW + 1000, "limit": 1000})
    assert len(found.json()["traces"]) == len(TRACES)


# --- tags ----------------------------------------------------------------------------------------


def scopes(server, **parameters):
    answer = server.get("/api/v2/search/tags", **parameters)
    assert answer.status == 200, answer
    found = {scope["name"]: scope["tags"] for scope in answer.json()["scopes"]}
    assert all(len(tags) == len(set(tags)) for tags in found.values())
    return {name: set(tags) for name, tags in found.items()}


def known(where):
    """Names of attributes in the data set; those that hold no plain values are left open."""
    if where == "span":
        found = {key for each in SPANS for key in each.attrs}
    elif where == "resource":
        found = {key for each in SPANS for key in each.resource}
    elif where == "event":
        found = {key for each in SPANS for event in each.events for key in event.attrs}
    elif where == "link":
        found = {key for each in SPANS for link in each.links for key in link.attrs}
    else:
        found = {key for each in SPANS for key in each.scope[2]}
    return found - OPEN


OPEN = {"map", "deep", "bytes", "gone"}
DATA_SCOPES = ["span", "resource", "event", "link", "instrumentation"]


def test_tag_names_by_scope(server):
    everything = scopes(server)
    assert set(everything) == {*DATA_SCOPES, "intrinsic"}
    assert everything["intrinsic"] == INTRINSICS and len(INTRINSICS) == 25
    for where in DATA_SCOPES:
        assert everything[where] - OPEN == known(where), where
        assert {name: tags - OPEN for name, tags in scopes(server, scope=where).items()} == {
            where: known(where)}
    assert scopes(server, scope="intrinsic") == {"intrinsic": INTRINSICS}
    assert scopes(server, scope="none") == everything
    assert scopes(server, scope="") == everything


def test_tag_names_v1(server):
    body = server.get("/api/search/tags").json()
    assert set(body) >= {"tagNames", "metrics"}
    plain = set().union(*(known(where) for where in DATA_SCOPES))
    assert set(body["tagNames"]) >= plain
    assert len(body["tagNames"]) == len(set(body["tagNames"]))
    only = server.get("/api/search/tags", scope="resource").json()["tagNames"]
    assert set(only) == known("resource")
    assert set(server.get("/api/search/tags", scope="intrinsic").json()["tagNames"]) == INTRINSICS


def test_tag_names_are_filtered_by_q(server):
    many = scopes(server, q='{ resource.service.name = "many" }')
    assert many["span"] == {f"key.{n}" for n in range(100)}
    assert many["resource"] == {"service.name"}
    assert not many.get("event") and not many.get("link")
    # A matcher that is not finished counts as true, a query that is not usable as no filter.
    unfinished = scopes(server, q='{ resource.service.name = "many" && span.foo = }')
    assert unfinished["span"] == many["span"]
    assert scopes(server, q='{ resource.service.name = "many" && span.foo =')["span"] == many["span"]
    for nothing in ["", " ", "{{{", "hello", "{", "{}", "{ } | rate()"]:
        assert scopes(server, q=nothing) == scopes(server), nothing
    either = scopes(server, q='{ resource.service.name = "many" || resource.service.name = "numbers" }')
    assert either["span"] == many["span"] | {"n", "half", "neg"}


def test_condition_groups_are_bounded_or_judged_exactly(server):
    """Tempo refuses more than 100 groups; who does not expand them has to answer right."""
    groups = " && ".join(f'(span.a{n} = "x" || span.n < {n + 1})' for n in range(12))
    answer = server.get("/api/v2/search/tag/span.n/values", q="{ %s }" % groups)
    assert answer.status in (200, 400), answer
    if answer.status == 200:
        assert [each["value"] for each in answer.json()["tagValues"]] == ["0"]


@pytest.mark.parametrize("path", [
    "/api/search/tags", "/api/v2/search/tags", "/api/search/tag/region/values",
    "/api/v2/search/tag/.region/values"])
@pytest.mark.parametrize("parameters,status", [
    ({"start": NOW}, 400), ({"end": NOW}, 400), ({"start": NOW, "end": NOW - 1}, 400),
    ({"start": "x", "end": NOW}, 400), ({"start": NOW, "end": NOW + 100}, 200),
    ({"limit": "x"}, 200), ({"limit": 0}, 200), ({"limit": -1}, 200), ({"maxStaleValues": "x"}, 200),
    ({"maxStaleValues": 5}, 200), ({"limit": 99999999999999999999}, 200),
])
def test_parameters_of_tags(server, path, parameters, status):
    assert server.get(path, **parameters).status == status


@pytest.mark.parametrize("scope", ["spans", "SPAN", "nope", "parent", "span ", "🚀"])
def test_an_unknown_scope_is_400(server, scope):
    for path in ["/api/search/tags", "/api/v2/search/tags"]:
        answer = server.get(path, scope=scope)
        assert answer.status == 400 and answer.text.startswith("invalid scope"), answer


def test_limit_is_per_scope_and_zero_is_none(server):
    limited = scopes(server, limit=3)
    assert all(len(tags) <= 3 for name, tags in limited.items() if name != "intrinsic")
    assert len(limited["span"]) == 3
    assert scopes(server, limit=0) == scopes(server, limit="x") == scopes(server)


def test_a_range_limits_tags(server):
    many = TRACES["many"].start // SECOND
    assert "key.7" in scopes(server, start=many - 1, end=many + 1)["span"]
    far = NOW - 10_000
    assert not scopes(server, start=far, end=far + 10).get("span")
    values = server.get("/api/v2/search/tag/name/values", start=far, end=far + 10).json()
    assert values["tagValues"] == []


# --- tag values ----------------------------------------------------------------------------------


def values(server, tag, **parameters):
    path = f"/api/v2/search/tag/{urllib.parse.quote(tag, safe='')}/values"
    answer = server.get(path, **parameters)
    assert answer.status == 200, answer
    assert set(answer.json()) >= {"tagValues", "metrics"}
    found = [(each["type"], each["value"]) for each in answer.json()["tagValues"]]
    assert len(found) == len(set(found))
    return set(found)


def strings(texts):
    return {("string", text) for text in texts}


def test_values_have_types(server):
    assert values(server, "span.n") == {("int", str(n)) for n in range(6)}
    assert values(server, "resource.canary") == {("bool", "true")}
    assert values(server, "span.retry") == {("bool", "false")}
    assert values(server, "resource.replicas") == {("int", "3")}
    mixed = values(server, "span.v")
    assert {("int", "5"), ("int", "10"), ("int", "-7"), ("float", "5.5"), ("string", "5"),
            ("string", "hello"), ("bool", "true"), ("bool", "false"),
            ("int", "9223372036854775807"), ("int", "-9223372036854775808")} <= mixed
    assert {kind for kind, _ in mixed} == {"int", "float", "string", "bool"}
    assert values(server, "span.s") >= strings(["foo", "üñï", "🚀", 'a"b', "a\\b", "foo\nbar"])


def test_status_and_kind_are_keywords(server):
    every_status = {("keyword", word) for word in ["ok", "error", "unset"]}
    every_kind = {("keyword", word) for word in
                  ["client", "server", "producer", "consumer", "internal", "unspecified"]}
    assert values(server, "status") == values(server, "span:status") == every_status
    assert values(server, "kind") == values(server, "span:kind") == every_kind
    assert values(server, "span.status") == strings(["is status"])


@pytest.mark.parametrize("tag", [
    "duration", "span:duration", "traceDuration", "trace:duration", "event:timeSinceStart"])
def test_durations_have_no_list_of_values(server, tag):
    assert values(server, tag) == set()


def test_values_of_text_intrinsics(server):
    assert values(server, "name") == values(server, "span:name") == strings(
        {each.name for each in SPANS})
    assert values(server, "statusMessage") >= strings(["card refused", "no funds"])
    assert values(server, "event:name") == strings(
        {event.name for each in SPANS for event in each.events})
    assert values(server, "instrumentation:name") >= strings(["lib.http", "lib.db", "my lib"])
    assert values(server, "rootName") == values(server, "trace:rootName")
    assert values(server, "rootName") >= strings(["GET /cart", "nightly", "c1"])
    assert values(server, "rootServiceName") >= strings(["shop", "batch", "values"])
    assert ("string", "pay") not in values(server, "trace:rootService")


def test_values_by_scope(server):
    services = {each.service for each in SPANS if each.service}
    assert values(server, "resource.service.name") == strings(services)
    assert values(server, ".service.name") == strings(services)
    assert values(server, "span.service.name") == set()
    assert values(server, ".region") == strings(["eu", "us", "span-wins"])
    assert values(server, "resource.region") == strings(["eu", "us"])
    assert values(server, "event.type") == strings(["x", "y"])
    assert values(server, "link.why") == strings(["follows", "cause"])
    assert values(server, "instrumentation.lang") == strings(["py", "go"])


@pytest.mark.parametrize("tag,wanted", [
    ('span."a b"', "is a b"), ("span.with/slash", "is with/slash"), ("span.emoji🚀", "is emoji🚀"),
    ("span.ünïcode", "is ünïcode"), ('span."quote\\"d"', 'is quote"d'), ("span.with+plus", "is with+plus"),
    ("span.per%cent", "is per%cent"), ('span."paren(s)"', "is paren(s)"),
])
def test_names_in_a_path_are_encoded_once_or_twice(server, tag, wanted):
    assert values(server, tag) == strings([wanted])
    # Grafana encodes twice, for a proxy that decodes once.
    assert values(server, urllib.parse.quote(tag, safe="")) == strings([wanted])


@pytest.mark.parametrize("tag", [
    "region", "foo", "span:foo", "a b", "1", "span.", ".", "{ }", '"x"', "span.a && span.b",
    'span."a', "parent:x", "trace:name"])
def test_a_tag_that_is_no_attribute_is_400(server, tag):
    path = f"/api/v2/search/tag/{urllib.parse.quote(tag, safe='')}/values"
    answer = server.get(path)
    assert answer.status == 400, answer
    assert answer.text.startswith("please provide a valid tagName: "), answer


def test_values_are_filtered_by_q(server):
    shop = '{ resource.service.name = "shop" }'
    assert values(server, "name", q=shop) == strings(
        {each.name for each in SPANS if each.service == "shop"})
    assert values(server, "span.http.status_code", q='{ name = "charge" }') == {("int", "402")}
    assert values(server, "status", q='{ resource.service.name = "pay" }') == {("keyword", "error")}
    assert values(server, "resource.service.name", q="{ status = error }") == strings(["shop", "pay"])
    unfinished = '{ resource.service.name = "shop" && name = '
    assert values(server, "name", q=unfinished) == values(server, "name", q=shop)
    assert values(server, "name", q="{{{") == values(server, "name")
    either = '{ name = "enqueue" || name = "dequeue" }'
    assert values(server, "kind", q=either) == {("keyword", "producer"), ("keyword", "consumer")}


def test_values_v1_are_plain_texts(server):
    def v1(tag, **parameters):
        return server.get(f"/api/search/tag/{tag}/values", **parameters).json()["tagValues"]

    assert sorted(v1("region")) == ["eu", "span-wins", "us"]
    assert set(v1("service.name")) == {each.service for each in SPANS if each.service}
    assert sorted(v1("n")) == [str(n) for n in range(6)]
    assert set(v1("name")) >= {"charge", "GET /cart"}
    assert set(v1("status")) <= {"ok", "error", "unset"} | {"is status"}
    assert v1("with%2Fslash") == ["is with/slash"]
    assert v1("a%20b") == ["is a b"]


def test_a_limit_of_values(server):
    assert len(values(server, "name", limit=5)) == 5
    assert values(server, "name", limit=0) == values(server, "name")


def test_values_are_cut_off_at_a_million_bytes(clew):
    server = clew()
    ledger = Ledger(server)
    for part in range(4):
        spans = [span(ledger.random.randbytes(16), b"12345678", big=f"{part}-{n}".ljust(1_000, "x"))
                 for n in range(500)]
        assert ledger.send(request(spans))
        if part == 1:
            server.flush()
    for path in ["/api/v2/search/tag/span.big/values", "/api/search/tag/big/values"]:
        answer = server.get(path)
        assert answer.status == 200
        count = len(answer.json()["tagValues"])
        assert 900 <= count <= 1_000, count


# --- what every route does -----------------------------------------------------------------------


def test_echo_and_buildinfo(server):
    assert server.get("/api/echo").body == b"echo\n"
    info = server.get("/api/status/buildinfo").json()
    assert set(info) >= {"version", "revision", "branch", "buildDate", "buildUser", "goVersion"}
    assert all(isinstance(value, str) for value in info.values())
    numbers = info["version"].lstrip("v").split("-")[0].split(".")
    assert len(numbers) == 3 and all(number.isdigit() for number in numbers)


def test_routes_do_not_check_the_method(server):
    for method in ["GET", "POST", "PUT"]:
        assert http(method, server.url + "/api/echo").status == 200
        assert http(method, server.url + "/api/search?q={}").status == 200


@pytest.mark.parametrize("path", [
    "/", "/api", "/api/", "/api/nope", "/api/mcp", "/api/search/", "/api/v2/search",
    "/api/v3/traces/12", "/api/traces", "/../../etc/passwd", "/api/%2e%2e/status",
    "/api/v2/search/tag//values", "/api/v2/search/tag/x/nope", "/querier/api/nope"])
def test_unknown_routes_are_404(server, path):
    assert server.get(path).status == 404


@pytest.mark.parametrize("path", ["/api/metrics/query_range", "/api/metrics/query"])
@pytest.mark.parametrize("query, words", [
    ("{} | rate()", "TraceQL metrics are not supported yet"), ("{} | rat()", "parse error at line 1, col 6"),
    ("{}", "no metrics query"), ("", "a metrics query is needed")])
def test_metrics_queries_are_an_error_not_an_empty_answer(server, path, query, words):
    answer = server.get(path, q=query, start=NOW, end=NOW + 60)
    assert answer.status == 400, answer
    assert words in answer.text


def test_the_prefix_of_the_api(clew):
    server = clew("querier.http_api_prefix=/tempo")
    assert http("GET", server.url + "/tempo/api/echo").text == "echo\n"
    assert http("GET", server.url + "/tempo/api/search?q={}").status == 200
    assert http("GET", server.url + "/api/echo").status == 404
    assert http("GET", server.url + "/ready").status == 200
