"""Makes thousands of small blocks, then measures what reading costs. Not a test: it takes minutes.

    CLEW_BINARY=… python many_blocks.py --blocks 10000
"""

import argparse
import json
import time

from harness import Clew, run_clew
from ledger import Ledger

SETTINGS = ["ingester.flush.age_max=1h", "querier.cache_bytes=256MiB"]

# Nothing is merged: the many blocks are the point.
ROLES = ["metastore", "distributor", "ingester", "querier"]


def cost(server, ask, count):
    """CPU seconds of the process and range reads per request."""
    names = ("process_cpu_seconds_total", "clew_storage_requests_total")
    before = [server.metric(name) for name in names]
    began = time.monotonic()
    for number in range(count):
        ask(number)
    taken = (time.monotonic() - began) / count
    cpu, reads = (server.metric(name) - old for name, old in zip(names, before))
    return f"{taken * 1e3:8.1f} ms, {cpu / count * 1e3:8.1f} ms CPU, {reads / count:8.2f} requests"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=10_000)
    parser.add_argument("--lookups", type=int, default=50)
    arguments = parser.parse_args()
    server = Clew(SETTINGS, roles=ROLES).start()
    try:
        ledger = Ledger(server)
        began = time.monotonic()
        for number in range(arguments.blocks):
            assert ledger.send(ledger.batch(traces=2, spans=3, number=number), timeout=60)
            server.flush()
            if number % 1_000 == 999:
                print(f"{number + 1} blocks after {time.monotonic() - began:.0f} s", flush=True)
        ids = list(ledger.acked)
        picked = ledger.random.sample(ids, arguments.lookups)
        unique = [sorted(ledger.acked[trace])[0] for trace in picked]
        server.stop()
        server.start()
        listed = json.loads(run_clew("block", "list", "--json", "--addr", server.rpc_addr).stdout)
        print(f"blocks: {len(listed)}")
        print("trace by id, first (reads every filter):", cost(
            server, lambda _: server.trace_spans(ids[0]), 1))
        print("trace by id, page not read yet:         ", cost(
            server, lambda n: server.trace_spans(picked[n]), arguments.lookups))
        print("trace by id, again:                     ", cost(
            server, lambda n: server.trace_spans(picked[n]), arguments.lookups))
        search = '{ span.unique.id = "%s" }'
        print("search for a unique value, first:       ", cost(
            server, lambda n: server.found_ids(search % unique[n]), 1))
        print("search for a unique value, again:       ", cost(
            server, lambda n: server.found_ids(search % unique[n]), 3))
        print(f"resident: {server.metric('process_resident_memory_bytes') / 2**20:.0f} MiB")
    finally:
        server.close()


if __name__ == "__main__":
    main()
