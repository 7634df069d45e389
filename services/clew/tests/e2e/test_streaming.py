"""`tempopb.StreamingQuerier` over plain HTTP/2, called by a client in another language."""

import grpc
import pytest

from dataset import SPANS, requests
from ledger import Ledger, request, span
from streaming import CLASSES, Client


@pytest.fixture(scope="module")
def filled(clew_of_module):
    server = clew_of_module()
    ledger = Ledger(server)
    assert ledger.send(requests(SPANS[::2]))
    server.flush()
    assert ledger.send(requests(SPANS[1::2]))
    return server


@pytest.fixture(params=["http port", "rpc port"])
def client(request, filled):
    address = f"{filled.host}:{filled.http_port}" if request.param == "http port" else filled.rpc_addr
    client = Client(address)
    yield client
    client.close()


def attributes(pairs):
    return {each.key: each.value for each in pairs}


@pytest.mark.parametrize("query", [
    "{ }", '{ resource.service.name = "shop" }', "{ nestedSetParent < 0 } >> { status = error }",
    "{ } | by(resource.service.name) | count() > 1", "{ false }",
])
def test_a_search_answers_what_it_answers_over_http(filled, client, query):
    streamed = client("Search", Query=query, Limit=1000, SpansPerSpanSet=5)
    plain = filled.search(query, limit=1000, spss=5)["traces"]
    traces = [trace for message in streamed for trace in message.traces]
    # Progress may name traces before; the last messages name them all.
    whole = traces[len(traces) - len(plain):]
    assert [trace.traceID for trace in whole] == [trace["traceID"] for trace in plain]
    for got, want in zip(whole, plain):
        assert got.startTimeUnixNano == int(want["startTimeUnixNano"])
        assert got.durationMs == want.get("durationMs", 0)
        assert got.rootServiceName == want.get("rootServiceName", "")
        assert got.spanSet == got.spanSets[0]
        assert [each.matched for each in got.spanSets] == [each["matched"] for each in want["spanSets"]]
        assert [s.spanID for s in got.spanSet.spans] == [s["spanID"] for s in want["spanSet"]["spans"]]
        for few, many in zip(got.spanSets, want["spanSets"]):
            said = {each["key"]: each["value"] for each in many.get("attributes", [])}
            assert set(attributes(few.attributes)) == set(said)
        stats = {each.key: each.value.spanCount for each in got.serviceStats}
        assert stats == {name: s["spanCount"] for name, s in want["serviceStats"].items()}
    last = streamed[-1].metrics
    assert last.completedJobs == last.totalJobs > 0 or query == "{ false }"


def test_what_grafana_asks_when_a_data_source_is_saved(client):
    answer = client("Search", Query="{}", Limit=1)
    assert [trace.traceID != "" for message in answer for trace in message.traces] == [True]


def test_legacy_tags_durations_and_ranges(filled, client):
    found = client("Search", Tags=[CLASSES["TagsEntry"](key="service.name", value="shop")], Limit=50)
    ids = {trace.traceID for message in found for trace in message.traces}
    assert ids == {t["traceID"] for t in filled.get(
        "/api/search", tags='service.name="shop"', limit=50).json()["traces"]}
    slow = client("Search", Query="{}", MinDurationMs=3_000_000, Limit=50)
    assert {t.durationMs >= 3_000_000 for m in slow for t in m.traces} == {True}
    none = client("Search", Query="{}", start=1_600_000_000, end=1_600_000_010)
    assert len(none) == 1 and not none[0].traces


NO_METRICS = "TraceQL metrics are not supported yet"


