"""Bytes that rot in the bucket: answers say what they miss, everything else is found (P4, P5)."""

import random
import shutil

import pytest

from ledger import Ledger

KEEP_OUT = "X-Clew-Partial"


def objects(server):
    """The files of the bucket, oldest first."""
    files = [path for path in (server.data / "bucket").rglob("*.clew") if path.is_file()]
    return sorted(files, key=lambda path: path.stat().st_mtime_ns)


def two_blocks(clew):
    """A stopped server with two blocks; the second is in the second file."""
    server = clew()
    server.errors_expected = True
    early, late = Ledger(server, seed=1), Ledger(server, seed=2)
    assert early.send(early.batch())
    server.flush()
    (first,) = objects(server)
    assert late.send(late.batch())
    server.flush()
    assert server.stop() == 0
    (second,) = set(objects(server)) - {first}
    return server, early, late, second


def flip(path, positions):
    content = bytearray(path.read_bytes())
    for at in positions:
        content[at] ^= 0xFF
    path.write_bytes(content)


def everywhere(path):
    flip(path, range(0, path.stat().st_size, 7))


def cut_off(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def footer(path):
    size = path.stat().st_size
    flip(path, range(max(0, size - 40), size))


def longer(path):
    path.write_bytes(path.read_bytes() + b"\0" * 100)


def deleted(path):
    path.unlink()


def check_partial(answer, key):
    assert answer.status == 200, answer
    assert answer.headers[KEEP_OUT], "a client that does not know PARTIAL in JSON has the header"
    assert key in answer.headers[KEEP_OUT]
    body = answer.json()
    assert body["status"] == "PARTIAL"
    assert key in body["message"]


@pytest.mark.parametrize("damage", [everywhere, cut_off, emptied, footer, deleted])
def test_a_damaged_block_is_named_and_the_rest_is_found(clew, damage):
    server, early, late, second = two_blocks(clew)
    damage(second)
    server.start()
    # An object's key is its path in the bucket.
    key = second.name
    for _ in range(2):
        answer = server.get("/api/search", q="{}", limit=100)
        check_partial(answer, key)
        found = {trace["traceID"].rjust(32, "0") for trace in answer.json()["traces"]}
        assert found >= set(early.acked)
        for path in ["/api/v2/search/tags", "/api/v2/search/tag/span.batch.number/values",
                     f"/api/v2/traces/{next(iter(late.acked))}"]:
            check_partial(server.get(path), key)
        # Version 1 has no place for PARTIAL in its body, but "not found" would be a lie.
        v1 = server.get(f"/api/traces/{next(iter(late.acked))}")
        assert v1.status != 404, v1
        assert v1.status != 200 or v1.headers[KEEP_OUT]
        for trace_id, spans in early.acked.items():
            resource_spans, _message = server.trace(trace_id)
            shown = {span.span_id.hex() for resource in resource_spans
                     for scope in resource.scope_spans for span in scope.spans}
            assert shown == spans
        assert server.metric("clew_querier_partial_total") > 0
        # It goes on taking and showing spans.
        ledger = Ledger(server, seed=3)
        assert ledger.send(ledger.batch())
        query = '{ span.unique.id = "%s" }' % next(iter(next(iter(ledger.acked.values()))))
        assert len(server.search(query)["traces"]) == 1
        server.assert_alive()
        assert server.stop() == 0
        server.start()


def test_a_block_that_is_outside_the_range_is_not_missed(clew):
    server, early, _late, second = two_blocks(clew)
    everywhere(second)
    server.start()
    answer = server.get("/api/search", q="{}", start=1_000_000_000, end=1_000_000_100)
    assert answer.status == 200 and KEEP_OUT not in answer.headers
    assert "status" not in answer.json()
    assert early.acked


def test_a_flip_of_any_byte_is_noticed_or_without_effect(clew):
    """No single wrong byte may change an answer that claims to be complete."""
    server, early, late, second = two_blocks(clew)
    whole = {**early.acked, **late.acked}
    pristine = server.dir / "pristine"
    shutil.copytree(server.data, pristine)
    size = second.stat().st_size
    dice = random.Random(7)
    positions = sorted({0, 1, size // 2, size - 1, size - 9, *(dice.randrange(size) for _ in range(25))})
    partial = 0
    for position in positions:
        shutil.rmtree(server.data)
        shutil.copytree(pristine, server.data)
        flip(second, [position])
        server.start()
        answer = server.get("/api/search", q="{ span.unique.id != nil }", limit=100, spss=100)
        assert answer.status == 200, (position, answer)
        found = {trace["traceID"].rjust(32, "0"): {s["spanID"] for s in trace["spanSet"]["spans"]}
                 for trace in answer.json()["traces"]}
        if KEEP_OUT in answer.headers:
            partial += 1
            assert found.keys() <= whole.keys() and found.keys() >= early.acked.keys(), position
        else:
            assert found == whole, position
        for trace_id, spans in whole.items():
            resource_spans, message = server.trace(trace_id)
            shown = {span.span_id.hex() for resource in resource_spans
                     for scope in resource.scope_spans for span in scope.spans}
            assert shown == spans or (message and shown <= spans), (position, trace_id)
        server.assert_alive()
        server.kill9()
    assert partial, "no flip was noticed: does the test look at the right file?"
