"""Recording rules and alerts: `helm/clew/rules/*.yaml`.

    python helm/monitoring/rules.py          writes them
    python helm/monitoring/rules.py --check  fails if they are not current

Alerts are on symptoms: objectives (docs/slo.md) that burn their error budget, over two windows each, so
that an alert is quick, and quick to end. A few are on causes that need a human before users notice.
Every alert has a section of its own in docs/runbooks.md.
"""

import pathlib
import sys

import yaml

CHART = pathlib.Path(__file__).resolve().parents[1] / "clew"
RUNBOOKS = "https://github.com/clew-traces/clew/blob/main/docs/runbooks.md"

BY = "cluster, namespace"
WINDOWS = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"]

# Refusals that are not the sender's fault.
OUR_REFUSALS = ("busy|shard_overloaded|internal|deadline_exceeded|append_failed|append_timeout|"
                "append_invalid|no_leader|no_shard_map")
# Outcomes of bucket requests that are answers.
ANSWERS = "ok|not_found|conflict|cancelled"


def ratio(bad, all_):
    # `or`: without a bad one there is no series, and that is nothing, not unknown.
    return f"({bad} or 0 * {all_}) / ({all_} > 0)"


def total(metric, window):
    return f"sum by ({BY}) (rate({metric}[{window}]))"


def ingest_errors(window):
    bad = total('clew_distributor_requests_refused_total{reason=~"%s"}' % OUR_REFUSALS, window)
    return ratio(bad, total("clew_distributor_requests_total", window))


def query_errors(window):
    bad = total('clew_querier_requests_total{code=~"5.."}', window)
    return ratio(bad, total('clew_querier_requests_total{code!="499"}', window))


def slow(metric, bound):
    def expr(window):
        all_ = total(f"{metric}_count", window)
        quick = total(f'{metric}_bucket{{le="{bound}"}}', window)
        return f"1 - ({quick} or 0 * {all_}) / ({all_} > 0)"
    return expr


def probe_errors(window):
    """The share of rounds in which some check was not good.

    A round whose write fails makes no other checks, and takes longer. So rounds are counted, by their
    writes, and a check that was not made is not good; and longer windows average over time.
    """
    if window != "5m":
        return f"avg_over_time(clew:probe_errors:ratio_rate5m[{window}])"
    written = total('clew_probe_checks_total{check="write"}', window)
    rounds = f"({written} > 0)"
    good = (f"min by ({BY}) (sum by ({BY}, check) "
            f'(rate(clew_probe_checks_total{{check!="older", outcome=~"ok|skipped"}}[{window}])))')
    # There is not always an older trace to read.
    older = total('clew_probe_checks_total{check="older", outcome!~"ok|skipped"}', window)
    part = 'label_replace(%s, "part", "%s", "", "")'
    new = part % (f"clamp_min(1 - {good} / {rounds}, 0)", "new")
    return f"max by ({BY}) ({new} or {part % (f'clamp_max({older} / {rounds}, 1)', 'older')})"


# name, objective in percent, error ratio by window, what users see.
SLOS = [
    ("IngestErrors", "ingest_errors", 99.9, ingest_errors,
     "exports are refused for reasons that are not the senders'"),
    ("IngestSlow", "ingest_slow", 99, slow("clew_distributor_request_duration_seconds", "1"),
     "exports take more than a second to be acknowledged"),
    ("QueryErrors", "query_errors", 99.5, query_errors, "queries fail"),
    ("QuerySlow", "query_slow", 99, slow("clew_querier_request_duration_seconds", "2.5"),
     "queries take more than 2.5 seconds"),
    ("ProbeErrors", "probe_errors", 99.9, probe_errors,
     "traces that were just acknowledged are not found, seen from outside"),
]


