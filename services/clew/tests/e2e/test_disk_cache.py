"""Sections of blocks on a querier's own disk: fewer reads of the bucket, and never another answer."""

import pytest

from harness import run_clew
from ledger import Ledger


# A shard's new leader reads the filters of the flushes before it, at a moment of its own: once per block.
FILTER_READS = 2


def total(server, head):
    lines = [line for line in server.get("/metrics").text.splitlines() if line.startswith(head)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def reads(server):
    """How often the bucket was read, by whom ever."""
    return total(server, 'clew_storage_requests_total{operation="get"')


def hits(server):
    return total(server, 'clew_querier_disk_cache_reads_total{outcome="hit"}')


def misses(server):
    """How often a query found a section not on disk, or not to be used, and read the bucket."""
    return total(server, "clew_querier_disk_cache_reads_total") - hits(server)


def answers(server, ledger, count=reads):
    """Asks for everything, and tells how often something was read for it."""
    before = count(server)
    ledger.verify()
    ledger.verify_search()
    return count(server) - before


@pytest.fixture
def filled(clew):
    """Makes a server with two blocks, with or without a cache on disk."""
    def make(cached):
        server = clew("compactor.settle=1h")
        if cached:
            server.settings.append(f"querier.disk_cache.path={server.dir}/cache")
            server.stop()
            server.start()
        ledger = Ledger(server)
        for number in range(2):
            assert ledger.send(ledger.batch(traces=10, number=number))
            server.flush()
        return server, ledger
    return make


def restart(server, ledger):
    assert server.stop() == 0
    server.start()
    ledger.connect()


def test_a_querier_that_starts_again_reads_less_of_the_bucket(filled):
    server, ledger = filled(cached=False)
    assert answers(server, ledger) > 0
    restart(server, ledger)
    assert answers(server, ledger) > FILTER_READS, "what was in memory is gone"
    server, ledger = filled(cached=True)
    assert answers(server, ledger, misses) > 0
    restart(server, ledger)
    assert answers(server, ledger, misses) == 0
    assert hits(server) > 0
    assert reads(server) <= FILTER_READS
    server.kill9()
    server.start()
    ledger.connect()
    assert answers(server, ledger, misses) == 0
    assert reads(server) <= FILTER_READS


def test_a_cache_that_rots_changes_no_answer(filled):
    server, ledger = filled(cached=True)
    answers(server, ledger)
    assert server.stop() == 0
    files = [path for path in (server.dir / "cache").rglob("*@*")]
    assert files
    for at, path in enumerate(files):
        content = bytearray(path.read_bytes())
        content[at % len(content)] ^= 0xFF
        path.write_bytes(content)
    server.start()
    ledger.connect()
    assert answers(server, ledger, misses) > 0
    restart(server, ledger)
    assert answers(server, ledger, misses) == 0


def test_a_cache_that_is_used_already_is_refused(filled):
    server, _ = filled(cached=True)
    refused = run_clew("serve", "--data-dir", str(server.dir / "other"),
                       "--rpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0",
                       "--otlp-grpc-addr", "127.0.0.1:0", "--otlp-http-addr", "127.0.0.1:0",
                       "--set", f"querier.disk_cache.path={server.dir}/cache")
    assert refused.returncode == 64, refused
    assert "querier.disk_cache.path" in refused.stderr, refused.stderr
    assert "another process uses it" in refused.stderr, refused.stderr
