"""Metrics that rules and dashboards ask for are on /metrics of a running cluster."""

import re

import pytest

from chart import ROOT, render
from cluster import wait_until
from harness import http
from pods import Nodes
from test_chart import known_roles
from test_roles import SHARED, helm_test
from test_rules import asked_for


@pytest.fixture(scope="module")
def cluster():
    nodes = Nodes(render(SHARED), skip={"compactor"} - known_roles())
    try:
        yield nodes.start()
    finally:
        nodes.close()


# By labels, and by what a short test does not bring about: looked up in the code instead.
SELDOM = {"clew_compactor_jobs_total", "clew_compactor_dropped_traces_total",
          "clew_tls_certificate_expiry_timestamp_seconds"}


def is_registered(name):
    sources = [*(ROOT / "services" / "compactor").rglob("*.rs"), ROOT / "libs" / "node" / "src" / "tls.rs"]
    return any(f'"{name}"' in path.read_text() for path in sources)


def provoke(cluster):
    """What has no series before it happens: a request and a span that cannot be taken, a flush."""
    distributor, querier = cluster.of("distributor")[0], cluster.of("querier")[0]
    url = f"http://{distributor.ip}:{distributor.ports['otlp-http']}/v1/traces"
    header = {"content-type": "application/json"}
    assert http("POST", url, b"{", header).status == 400
    zero = (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"%s","spanId":"%s","name":"x"}]}]}]}'
            % (b"0" * 32, b"0" * 16))
    assert "rejectedSpans" in http("POST", url, zero, header).text
    helm_test(cluster)
    assert http("POST", querier.url + "/flush", timeout=120).status == 204
    helm_test(cluster)
    (prober,) = cluster.of("prober")
    wait_until(lambda: "clew_probe_duration_seconds_count" in http("GET", prober.url + "/metrics").text,
               "a good check of the prober")


def test_every_metric_that_is_asked_for_exists(cluster):
    provoke(cluster)
    text = cluster.metrics()
    exported = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    wanted = asked_for()
    if "compactor" not in known_roles():
        skipped = [name for name in wanted if name.startswith("clew_compactor_")]
        print("skipped: this binary has no compactor:", *skipped)
        wanted = {name: where for name, where in wanted.items() if name not in skipped}
    missing = {name: where for name, where in wanted.items()
               if name not in exported and not (name in SELDOM and is_registered(name))}
    assert not missing, missing
    # One process tells of the cluster, and only one.
    leading = [line for line in text.splitlines() if line == "clew_metastore_leading 1"]
    assert len(leading) == 1


def test_every_role_has_the_four_golden_signals(cluster):
    """Rate and errors (a counter with outcomes), duration (a histogram), saturation (a gauge)."""
    signals = {
        "distributor": ("clew_distributor_requests_total", "clew_distributor_requests_refused_total",
                        "clew_distributor_request_duration_seconds", "clew_distributor_inflight_bytes"),
        "ingester": ("clew_ingester_requests_total", "clew_ingester_flush_failures_total",
                     "clew_ingester_request_duration_seconds", "clew_ingester_head_bytes"),
        "metastore": ("clew_metastore_requests_total", "clew_metastore_requests_total",
                      "clew_metastore_request_duration_seconds", "clew_disk_available_bytes"),
        "compactor": ("clew_compactor_input_objects_total", "clew_compactor_delete_failures_total",
                      "clew_compactor_job_duration_seconds", "clew_compactor_jobs_running"),
        "querier": ("clew_querier_requests_total", "clew_querier_partial_total",
                    "clew_querier_request_duration_seconds", "clew_querier_queued_queries"),
    }
    for role, names in signals.items():
        if role not in known_roles():
            print(f"skipped: this binary has no role {role}")
            continue
        text = "\n".join(http("GET", pod.url + "/metrics").text for pod in cluster.of(role))
        for name in (*names, "process_resident_memory_bytes", "clew_ready", "clew_build_info"):
            assert re.search(rf"^# TYPE {name} ", text, re.MULTILINE), f"{role}: {name}"


def test_the_cluster_tells_of_its_health(cluster):
    def healthy():
        return 'clew_cluster_shards{health="ok"} 4' in cluster.metrics()
    wait_until(healthy, "four good shards")
    text = cluster.metrics()
    assert 'clew_cluster_ingesters{state="alive"} 3' in text
    assert 'clew_cluster_metastore_members{state="silent"} 0' in text
