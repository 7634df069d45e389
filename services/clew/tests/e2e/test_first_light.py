"""The main job: an instrumented application sends, the Tempo API answers, within a second."""

import time

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from ledger import Ledger, request, span


def exporter(protocol, server):
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=server.otlp_grpc, insecure=True)
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=server.otlp_http, compression=Compression.Gzip)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_trace_of_the_real_sdk_is_found_at_once(server, protocol):
    provider = TracerProvider(resource=Resource.create({"service.name": "checkout"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter(protocol, server)))
    tracer = provider.get_tracer("shop", "1.2")
    with tracer.start_as_current_span("POST /cart", kind=trace_api.SpanKind.SERVER) as root:
        root.set_attribute("user.id", "u-42")
        with tracer.start_as_current_span("charge", kind=trace_api.SpanKind.CLIENT) as child:
            child.set_attribute("amount", 12.5)
            child.record_exception(ValueError("card refused"))
            child.set_status(trace_api.Status(trace_api.StatusCode.ERROR, "refused"))
    trace_id = format(root.get_span_context().trace_id, "032x")

    # SimpleSpanProcessor exports before `with` ends: what follows reads acknowledged spans.
    v1 = server.get(f"/api/traces/{trace_id}").json()
    names = [s["name"] for b in v1["batches"] for ss in b["scopeSpans"] for s in ss["spans"]]
    assert sorted(names) == ["POST /cart", "charge"]
    v2 = server.get(f"/api/v2/traces/{trace_id}").json()
    assert len(v2["trace"]["resourceSpans"]) == len(v1["batches"])

    for query in [
        '{ resource.service.name = "checkout" && status = error }',
        '{ span.user.id = "u-42" }',
        '{ .amount > 12 }',
        '{ event.exception.type = "ValueError" }',
        '{ instrumentation:name = "shop" && kind = server }',
        '{ trace:rootName = "POST /cart" }',
        '{ statusMessage = "refused" }',
    ]:
        assert server.found_ids(query) == [trace_id], query
    found = server.search('{ status = error && name != "" }')["traces"][0]
    assert found["rootServiceName"] == "checkout"
    assert found["rootTraceName"] == "POST /cart"
    assert found["spanSet"] == found["spanSets"][0]
    assert found["spanSet"]["matched"] == 1
    assert found["spanSet"]["spans"][0]["name"] == "charge"
    assert found["serviceStats"] == {"checkout": {"spanCount": 2, "errorCount": 1}}

    tags = {s["name"]: s["tags"] for s in server.get("/api/v2/search/tags").json()["scopes"]}
    assert "user.id" in tags["span"] and "service.name" in tags["resource"]
    values = server.get("/api/v2/search/tag/resource.service.name/values").json()["tagValues"]
    assert values == [{"type": "string", "value": "checkout"}]


def test_one_bad_span_does_not_refuse_its_batch(server):
    ledger = Ledger(server)
    good, bad = bytes(range(1, 17)), b"\0" * 16
    answer = ledger.stub.Export(request([span(good, b"12345678"), span(bad, b"12345678")]))
    assert answer.partial_success.rejected_spans == 1
    assert answer.partial_success.error_message
    assert server.trace_spans(good.hex()) == [b"12345678".hex()]


def test_a_query_spans_head_and_blocks_without_gap_or_double(server):
    ledger = Ledger(server)
    trace_id = bytes(range(16, 32))
    sent = set()
    for piece in range(4):
        for each in range(3):
            span_id = bytes([piece + 1, each + 1]) * 4
            sent.add(span_id.hex())
            assert ledger.send(request([span(
                trace_id, span_id, parent=b"" if not sent - {span_id.hex()} else b"\1\1" * 4,
                name=f"piece-{piece}", start=1_700_000_000_000_000_000 + piece * 10**9,
                piece=piece)]))
        # The client repeats the last batch, as after a lost answer.
        assert ledger.send(request([span(
            trace_id, span_id, parent=b"\1\1" * 4, name=f"piece-{piece}",
            start=1_700_000_000_000_000_000 + piece * 10**9, piece=piece)]))
        if piece < 3:
            server.flush()
    found = server.trace_spans(trace_id.hex())
    assert len(found) == len(sent) and set(found) == sent
    for piece in range(4):
        result = server.search("{ span.piece = %d }" % piece, spss=100)["traces"]
        assert [t["traceID"].rjust(32, "0") for t in result] == [trace_id.hex()]
        assert result[0]["spanSet"]["matched"] == 3
    whole = server.search("{ trace:duration > 3s }")["traces"]
    assert [t["traceID"].rjust(32, "0") for t in whole] == [trace_id.hex()]
    assert whole[0]["serviceStats"]["shop"]["spanCount"] == 12
    assert whole[0]["spanSet"]["matched"] == 12


def test_newest_first_and_the_same_every_time(server):
    ledger = Ledger(server)
    base = time.time_ns() - 10**12
    ids = []
    for at in range(60):
        trace_id = ledger.random.randbytes(16)
        ids.append(trace_id.hex())
        assert ledger.send(request([span(trace_id, b"12345678", start=base + at * 10**9)]))
        if at == 30:
            server.flush()
    newest = list(reversed(ids))[:20]
    for _ in range(3):
        assert server.found_ids('{ resource.service.name = "shop" }') == newest
    assert server.found_ids("{}", limit=60) == list(reversed(ids))
    start, end = base // 10**9 + 10, base // 10**9 + 20
    inside = server.found_ids("{}", start=start, end=end, limit=100)
    assert set(inside) >= set(ids[11:20]) and len(inside) <= 12


def test_sigterm_drains_and_exits_with_zero(clew):
    server = clew()
    ledger = Ledger(server)
    assert ledger.send(ledger.batch())
    assert server.stop() == 0
    server.start()
    ledger.connect()
    ledger.verify()
