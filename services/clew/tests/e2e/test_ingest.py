"""OTLP over HTTP and gRPC: encodings, limits, what is refused and how."""

import base64
import gzip
import json
import time
from pathlib import Path

import grpc
import pytest
import requests
import zstandard
from google.rpc import status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from harness import exchange, http
from ledger import Ledger, request, span

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
NOW = time.time_ns()


@pytest.fixture(scope="module")
def server(clew_of_module):
    """Small limits, so that they are reached quickly."""
    return clew_of_module(
        "distributor.body_bytes_max=2MiB", "distributor.decompressed_bytes_max=4MiB",
        "distributor.span_bytes_max=1MiB", "distributor.bytes_in_flight_max=64MiB")


@pytest.fixture
def ledger(server, request):
    # A seed of its own for each test: they share one server.
    return Ledger(server, seed=request.node.name)


def post(server, body, headers=None, **more):
    return http("POST", server.otlp_http, body, {**PROTOBUF, **(headers or {}), **more})


def batch_of(ledger, spans=3, **attributes):
    trace_id = ledger.random.randbytes(16)
    return trace_id.hex(), request([
        span(trace_id, ledger.random.randbytes(8), **attributes) for _ in range(spans)])


def json_span(trace_id, span_id, **fields):
    return {"traceId": trace_id, "spanId": span_id, "name": "json", "kind": 2,
            "startTimeUnixNano": str(NOW), "endTimeUnixNano": str(NOW + 5), **fields}


def json_body(*spans):
    return {"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "browser"}}]},
        "scopeSpans": [{"scope": {"name": "web"}, "spans": list(spans)}]}]}


def rejected(answer):
    """(count, message) of a protobuf answer."""
    assert answer.status == 200, answer
    partial = trace_service_pb2.ExportTraceServiceResponse.FromString(answer.body).partial_success
    return partial.rejected_spans, partial.error_message


# --- encodings -----------------------------------------------------------------------------------

