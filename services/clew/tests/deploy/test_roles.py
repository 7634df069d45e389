"""The rendered manifests run: roles start exactly as they say, and `helm test` makes its round trip."""

import json
import subprocess

import pytest

from chart import merged, named, of_kind, render
from cluster import wait_until
from harness import Clew, http, run_clew
from pods import Nodes, value
from test_chart import known_roles

SHARED = {"mode": "distributed", "bucket": {"url": "/bucket", "existingClaim": "shared"},
          "shutdownDelay": "1s", "prober": {"interval": "1s"}}


@pytest.fixture(scope="module")
def cluster():
    """The preset `small` in mode distributed, on a folder that all pods share."""
    missing = {"compactor"} - known_roles()
    nodes = Nodes(render(SHARED), skip=missing)
    try:
        yield nodes.start()
    finally:
        nodes.close()


@pytest.fixture(scope="module")
def single():
    nodes = Nodes(render({"shutdownDelay": "1s", "multitenancy": True}))
    try:
        yield nodes.start()
    finally:
        nodes.close()


def helm_test(nodes):
    code, said = nodes.run(of_kind(nodes.objects, "Pod")[0])
    assert code == 0, said
    for check in ("write", "trace", "search", "tags"):
        assert f"{check} " in said, said


def test_helm_test_passes_on_a_cluster(cluster):
    helm_test(cluster)


def test_helm_test_passes_on_one_process(single):
    helm_test(single)


def test_helm_test_fails_if_nothing_is_stored(cluster):
    """The test can fail: told to read elsewhere than it writes, it does."""
    pod = json.loads(json.dumps(of_kind(cluster.objects, "Pod")[0]))
    arguments = pod["spec"]["containers"][0]["args"]
    arguments[:] = [each for each in arguments if "query-url" not in each and "timeout" not in each]
    arguments += [f"--query-url={cluster.of('ingester')[0].url}", "--timeout=1s"]
    pod["metadata"]["name"] = "failing"
    code, said = cluster.run(pod)
    assert code == 1 and "not everything was found" in said, said


def test_every_node_is_in_the_cluster_under_its_name(cluster):
    status = http("GET", cluster.of("querier")[0].url + "/status/cluster").json()
    expected = {pod.name: pod.ip for pod in cluster.pods if pod.role != "prober"}
    assert {node["node"]: node["addr"].split(":")[0] for node in status["nodes"]} == expected
    assert len(status["metastore"]["voters"]) == 3
    assert len(status["shards"]) == 4
    wait_until(lambda: all(shard["healthy"] for shard in http(
        "GET", cluster.of("querier")[0].url + "/status/cluster").json()["shards"]), "healthy shards")


def test_the_prober_sees_the_cluster_from_outside(cluster):
    (prober,) = cluster.of("prober")
    text = wait_until(lambda: [
        text for text in [http("GET", prober.url + "/metrics").text]
        if all(value(text, "clew_probe_checks_total", f'check="{check}",outcome="ok"') >= 2
               for check in ("write", "trace", "search", "tags", "older"))], "two good rounds")[0]
    assert value(text, "clew_probe_checks_total", 'outcome="wrong"') == 0, text
    assert value(text, "clew_probe_last_success_timestamp_seconds", 'check="search"') > 1.6e9
    assert 'clew_probe_duration_seconds_bucket{check="search",le="1"}' in text


def test_a_pod_that_stops_says_so_before_it_stops(cluster):
    """Not ready at once, still serving for the delay, then a clean end within the grace period."""
    pod = cluster.of("querier")[1]
    pod.process.terminate()
    wait_until(lambda: not pod.probe("readinessProbe"), "not ready")
    assert pod.process.wait(pod.spec["terminationGracePeriodSeconds"]) == 0
    pod.start().wait_ready()


def test_a_stateful_pod_comes_back_as_itself(cluster):
    pod = cluster.of("ingester")[0]
    assert pod.stop() == 0
    pod.start().wait_ready()
    status = http("GET", cluster.of("querier")[0].url + "/status/cluster").json()
    assert sum(node["node"] == pod.name for node in status["nodes"]) == 1
    helm_test(cluster)


def test_scaling_in_drains_the_pods_that_go(cluster):
    more = render(merged(SHARED, {"ingester": {"replicas": 4}}))
    owner = named(more, "StatefulSet", "clew-ingester")
    pod = cluster.add(owner, "clew-ingester-3").start()
    pod.wait_ready()

    def held():
        status = http("GET", cluster.of("querier")[0].url + "/status/cluster").json()
        return [replica for shard in status["shards"] for replica in shard["replicas"]
                if replica["node"] == pod.name]

    wait_until(held, "replicas on the new pod")
    code, said = cluster.run(named(cluster.objects, "Job", "clew-scale-in"))
    assert code == 0 and pod.name in said, said
    assert not held()
    assert pod.stop() == 0
    cluster.pods.remove(pod)
    helm_test(cluster)
    # Scaled out again, it may take replicas again; its disk is the one it had.
    code, said = cluster.run(named(more, "Job", "clew-scale-in"))
    assert code == 0 and f"{pod.name} may take replicas again" in said, said


def test_nothing_was_logged_that_a_human_must_see(cluster):
    for pod in cluster.pods:
        lines = [line for line in pod.log.read_text().splitlines()
                 if '"level":"ERROR"' in line or "panicked" in line]
        assert not lines, (pod.name, lines[:3])


def test_health_is_what_ready_says(cluster):
    pod = cluster.of("querier")[0]
    assert run_clew("health", "--url", pod.url).returncode == 0
    done = run_clew("health", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1 and "127.0.0.1:1" in done.stderr, done


def test_the_prober_refuses_what_is_no_address():
    for arguments in (["--otlp-url", "localhost:4318"], ["--tenant", "a/b"], ["--interval", "0s"]):
        done = run_clew("probe", "--once", *arguments)
        assert done.returncode not in (0, 1), done


def test_a_probe_says_what_is_away():
    done = subprocess.run([run_clew.__globals__["BINARY"], "probe", "--once", "--otlp-url",
                           "http://127.0.0.1:1", "--timeout", "1s"],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "write" in done.stderr and "error" in done.stderr, done


def test_a_probe_waits_for_what_is_still_starting():
    """As `helm test` right after `helm install`."""
    server = Clew()
    command = [run_clew.__globals__["BINARY"], "probe", "--once", "--within", "60s", "--query-url", server.url,
               "--otlp-url", f"http://{server.host}:{server.otlp_http_port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as probe:
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                probe.wait(3)
            server.start()
            out, err = probe.communicate(timeout=90)
            assert probe.returncode == 0, err
            assert all(" ok " in line or " skipped " in line for line in out.splitlines()), out
        finally:
            probe.kill()
            server.close()
