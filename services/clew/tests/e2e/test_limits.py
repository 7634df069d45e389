"""Limits an operator sets, what a process tells about itself, and what it does by itself."""

import concurrent.futures
import json
import os
import time
import urllib.parse

import pytest

from harness import http
from ledger import Ledger, request, span


def eventually(check, seconds=30):
    """Waits until it holds."""
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it never came to hold"
        time.sleep(0.05)


# --- limits of queries ---------------------------------------------------------------------------


@pytest.mark.parametrize("flushed", [False, True])
def test_a_trace_over_its_limit_is_422_on_v1_and_partial_on_v2(clew, flushed):
    server = clew("querier.query.trace_bytes_max=20kB")
    ledger = Ledger(server)
    large, small = b"L" * 16, b"S" * 16
    assert ledger.send(request([
        span(large, n.to_bytes(8, "big"), name="large", text="x" * 1_000) for n in range(1, 100)]))
    assert ledger.send(request([span(small, b"12345678", name="small")]))
    if flushed:
        server.flush()
    v1 = server.get(f"/api/traces/{large.hex()}")
    assert v1.status == 422 and "20000" in v1.text, v1
    v2 = server.get(f"/api/v2/traces/{large.hex()}")
    assert v2.status == 200 and v2.json()["status"] == "PARTIAL" and v2.json()["message"]
    assert server.get(f"/api/traces/{small.hex()}").status == 200
    assert server.found_ids('{ name = "small" }') == [small.hex()]


def test_limits_of_a_search_can_be_set(clew):
    server = clew("querier.query.limit_max=50", "querier.query.default_limit=2",
                  "querier.query.spans_per_spanset_max=4", "querier.query.search_range_max=1h",
                  "querier.query.default_spans_per_spanset=1", "querier.query.expression_bytes_max=100B")
    ledger = Ledger(server)
    assert ledger.send(ledger.batch(traces=5, spans=3))
    assert len(server.found_ids("{}")) == 2
    assert len(server.search("{}")["traces"][0]["spanSet"]["spans"]) == 1
    assert len(server.found_ids("{}", limit=50)) == 5
    now = int(time.time())
    for parameters in [{"limit": 51}, {"spss": 5}, {"start": now - 3_601, "end": now},
                       {"q": '{ name = "%s" }' % ("x" * 100)}]:
        answer = server.get("/api/search", **{"q": "{}", **parameters})
        assert answer.status == 400 and answer.text, answer
    for path in ["/api/v2/search/tags", "/api/v2/search/tag/name/values"]:
        assert server.get(path, q='{ name = "%s" }' % ("x" * 100)).status == 400


def test_a_search_that_reads_too_much_says_so(clew):
    server = clew("querier.query.inspected_spans_max=50")
    ledger = Ledger(server)
    for number in range(5):
        assert ledger.send(ledger.batch(traces=10, spans=10, number=number))
        server.flush()
    answer = server.get("/api/search", q='{ span.unique.id != "none of them" }', limit=1_000)
    if answer.status == 200:
        assert answer.headers["X-Clew-Partial"] and answer.json()["status"] == "PARTIAL"
    else:
        assert answer.status in (400, 422, 429) and "50" in answer.text, answer
    # What needs no look at many spans is answered.
    trace_id, spans = next(iter(ledger.acked.items()))
    assert server.found_ids('{ span.unique.id = "%s" }' % next(iter(spans))) == [trace_id]


HEAVY = '{ .text =~ "(a|b|ab)*c" }'


def send_heavy(ledger, batches):
    for _ in range(batches):
        assert ledger.send(request([span(ledger.random.randbytes(16), b"12345678", text="ab" * 5_000)
                                    for _ in range(300)]))


def test_a_query_over_its_time_is_504(clew):
    server = clew("querier.query_timeout=2ms")
    send_heavy(Ledger(server), 5)
    answer = server.get("/api/search", q=HEAVY, limit=1_000)
    assert answer.status == 504 and "2ms" in answer.text, answer
    server.assert_alive()