CODINGS = {
    "identity": lambda body: body,
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("content_type", ["application/x-protobuf", "application/json"])
@pytest.mark.parametrize("coding", CODINGS)
def test_bodies_in_every_coding(server, ledger, content_type, coding):
    trace_id = ledger.random.randbytes(16).hex()
    span_id = ledger.random.randbytes(8).hex()
    if content_type == "application/json":
        body = json.dumps(json_body(json_span(trace_id, span_id))).encode()
    else:
        body = request([span(bytes.fromhex(trace_id), bytes.fromhex(span_id))]).SerializeToString()
    headers = {"Content-Type": content_type}
    if coding != "identity":
        headers["Content-Encoding"] = coding
    answer = post(server, CODINGS[coding](body), headers)
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"].startswith(content_type)
    if content_type == "application/json":
        assert answer.json() in ({}, {"partialSuccess": {}})
    else:
        assert rejected(answer) == (0, "")
    assert server.trace_spans(trace_id) == [span_id]


def test_a_content_type_may_have_parameters_and_any_case(server, ledger):
    for content_type in ["application/json; charset=utf-8", "Application/JSON"]:
        trace_id, span_id = ledger.random.randbytes(16).hex(), ledger.random.randbytes(8).hex()
        body = json.dumps(json_body(json_span(trace_id, span_id))).encode()
        assert post(server, body, {"Content-Type": content_type}).status == 200
        assert server.trace_spans(trace_id) == [span_id]


def test_json_as_the_otlp_specification_has_it(server, ledger):
    trace_id, span_id = ledger.random.randbytes(16).hex(), ledger.random.randbytes(8).hex()
    fields = json_span(
        trace_id.upper(), span_id.upper(), kind=3, parentSpanId="", unknownField={"a": [1, {}]},
        startTimeUnixNano=NOW, traceState="a=b", flags=1, droppedAttributesCount=2,
        status={"code": 2, "message": "bad"},
        attributes=[
            {"key": "json.int", "value": {"intValue": "9007199254740993"}},
            {"key": "json.number", "value": {"intValue": 7}},
            {"key": "json.double", "value": {"doubleValue": 1.5}},
            {"key": "json.bool", "value": {"boolValue": True}},
            {"key": "json.bytes", "value": {"bytesValue": base64.b64encode(b"\0\1").decode()}},
            {"key": "json.array", "value": {"arrayValue": {"values": [
                {"stringValue": "x"}, {"stringValue": "y"}]}}},
            {"key": "json.map", "value": {"kvlistValue": {"values": [
                {"key": "k", "value": {"stringValue": "v"}}]}}},
            {"key": "json.empty", "value": {}},
        ],
        events=[{"timeUnixNano": str(NOW + 1), "name": "e", "attributes": [
            {"key": "json.code", "value": {"intValue": "3"}}]}],
        links=[{"traceId": "ab" * 16, "spanId": "cd" * 8}])
    body = json.dumps(json_body(fields)).encode()
    answer = post(server, body, JSON)
    assert answer.status == 200 and answer.json() in ({}, {"partialSuccess": {}})
    for query in [
        "{ span.json.int = 9007199254740993 }", "{ span.json.number = 7 }", "{ span.json.double = 1.5 }",
        "{ span.json.bool }", '{ span.json.array = "y" }', '{ event:name = "e" && event.json.code = 3 }',
        '{ statusMessage = "bad" && status = error && kind = client && name = "json" }',
        '{ link:spanID = "%s" }' % ("cd" * 8), '{ instrumentation:name = "web" && span.json.number != nil }',
    ]:
        assert trace_id in server.found_ids(query, limit=100), query


def test_enum_names_are_no_part_of_otlp_json(server, ledger):
    """The specification wants numbers; names are refused or understood, never taken for something else."""
    trace_id, span_id = ledger.random.randbytes(16).hex(), ledger.random.randbytes(8).hex()
    body = json.dumps(json_body(json_span(trace_id, span_id, kind="SPAN_KIND_SERVER"))).encode()
    answer = post(server, body, JSON)
    if answer.status == 200:
        assert server.found_ids('{ trace:id = "%s" && kind = server }' % trace_id) == [trace_id]
    else:
        assert answer.status == 400


@pytest.mark.parametrize("body", [b"", request([]).SerializeToString(),
                                  trace_service_pb2.ExportTraceServiceRequest().SerializeToString()])
def test_empty_requests_succeed(server, body):
    assert rejected(post(server, body)) == (0, "")


@pytest.mark.parametrize("body", [b"{}", b'{"resourceSpans":[]}', b'{"resourceSpans":[{}]}',
                                  b'{"resourceSpans":[{"scopeSpans":[{"spans":[]}]}]}', b' \n{ } '])
def test_empty_json_requests_succeed(server, body):
    answer = post(server, body, JSON)
    assert answer.status == 200 and answer.json() in ({}, {"partialSuccess": {}})


# --- refusals ------------------------------------------------------------------------------------

GOOD = request([span(b"G" * 16, b"g" * 8)]).SerializeToString()


def json_around(value, trace_id="ab" * 16):
    """A request of one span with that text as the value of an attribute."""
    body = json.dumps(json_body(json_span(trace_id, "cd" * 8, attributes=[{"key": "k", "value": {}}])))
    return body.encode().replace(b'"value": {}', b'"value": ' + value)


def deep_json(depth, **more):
    return json_around(b'{"arrayValue":{"values":[' * depth + b"]}}" * depth, **more)


def deep_protobuf(depth, in_resource, trace_id=b"D" * 16):
    value = b""
    for _ in range(depth):  # AnyValue{array_value=5{values=1}}
        value = field(5, field(1, value))
    attribute = field(1, b"k") + field(2, value)
    encoded = span(trace_id, b"12345678").SerializeToString()
    resource = field(1, field(1, attribute)) if in_resource else b""
    inner = encoded if in_resource else encoded + field(9, attribute)
    return field(1, resource + field(2, field(2, inner)))


def field(number, payload):
    length, encoded = len(payload), b""
    while length > 0x7F:
        encoded += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + encoded + bytes([length]) + payload


MALFORMED = {
    "noise": (b"\xff\x00\xfe" * 100, {}),
    "cut off": (GOOD[:-3], {}),
    "a length beyond the end": (b"\x0a\xff\xff\xff\xff\x7f", {}),
    "an endless varint": (b"\x08" + b"\xff" * 20, {}),
    "a group": (b"\x0b" * 1_000, {}),
    "field 0": (b"\x02\x00", {}),
    "a wrong wire type": (b"\x08\x01", {}),
    "json as protobuf": (b'{"resourceSpans":[]}', {}),
    "protobuf as json": (GOOD, JSON),
    "no json": (b"{", JSON),
    "text": (b"hello", JSON),
    "a list": (b"[]", JSON),
    "null": (b"null", JSON),
    "an empty body": (b"", JSON),
    "trailing text": (b"{} {}", JSON),
    "a wrong type": (b'{"resourceSpans":5}', JSON),
    "deep json": (deep_json(2_000), JSON),
    "200,000 levels of json": (b"[" * 200_000, JSON),
    "200,000 open objects": (b'{"a":' * 200_000, JSON),
    "no gzip": (b"not gzip", {"Content-Encoding": "gzip"}),
    "gzip cut off": (gzip.compress(GOOD * 50)[:-9], {"Content-Encoding": "gzip"}),
    "no zstd": (b"not zstd", {"Content-Encoding": "zstd"}),
    "zstd cut off": (
        zstandard.ZstdCompressor().compress(GOOD * 50)[:-5], {"Content-Encoding": "zstd"}),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_can_never_succeed_is_400_with_a_status(server, name):
    body, headers = MALFORMED[name]
    answer = post(server, body, headers)
    assert answer.status == 400, answer
    assert "Retry-After" not in answer.headers
    if headers.get("Content-Type") == "application/json":
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.json()["message"]
        assert answer.json().get("code", 3) == 3
    else:
        assert answer.headers["Content-Type"].startswith("application/x-protobuf")
        status = status_pb2.Status.FromString(answer.body)
        assert status.message and status.code in (0, 3)
    server.assert_alive()


@pytest.mark.parametrize("depth", [100, 20_000])
@pytest.mark.parametrize("form", ["resource", "span", "json"])
def test_deep_values_are_refused_and_stored_nowhere(server, ledger, depth, form):
    trace_id = ledger.random.randbytes(16)
    if form == "json":
        answer = post(server, deep_json(depth, trace_id=trace_id.hex()), JSON)
        count = int(answer.json().get("partialSuccess", {}).get("rejectedSpans", 0))
    else:
        answer = post(server, deep_protobuf(depth, form == "resource", trace_id))
        count = rejected(answer)[0] if answer.status == 200 else 0
    assert answer.status == 400 or count == 1, answer
    assert server.trace_spans(trace_id.hex()) == []
    server.assert_alive()


def test_unknown_json_is_skipped_at_any_depth(server):
    body = b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    assert post(server, body, JSON).status in (200, 400)
    server.assert_alive()


@pytest.mark.parametrize("form", ["protobuf", "json", "a lone surrogate"])
def test_text_that_is_no_utf8_never_breaks_reads(server, ledger, form):
    """The span or the request is refused, or the text is repaired; what is stored can be read."""
    trace_id, body = batch_of(ledger, spans=1, text="PLACE")
    if form == "protobuf":
        bad = b"\xff\xfe\xfd\xfc\xfb"
        answer = post(server, body.SerializeToString().replace(b"PLACE", bad))
        count = rejected(answer)[0] if answer.status == 200 else 0
    else:
        text = b'"\\ud800"' if form == "a lone surrogate" else b'"\xff\xfe"'
        answer = post(server, json_around(b'{"stringValue":' + text + b"}", trace_id), JSON)
        count = int(answer.json().get("partialSuccess", {}).get("rejectedSpans", 0))
    assert answer.status in (200, 400), answer
    stored = answer.status == 200 and count == 0
    assert stored in ((True,) if form == "a lone surrogate" else (False,)) or answer.status == 400
    assert len(server.trace_spans(trace_id)) == stored
    assert server.get(f"/api/traces/{trace_id}").status == (200 if stored else 404)
    server.assert_alive()


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "", "application/grpc",
                                          "application/x-www-form-urlencoded"])
