"""Clew on object stores that others wrote: everything of a block's life, and a store that goes away."""

import re
import urllib.request

import pytest

import test_compaction as life
from faulty_store import FaultyStore
from harness import run_clew
from ledger import Ledger
from stores import STORES, moto


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


def kept_as(store):
    """The headers that moto answers about each of its objects."""
    [endpoint] = [setting for setting in store.settings if setting.startswith("bucket.endpoint=")]
    place = endpoint.partition("=")[2] + "/traces"

    def ask(url, method="GET"):
        request = urllib.request.Request(url, method=method, headers={
            "Authorization": "AWS4-HMAC-SHA256 Credential=key/20300101/us-east-1/s3/aws4_request, "
                             "SignedHeaders=host, Signature=none"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode(), {k.lower(): v for k, v in answer.headers.items()}
    listing, _ = ask(place + "?list-type=2")
    return [ask(f"{place}/{key}", "HEAD")[1] for key in re.findall("<Key>([^<]+)</Key>", listing)]


@pytest.mark.parametrize("settings, expected", [
    (["bucket.sse=s3"], {"x-amz-server-side-encryption": "AES256"}),
    (["bucket.sse=kms", "bucket.sse_kms_key_id=alias/clew", "bucket.sse_bucket_key=true"],
     {"x-amz-server-side-encryption": "aws:kms",
      "x-amz-server-side-encryption-aws-kms-key-id": "alias/clew"}),
])
def test_objects_are_encrypted_as_the_settings_say(clew, settings, expected):
    store = moto()
    try:
        server = clew(*store.settings, *settings)
        ledger = Ledger(server)
        assert ledger.send(ledger.batch())
        server.flush()
        objects = kept_as(store)
        assert objects
        for headers in objects:
            assert {name: headers.get(name) for name in expected} == expected, headers
        ledger.verify()
    finally:
        store.close()


def test_encryption_that_cannot_be_is_refused():
    refused = run_clew("serve", "--set", "bucket.url=s3://traces", "--set", "bucket.sse=customer")
    assert refused.returncode == 64, refused
    assert "sse: needs sse_customer_key as well" in refused.stderr, refused.stderr


def test_fsck_that_may_not_read_repairs_nothing(clew):
    """A role that may list and not read."""
    store = moto()
    proxy = FaultyStore(store.port)
    try:
        server = clew(*life.FAST, "compactor.fan_in=100", *store.settings)
        ledger = Ledger(server)
        life.fill(ledger, server, 2)
        proxy.denies = lambda request: request.command == "GET" and "list-type" not in request.path
        settings = [setting.replace(str(store.port), str(proxy.port)) for setting in store.settings]
        where = [argument for setting in settings for argument in ("--set", setting)]
        for options in (["--verify"], ["--verify", "--repair"]):
            found = run_clew("fsck", *options, "--addr", server.rpc_addr, *where)
            assert found.returncode == 1 and "denies access" in found.stderr, found
            assert "nothing is repaired" in found.stderr and "repaired:" not in found.stdout, found
        assert run_clew("block", "quarantined", "--addr", server.rpc_addr).stdout.count("\n") == 1
        ledger.verify()
        ledger.verify_search()
    finally:
        proxy.close()
        store.close()
