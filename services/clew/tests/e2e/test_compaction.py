"""A block's life: merged, expired, deleted, collected; killed at every step; the ledger is the oracle."""

import json
import threading
import time

import duckdb
import pytest

import ledger as books
from harness import http, run_clew
from ledger import Ledger

# Clocks so short that everything happens within seconds.
FAST = [
    "compactor.poll_interval=100ms",
    "compactor.lease=3s",
    "compactor.fan_in=3",
    "compactor.settle=0s",
    "compactor.cpu_share=1",
    "compactor.deletion_delay=0s",
    "compactor.orphan_interval=500ms",
    "compactor.grace=11s",
    "querier.view_age_max=1s",
    "querier.query_timeout=10s",
]


def wait_for(condition, what, timeout=60):
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within {timeout} s: {what}")


def bucket(server):
    """The objects in the bucket."""
    root = server.data / "bucket"
    return {str(path.relative_to(root)) for path in root.rglob("*.clew")}


def command(server, *arguments):
    return run_clew(*arguments, "--addr", server.rpc_addr)


def blocks(server):
    """The blocks that the catalog lists."""
    answer = command(server, "block", "list", "--json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def settle(server, objects=None):
    """Waits until nothing is left to merge or to delete; the bucket is the catalog then."""
    seen = []

    def is_settled():
        live = {block["object"] for block in blocks(server)}
        idle = server.metric("clew_compactor_jobs_running") == 0
        few = objects is None or len(live) <= objects
        seen.append(sorted(live) if idle and few and live == bucket(server) else None)
        # A job may be about to begin.
        return len(seen) > 5 and seen[-1] is not None and seen[-5:] == [seen[-1]] * 5
    wait_for(is_settled, "the bucket holds what the catalog lists", timeout=90)


def wait_for_deletions(server, headers=None):
    """Waits until the record says that all that was deleted is physically gone."""
    def are_done():
        listed = server.get("/api/deletions", headers=headers).json()["deletions"]
        return listed and all(deletion["done"] for deletion in listed)
    wait_for(are_done, "the bytes are gone", timeout=90)


def parked(server):
    answer = command(server, "block", "parked", "--json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def fill(ledger, server, flushes, start=0):
    for number in range(start, start + flushes):
        assert ledger.send(ledger.batch(traces=4, spans=6, number=number))
        server.flush()


def test_flushes_become_one_block_and_nothing_changes_for_readers(clew):
    server = clew(*FAST)
    ledger = Ledger(server)
    fill(ledger, server, 9)
    settle(server, objects=3)
    ledger.verify()
    ledger.verify_search()
    assert max(block["level"] for block in blocks(server)) == 2
    assert sum(block["spans"] for block in blocks(server)) == sum(map(len, ledger.acked.values()))
    checked = command(server, "fsck", "--verify", "--data-dir", str(server.data))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "0 orphans, 0 foreign, 0 broken" in checked.stdout
    server.kill9()
    server.start()
    ledger.verify()
    ledger.verify_search()


def test_fragments_are_joined_and_repeated_spans_dropped(clew):
    server = clew(*FAST)
    ledger = Ledger(server)
    trace = bytes(range(16))
    began = time.time_ns()
    for number in range(3):
        root = books.span(trace, b"\x01" * 8, name="root", start=began)
        other = books.span(trace, bytes([number + 2] * 8), parent=b"\x01" * 8,
                           start=began + number)
        assert ledger.send(books.request([root, other]))
        server.flush()
    settle(server, objects=1)
    [block] = blocks(server)
    assert (block["traces"], block["spans"], block["splitTraces"]) == (1, 4, 0), block
    assert len(server.trace_spans(trace.hex())) == 4
    assert server.metric("clew_compactor_duplicate_spans_total") == 2
    assert server.metric("clew_compactor_joined_traces_total") >= 1


def test_what_cannot_be_merged_is_parked_until_somebody_repaired_it(clew):
    server = clew(*FAST)
    server.errors_expected = True
    ledger = Ledger(server)
    fill(ledger, server, 1)
    [name] = bucket(server)
    path = server.data / "bucket" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    fill(ledger, server, 2, start=1)
    wait_for(lambda: parked(server), "the object is parked")
    [entry] = parked(server)
    assert entry["object"] == name and entry["reason"] and int(entry["parkedUnixNano"]) > 0, entry
    assert name in command(server, "block", "parked").stdout
    wait_for(lambda: server.metric("clew_compactor_parked_objects") == 1, "the metric tells it")
    other = next(block["object"] for block in blocks(server) if block["object"] != name)
    refused = command(server, "block", "unpark", other)
    assert refused.returncode == 1 and f"{other} is not parked" in refused.stderr, refused
    path.write_bytes(whole)
    done = command(server, "block", "unpark", name)
    assert (done.returncode, done.stdout) == (0, "1 objects unparked\n"), done
    wait_for(lambda: name not in {block["object"] for block in blocks(server)}, "it is merged")
    assert parked(server) == []
    assert command(server, "block", "unpark", "--all").stdout == "0 objects unparked\n"
    ledger.verify()


@pytest.mark.parametrize("step", ["leased", "merged", "uploaded", "made", "committed"])
def test_dying_at_a_step_of_a_compaction(clew, step):
    server = clew(*FAST, env={"FAILPOINTS": f"compact::{step}=return"})
    ledger = Ledger(server)
    try:
        fill(ledger, server, 5)
    except Exception:
        pass  # It dies as soon as there is enough to merge.
    assert server.wait_dead() != 0
    server.env.clear()
    server.start()
    ledger.connect()
    ledger.verify()
    ledger.verify_search()
    fill(ledger, server, 3, start=10)
    settle(server, objects=4)
    ledger.verify()
    ledger.verify_search()


@pytest.mark.parametrize("step", ["deleted", "confirmed", "orphans_found"])
def test_dying_while_the_bucket_is_swept(clew, step):
    server = clew(*FAST, env={"FAILPOINTS": f"sweep::{step}=return"})
    ledger = Ledger(server)
    fill(ledger, server, 3)
    if step == "orphans_found":
        flushed = next(name for name in bucket(server) if name.startswith("flush/"))
        orphan = flushed.replace(flushed[-21:-5], "0123456789abcdef")
        (server.data / "bucket" / orphan).write_bytes(b"left behind")
    assert server.wait_dead() != 0
    server.env.clear()
    server.start()
    ledger.connect()
    settle(server, objects=1)
    ledger.verify()
    ledger.verify_search()


def test_queries_see_each_span_once_while_blocks_are_merged(clew):
    server = clew(*FAST)
    ledger = Ledger(server)
    fill(ledger, server, 2)
    failures = []
    stop = threading.Event()

    def query():
        while not stop.is_set():
            try:
                ledger.verify(sample=20)
                ledger.verify_search()
            except AssertionError as error:
                failures.append(error)
                return

    reader = threading.Thread(target=query)
    # The reader compares with what was acknowledged when it asked.
    for number in range(10, 30):
        assert ledger.send(ledger.batch(traces=2, spans=4, number=number))
    server.flush()
    reader.start()
    for number in range(40, 52):
        other = Ledger(server, seed=number)
        assert other.send(other.batch(traces=2, spans=4, number=number))
        server.flush()
    settle(server, objects=4)
    stop.set()
    reader.join()
    assert not failures, failures[0]


def test_spans_go_when_their_time_is_over(clew):
    server = clew(*FAST, "compactor.retention.age=10s", "compactor.window=1s")
    ledger = Ledger(server)
    fill(ledger, server, 3)
    ids = list(ledger.acked)
    wait_for(lambda: not blocks(server), "all blocks have expired")
    assert server.get(f"/api/traces/{ids[0]}").status == 404
    wait_for(lambda: not bucket(server), "all bytes are gone")
    # What comes later is kept as long.
    later = Ledger(server, seed=2)
    assert later.send(later.batch(number=7))
    server.flush()
    later.verify()


def test_deleted_traces_are_gone_at_once_and_later_from_the_bucket(clew):
    server = clew(*FAST)
    ledger = Ledger(server)
    fill(ledger, server, 2)
    # These are in the head alone.
    assert ledger.send(ledger.batch(traces=3, spans=2, number=50))
    ids = sorted(ledger.acked)
    gone = [ids[0], ids[-1]]
    names = [argument for id in gone for argument in ("--trace-id", id)]
    would = run_clew("delete", "--api", server.url, "--dry-run", *names)
    assert would.returncode == 0 and "would delete 2 traces" in would.stdout, would
    assert server.get(f"/api/traces/{gone[0]}").status == 200
    done = run_clew("delete", "--api", server.url, *names)
    assert done.returncode == 0 and "deleted 2 traces" in done.stdout, done
    for trace in gone:
        assert server.get(f"/api/traces/{trace}").status == 404
        assert trace not in server.found_ids("{}", limit=1_000)
        del ledger.acked[trace]
    ledger.verify()
    ledger.verify_search()
    # A span that comes later under a deleted id is new.
    late = books.span(bytes.fromhex(gone[0]), b"\x77" * 8, name="late")
    assert ledger.send(books.request([late]))
    assert server.trace_spans(gone[0]) == ["77" * 8]
    wait_for_deletions(server)
    assert server.trace_spans(gone[0]) == ["77" * 8]
    ledger.verify()
    listed = run_clew("delete", "--api", server.url, "--list")
    deletion = listed.stdout.splitlines()[1].split("\t")
    assert deletion[2] != "-" and deletion[3] == "2" and int(deletion[4]) >= 2, listed.stdout
    server.flush()
    settle(server)
    for block in blocks(server):
        exported = command(server, "block", "export", block["object"],
                           "--data-dir", str(server.data))
        assert exported.returncode == 0, exported.stderr
        assert gone[1] not in exported.stdout


def test_deleting_by_query_takes_what_matches(clew):
    server = clew(*FAST)
    ledger = Ledger(server)
    secret = Ledger(server, seed=9)
    fill(ledger, server, 2)
    spans = [books.span(bytes([0xaa] * 15 + [n]), bytes([n + 1] * 8), name="login", password="x")
             for n in range(30)]
    assert secret.send(books.request(spans[:20]))
    server.flush()
    assert secret.send(books.request(spans[20:]))
    done = run_clew("delete", "--api", server.url, "--query", '{ span.password = "x" }')
    assert done.returncode == 0 and "deleted 30 traces" in done.stdout, done
    assert server.found_ids('{ span.password = "x" }') == []
    answer = server.get("/api/v2/search/tag/span.password/values").json()
    assert answer["tagValues"] == [], answer
    ledger.verify()
    ledger.verify_search()
    wait_for_deletions(server)
    ledger.verify()
    wrong = run_clew("delete", "--api", server.url, "--query", "{ nonsense")
    assert wrong.returncode == 1 and "400" in wrong.stderr, wrong


def test_a_deletion_that_is_not_clear_deletes_nothing(clew):
    server = clew(*FAST)
    ledger = Ledger(server)
    fill(ledger, server, 1)

    def ask(parameters):
        return http("POST", f"{server.url}/api/deletions?{parameters}")
    for parameters in ("q={}&q={.a=1}", "q={}&dryRun=true&dryRun=false", "q={}&dryRun=1", "q={}&dryrun=true",
                       "q={}&start=1&start=2", "q=", "", "traceID=" + "0" * 32):
        assert ask(parameters).status == 400, parameters
    # Whoever says dryRun at all wants one.
    would = ask("q={}&dryRun").json()
    assert would["dryRun"] is True, would
    ledger.verify()
    ledger.verify_search()


def test_deleting_can_be_switched_off(clew):
    server = clew(*FAST, "querier.deletions_enabled=false")
    refused = run_clew("delete", "--api", server.url, "--trace-id", "11" * 16)
    assert refused.returncode == 1 and "deletions_enabled" in refused.stderr


def test_a_tenant_is_removed_whole(clew):
    server = clew(*FAST, "multitenancy_enabled=true")
    keeps = Ledger(server, metadata=[("x-scope-orgid", "keeps")])
    goes = Ledger(server, seed=2, metadata=[("x-scope-orgid", "goes")])
    for number in range(2):
        assert keeps.send(keeps.batch(number=number))
        assert goes.send(goes.batch(number=number))
        server.flush()
    assert goes.send(goes.batch(number=5))
    removed = run_clew("tenant", "remove", "goes", "--api", server.url)
    assert removed.returncode == 0, removed.stderr
    headers = {"X-Scope-OrgID": "goes"}
    assert server.found_ids("{}", headers=headers, limit=1_000) == []
    for trace in list(goes.acked)[:5]:
        assert server.get(f"/api/traces/{trace}", headers=headers).status == 404
    wait_for_deletions(server, headers)
    assert {block["tenant"] for block in blocks(server)} == {"keeps"}
    kept = {"X-Scope-OrgID": "keeps"}
    found = server.found_ids("{}", headers=kept, limit=1_000)
    assert sorted(found) == sorted(keeps.acked)
    for trace, spans in keeps.acked.items():
        assert sorted(server.trace_spans(trace, headers=kept)) == sorted(spans)


def test_tenants_are_kept_as_long_as_they_are_told(clew):
    server = clew(*FAST, "multitenancy_enabled=true")
    tenants = {}
    for at, name in enumerate(["short", "long"]):
        tenants[name] = Ledger(server, seed=at, metadata=[("x-scope-orgid", name)])
        assert tenants[name].send(tenants[name].batch(number=at))
    server.flush()
    told = command(server, "tenant", "set", "short", "--retention", "2s")
    assert told.returncode == 0, told.stderr
    wait_for(lambda: {block["tenant"] for block in blocks(server)} == {"long"}, "short is gone")
    found = server.found_ids("{}", headers={"X-Scope-OrgID": "long"}, limit=1_000)
    assert sorted(found) == sorted(tenants["long"].acked)


def test_fsck_finds_and_repairs(clew):
    server = clew(*FAST, "compactor.fan_in=100", "compactor.orphan_interval=1h")
    ledger = Ledger(server)
    fill(ledger, server, 2)
    root = server.data / "bucket"
    [first, second] = sorted(bucket(server))
    orphan = root / first.replace(first[-21:-5], "0123456789abcdef")
    orphan.write_bytes(b"left behind")
    (root / "notes.txt").write_text("not ours")
    damaged = bytearray((root / second).read_bytes())
    damaged[10] ^= 0xff
    (root / second).write_bytes(damaged)
    server.errors_expected = True
    check = ["fsck", "--verify", "--data-dir", str(server.data)]
    found = command(server, *check)
    assert found.returncode == 1, found.stdout
    assert f"orphan {orphan.relative_to(root)}" in found.stdout
    assert "foreign notes.txt" in found.stdout
    assert f"broken {second}" in found.stdout and "checksum" in found.stdout
    assert command(server, "block", "verify", "--data-dir", str(server.data)).returncode == 1
    repaired = command(server, *check, "--repair")
    assert repaired.returncode == 0, repaired.stderr
    assert not orphan.exists() and (root / "notes.txt").exists()
    assert [block["object"] for block in blocks(server)] == [first]
    # What is damaged is said to be missing, not silently left out.
    answer = server.get("/api/search", q="{}")
    assert "X-Clew-Partial" in answer.headers, answer.headers
    still = command(server, *check, "--repair")
    assert still.returncode == 0 and f"quarantined {second} of " in still.stdout, still
    assert "0 broken" in still.stdout and "1 quarantined blocks" in still.stdout, still
    [known] = json.loads(command(server, "block", "quarantined", "--json").stdout)
    assert (known["object"], known["tenant"]) == (second, "single-tenant")
    assert "checksum" in known["reason"], known
    assert second in command(server, "block", "quarantined").stdout
    # Restored it is whole, and read again when somebody says so.
    damaged[10] ^= 0xff
    (root / second).write_bytes(damaged)
    found = command(server, *check)
    assert found.returncode == 1 and "whole now" in found.stdout, found
    repaired = command(server, *check, "--repair")
    assert repaired.returncode == 0 and "1 blocks let back in" in repaired.stdout, repaired
    assert command(server, *check).returncode == 0
    assert json.loads(command(server, "block", "quarantined", "--json").stdout) == []

    def is_whole():
        return "X-Clew-Partial" not in server.get("/api/search", q="{}").headers
    wait_for(is_whole, "queries read it again")
    ledger.verify()
    ledger.verify_search()


def test_a_quarantine_is_lifted_by_hand(clew):
    server = clew(*FAST)
    server.errors_expected = True
    ledger = Ledger(server)
    fill(ledger, server, 1)
    [name] = bucket(server)
    path = server.data / "bucket" / name
    whole = path.read_bytes()
    path.write_bytes(bytes(byte ^ 0xff for byte in whole))
    server.kill9()
    server.start()

    def quarantined():
        server.get("/api/search", q="{}")
        return json.loads(command(server, "block", "quarantined", "--json").stdout)
    wait_for(quarantined, "a query has found the damage")
    nothing = command(server, "block", "lift", f"{name}x")
    assert nothing.returncode == 1 and "has no quarantined block" in nothing.stderr, nothing
    other = command(server, "block", "lift", name, "--tenant", "other")
    assert other.returncode == 1 and "of tenant other" in other.stderr, other
    path.write_bytes(whole)
    lifted = command(server, "block", "lift", name)
    assert (lifted.returncode, lifted.stdout) == (0, "1 blocks are read again\n"), lifted
    assert command(server, "block", "lift", "--all").stdout == "0 blocks are read again\n"
    ledger.connect()
    wait_for(lambda: "X-Clew-Partial" not in server.get("/api/search", q="{}").headers,
             "queries read it again")
    ledger.verify()
    # Damaged once more, it is found once more.
    path.write_bytes(bytes(byte ^ 0xff for byte in whole))
    server.kill9()
    server.start()
    wait_for(quarantined, "it is quarantined once more")


def test_fsck_of_another_bucket_or_a_hole_in_it_takes_nothing_out_of_queries(clew, tmp_path):
    server = clew(*FAST, "compactor.fan_in=100")
    ledger = Ledger(server)
    fill(ledger, server, 2)
    live = [block["object"] for block in blocks(server)]
    # Without settings it looks for a bucket in the working directory.
    for option in ([], ["--repair"], ["--verify", "--repair"]):
        lost = run_clew("fsck", *option, "--addr", server.rpc_addr, cwd=tmp_path)
        assert lost.returncode == 1 and "a directory that exists" in lost.stderr, lost
        assert list(tmp_path.iterdir()) == []
    empty = tmp_path / "empty"
    empty.mkdir()
    for option in ([], ["--repair"]):
        lost = command(server, "fsck", *option, "--set", f"bucket.url={empty}")
        assert lost.returncode == 1 and "none of the 2 live objects" in lost.stderr, lost
    assert list(empty.iterdir()) == []
    # One that is missing is named, and comes back by itself.
    path = server.data / "bucket" / sorted(live)[0]
    path.rename(tmp_path / "aside")
    missing = command(server, "fsck", "--verify", "--repair", "--data-dir", str(server.data))
    assert missing.returncode == 1 and "not in the bucket" in missing.stderr, missing
    assert f"broken {sorted(live)[0]}: it is not in the bucket" in missing.stdout, missing
    (tmp_path / "aside").rename(path)
    assert [block["object"] for block in blocks(server)] == live
    assert json.loads(command(server, "block", "quarantined", "--json").stdout) == []
    ledger.verify()
    ledger.verify_search()


def test_blocks_can_be_looked_into(clew):
    server = clew(*FAST)
    ledger = Ledger(server)
    fill(ledger, server, 1)
    [block] = blocks(server)
    where = ["--data-dir", str(server.data)]
    shown = command(server, "block", "show", block["object"], *where)
    assert json.loads(shown.stdout)["pages"] == 1, shown
    exported = command(server, "block", "export", block["object"], *where)
    traces = [json.loads(line) for line in exported.stdout.splitlines()]
    spans = [span for trace in traces for resource in trace["resourceSpans"]
             for scope in resource["scopeSpans"] for span in scope["spans"]]
    assert len(spans) == sum(map(len, ledger.acked.values()))
    assert {span["traceId"] for span in spans} == set(ledger.acked)
    costs = command(server, "analyse", *where)
    assert costs.returncode == 0 and "pages\t" in costs.stdout, costs
    for wrong, why in [("nobody", "no block of tenant nobody"), ("a/b", "--tenant a/b")]:
        refused = command(server, "block", "export", block["object"], "--tenant", wrong, *where)
        assert refused.returncode == 1 and why in refused.stderr, refused
        refused = command(server, "analyse", "--tenant", wrong, *where)
        assert refused.returncode == 1 and f"enant {wrong}" in refused.stderr, refused
    listed = command(server, "block", "list").stdout.splitlines()[1].split("\t")
    assert all(time.strptime(at, "%Y-%m-%dT%H:%M:%SZ") for at in listed[-2:]), listed
    assert "no live object" in command(
        server, "block", "show", block["object"].replace("0", "1", 1), *where).stderr


def test_a_block_is_a_table_for_duckdb(clew, tmp_path):
    server = clew(*FAST)
    ledger = Ledger(server)
    start = time.time_ns()
    root = books.span(b"\x01" * 16, b"\x02" * 8, name="caf\u00e9 \"q\"", start=start, status=2,
                      user__id=1 << 60, ok=True, ratio=0.5, note="a'b")
    child = books.span(b"\x01" * 16, b"\x03" * 8, parent=b"\x02" * 8, name="", kind=3, start=start + 5)
    child.events.add(name="retry", time_unix_nano=start + 6)
    child.links.add(trace_id=b"\x09" * 16, span_id=b"\x08" * 8)
    assert ledger.send(books.request([root, child], host__name="h1"))
    fill(ledger, server, 1)
    [block] = blocks(server)
    file = tmp_path / "spans.parquet"
    exported = run_clew("block", "export", block["object"], "--format", "parquet",
                        "--addr", server.rpc_addr, "--data-dir", str(server.data), text=False)
    assert exported.returncode == 0, exported.stderr
    file.write_bytes(exported.stdout)
    spans = f"'{file}'"

    def ask(query):
        return duckdb.sql(query).fetchall()
    assert ask(f"select count(*), count(distinct trace_id), min(tenant) from {spans}") == [
        (sum(map(len, ledger.acked.values())), len(ledger.acked), "single-tenant")]
    rows = ask(f"""
        select span_id, parent_span_id, service, name, kind, status, epoch_ns("start"),
               duration_nanos, status_message, scope,
               attributes->>'user.id', attributes->'ok', attributes->>'ratio', attributes->>'note',
               resource_attributes->>'host.name', events->>'$[0].name', links->>'$[0].span_id'
        from {spans} where trace_id = '{"01" * 16}' order by span_id""")
    assert rows == [
        ("02" * 8, None, "shop", 'caf\u00e9 "q"', "server", "error", start, 1_000_000, None, None,
         str(1 << 60), "true", "0.5", "a'b", "h1", None, None),
        ("03" * 8, "02" * 8, "shop", "", "client", "unset", start + 5, 1_000_000, None, None,
         None, None, None, None, "h1", "retry", "08" * 8),
    ], rows
    slow = ask(f"select name, max(duration_nanos) from {spans} where kind = 'server' group by all")
    assert len(slow) > 1, slow


def test_a_grace_that_is_too_short_is_refused():
    refused = run_clew("config", "--set", "compactor.grace=1m")
    assert refused.returncode == 64 and "compactor.grace" in refused.stderr