def test_an_unknown_content_type_is_415(server, content_type):
    assert post(server, GOOD, {"Content-Type": content_type}).status == 415


@pytest.mark.parametrize("coding", ["br", "deflate", "snappy", "gzip, gzip", "nonsense"])
def test_an_unknown_coding_is_415(server, coding):
    assert post(server, GOOD, {"Content-Encoding": coding}).status == 415


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_another_method_is_405(server, method):
    assert http(method, server.otlp_http).status == 405


@pytest.mark.parametrize("path", ["/", "/v1/metrics", "/v1/logs", "/v1/traces/", "/v2/traces"])
def test_another_path_is_404(server, path):
    url = server.otlp_http.removesuffix("/v1/traces") + path
    assert http("POST", url, GOOD, PROTOBUF).status == 404


def test_bodies_over_the_limit_are_413(server):
    # Answered before all was sent; unlike urllib, this client reads the answer then.
    noise = Ledger(server).random.randbytes(1 << 20)
    for body, headers in [(noise * 3, PROTOBUF), (b" " * (3 << 20), JSON),
                          (iter([noise] * 3), PROTOBUF), (noise * 100, PROTOBUF)]:
        answer = requests.post(server.otlp_http, data=body, headers=headers, timeout=30)
        assert answer.status_code == 413, answer.text
        assert "Retry-After" not in answer.headers
    server.assert_alive()


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_bombs_are_413_and_cheap(server, coding):
    plain = b"\0" * (1 << 30)
    body = gzip.compress(plain, 9) if coding == "gzip" else CODINGS["zstd"](plain)
    before = server.metric("process_resident_memory_bytes")
    began = time.monotonic()
    for _ in range(5):
        assert post(server, body, {"Content-Encoding": coding}).status == 413
    assert time.monotonic() - began < 30
    assert server.metric("process_resident_memory_bytes") - before < 300e6
    server.assert_alive()


