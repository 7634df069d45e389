"""Does bad things to a cluster under load, drawn from a seed, and checks after each that nothing that was
acknowledged is lost or doubled and no answer lacks something without saying so.

    python chaos.py --seed 7 --minutes 10

Every node lives in a network namespace of its own if there may be some (root), so that it can be cut off;
otherwise that is left out. The same seed draws the same things to do; what the cluster makes of them also
depends on time.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

from cluster import Cluster, ClusterLedger, Load, wait_until
from conftest import starter
from faulty_store import FaultyStore
from harness import run_clew
from stores import moto, s3_settings

SETTINGS = ["metastore.shards=6", "ingester.flush.spans_max=2000", "ingester.flush.age_max=5s",
            "metastore.dead_after=20s", "compactor.poll_interval=500ms", "compactor.lease=3s",
            "compactor.fan_in=4", "compactor.settle=0s", "compactor.orphan_interval=5s",
            "compactor.grace=11s", "querier.view_age_max=1s", "querier.query_timeout=10s"]
# Traces that are looked at in the end, drawn from all.
CHECKED_MAX = 5_000
# The disk of a node, in MiB.
DISK = 512
WITHIN = "CLEW_CHAOS_WITHIN"


# A queue with room for nothing: every packet is dropped, without a word to its sender.
NOTHING = ["bfifo", "limit", "1"]


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


class Network:
    """A bridge in the namespace of this process, and a namespace for each node on it."""

    def __init__(self):
        self.prefix = f"clew{os.getpid()}"
        self.links = {}
        ip("link", "set", "lo", "up")
        ip("link", "add", "hub", "type", "bridge")
        ip("addr", "add", "10.99.0.254/24", "dev", "hub")
        ip("link", "set", "hub", "up")

    def place(self, name):
        """Where a node goes."""
        number = len(self.links) + 1
        namespace, link, host = f"{self.prefix}-{number}", f"node{number}", f"10.99.0.{number}"
        ip("netns", "add", namespace)
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        ip("link", "set", link, "master", "hub", "up")
        for arguments in (["link", "set", "lo", "up"], ["link", "set", "eth0", "up"],
                          ["addr", "add", f"{host}/24", "dev", "eth0"]):
            ip("-n", namespace, *arguments)
        self.links[name] = (link, namespace)
        return {"host": host, "launcher": ["ip", "netns", "exec", namespace]}

    def cut(self, name, inward=True, outward=True):
        """Drops what goes to the node, or comes from it, or both."""
        link, namespace = self.links[name]
        if inward:
            subprocess.run(["tc", "qdisc", "add", "dev", link, "root", *NOTHING], check=True)
        if outward:
            subprocess.run(["tc", "-n", namespace, "qdisc", "add", "dev", "eth0", "root", *NOTHING],
                           check=True)

    def heal(self, name):
        link, namespace = self.links[name]
        for command in (["tc", "qdisc", "del", "dev", link, "root"],
                        ["tc", "-n", namespace, "qdisc", "del", "dev", "eth0", "root"]):
            subprocess.run(command, check=False, stderr=subprocess.DEVNULL)

    def close(self):
        for _, namespace in self.links.values():
            subprocess.run(["ip", "netns", "del", namespace], check=False)


def mount(node):
    """A small disk for a node, so that it can be full."""
    node.data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "clew", str(node.data)], check=True)


class Chaos:
    """The things to do; each leaves the cluster whole."""

    def __init__(self, cluster, load, dice, log, store):
        self.cluster, self.load, self.dice, self.log, self.store = cluster, load, dice, log, store
        self.actions = [self.kill, self.kill, self.kill_all, self.kill_leader, self.pause, self.pause_leader,
                        self.restart, self.rolling_restart, self.flush, self.lose_disk, self.slow_disk,
                        self.scale, self.bucket_fails, self.bucket_fails]
        if cluster.network:
            self.actions += [self.cut_off, self.cut_off, self.cut_one_way, self.flap, self.disk_full]
        # Each is done before one is done again.
        self.waiting = []

    def step(self):
        if not self.waiting:
            self.waiting = self.dice.sample(self.actions, len(self.actions))
        action, node = self.waiting.pop(), self.dice.choice(self.cluster.nodes)
        self.log(f"{action.__name__} {node.name}")
        began = time.monotonic()
        action(node)
        self.cluster.wait_healthy()
        self.load.let_flow(10)
        self.log(f"  whole again after {time.monotonic() - began:.1f} s, {self.load.sent} batches")

    def start(self, *nodes):
        for node in nodes:
            node.start(wait=False)
        for node in nodes:
            node.wait_ready(120)

    def kill(self, node):
        node.kill9()
        self.load.let_flow(10)
        self.start(node)

    def kill_all(self, _):
        for node in self.cluster.nodes:
            node.kill9()
        self.start(*self.cluster.nodes)

    def leader(self):
        """A node that leads a shard."""
        leads = [replica["node"] for shard in self.cluster.status()["shards"]
                 for replica in shard["replicas"] if replica["role"] == "leader"]
        name = self.dice.choice(sorted(leads))
        return next(node for node in self.cluster.nodes if node.name == name)

    def kill_leader(self, _):
        self.kill(self.leader())

    def pause_leader(self, _):
        self.pause(self.leader())

    def lose_disk(self, node):
        node.kill9()
        for path in node.data.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.load.let_flow(10)
        self.start(node)

    def slow_disk(self, node):
        """Every write to the log takes a quarter of a second."""
        node.stop(timeout=60)
        node.start(wait=False, env={"FAILPOINTS": "log::write=sleep(250)"})
        node.wait_ready(120)
        self.load.let_flow(20)
        node.kill9()
        self.start(node)

    def disk_full(self, node):
        """A node that cannot write ends or waits, and goes on when there is room and it is started."""
        node.errors_expected = True
        filler = node.data / "filler"
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 20))
        self.load.let_flow(20)
        time.sleep(self.dice.uniform(0, 5))
        filler.unlink()
        node.kill9()
        self.start(node)

    def bucket_fails(self, _):
        """For a while a share of the requests to the bucket fails, or all of them."""
        share = self.dice.choice([0.01, 0.1, 0.5, 1.0])
        before = self.store.faults
        with self.store.failing(share):
            until = time.monotonic() + self.dice.uniform(5, 30)
            while time.monotonic() < until:
                sent = self.load.sent
                wait_until(lambda sent=sent: self.load.sent >= sent + 10, "acknowledgements")
        self.log(f"  {share:.0%} of the requests failed: {self.store.faults - before}")

    def rolling_restart(self, _):
        for node in self.cluster.nodes:
            self.restart(node)
            self.cluster.wait_healthy()

    def scale(self, _):
        """Two ingesters more, and away again."""
        added = [self.cluster.add_node(), self.cluster.add_node()]
        names = {node.name for node in added}
        wait_until(lambda: any(replica["node"] in names for shard in self.cluster.status()["shards"]
                               for replica in shard["replicas"]), "replicas on the new nodes")
        self.cluster.wait_healthy()
        self.load.let_flow(10)
        for node in added:
            done = run_clew("cluster", "drain", node.name, "--addr", self.cluster.nodes[0].rpc_addr,
                            timeout=180)
            assert done.returncode == 0, done
            self.load.let_flow(10)
            code = node.stop(timeout=60)
            assert code == 0, f"{node.name} ended with {code}\n{node.tail()}"
            self.cluster.nodes.remove(node)

    def pause(self, node):
        node.paused = True
        node.process.send_signal(signal.SIGSTOP)
        time.sleep(self.dice.uniform(0.3, 6))
        node.process.send_signal(signal.SIGCONT)
        node.paused = False

    def restart(self, node):
        code = node.stop(timeout=60)
        assert code == 0, f"{node.name} ended with {code}\n{node.tail()}"
        self.start(node)

    def flush(self, _):
        self.cluster.flush()

    @contextlib.contextmanager
    def cut(self, node, **how):
        node.paused = True
        self.cluster.network.cut(node.name, **how)
        try:
            yield
        finally:
            self.cluster.network.heal(node.name)
            node.paused = False

    def cut_off(self, node):
        with self.cut(node):
            self.load.let_flow(10)
            time.sleep(self.dice.uniform(0, 6))

    def cut_one_way(self, node):
        inward = self.dice.random() < 0.5
        with self.cut(node, inward=inward, outward=not inward):
            time.sleep(self.dice.uniform(2, 8))

    def flap(self, node):
        for _ in range(5):
            with self.cut(node):
                time.sleep(self.dice.uniform(0.1, 1.5))
            time.sleep(self.dice.uniform(0.1, 1.5))


def run(start, seed, minutes, network, log=print):
    """A run; raises at the first thing that is wrong."""
    dice = random.Random(seed)
    real = moto()
    store = FaultyStore(real.port, seed)
    try:
        run_on(start, seed, minutes, network, dice, store, log)
    finally:
        store.close()
        real.close()


def run_on(start, seed, minutes, network, dice, store, log):
    host = "10.99.0.254" if network else "127.0.0.1"
    cluster = Cluster(start, settings=SETTINGS, network=network, mount=mount if network else None,
                      store=s3_settings(store.port, "/chaos", host=host))
    ledger = ClusterLedger(cluster, seed=seed)
    until = time.monotonic() + 60 * minutes
    with Load(cluster, ledger) as load:
        load.let_flow(10)
        chaos = Chaos(cluster, load, dice, log, store)
        while time.monotonic() < until and not load.lies:
            chaos.step()
            ledger.server = dice.choice(cluster.nodes)
            wait_until(lambda: ledger.verify(sample=20) or True, "complete answers")
    log(f"reads {load.reads}, {load.sent} batches, longest without a complete read "
        f"{load.outage:.1f} s")
    cluster.verify(ledger, sample=500)
    cluster.flush()
    cluster.verify(ledger, sample=CHECKED_MAX)
    cluster.wait_clean()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    if os.geteuid() == 0 and shutil.which("ip") and WITHIN not in os.environ:
        os.environ[WITHIN] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.argv,
                              "--seed", str(options.seed)])
    network = Network() if WITHIN in os.environ else None
    print(f"seed {options.seed}, {options.minutes} minutes,",
          "with" if network else "without", "cut links", flush=True)
    try:
        for start in starter():
            run(start, options.seed, options.minutes, network,
                log=lambda line: print(time.strftime("%H:%M:%S"), line, flush=True))
    finally:
        if network:
            network.close()


if __name__ == "__main__":
    main()
