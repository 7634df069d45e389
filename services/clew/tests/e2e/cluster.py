"""A cluster of real processes, a sender that goes on whatever dies, and a reader that catches lies."""

import contextlib
import random
import threading
import time

import grpc

from harness import run_clew
from ledger import Ledger

# Waits end at once when what is waited for is there; this is only where hope ends.
PATIENCE = 120


def wait_until(check, what, timeout=PATIENCE):
    """Repeats `check` until it gives something true."""
    until = time.monotonic() + timeout
    problem = None
    while time.monotonic() < until:
        try:
            found = check()
            if found:
                return found
        except (OSError, AssertionError, KeyError, ValueError) as error:
            problem = error
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {timeout} s ({problem})")


class Cluster:
    """Nodes with all roles; the first three are the members of the metastore."""

    def __init__(self, start, nodes=3, settings=(), network=None, roles=(), store=None, mount=None):
        """`store`: settings of a bucket, instead of a folder. `mount`: gives a node's data a disk."""
        self.start_process = start
        self.store, self.mount = store, mount
        self.made = 0
        self.network = network
        self.settings = list(settings)
        self.nodes = []
        self.bucket = None
        first = [self._make(roles) for _ in range(3)]
        # In a list, YAML takes an IPv6 address for another one.
        quote = '"' if first[0].host.startswith("[") else ""
        self.members = ",".join(f"{quote}{node.rpc_addr}{quote}" for node in first)
        for node in first:
            node.settings.append(f"metastore.members=[{self.members}]")
            node.start(wait=False)
        later = [self.add_node(wait=False) for _ in range(nodes - 3)]
        for node in first + later:
            node.wait_ready(PATIENCE)

    def _make(self, roles=()):
        name, zone = f"node-{self.made}", f"zone-{self.made}"
        self.made += 1
        place = self.network.place(name) if self.network else {}
        node = self.start_process(*self.settings, roles=roles, run=False, **place)
        self.bucket = self.bucket or node.dir / "bucket"
        node.settings += [f"node.name={name}", f"node.zone={zone}", *self.bucket_settings()]
        if self.mount:
            self.mount(node)
        node.name = name
        self.nodes.append(node)
        return node

    def add_node(self, wait=True):
        """One more ingester, not a member of the metastore."""
        node = self._make(roles=["distributor", "ingester", "querier"])
        node.settings.append(f"metastore.members=[{self.members}]")
        node.start(wait=False)
        if wait:
            node.wait_ready(PATIENCE)
        return node

    def bucket_settings(self):
        return self.store or [f"bucket.url={self.bucket}"]

    def fsck(self):
        """What `clew fsck --verify` says; it must not find a contradiction."""
        options = [word for setting in self.bucket_settings() for word in ("--set", setting)]
        done = run_clew("fsck", "--verify", "--addr", self.alive()[0].rpc_addr, *options)
        assert done.returncode == 0, done
        return done.stdout

    def wait_clean(self):
        """Waits until the bucket holds what the catalog knows, and nothing else."""
        clean = ", 0 waiting or dead in the catalog, 0 orphans, 0 foreign, 0 broken"
        wait_until(lambda: clean in self.fsck(), "the bucket is the catalog")

    def alive(self):
        """The nodes that run, are not stopped, and can be reached."""
        return [node for node in self.nodes
                if node.process is not None and node.process.poll() is None
                and not getattr(node, "paused", False)]

    def status(self):
        for node in self.alive():
            with contextlib.suppress(OSError):
                answer = node.get("/status/cluster", timeout=10)
                if answer.status == 200:
                    return answer.json()
        return None

    def healthy(self, on=None):
        """Whether every shard has a leader and all replicas; with `on`, only on these nodes."""
        status = self.status()
        if not status or not status["shards"]:
            return False
        for shard in status["shards"]:
            if not shard["healthy"]:
                return False
            names = {replica["node"] for replica in shard["replicas"]}
            if on is not None and not names <= {node.name for node in on}:
                return False
        return True

    def wait_healthy(self, on=None):
        try:
            wait_until(lambda: self.healthy(on), "every shard healthy")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status()}") from error

    def flush(self):
        wait_until(lambda: self.alive()[0].flush() or True, "a flush")

    def verify(self, ledger, sample=None):
        """Every acknowledged span is found, once, whichever node is asked."""
        for node in self.alive():
            ledger.server = node
            wait_until(lambda: ledger.verify(sample=sample or 50) or True, "complete answers")
            ledger.verify_search(10)
        ledger.verify(sample=sample)


