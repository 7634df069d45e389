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

SETTINGS = ["metastore.shards=6", "ingester.flush.spans_max=2000", "ingester.flush.age_max=5s",
            "metastore.dead_after=20s"]
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


class Chaos:
    """The things to do; each leaves the cluster whole."""

    def __init__(self, cluster, load, dice, log):
        self.cluster, self.load, self.dice, self.log = cluster, load, dice, log
        self.actions = [self.kill, self.kill, self.kill_all, self.pause, self.restart, self.flush,
                        self.lose_disk]
        if cluster.network:
            self.actions += [self.cut_off, self.cut_off, self.cut_one_way, self.flap]

    def step(self):
        action, node = self.dice.choice(self.actions), self.dice.choice(self.cluster.nodes)
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

    def lose_disk(self, node):
        node.kill9()
        shutil.rmtree(node.data)
        self.load.let_flow(10)
        self.start(node)

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
    cluster = Cluster(start, settings=SETTINGS, network=network)
    ledger = ClusterLedger(cluster, seed=seed)
    until = time.monotonic() + 60 * minutes
    with Load(cluster, ledger) as load:
        load.let_flow(10)
        chaos = Chaos(cluster, load, dice, log)
        while time.monotonic() < until and not load.lies:
            chaos.step()
            ledger.server = dice.choice(cluster.nodes)
            wait_until(lambda: ledger.verify(sample=20) or True, "complete answers")
    log(f"reads {load.reads}, {load.sent} batches, longest without a complete read "
        f"{load.outage:.1f} s")
    cluster.verify(ledger)
    cluster.flush()
    cluster.verify(ledger)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    if os.geteuid() == 0 and shutil.which("ip") and WITHIN not in os.environ:
        os.environ[WITHIN] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv,
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
