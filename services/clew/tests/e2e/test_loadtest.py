"""The load test's own trials against the real binary, in their shortest form."""

import itertools
import json
import os
import subprocess

import pytest

from harness import BINARY, clean_env

LOADTEST = os.environ.get("CLEW_LOADTEST", "")

pytestmark = pytest.mark.skipif(not LOADTEST, reason="CLEW_LOADTEST names the load test")


def loadtest(tmp_path, *arguments, timeout=300):
    """One run against a server that it starts itself; its report."""
    report = tmp_path / "report.json"
    command = [LOADTEST, *arguments, "--server", BINARY, "--json", report, "--quiet"]
    done = subprocess.run(command, env=clean_env(), timeout=timeout, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(report.read_text())


def parts_of(name, figures):
    """What is measured of the parts of a figure: those that are set in below it."""
    at = [figure["name"] for figure in figures].index(name)
    parts = itertools.takewhile(lambda figure: figure["name"].startswith(" "), figures[at + 1:])
    return [part["measured"] for part in parts]


def test_the_benchmark_measures_and_checks_everything(tmp_path):
    report = loadtest(tmp_path, "bench", "--traces", "200", "--repeat", "1", "--class-time", "10ms")
    figures = {figure["name"].strip(): figure["measured"] for figure in report["figures"]}
    for phase in ["receive", "log", "index", "build"]:
        assert figures[phase] > 0, f"{phase}: {figures}"
    stored = "bytes per span in the bucket"
    sections = parts_of(stored, report["figures"])
    assert len(sections) > 10
    assert sum(sections) == pytest.approx(figures[stored])
    assert figures["peak memory, MB"] > 1
    assert len(report["queries"]) == 16
    assert all(query["must"] for query in report["queries"])
    assert report["wrong"] == []


def test_a_crash_in_the_middle_of_a_soak_loses_and_doubles_nothing(tmp_path):
    report = loadtest(tmp_path, "soak", "--duration", "6s", "--rate", "1500", "--reads", "10")
    assert report["data_set"]["tenants"] == 3
    sent, verified = report["sending"]["totals"], report["verified"]
    [crash] = report["crashes"]
    assert crash["at_seconds"] < 6 and crash["away_seconds"] > 0
    assert verified["closed"] and verified["spans"] == sent["spans_acked"] > 0
    assert verified["findings"]["counts"] == {}


def test_nodes_of_a_cluster_are_killed_under_load_and_nothing_is_lost(tmp_path):
    report = loadtest(tmp_path, "soak", "--nodes", "3", "--duration", "12s", "--rate", "1500",
                      "--reads", "10")
    sent, verified = report["sending"]["totals"], report["verified"]
    assert len(report["crashes"]) == 2
    assert all(crash["unanswered_seconds"] > 0 for crash in report["crashes"])
    assert verified["closed"] and verified["spans"] == sent["spans_acked"] > 0
    assert verified["findings"]["counts"] == {}


def test_overload_is_refused_with_a_hint_and_acks_stay_true(tmp_path):
    # A limit of the tenant's rate is reached on any machine, and with few spans.
    report = loadtest(tmp_path, "overload", "--duration", "3s", "--sample", "100",
                      "--set", "distributor.tenant_rate_bytes=1MiB",
                      "--set", "distributor.tenant_burst_bytes=1MiB")
    overload = report["overload"]
    assert overload["refused"] == overload["hinted"] > 0
    assert overload["unanswered"] == 0
    assert overload["taken"] > 0
    assert overload["peak_rss_bytes"] <= overload["memory_max"]
    assert report["verified"]["findings"]["counts"] == {}