class ClusterLedger(Ledger):
    """Sends to whichever node answers; a batch that fails is sent again elsewhere, as clients do."""

    def __init__(self, cluster, seed=1):
        self.cluster = cluster
        self.stubs = {}
        super().__init__(cluster.nodes[0], seed)

    def connect(self):
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

        for node in self.cluster.nodes:
            if node.otlp_grpc not in self.stubs:
                channel = grpc.insecure_channel(node.otlp_grpc, options=[
                    ("grpc.max_reconnect_backoff_ms", 500),
                    ("grpc.initial_reconnect_backoff_ms", 100)])
                self.stubs[node.otlp_grpc] = trace_service_pb2_grpc.TraceServiceStub(channel)

    def send(self, message, timeout=8):
        self.connect()
        for _ in range(3):
            alive = self.cluster.alive()
            if not alive:
                time.sleep(0.1)
                continue
            node = self.random.choice(alive)
            self.stub = self.stubs[node.otlp_grpc]
            if super().send(message, timeout=timeout):
                return True
        return False


class Load:
    """Senders and readers in the background while something is done to the cluster."""

    def __init__(self, cluster, ledger, senders=2, pause=0.02):
        self.cluster, self.ledger, self.pause = cluster, ledger, pause
        self.stopped = threading.Event()
        self.lies = []
        self.sent = 0
        self.reads = {"complete": 0, "partial": 0, "failed": 0}
        self.outage = 0.0
        ledgers = [ledger] + [ClusterLedger(cluster, seed=100 + n) for n in range(1, senders)]
        for each in ledgers:
            each.acked, each.unknown, each.lock = ledger.acked, ledger.unknown, ledger.lock
        self.threads = [threading.Thread(target=self._send, args=(each,)) for each in ledgers]
        self.threads.append(threading.Thread(target=self._read))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        assert not self.lies, self.lies[:3]

    def _send(self, ledger):
        while not self.stopped.is_set():
            if ledger.send(ledger.batch(traces=3, spans=6, number=self.sent)):
                self.sent += 1
            time.sleep(self.pause)

    def _read(self):
        dice = random.Random(5)
        good_at = time.monotonic()
        while not self.stopped.is_set():
            time.sleep(0.05)
            with self.ledger.lock:
                known = list(self.ledger.acked)
                if not known:
                    continue
                trace_id = dice.choice(known[-200:])
                acked = set(self.ledger.acked[trace_id])
            alive = self.cluster.alive()
            if not alive:
                continue
            node = dice.choice(alive)
            try:
                resource_spans, message = node.trace(trace_id)
            except (OSError, AssertionError):
                self.reads["failed"] += 1
                self.outage = max(self.outage, time.monotonic() - good_at)
                continue
            found = [span.span_id.hex() for resource in resource_spans
                     for scope in resource.scope_spans for span in scope.spans]
            if len(found) != len(set(found)):
                self.lies.append(f"{trace_id} shows a span twice at {node.name}")
            if message:
                self.reads["partial"] += 1
                self.outage = max(self.outage, time.monotonic() - good_at)
                continue
            missing = acked - set(found)
            if missing:
                self.lies.append(f"{trace_id} lacks {len(missing)} of {len(acked)} spans at "
                                 f"{node.name}, and says nothing")
            self.reads["complete"] += 1
            self.outage = max(self.outage, time.monotonic() - good_at)
            good_at = time.monotonic()

    def let_flow(self, batches=30):
        """Waits until this many more batches are acknowledged and some reads are complete."""
        sent, reads = self.sent, self.reads["complete"]
        wait_until(lambda: self.sent >= sent + batches, "acknowledgements")
        wait_until(lambda: self.reads["complete"] >= reads + 5, "complete reads")