def test_a_bomb_of_bombs(server):
    body = gzip.compress(gzip.compress(gzip.compress(b"\0" * (1 << 28))))
    assert post(server, body, {"Content-Encoding": "gzip"}).status in (400, 413)
    server.assert_alive()


# --- partial success -----------------------------------------------------------------------------

BAD_IDS = {
    "a zero trace id": (b"\0" * 16, b"12345678"),
    "no trace id": (b"", b"12345678"),
    "a short trace id": (b"1" * 15, b"12345678"),
    "a long trace id": (b"1" * 17, b"12345678"),
    "a huge trace id": (b"1" * 100_000, b"12345678"),
    "a zero span id": (b"1" * 16, b"\0" * 8),
    "no span id": (b"1" * 16, b""),
    "a short span id": (b"1" * 16, b"1234567"),
    "a long span id": (b"1" * 16, b"123456789"),
}


@pytest.mark.parametrize("name", BAD_IDS)
@pytest.mark.parametrize("protocol", ["http", "json", "grpc"])
def test_a_bad_span_is_counted_and_its_batch_is_kept(server, ledger, name, protocol):
    bad_trace, bad_span = BAD_IDS[name]
    good_trace, message = batch_of(ledger, spans=2)
    message.resource_spans[0].scope_spans[0].spans.insert(1, span(bad_trace, bad_span))
    if protocol == "grpc":
        partial = ledger.stub.Export(message).partial_success
        count, text = partial.rejected_spans, partial.error_message
    elif protocol == "http":
        count, text = rejected(post(server, message.SerializeToString()))
    else:
        spans = [json_span(each.trace_id.hex(), each.span_id.hex())
                 for each in message.resource_spans[0].scope_spans[0].spans]
        answer = post(server, json.dumps(json_body(*spans)).encode(), JSON)
        assert answer.status == 200, answer
        partial = answer.json()["partialSuccess"]
        assert isinstance(partial["rejectedSpans"], str), "64-bit integers are strings"
        count, text = int(partial["rejectedSpans"]), partial["errorMessage"]
    assert count == 1 and text
    assert len(text) < 10_000
    assert len(server.trace_spans(good_trace)) == 2