@pytest.mark.parametrize("method, fields, code, words", [
    ("Search", {"Query": "{ .a = }"}, grpc.StatusCode.INVALID_ARGUMENT, "line 1, col 8"),
    ("Search", {"Query": "{ name = 1 }"}, grpc.StatusCode.INVALID_ARGUMENT, "cannot be compared"),
    ("Search", {"Query": "{}", "Limit": 300_000}, grpc.StatusCode.INVALID_ARGUMENT, "limit"),
    ("Search", {"Query": "{}", "SpansPerSpanSet": 101}, grpc.StatusCode.INVALID_ARGUMENT, "spss"),
    ("Search", {"Query": "{}", "start": 5, "end": 4}, grpc.StatusCode.INVALID_ARGUMENT, "start"),
    ("Search", {"Query": "{}", "start": 5}, grpc.StatusCode.INVALID_ARGUMENT, "start and end"),
    ("Search", {"Query": "({} | by(name)) > {}"}, grpc.StatusCode.INVALID_ARGUMENT, "coalesce()"),
    ("SearchTags", {"scope": "spam"}, grpc.StatusCode.INVALID_ARGUMENT, "invalid scope"),
    ("SearchTagsV2", {"end": 9}, grpc.StatusCode.INVALID_ARGUMENT, "start and end"),
    ("SearchTagValuesV2", {"tagName": "no tag"}, grpc.StatusCode.INVALID_ARGUMENT, "valid tagName"),
    ("Search", {"Query": "{} | rate()"}, grpc.StatusCode.INVALID_ARGUMENT, NO_METRICS),
    ("MetricsQueryRange", {"query": "{} | rate()"}, grpc.StatusCode.UNIMPLEMENTED, NO_METRICS),
    ("MetricsQueryInstant", {"query": "{} | rate()"}, grpc.StatusCode.UNIMPLEMENTED, NO_METRICS),
    ("MetricsQueryRange", {"query": "{} | rat()"}, grpc.StatusCode.INVALID_ARGUMENT, "at line 1, col 6"),
    ("MetricsQueryInstant", {"query": "{}"}, grpc.StatusCode.INVALID_ARGUMENT, "no metrics query"),
    ("MetricsQueryInstant", {}, grpc.StatusCode.INVALID_ARGUMENT, "a metrics query is needed"),
])
def test_what_is_wrong_fails_at_the_first_message(filled, client, method, fields, code, words):
    with pytest.raises(grpc.RpcError) as raised:
        client(method, **fields)
    assert raised.value.code() == code
    assert words in raised.value.details()
    filled.assert_alive()


def test_names_and_values_are_those_of_http(filled, client):
    names = client("SearchTags")[-1].tagNames
    assert list(names) == filled.get("/api/search/tags").json()["tagNames"]
    scopes = client("SearchTagsV2", maxTagsPerScope=5000)[-1].scopes
    plain = filled.get("/api/v2/search/tags", limit=5000).json()["scopes"]
    assert {s.name: list(s.tags) for s in scopes} == {s["name"]: s["tags"] for s in plain}
    for tag in ("resource.service.name", "status", "span.v", "name"):
        values = client("SearchTagValuesV2", tagName=tag)[-1].tagValues
        plain = filled.get(f"/api/v2/search/tag/{tag}/values").json()["tagValues"]
        assert [(v.type, v.value) for v in values] == [(v["type"], v["value"]) for v in plain], tag
    values = client("SearchTagValues", tagName="service.name")[-1].tagValues
    assert list(values) == filled.get("/api/search/tag/service.name/values").json()["tagValues"]
    within = client("SearchTagValuesV2", tagName="name", query='{ resource.service.name = "pay" }')
    assert [value.value for value in within[-1].tagValues] == ["POST /charge"]


def test_the_tenant_comes_from_the_metadata(clew):
    server = clew("multitenancy_enabled=true")
    for tenant in ("one", "two"):
        ledger = Ledger(server, metadata=(("x-scope-orgid", tenant),))
        assert ledger.send(request([span(bytes([7] * 16), bytes([8] * 8), name=f"of {tenant}")]))
    address = f"{server.host}:{server.http_port}"
    for tenant, names in [("one", {"of one"}), ("two", {"of two"}), ("one|two", {"of one", "of two"})]:
        client = Client(address, (("x-scope-orgid", tenant),))
        found = {t.rootTraceName for m in client("Search", Query="{}") for t in m.traces}
        # Both tenants have a trace of that id; one of them is shown.
        assert found and found <= names, tenant
        values = client("SearchTagValuesV2", tagName="name")[-1].tagValues
        assert {value.value for value in values} == names
        client.close()
    for metadata in [(), (("x-scope-orgid", "a/b"),), (("x-scope-orgid", "a||b"),)]:
        client = Client(address, metadata)
        with pytest.raises(grpc.RpcError) as raised:
            client("Search", Query="{}")
        assert raised.value.code() in (
            grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT)
        client.close()


def test_a_large_answer_comes_in_packets(clew):
    server = clew()
    ledger = Ledger(server)
    name = "n" * 60_000
    for at in range(1, 41):
        assert ledger.send(request([span(bytes([at] * 16), bytes([at] * 8), name=name)]))
    client = Client(f"{server.host}:{server.http_port}")
    messages = client("Search", Query="{ name != `` }", Limit=1000)
    assert len(messages) > 2
    assert all(message.ByteSize() <= 1 << 20 for message in messages)
    traces = [trace.traceID for message in messages for trace in message.traces]
    assert len(set(traces)) == 40
    client.close()