def recording():
    rules = []
    for _, name, _, expr, _ in SLOS:
        rules += [{"record": f"clew:{name}:ratio_rate{window}", "expr": expr(window)}
                  for window in WINDOWS]
    more = {
        "clew:spans_received:rate5m": total("clew_distributor_spans_received_total", "5m"),
        "clew:bytes_received:rate5m": total("clew_distributor_bytes_received_total", "5m"),
        "clew:queries:rate5m": total("clew_querier_requests_total", "5m"),
        "clew:bucket_requests:rate5m":
            f"sum by ({BY}, operation) (rate(clew_storage_requests_total[5m]))",
        "clew:bucket_errors:ratio_rate5m": ratio(
            total('clew_storage_requests_total{outcome!~"%s"}' % ANSWERS, "5m"),
            total("clew_storage_requests_total", "5m")),
        "clew:cpu_per_million_spans:seconds_rate5m":
            f"sum by ({BY}) (rate(clew_cpu_seconds_total[5m])) / "
            f"({total('clew_ingester_spans_total', '5m')} > 0) * 1e6",
    }
    rules += [{"record": record, "expr": expr} for record, expr in more.items()]
    return {"groups": [{"name": "clew-recording", "rules": rules}]}


def alert(name, severity, expr, summary, description, wait=None):
    made = {"alert": name, "expr": expr}
    if wait:
        made["for"] = wait
    anchor = name.lower()
    return {**made, "labels": {"severity": severity}, "annotations": {
        "summary": summary, "description": description, "runbook_url": f"{RUNBOOKS}#{anchor}"}}


def burn(name, record, objective, _, seen):
    budget = round((100 - objective) / 100, 6)

    def over(factor, long, short):
        bound = round(factor * budget, 6)
        return (f"(clew:{record}:ratio_rate{long} > {bound} and "
                f"clew:{record}:ratio_rate{short} > {bound})")

    objective = f"{objective:g} %"
    return [
        alert(f"Clew{name}BurnFast", "page", f"{over(14.4, '1h', '5m')} or {over(6, '6h', '30m')}",
              f"Clew: {seen}",
              f"At this rate the error budget of 30 days (objective {objective}) is gone within five "
              "days or sooner: {{ $value | humanizePercentage }} are bad.", "2m"),
        alert(f"Clew{name}BurnSlow", "ticket", f"{over(3, '1d', '2h')} or {over(1, '3d', '6h')}",
              f"Clew: {seen}, a little for long",
              f"The error budget of 30 days (objective {objective}) will not last: "
              "{{ $value | humanizePercentage }} are bad.", "15m"),
    ]