def test_more_queries_than_may_wait_are_429(clew):
    server = clew("querier.concurrent_queries_max=1", "querier.queued_queries_max=1")
    ledger = Ledger(server)
    send_heavy(ledger, 1)
    url = server.url + "/api/search?" + urllib.parse.urlencode({"limit": 1_000, "q": HEAVY})
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: http("GET", url, timeout=60), range(64)))
    assert {answer.status for answer in answers} == {200, 429}
    refused = [answer for answer in answers if answer.status == 429]
    assert all("job queue full" in answer.text for answer in refused)
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert server.get("/api/search?q={}").status == 200


# --- what a process tells about itself -----------------------------------------------------------


def test_logs_in_json_are_json(clew):
    server = clew("telemetry.log_format=json")
    server.flush()
    assert server.stop() == 0
    lines = server.log_text().splitlines()
    assert lines
    for line in lines:
        assert isinstance(json.loads(line), dict), line


def test_own_traces_go_out_and_never_feed_on_themselves(clew):
    server = clew(run=False)
    server.settings += [f"telemetry.otlp_endpoint=http://{server.otlp_grpc}", "telemetry.trace_ratio=1.0"]
    server.start()
    for _ in range(5):
        server.found_ids("{}")
    own = '{ resource.service.name =~ "clew.*" }'
    eventually(lambda: server.found_ids(own))
    # Sending own spans makes none; only the queries above and below do.
    for _ in range(3):
        before = server.metric("clew_distributor_spans_received_total")
        time.sleep(1)
        assert server.metric("clew_distributor_spans_received_total") - before < 50


def test_no_own_traces_unless_asked(server):
    for _ in range(5):
        server.found_ids("{}")
    time.sleep(0.5)
    assert server.found_ids("{}") == []
    assert server.metric("clew_distributor_spans_received_total") == 0


def test_requests_leave_no_open_files_behind(server):
    ledger = Ledger(server)
    for number in range(3):
        assert ledger.send(ledger.batch(number=number))
        server.flush()

    def work():
        for _ in range(100):
            server.found_ids("{}")
            server.get("/api/v2/search/tags")
            server.get("/api/traces/xyz")

    def count():
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))

    work()
    before = count()
    work()
    eventually(lambda: count() < before + 20)


# --- what a process does by itself ---------------------------------------------------------------


def files(server):
    return [path for path in (server.data / "bucket").rglob("*.clew") if path.is_file()]


def test_a_head_is_flushed_by_age_and_an_idle_one_is_not(clew):
    server = clew("ingester.flush.age_max=1s")
    ledger = Ledger(server)
    assert ledger.send(ledger.batch())
    eventually(lambda: files(server))
    ledger.verify()
    ledger.verify_search(10)
    time.sleep(2.5)
    assert len(files(server)) == 1, "without new spans there is nothing to flush"
    assert server.metric("clew_ingester_flushes_total") == 1


def test_a_head_is_flushed_by_size(clew):
    server = clew("ingester.flush.spans_max=100")
    ledger = Ledger(server)
    for number in range(10):
        assert ledger.send(ledger.batch(number=number))
    eventually(lambda: len(files(server)) >= 3)
    ledger.verify()


def test_a_flush_of_nothing_writes_nothing(server):
    for _ in range(3):
        server.flush()
    assert files(server) == []
    ledger = Ledger(server)
    assert ledger.send(ledger.batch())
    for _ in range(3):
        server.flush()
    assert len(files(server)) == 1
    server.kill9()
    server.start()
    server.flush()
    assert len(files(server)) == 1
    ledger.verify()


def test_flushes_at_the_same_time(server):
    ledger = Ledger(server)
    for number in range(5):
        assert ledger.send(ledger.batch(number=number))
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: server.flush(), range(8)))
    assert len(files(server)) == 5
    ledger.verify()
    ledger.verify_search()
