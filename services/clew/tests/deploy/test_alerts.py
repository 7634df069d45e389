"""Alerts fire in a real cluster when the fault is there, and end when it is gone: the rendered pods, a
real Prometheus, the shipped rules. Only the windows are shorter, minutes as seconds."""

import json
import re
import shutil
import subprocess
import threading
import urllib.parse

import pytest
import yaml

from chart import merged, render
from cluster import wait_until
from harness import clean_env, exchange, http
from pods import Nodes
from test_chart import known_roles
from test_roles import SHARED
from test_rules import FILES

PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(
    PROMETHEUS is None, reason="prometheus is not installed (Debian: apt-get install prometheus)")

# Each window as one that holds several scrapes a second apart, in the same order.
WINDOWS = {"5m": "6s", "30m": "8s", "1h": "10s", "2h": "11s", "6h": "12s", "1d": "13s", "3d": "14s",
           "10m": "12s", "15m": "12s"}
WAITS = {"1m": "1s", "2m": "2s", "5m": "3s", "10m": "3s", "15m": "4s", "30m": "4s", "1h": "4s"}

# How full the disk of this machine is, is no fault of the test.
OF_THE_MACHINE = {"ClewDiskAlmostFull", "ClewDiskFilling"}

VALUES = merged(SHARED, {"config": {"ingester": {"flush": {"age_max": "1s"}},
                                    "distributor": {"leader_wait": "500ms"}}})


def quick(text):
    """Rules with shorter windows; names of recorded series stay."""
    groups = yaml.safe_load(text)["groups"]
    for group in groups:
        for rule in group["rules"]:
            rule["expr"] = re.sub(r"\[(\w+)\]", lambda m: f"[{WINDOWS[m[1]]}]"
                                  if m[1] in WINDOWS else m[0], rule["expr"])
            rule["expr"] = rule["expr"].replace("unflushed_age_seconds > 900", "unflushed_age_seconds > 9")
            if "for" in rule:
                rule["for"] = WAITS[rule["for"]]
    return yaml.safe_dump({"groups": groups})


class Watched:
    """A cluster with traffic, and a Prometheus that watches it."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.url = f"http://{nodes.net}.250:9090"
        self.folder = nodes.dir / "prometheus"
        self.folder.mkdir()
        for path in FILES:
            (self.folder / path.name).write_text(quick(path.read_text()))
        targets = [pod.url.removeprefix("http://") for pod in nodes.pods]
        (self.folder / "prometheus.yaml").write_text(yaml.safe_dump({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["*.yaml.rules"],
            "scrape_configs": [{"job_name": "clew", "static_configs": [
                {"targets": targets, "labels": {"cluster": "c", "namespace": "n"}}]}]}))
        for path in FILES:
            (self.folder / path.name).rename(self.folder / f"{path.name}.rules")
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [PROMETHEUS, f"--config.file={self.folder}/prometheus.yaml",
                 f"--storage.tsdb.path={self.folder}/data",
                 f"--web.listen-address={nodes.net}.250:9090"], stdout=log, stderr=log, env=clean_env())
        self.stopped = threading.Event()
        # Several: a request that fails takes seconds, and errors must show among the successes.
        self.senders = [threading.Thread(target=self._send, args=(at,)) for at in range(8)]
        for sender in self.senders:
            sender.start()

    def _send(self, first):
        """Traces all the time, to one distributor after the other."""
        number = first << 32
        while not self.stopped.wait(0.8):
            number += 1
            pods = self.nodes.of("distributor")
            pod = pods[number % len(pods)]
            body = {"resourceSpans": [{"scopeSpans": [{"spans": [{
                "traceId": f"{number:032x}", "spanId": f"{number:016x}", "name": "x",
                "startTimeUnixNano": str(1_700_000_000_000_000_000 + number),
                "endTimeUnixNano": str(1_700_000_000_000_000_001 + number)}]}]}]}
            try:
                http("POST", f"http://{pod.ip}:{pod.ports['otlp-http']}/v1/traces",
                     json.dumps(body).encode(), {"content-type": "application/json"}, timeout=5)
            except OSError:
                continue

    def firing(self):
        answer = http("GET", self.url + "/api/v1/alerts").json()
        return {alert["labels"]["alertname"] for alert in answer["data"]["alerts"]
                if alert["state"] == "firing"} - OF_THE_MACHINE

    def value(self, expr):
        query = urllib.parse.urlencode({"query": expr})
        return http("GET", f"{self.url}/api/v1/query?{query}").json()["data"]["result"]

    def wait_for(self, *names):
        def there():
            missing = set(names) - self.firing()
            assert not missing, f"{missing} do not fire, but {self.firing()}"
            return True
        wait_until(there, f"alerts {names}", timeout=300)

    def wait_quiet(self):
        def quiet():
            assert not self.firing(), self.firing()
            return True
        wait_until(quiet, "no alert")

    def close(self):
        self.stopped.set()
        for sender in self.senders:
            sender.join()
        self.process.kill()
        self.process.wait(30)


@pytest.fixture(scope="module")
def watched():
    nodes = Nodes(render(VALUES), skip={"compactor"} - known_roles())
    made = None
    try:
        made = Watched(nodes.start())
        wait_until(lambda: made.value("sum(clew:ingest_errors:ratio_rate1h)"), "recorded series")
        made.wait_quiet()
        yield made
    finally:
        if made:
            made.close()
        nodes.close()


def test_a_bucket_that_fails_is_told_of(watched):
    bucket = watched.nodes.dir / "claims" / "shared"
    aside = bucket.with_name("aside")
    aside.write_text("not a folder")
    exchange(bucket, aside)
    watched.wait_for("ClewBucketErrors", "ClewFlushFailing", "ClewWatermarkStuck")
    exchange(bucket, aside)
    aside.unlink()
    watched.wait_quiet()


def test_a_metastore_member_that_is_away_is_told_of(watched):
    pods = watched.nodes.of("metastore")
    follower = next(pod for pod in pods
                    if "clew_metastore_leading 0" in http("GET", pod.url + "/metrics").text)
    follower.kill()
    watched.wait_for("ClewMetastoreAtRisk", "ClewProcessDown")
    follower.start().wait_ready()
    watched.wait_quiet()


def test_a_quorum_at_risk_and_one_that_is_lost_are_told_of(watched):
    first, second, _ = watched.nodes.of("ingester")
    first.kill()
    watched.wait_for("ClewShardAtRisk")
    assert "ClewShardLost" not in watched.firing()
    second.kill()
    # Users notice now: the error budget burns, and the prober sees it from outside.
    watched.wait_for("ClewShardLost", "ClewIngestErrorsBurnFast", "ClewProbeErrorsBurnFast")
    first.start()
    second.start()
    first.wait_ready()
    second.wait_ready()
    watched.wait_quiet()