def causes():
    bucket = "clew:bucket_errors:ratio_rate5m > 0.1"
    backup = f"max by ({BY}) (clew_metastore_backup_timestamp_seconds)"
    backup_old = f"time() - ({backup} > 0) > 3600"
    # None since the member that leads started, more than an hour ago, and not for want of trying.
    backup_never = (
        f"({backup} == 0 and on ({BY}) group by ({BY}) (clew_metastore_leading offset 1h) and on ({BY}) "
        f"sum by ({BY}) (increase(clew_metastore_backup_failures_total[1h])) > 0)")
    # With all members gone no process tells of its part; where ingesters were lately there has to be one.
    led = f"group by ({BY}) (clew_metastore_leading)"
    leaderless = (
        f"sum by ({BY}) (clew_metastore_leading) == 0 or (group by ({BY}) (clew_build_info) and on ({BY}) "
        f"group by ({BY}) (last_over_time(clew_ingester_head_limit_bytes[1h])) unless on ({BY}) {led})")
    room = "clew_disk_available_bytes / clew_disk_size_bytes"
    health = "sum by (%s) (clew_cluster_shards{health=\"%s\"}) > 0"
    return [
        # By default the oldest span waits for ten minutes at most (ingester.flush.age_max).
        alert("ClewWatermarkStuck", "page", "clew_ingester_unflushed_age_seconds > 900",
              "Clew: a shard does not get flushed",
              "Shard {{ $labels.shard }} on {{ $labels.instance }} has spans that have waited for "
              "{{ $value | humanizeDuration }} to be written to the bucket. Its log and its memory grow "
              "until it refuses.", "10m"),
        alert("ClewRegisteringStopped", "page", "clew_ingester_registering_stopped > 0",
              "Clew: the catalog is older than a shard's log",
              "{{ $labels.instance }} has stopped {{ $value }} shards so that nothing is lost.", "1m"),
        alert("ClewCatalogBackupOld", "ticket", f"{backup_old} or {backup_never}",
              "Clew: the catalog is not backed up",
              "{{ if eq $value 0.0 }}There is no good backup{{ else }}The last good backup is "
              "{{ $value | humanizeDuration }} old{{ end }}.", "10m"),
        alert("ClewFlushFailing", "ticket",
              f"sum by ({BY}, step) (increase(clew_ingester_flush_failures_total[15m])) > 5",
              "Clew: flushes fail and are repeated",
              "{{ $value | humanize }} attempts of the step {{ $labels.step }} failed.", "5m"),
        alert("ClewBucketErrors", "page", bucket, "Clew: requests to the bucket fail",
              "{{ $value | humanizePercentage }} of them. Flushes stop, then heads fill up and "
              "exports are refused; queries over older traces fail.", "5m"),
        alert("ClewDiskAlmostFull", "page", f"{room} < 0.1", "Clew: a disk is almost full",
              "{{ $value | humanizePercentage }} are left on {{ $labels.instance }}.", "5m"),
        alert("ClewDiskFilling", "ticket",
              f"{room} < 0.4 and predict_linear(clew_disk_available_bytes[6h], 345600) < 0",
              "Clew: a disk will be full within four days",
              "{{ $value | humanizePercentage }} are left on {{ $labels.instance }}.", "1h"),
        alert("ClewShardLost", "page", health % (BY, "lost"), "Clew: shards have no majority",
              "{{ $value }} shards take no spans, and answers lack theirs.", "1m"),
        alert("ClewShardAtRisk", "page", health % (BY, "at_risk"),
              "Clew: one more loss and shards stop",
              "{{ $value }} shards have just a majority of their replicas.", "15m"),
        alert("ClewMetastoreAtRisk", "page",
              f'sum by ({BY}) (clew_cluster_metastore_members{{state="silent"}}) > 0',
              "Clew: a member of the metastore is away",
              "{{ $value }} members are silent. Without a majority nothing is registered.", "10m"),
        alert("ClewMetastoreNoLeader", "page", leaderless,
              "Clew: the metastore has no leader",
              "Nothing is registered or moved; recent spans are taken and found, older ones in part.",
              "2m"),
        alert("ClewMetricsAbsent", "page", 'absent(up{job="clew"} == 1)',
              "Clew: no process is scraped", "Clew is gone, or is not watched.", "5m"),
        alert("ClewProcessDown", "ticket", 'up{job="clew"} == 0', "Clew: a process is away",
              "{{ $labels.instance }} has not answered for ten minutes.", "10m"),
        alert("ClewNotReady", "ticket", "clew_ready == 0", "Clew: a process does not get ready",
              "{{ $labels.instance }} runs and does not serve.", "15m"),
        alert("ClewRestarting", "ticket", "changes(process_start_time_seconds{job=\"clew\"}[1h]) > 3",
              "Clew: a process starts again and again",
              "{{ $labels.instance }} started {{ $value }} times within an hour."),
        alert("ClewHeadsFull", "page",
              "clew_ingester_head_bytes / clew_ingester_head_limit_bytes > 0.85",
              "Clew: an ingester's memory for recent spans is almost full",
              "{{ $labels.instance }} uses {{ $value | humanizePercentage }} and then refuses.", "5m"),
        alert("ClewIngestSaturated", "ticket",
              "clew_distributor_inflight_bytes / clew_distributor_inflight_limit_bytes > 0.8",
              "Clew: a distributor is at its limit",
              "{{ $labels.instance }} uses {{ $value | humanizePercentage }} of it.", "10m"),
        alert("ClewQueriesWait", "ticket",
              f"sum by ({BY}, instance) (min_over_time(clew_querier_queued_queries[5m])) > 0",
              "Clew: queries wait for their turn",
              "{{ $value }} on {{ $labels.instance }}.", "15m"),
        alert("ClewPartialAnswers", "ticket",
              f"{total('clew_querier_partial_total', '15m')} / "
              f"({total('clew_querier_requests_total', '15m')} > 0) > 0.01",
              "Clew: answers lack something and say so",
              "{{ $value | humanizePercentage }} of them.", "15m"),
        alert("ClewDamagedBlocks", "page",
              f"sum by ({BY}) (increase(clew_querier_damaged_blocks_total[1h])) > 0",
              "Clew: a block does not verify",
              "Its key is in the log of the querier; answers without it are PARTIAL."),
        alert("ClewDamagedBatches", "page",
              f"sum by ({BY}, instance) (increase(clew_ingester_damaged_batches_total[1h])) > 0",
              "Clew: a committed batch cannot be read back",
              "A bad disk or a bug, on {{ $labels.instance }}."),
        alert("ClewCatalogFull", "page", f"max by ({BY}) (clew_metastore_objects) > 700000",
              "Clew: the catalog is almost full",
              "{{ $value }} objects of the million that it may hold; then nothing can be registered.",
              "15m"),
        alert("ClewCompactionStuck", "ticket",
              f'({total("clew_ingester_flushes_total", "6h")} * 21600 > 100) unless '
              f'({total("clew_compactor_input_objects_total", "6h")} > 0)',
              "Clew: objects are written and none are merged",
              "{{ $value | humanize }} objects came within six hours. Queries get slower, and the "
              "catalog fills up.", "1h"),
        alert("ClewObjectsParked", "ticket", f"max by ({BY}) (clew_compactor_parked_objects) > 0",
              "Clew: compaction leaves objects alone",
              "Something is wrong with {{ $value }} objects; they are kept and not merged.", "15m"),
        alert("ClewOrphansKept", "ticket",
              f"max by ({BY}) (clew_compactor_orphan_collection_stopped) > 0",
              "Clew: the bucket has objects that the catalog is too old to know",
              "Nothing unknown is deleted from the bucket until this is understood.", "15m"),
        alert("ClewDeletesFailing", "ticket",
              f"sum by ({BY}) (increase(clew_compactor_delete_failures_total[1h])) > 10",
              "Clew: objects cannot be deleted from the bucket",
              "{{ $value | humanize }} attempts failed within an hour.", "30m"),
        alert("ClewSpansRejected", "ticket",
              f"{total('clew_distributor_spans_rejected_total', '1h')} / "
              f"({total('clew_distributor_spans_received_total', '1h')} > 0) > 0.01",
              "Clew: senders lose spans that can never be stored",
              "{{ $value | humanizePercentage }} of the spans are rejected.", "30m"),
        alert("ClewFileHandles", "ticket", "process_open_fds{job=\"clew\"} / process_max_fds > 0.8",
              "Clew: a process is about to run out of file descriptors",
              "{{ $labels.instance }} uses {{ $value | humanizePercentage }}.", "10m"),
        alert("ClewCertificateEnds", "ticket",
              "clew_tls_certificate_expiry_timestamp_seconds - time() < 3 * 86400",
              "Clew: a certificate is not renewed",
              "That of port {{ $labels.port }} on {{ $labels.instance }} is valid for "
              "{{ $value | humanizeDuration }}; then its connections are refused.", "1h"),
        alert("ClewProbeWrong", "page",
              f'sum by ({BY}, check) (increase(clew_probe_checks_total{{outcome="wrong"}}[15m])) > 0',
              "Clew: an answer is wrong, seen from outside",
              "The check {{ $labels.check }} got something that was never written, or twice."),
        alert("ClewProbeAbsent", "ticket", "absent(clew_probe_checks_total)",
              "Clew: nobody watches from outside", "clew probe does not run or is not scraped.",
              "15m"),
    ]


def alerts():
    burns = [each for slo in SLOS for each in burn(*slo)]
    return {"groups": [{"name": "clew-objectives", "rules": burns},
                       {"name": "clew-causes", "rules": causes()}]}


HEAD = "# Made by helm/monitoring/rules.py.\n"


def main():
    stale = []
    for name, made in (("recording.yaml", recording()), ("alerts.yaml", alerts())):
        path = CHART / "rules" / name
        text = HEAD + yaml.safe_dump(made, sort_keys=False, width=100, allow_unicode=True)
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.write_text(text)
    if stale:
        raise SystemExit(f"not current, run python helm/monitoring/rules.py: {', '.join(stale)}")


if __name__ == "__main__":
    main()
