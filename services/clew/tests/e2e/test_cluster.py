"""A cluster under load while nodes die, restart, come and go: nothing that was acknowledged is lost or
doubled, and an answer that lacks something says so."""

import contextlib
import shutil
import signal
import socket

import pytest

from cluster import Cluster, ClusterLedger, Load, wait_until
from harness import http, run_clew

SETTINGS = ["metastore.shards=6", "ingester.flush.spans_max=2000", "ingester.flush.age_max=5s"]


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@pytest.fixture
def cluster(clew):
    return Cluster(clew, settings=SETTINGS)


def test_three_nodes_are_one_system(cluster):
    ledger = ClusterLedger(cluster)
    for number in range(10):
        assert ledger.send(ledger.batch(number=number))
    cluster.wait_healthy()
    cluster.verify(ledger)
    cluster.flush()
    cluster.verify(ledger)
    status = cluster.status()
    assert len(status["nodes"]) == 3 and all(node["alive"] for node in status["nodes"])
    assert len(status["metastore"]["voters"]) == 3
    assert all(len(shard["replicas"]) == 3 for shard in status["shards"])
    # Leaders move to where they should be by themselves.
    wait_until(lambda: all(
        sum(replica["role"] == "leader" and replica["node"] == node.name
            for shard in cluster.status()["shards"] for replica in shard["replicas"]) == 2
        for node in cluster.nodes), "two leaders on each node")
    page = http("GET", cluster.nodes[1].url + "/status/cluster", headers={"Accept": "text/html"})
    assert "<h1>" in page.text and "node-2" in page.text
    done = run_clew("cluster", "status", "--addr", cluster.nodes[2].rpc_addr)
    assert done.returncode == 0 and "node-0" in done.stdout, done
    assert run_clew("cluster", "status", "--addr", "127.0.0.1:1").returncode == 1


class Loopback6:
    """Places every node at the loopback address of IPv6."""

    def place(self, _name):
        return {"host": "[::1]"}


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no loopback address of IPv6")
def test_nodes_reach_each_other_by_ipv6(clew):
    cluster = Cluster(clew, settings=SETTINGS, network=Loopback6())
    ledger = ClusterLedger(cluster)
    for number in range(4):
        assert ledger.send(ledger.batch(number=number))
    cluster.wait_healthy()
    cluster.nodes[0].kill9()
    cluster.verify(ledger)
    cluster.nodes[0].start(wait=False)
    cluster.nodes[0].wait_ready(120)
    cluster.wait_healthy()
    cluster.flush()
    cluster.verify(ledger)
    done = run_clew("cluster", "status", "--addr", cluster.nodes[2].rpc_addr)
    assert done.returncode == 0 and "[::1]:" in done.stdout, done


def test_any_node_may_die_under_load(cluster):
    ledger = ClusterLedger(cluster)
    with Load(cluster, ledger) as load:
        load.let_flow()
        for node in cluster.nodes:
            node.kill9()
            load.let_flow()
            node.start(wait=False)
            node.wait_ready(120)
            cluster.wait_healthy()
    print("reads", load.reads, "longest without a complete one", round(load.outage, 1), "s")
    cluster.verify(ledger)
    cluster.flush()
    cluster.verify(ledger)


def test_a_node_that_stands_still_is_passed_over_and_believes_nothing_old(cluster):
    """A leader that was stopped still thinks it leads when it goes on."""
    ledger = ClusterLedger(cluster)
    with Load(cluster, ledger) as load:
        load.let_flow()
        for node in cluster.nodes:
            node.process.send_signal(signal.SIGSTOP)
            node.paused = True
            load.let_flow()
            node.process.send_signal(signal.SIGCONT)
            node.paused = False
            load.let_flow()
            cluster.wait_healthy()
    print("reads", load.reads, "longest without a complete one", round(load.outage, 1), "s")
    cluster.verify(ledger)


def test_all_nodes_may_die_at_once(cluster):
    ledger = ClusterLedger(cluster)
    with Load(cluster, ledger) as load:
        load.let_flow(60)
    for node in cluster.nodes:
        node.kill9()
    for node in cluster.nodes:
        node.start(wait=False)
    for node in cluster.nodes:
        node.wait_ready(120)
    cluster.wait_healthy()
    cluster.verify(ledger)
    assert ledger.send(ledger.batch())
    cluster.verify(ledger)


def test_a_rolling_restart_is_not_noticed(cluster):
    ledger = ClusterLedger(cluster)
    with Load(cluster, ledger) as load:
        for node in cluster.nodes:
            load.let_flow()
            assert node.stop(timeout=60) == 0
            load.let_flow()
            node.start(wait=False)
            node.wait_ready(120)
            cluster.wait_healthy()
    print("reads", load.reads, "longest without a complete one", round(load.outage, 1), "s")
    cluster.verify(ledger)