@pytest.mark.parametrize("bad", ["zz" * 16, "12", "%%", "🚀" * 8, "0" * 31])
def test_bad_hex_in_json(server, ledger, bad):
    """An id that is no hex is refused alone or with its request, and stored nowhere."""
    good = ledger.random.randbytes(16).hex()
    body = json_body(json_span(good, "12" * 8), json_span(bad, "34" * 8))
    answer = post(server, json.dumps(body).encode(), JSON)
    if answer.status == 200:
        assert int(answer.json()["partialSuccess"]["rejectedSpans"]) == 1
        assert server.trace_spans(good) == ["12" * 8]
    else:
        assert answer.status == 400, answer
        assert server.trace_spans(good) == []


def test_only_bad_spans_are_all_counted(server, ledger):
    message = request([span(b"\0" * 16, b"12345678")] * 7)
    assert rejected(post(server, message.SerializeToString()))[0] == 7
    before = server.metric("clew_distributor_spans_received_total")
    assert ledger.stub.Export(message).partial_success.rejected_spans == 7
    assert server.metric("clew_distributor_spans_received_total") >= before


def test_a_span_over_its_limit_is_rejected_alone(server, ledger):
    good_trace, message = batch_of(ledger, spans=2)
    large = span(ledger.random.randbytes(16), b"12345678", text="x" * 1_100_000)
    message.resource_spans[0].scope_spans[0].spans.append(large)
    count, text = rejected(post(server, message.SerializeToString()))
    assert count == 1 and text
    assert len(server.trace_spans(good_trace)) == 2


# --- CORS ----------------------------------------------------------------------------------------


def test_a_browser_may_send(server, ledger):
    origin = {"Origin": "https://shop.example"}
    preflight = http("OPTIONS", server.otlp_http, headers={
        **origin, "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-scope-orgid"})
    assert preflight.status in (200, 204)
    assert preflight.headers["Access-Control-Allow-Origin"] in ("*", "https://shop.example")
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"].upper()
    allowed = preflight.headers["Access-Control-Allow-Headers"].lower()
    assert allowed == "*" or "content-type" in allowed
    answer = post(server, GOOD, origin)
    assert answer.headers["Access-Control-Allow-Origin"] in ("*", "https://shop.example")
    # The page has to read why it was refused, too.
    refused = post(server, b"\xff", origin)
    assert refused.status == 400 and "Access-Control-Allow-Origin" in refused.headers


def test_origins_can_be_limited(clew):
    server = clew("distributor.cors_origins=[https://*.example]")
    def allowed(origin):
        answer = http("OPTIONS", server.otlp_http, headers={
            "Origin": origin, "Access-Control-Request-Method": "POST"})
        return answer.headers.get("Access-Control-Allow-Origin")

    assert allowed("https://shop.example") == "https://shop.example"
    assert allowed("https://evil.test") is None


# --- gRPC ----------------------------------------------------------------------------------------


def test_grpc_with_gzip(server, ledger):
    trace_id, message = batch_of(ledger)
    channel = grpc.insecure_channel(server.otlp_grpc, compression=grpc.Compression.Gzip)
    stub = trace_service_pb2_grpc.TraceServiceStub(channel)
    answer = stub.Export(message, metadata=[("x-anything", "y"), ("x-bin-bin", b"\0\xff")])
    assert answer.partial_success.rejected_spans == 0
    assert len(server.trace_spans(trace_id)) == 3
    channel.close()


def connections_to(address):
    """The ports of clients that are connected to a local address."""
    wanted = f":{int(address.rpartition(':')[2]):04X}"
    tables = [Path(f"/proc/net/{name}").read_text(encoding="ascii") for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()]
    return {row[1] for row in rows if row[2].endswith(wanted) and row[3] == "01"}


def test_grpc_clients_connect_anew_and_lose_nothing(clew):
    """Or a distributor that was added would never be sent anything."""
    server = clew("distributor.connection_age_max=500ms")
    ledger = Ledger(server)
    seen, until = set(), time.monotonic() + 60
    while len(seen) < 4:
        assert time.monotonic() < until, "the connection stays"
        # No retry anywhere: not one export may fail.
        assert ledger.stub.Export(ledger.batch(traces=1, spans=1)).partial_success.rejected_spans == 0
        seen |= connections_to(server.otlp_grpc)


