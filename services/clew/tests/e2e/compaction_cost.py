"""Measures what compaction costs and what it does to queries. Not a test: it takes minutes.

    CLEW_BINARY=… CLEW_LOADTEST=… python compaction_cost.py --spans 1000000

One process takes and answers; another one compacts, so that its processor time is that of compaction. Sixteen
flushes are merged by fours, twice: each span is written again as often as it can be with the usual settings (those of
busy shards are once). The compactor is slowed down so that queries are measured while it works, too.
"""

import argparse
import json
import os
import subprocess
import time

from harness import Clew, run_clew

# A little smaller, so that there are sixteen whole ones.
FLUSHES = 16.5
SETTINGS = ["metastore.shards=1", "ingester.flush.age_max=1h"]
COMPACTOR = ["compactor.fan_in=4", "compactor.settle=0s", "compactor.poll_interval=100ms", "compactor.cpu_share=0.3"]


def loadtest(command, server, *more):
    done = subprocess.run(
        [os.environ["CLEW_LOADTEST"], command, "--ledger", str(server.dir / "ledger"),
         "--query-url", server.url, "--pid", str(server.process.pid), *more],
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    return done.stdout


def blocks_of(server):
    listed = run_clew("block", "list", "--json", "--addr", server.rpc_addr)
    return len({block["object"] for block in json.loads(listed.stdout)})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--spans", type=int, default=1_000_000)
    arguments = parser.parse_args()
    spans = arguments.spans
    settings = [*SETTINGS, f"ingester.flush.spans_max={int(spans / FLUSHES)}"]
    server = Clew([*settings, *COMPACTOR], roles=("distributor", "ingester", "metastore", "querier")).start()
    compactor = Clew([*COMPACTOR, f"metastore.members=[\"{server.rpc_addr}\"]",
                      f"bucket.url={server.data / 'bucket'}"], roles=("compactor",))
    try:
        loadtest("run", server, "--spans", str(spans), "--otlp-url", f"http://{server.otlp_grpc}")
        server.flush()
        taken = server.metric("process_cpu_seconds_total")
        print(f"ingest and flush: {taken / spans * 1e6:.1f} CPU-seconds per million spans")
        size = sum(path.stat().st_size for path in (server.data / "bucket").rglob("*.clew"))
        print(f"{blocks_of(server)} objects, {size / spans:.1f} bytes per span")
        print("queries before:\n" + loadtest("queries", server), flush=True)
        compactor.start()
        print("queries during:\n" + loadtest("queries", server))
        print(f"{blocks_of(server)} objects by then", flush=True)
        rewritten = -1.0
        while rewritten != (rewritten := compactor.metric("clew_compactor_spans_total")) or not rewritten:
            time.sleep(10)
        seen = compactor.metric("process_cpu_seconds_total")
        size = compactor.metric("clew_compactor_output_bytes_total")
        print(f"{blocks_of(server)} objects, each span was written {rewritten / spans:.2f} times, "
              f"{size / rewritten:.1f} bytes per span")
        print(f"compaction: {seen / spans * 1e6:.1f} CPU-seconds per million spans, resident "
              f"{compactor.metric('process_resident_memory_bytes') / 2**20:.0f} MiB")
        print("queries after:\n" + loadtest("queries", server))
    finally:
        compactor.close()
        server.close()


if __name__ == "__main__":
    main()
