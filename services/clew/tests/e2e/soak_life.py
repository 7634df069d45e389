"""A soak of a block's life with short clocks, on a real S3 server: compactors are killed at every step
while spans arrive, expire and are deleted. Not a test of every run: `python soak_life.py --minutes 30`.

At the end the bucket is the catalog, every acknowledged span that has not expired is found once, and
everything that expired or was deleted is gone.
"""

import argparse
import random
import sys
import time

import stores
from harness import Clew, run_clew
from ledger import Ledger

STEPS = ["compact::leased", "compact::merged", "compact::uploaded", "compact::made",
         "compact::committed", "sweep::deleted", "sweep::confirmed", "sweep::orphans_found"]

RETENTION = 180
SETTINGS = [
    "compactor.poll_interval=100ms", "compactor.lease=2s", "compactor.fan_in=4",
    "compactor.settle=1s", "compactor.cpu_share=1", "compactor.deletion_delay=0s",
    "compactor.orphan_interval=2s", "compactor.grace=12s", f"compactor.retention.age={RETENTION}s",
    "compactor.window=20s", "querier.view_age_max=1s", "querier.query_timeout=10s",
    "ingester.flush.age_max=2s",
]


class Soak:
    def __init__(self, arguments):
        self.random = random.Random(arguments.seed)
        self.minutes = arguments.minutes
        self.store = stores.STORES[arguments.store]()
        settings = [*SETTINGS, *self.store.settings]
        self.server = Clew(settings, roles=("distributor", "ingester", "metastore", "querier"))
        self.server.start()
        self.compactors = []
        for _ in range(2):
            members = f"metastore.members=[\"{self.server.rpc_addr}\"]"
            self.compactors.append(Clew([*settings, members], roles=("compactor",)))
        self.ledger = Ledger(self.server, seed=arguments.seed)
        # When each trace was sent; traces that were deleted.
        self.sent = {}
        self.deleted = set()
        self.kills = {}

    def run(self):
        until = time.monotonic() + self.minutes * 60
        number = 0
        for compactor in self.compactors:
            self.start(compactor)
        while time.monotonic() < until:
            number += 1
            before = set(self.ledger.acked)
            assert self.ledger.send(self.ledger.batch(traces=3, spans=5, number=number), timeout=60)
            for trace in set(self.ledger.acked) - before:
                self.sent[trace] = time.time()
            if number % 3 == 0:
                self.server.flush()
            if number % 20 == 0:
                self.delete()
            self.check(sample=3)
            for compactor in self.compactors:
                self.keep_alive(compactor)
            time.sleep(0.2)
        self.finish()

    def start(self, compactor):
        """Starts a compactor that dies at some step, or lives until it is killed."""
        step = self.random.choice([*STEPS, None])
        compactor.step = step
        after = self.random.randrange(4)
        failpoint = f"{step}={after}*off->return" if after else f"{step}=return"
        compactor.start(wait=False, env={"FAILPOINTS": failpoint} if step else None)
        compactor.deadline = time.monotonic() + self.random.uniform(5, 20)

    def keep_alive(self, compactor):
        ended = compactor.process.poll() is not None
        if not ended and time.monotonic() < compactor.deadline:
            return
        how = compactor.step if ended else "anywhere"
        self.kills[how] = self.kills.get(how, 0) + 1
        if not ended:
            compactor.kill9()
        self.start(compactor)

    def delete(self):
        young = [t for t, at in self.sent.items() if at > time.time() - RETENTION / 2]
        young = [trace for trace in young if trace not in self.deleted]
        if not young:
            return
        trace = self.random.choice(young)
        done = run_clew("delete", "--api", self.server.url, "--trace-id", trace)
        assert done.returncode == 0, done
        self.deleted.add(trace)
        self.ledger.acked.pop(trace)
        assert self.server.get(f"/api/traces/{trace}").status == 404

    def check(self, sample):
        """Traces that cannot have expired are whole; deleted ones are not there."""
        safe = [t for t, at in self.sent.items()
                if at > time.time() - RETENTION + 60 and t not in self.deleted]
        for trace in self.random.sample(safe, min(sample, len(safe))):
            found = self.server.trace_spans(trace)
            assert len(found) == len(set(found)), f"{trace} shows a span twice"
            assert set(found) == self.ledger.acked[trace], f"{trace} is not whole"
        for trace in self.random.sample(sorted(self.deleted), min(1, len(self.deleted))):
            assert self.server.get(f"/api/traces/{trace}").status == 404, trace

    def finish(self):
        for compactor in self.compactors:
            if compactor.process.poll() is None:
                compactor.kill9()
            compactor.start(env=None)
        self.server.flush()
        self.check(sample=10_000)
        print(f"killed: {self.kills}", flush=True)
        where = [argument for setting in self.store.settings for argument in ("--set", setting)]
        until = time.monotonic() + RETENTION + 180
        while True:
            found = run_clew("fsck", "--verify", "--addr", self.server.rpc_addr, *where, timeout=300)
            clean = found.returncode == 0 and "0 objects in the bucket, 0 live" in found.stdout
            if clean:
                break
            assert "broken" not in found.stdout.replace("0 broken", ""), found.stdout
            assert time.monotonic() < until, found.stdout + found.stderr
            time.sleep(3)
        for trace in self.random.sample(sorted(self.sent), min(50, len(self.sent))):
            assert self.server.get(f"/api/traces/{trace}").status == 404, trace
        listed = self.server.get("/api/deletions").json()["deletions"]
        assert all(deletion["done"] for deletion in listed), listed
        print(f"{len(self.sent)} traces sent, {len(self.deleted)} deleted, all gone in the end")

    def close(self):
        alarms = self.server.alarms()
        for process in [*self.compactors, self.server]:
            process.close()
        self.store.close()
        assert not alarms, alarms


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=sorted(stores.STORES), default="s3rver")
    soak = Soak(parser.parse_args())
    try:
        soak.run()
    finally:
        soak.close()


if __name__ == "__main__":
    sys.exit(main())
