"""Clew on object stores that others wrote: everything of a block's life, and a store that goes away."""

import pytest

import test_compaction as life
from harness import run_clew
from ledger import Ledger
from stores import STORES


@pytest.fixture(params=sorted(STORES))
def store(request):
    running = STORES[request.param]()
    yield running
    running.close()


def fsck(server, store):
    where = [argument for setting in store.settings for argument in ("--set", setting)]
    return run_clew("fsck", "--verify", "--addr", server.rpc_addr, *where)


def test_a_blocks_life(clew, store):
    server = clew(*life.FAST, *store.settings)
    ledger = Ledger(server)
    life.fill(ledger, server, 6)
    gone = sorted(ledger.acked)[0]
    done = run_clew("delete", "--api", server.url, "--trace-id", gone)
    assert done.returncode == 0, done.stderr
    del ledger.acked[gone]
    assert server.get(f"/api/traces/{gone}").status == 404
    ledger.verify()

    def is_clean():
        found = fsck(server, store)
        assert found.returncode == 0, found.stdout + found.stderr
        return ", 0 waiting or dead" in found.stdout and "0 orphans, 0 foreign" in found.stdout
    life.wait_for(is_clean, "the bucket holds what the catalog lists", timeout=90)
    life.wait_for_deletions(server)
    assert max(block["level"] for block in life.blocks(server)) >= 1
    server.kill9()
    server.start()
    ledger.connect()
    ledger.verify()
    ledger.verify_search()
    # What the store was asked is counted.
    line = 'clew_storage_requests_total{operation="get",outcome="ok"}'
    assert line in server.get("/metrics").text


def test_a_store_that_goes_away_and_comes_back(clew, store):
    server = clew(*life.FAST, *store.settings)
    ledger = Ledger(server)
    life.fill(ledger, server, 1)
    store.process.send_signal(19)  # SIGSTOP: it takes connections and says nothing.
    assert ledger.send(ledger.batch(number=10))
    store.process.send_signal(18)
    server.flush()
    ledger.verify()
    ledger.verify_search()