def test_http_clients_connect_anew_and_lose_nothing(clew):
    server = clew("distributor.connection_age_max=500ms")
    ledger = Ledger(server)
    seen, until = set(), time.monotonic() + 60
    with requests.Session() as session:
        while len(seen) < 4:
            assert time.monotonic() < until, "the connection stays"
            body = ledger.batch(traces=1, spans=1).SerializeToString()
            # requests does not send a body again whose connection ended under it.
            answer = session.post(server.otlp_http, data=body, headers=PROTOBUF, timeout=10)
            assert answer.status_code == 200
            seen |= connections_to(server.otlp_grpc.rpartition(":")[0] + f":{server.otlp_http_port}")


def raw_grpc(server, body, method="Export", service="TraceService", **more):
    with grpc.insecure_channel(server.otlp_grpc) as channel:
        path = f"/opentelemetry.proto.collector.trace.v1.{service}/{method}"
        return channel.unary_unary(path)(body, timeout=20, **more)


@pytest.mark.parametrize("name", [
    name for name, (_, headers) in MALFORMED.items() if not headers])
def test_grpc_refuses_what_can_never_succeed(server, name):
    with pytest.raises(grpc.RpcError) as error:
        raw_grpc(server, MALFORMED[name][0])
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT, error.value.details()
    assert error.value.details()
    server.assert_alive()


def test_grpc_refuses_what_is_too_large(server):
    with pytest.raises(grpc.RpcError) as error:
        raw_grpc(server, b"\0" * (3 << 20))
    # Codes that clients retry would send it for ever.
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT, error.value.details()
    with pytest.raises(grpc.RpcError) as error:
        raw_grpc(server, b"\0" * (64 << 20), compression=grpc.Compression.Gzip)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT, error.value.details()
    server.assert_alive()


def test_grpc_does_not_know_other_methods(server):
    for method, service in [("Nope", "TraceService"), ("Export", "LogsService")]:
        with pytest.raises(grpc.RpcError) as error:
            raw_grpc(server, b"", method, service)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


# --- overload ------------------------------------------------------------------------------------


def test_over_the_rate_a_sender_is_told_when_to_come_again(clew):
    server = clew("distributor.tenant_rate_bytes=1000", "distributor.tenant_burst_bytes=20000")
    ledger = Ledger(server)
    body = request([span(b"r" * 16, b"12345678", text="x" * 8_000)])
    answers = [post(server, body.SerializeToString()) for _ in range(10)]
    assert answers[0].status == 200
    refused = [answer for answer in answers if answer.status != 200]
    assert refused and {answer.status for answer in refused} == {429}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert "RATE_LIMITED" in status_pb2.Status.FromString(refused[0].body).message
    with pytest.raises(grpc.RpcError) as error:
        ledger.stub.Export(body)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    details = dict(error.value.trailing_metadata())["grpc-status-details-bin"]
    assert b"google.rpc.RetryInfo" in details


def test_without_a_bucket_heads_fill_senders_wait_and_nothing_is_lost(clew):
    server = clew("ingester.head_bytes_max=8MiB", "ingester.flush.bytes_max=4MiB")
    server.errors_expected = True
    ledger = Ledger(server)
    assert ledger.send(ledger.batch())
    bucket = server.data / "bucket"
    away = server.data / "away"
    away.write_text("no folder")
    exchange(bucket, away)
    code = None
    for number in range(300):
        message = ledger.batch(traces=20, number=number)
        for each in message.resource_spans[0].scope_spans[0].spans:
            each.attributes.add(key="padding").value.string_value = "p" * 500
        try:
            ledger.stub.Export(message, timeout=30)
        except grpc.RpcError as error:
            code = error.code()
            details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
            break
        for each in message.resource_spans[0].scope_spans[0].spans:
            ledger.acked.setdefault(each.trace_id.hex(), set()).add(each.span_id.hex())
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED, code
    assert b"google.rpc.RetryInfo" in details
    answer = post(server, message.SerializeToString())
    assert answer.status == 429 and int(answer.headers["Retry-After"]) >= 1
    ledger.verify_search(10)
    exchange(bucket, away)
    away.unlink()
    server.flush()
    assert ledger.send(ledger.batch(), timeout=30)
    ledger.verify()