def test_nodes_come_and_go_under_load(cluster):
    ledger = ClusterLedger(cluster)
    with Load(cluster, ledger) as load:
        load.let_flow()
        added = [cluster.add_node(), cluster.add_node()]
        wait_until(lambda: any(
            replica["node"] in (added[0].name, added[1].name)
            for shard in cluster.status()["shards"] for replica in shard["replicas"]),
            "replicas on the new nodes")
        cluster.wait_healthy()
        load.let_flow()
        grown = run_clew("cluster", "shards", "9", "--addr", cluster.nodes[0].rpc_addr)
        assert grown.returncode == 0, grown
        wait_until(lambda: len(cluster.status()["shards"]) == 9, "nine shards")
        cluster.wait_healthy()
        load.let_flow()
        for node in added:
            drained = run_clew("cluster", "drain", node.name, "--addr",
                               cluster.nodes[0].rpc_addr, timeout=180)
            assert drained.returncode == 0, drained
            load.let_flow()
            assert node.stop(timeout=60) == 0
        cluster.wait_healthy(on=cluster.nodes[:3])
        load.let_flow()
    print("reads", load.reads, "longest without a complete one", round(load.outage, 1), "s")
    cluster.verify(ledger)
    cluster.flush()
    cluster.verify(ledger)


def test_a_node_that_lost_its_disk_is_filled_again(cluster):
    ledger = ClusterLedger(cluster)
    with Load(cluster, ledger) as load:
        load.let_flow()
        for node in cluster.nodes[:2]:
            node.kill9()
            shutil.rmtree(node.data)
            load.let_flow()
            node.start(wait=False)
            node.wait_ready(120)
            cluster.wait_healthy()
            load.let_flow()
    cluster.verify(ledger)
    # The node that kept its disk may go: the others have everything.
    cluster.nodes[2].kill9()
    cluster.verify(ledger)


def test_the_feature_level_rises_by_itself_and_dead_nodes_can_be_forgotten(cluster, clew):
    level = wait_until(lambda: (found := cluster.status()["feature_level"])["level"] == 3 and found,
                       "level 3")
    assert level == {"level": 3, "next": 3, "held_by": []}
    assert all(node["feature_levels"] == {"oldest": 1, "newest": 3}
               for node in cluster.status()["nodes"])
    addr = cluster.nodes[0].rpc_addr
    assert "level 3\n" in run_clew("cluster", "status", "--addr", addr).stdout
    querier = clew(f"metastore.members=[{cluster.members}]", "node.name=shortlived",
                   f"bucket.url={cluster.bucket}", roles=["querier"])
    refused = run_clew("cluster", "forget", "shortlived", "--addr", addr)
    assert refused.returncode == 1 and "is alive" in refused.stderr, refused
    querier.kill9()
    wait_until(lambda: run_clew("cluster", "forget", "shortlived", "--addr", addr).returncode == 0,
               "it is silent for long enough")
    assert {node["node"] for node in cluster.status()["nodes"]} == {"node-0", "node-1", "node-2"}
    unknown = run_clew("cluster", "forget", "shortlived", "--addr", addr)
    assert unknown.returncode == 1 and "not registered" in unknown.stderr, unknown
    cluster.nodes[2].kill9()
    wait_until(lambda: "member of the metastore" in run_clew(
        "cluster", "forget", "node-2", "--addr", addr).stderr, "a refusal")


def test_a_cluster_is_held_at_its_level(clew):
    """So that the release before can be gone back to; what came later is refused with the reason."""
    held = Cluster(clew, settings=[*SETTINGS, "metastore.feature_level_max=1"])
    held.wait_healthy()
    assert held.status()["feature_level"] == {"level": 1, "next": 1, "held_by": []}
    querier = clew(f"metastore.members=[{held.members}]", "node.name=shortlived",
                   f"bucket.url={held.bucket}", roles=["querier"])
    querier.kill9()
    wait_until(lambda: "feature level 1 and this needs 2" in run_clew(
        "cluster", "forget", "shortlived", "--addr", held.nodes[0].rpc_addr).stderr, "a refusal")


def test_a_shard_without_a_majority_says_so_and_begins_again_when_told_to(clew):
    cluster = Cluster(clew, nodes=6, settings=["metastore.shards=2", "metastore.dead_after=2s",
                                               "distributor.leader_wait=1s"],
                      roles=["metastore", "distributor", "querier"])
    ledger = ClusterLedger(cluster)
    for number in range(10):
        assert ledger.send(ledger.batch(number=number))
    cluster.flush()
    kept = dict(ledger.acked)
    for number in range(5):
        assert ledger.send(ledger.batch(number=number))
    lost = cluster.nodes[4:]
    for node in lost:
        node.kill9()
    first = next(iter(kept))
    wait_until(lambda: "shard" in cluster.nodes[0].trace(first)[1], "a partial answer")
    answer = cluster.nodes[0].get("/api/search?q={}")
    assert answer.headers["X-Clew-Partial"] and answer.json()["status"] == "PARTIAL"
    for shard in range(2):
        # Refused as long as a leader believes that it leads: some seconds after it lost the others.
        wait_until(lambda: run_clew("cluster", "recover", str(shard), "--addr",
                                    cluster.nodes[0].rpc_addr).returncode == 0, "a recovery")
    ledger.acked = kept
    assert wait_until(lambda: ledger.send(ledger.batch()), "an acknowledgement")
    for node in cluster.nodes[:3]:
        ledger.server = node
        wait_until(lambda: ledger.verify() or True, "complete answers")
    # The lost ones come back with what they had, and are told that it is over.
    for node in lost:
        node.start(wait=False)
    for node in lost:
        node.wait_ready(120)
    assert ledger.send(ledger.batch())
    ledger.verify()


def test_a_log_that_is_gone_beside_its_disk_id_is_not_passed_over(clew):
    server = clew()
    assert server.stop() == 0
    shutil.rmtree(server.data / "raft")
    server.start(wait=False)
    assert server.wait_dead() == 1
    assert "disk-id" in server.log_text()
