"""Grafana dashboards: `helm/clew/dashboards/*.json`.

    python helm/monitoring/dashboards.py          writes them
    python helm/monitoring/dashboards.py --check  fails if they are not current

A row has at most six panels. Quantiles come from summed histograms; they are never averaged. What has a
threshold shows it.
"""

import json
import pathlib
import sys

CHART = pathlib.Path(__file__).resolve().parents[1] / "clew"

WIDTH = 24
HEIGHT = 7
ROW_MAX = 6

SCOPE = 'cluster=~"$cluster", namespace=~"$namespace"'


def where(more=""):
    return f"{{{SCOPE}{', ' if more else ''}{more}}}"


def rate(metric, by="", more=""):
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{where(more)}[$__rate_interval]))"


def quantile(q, metric, by="", more=""):
    labels = f"le, {by}" if by else "le"
    return (f"histogram_quantile({q}, sum by ({labels}) "
            f"(rate({metric}_bucket{where(more)}[$__rate_interval])))")


def gauge(metric, by="", more="", how="sum"):
    grouped = f" by ({by})" if by else ""
    return f"{how}{grouped} ({metric}{where(more)})"


def panel(title, *targets, unit="short", thresholds=(), kind="timeseries", told="", stack=False):
    """`targets` are (expression, legend); `thresholds` are (value, colour) above which it applies."""
    steps = [{"color": "green", "value": None}] + [
        {"color": colour, "value": value} for value, colour in thresholds]
    custom = {"lineWidth": 1, "fillOpacity": 10,
              "thresholdsStyle": {"mode": "line" if thresholds else "off"}}
    if stack:
        custom["stacking"] = {"mode": "normal"}
    return {
        "title": title, "type": kind, "description": told,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "fieldConfig": {"defaults": {
            "unit": unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps},
            **({"custom": custom} if kind == "timeseries" else {})}, "overrides": []},
        "options": ({"legend": {"displayMode": "list", "placement": "bottom"},
                     "tooltip": {"mode": "multi", "sort": "desc"}} if kind == "timeseries" else
                    {"reduceOptions": {"calcs": ["lastNotNull"]}}),
        "targets": [{"refId": chr(ord("A") + n), "expr": expr, "legendFormat": legend}
                    for n, (expr, legend) in enumerate(targets)],
    }


def stat(title, expr, **options):
    return panel(title, (expr, ""), kind="stat", **options)


def latency(title, metric, by="", more="", bound=None, told=""):
    legend = f" {{{{{by}}}}}" if by else ""
    return panel(title, *[(quantile(q, metric, by, more), f"p{int(q * 100)}{legend}")
                          for q in (0.5, 0.99)],
                 unit="s", thresholds=[(bound, "red")] if bound else (), told=told)


BAD_REFUSALS = ('reason=~"busy|shard_overloaded|internal|deadline_exceeded|append_failed|'
                'append_timeout|append_invalid|no_leader|no_shard_map"')
BAD_STORAGE = 'outcome!~"ok|not_found|conflict|cancelled"'


def overview():
    return [
        ("At a glance", [
            stat("Spans per second", rate("clew_distributor_spans_received_total"), unit="ops"),
            stat("Queries per second", rate("clew_querier_requests_total"), unit="reqps"),
            stat("Shards without a majority", gauge("clew_cluster_shards", more='health="lost"'),
                 thresholds=[(1, "red")]),
            stat("Shards at risk", gauge("clew_cluster_shards", more='health="at_risk"'),
                 thresholds=[(1, "orange")]),
            stat("Ingesters silent", gauge("clew_cluster_ingesters", more='state="silent"'),
                 thresholds=[(1, "orange")]),
            stat("Objects", gauge("clew_metastore_objects", how="max")),
        ]),
        ("Objectives: error ratio over an hour (page at 14.4 times the budget)", [
            panel(title, (f"clew:{name}:ratio_rate1h{where()}", "1 h"),
                  (f"clew:{name}:ratio_rate5m{where()}", "5 m"), unit="percentunit",
                  thresholds=[(bound, "red")])
            for title, name, bound in (
                ("Ingest errors", "ingest_errors", 0.0144), ("Ingest slow", "ingest_slow", 0.144),
                ("Query errors", "query_errors", 0.072), ("Query slow", "query_slow", 0.144),
                ("Seen from outside", "probe_errors", 0.0144))
        ]),
        ("Distributor", [
            panel("Rate", (rate("clew_distributor_requests_total", "protocol"), "{{protocol}}"),
                  unit="reqps"),
            panel("Errors", (rate("clew_distributor_requests_refused_total", "reason"), "{{reason}}"),
                  unit="reqps"),
            latency("Duration", "clew_distributor_request_duration_seconds", bound=1),
            panel("Saturation", (gauge("clew_distributor_inflight_bytes", "instance", how="max")
                                 + " / " + gauge("clew_distributor_inflight_limit_bytes", "instance",
                                                 how="max"), "{{instance}}"),
                  unit="percentunit", thresholds=[(0.8, "red")]),
        ]),
        ("Ingester", [
            panel("Rate", (rate("clew_ingester_requests_total", "method"), "{{method}}"), unit="reqps"),
            panel("Errors", (rate("clew_ingester_requests_total", "method, outcome", 'outcome!="ok"'),
                             "{{method}} {{outcome}}"), unit="reqps"),
            latency("Duration", "clew_ingester_request_duration_seconds", "method"),
            panel("Saturation", (gauge("clew_ingester_head_bytes", "instance", how="max") + " / "
                                 + gauge("clew_ingester_head_limit_bytes", "instance", how="max"),
                                 "{{instance}}"),
                  unit="percentunit", thresholds=[(0.85, "red")]),
        ]),
        ("Metastore", [
            panel("Rate", (rate("clew_metastore_requests_total", "method"), "{{method}}"), unit="reqps"),
            panel("Errors", (rate("clew_metastore_requests_total", "method, outcome", 'outcome!="ok"'),
                             "{{method}} {{outcome}}"), unit="reqps"),
            latency("Duration", "clew_metastore_request_duration_seconds", "method"),
            panel("Leader", (gauge("clew_metastore_leading", "instance", how="max"), "{{instance}}")),
        ]),
        ("Compactor", [
            panel("Rate", (rate("clew_compactor_jobs_total"), "jobs"),
                  (rate("clew_compactor_input_objects_total"), "objects merged"), unit="ops"),
            panel("Errors", (rate("clew_compactor_jobs_total", "outcome", 'outcome!="ok"'),
                             "jobs: {{outcome}}"),
                  (rate("clew_compactor_delete_failures_total"), "deletions"), unit="ops"),
            latency("Duration", "clew_compactor_job_duration_seconds"),
            panel("Saturation", (gauge("clew_compactor_jobs_running", "instance"), "{{instance}}"),
                  (gauge("clew_compactor_live_objects", how="max"), "live objects")),
        ]),
        ("Querier", [
            panel("Rate", (rate("clew_querier_requests_total", "route"), "{{route}}"), unit="reqps"),
            panel("Errors", (rate("clew_querier_requests_total", "route, code", 'code=~"5.."'),
                             "{{route}} {{code}}"), unit="reqps"),
            latency("Duration", "clew_querier_request_duration_seconds", bound=2.5),
            panel("Saturation", (gauge("clew_querier_inflight_queries", "instance", how="max") + " / "
                                 + gauge("clew_querier_query_limit", "instance", how="max"),
                                 "{{instance}}"),
                  unit="percentunit", thresholds=[(0.8, "red")]),
        ]),
    ]


def writes():
    return [
        ("Coming in", [
            panel("Spans", (rate("clew_distributor_spans_received_total"), "spans"), unit="ops"),
            panel("Bytes before compression", (rate("clew_distributor_bytes_received_total"), "bytes"),
                  unit="Bps"),
            panel("Requests by answer", (rate("clew_distributor_requests_total", "code"), "{{code}}"),
                  unit="reqps"),
            panel("Refused requests", (rate("clew_distributor_requests_refused_total", "reason"),
                                       "{{reason}}"), unit="reqps"),
            panel("Rejected spans", (rate("clew_distributor_spans_rejected_total", "reason"),
                                     "{{reason}}"), unit="ops"),
        ]),
        ("To the shards", [
            latency("Until acknowledged, by protocol", "clew_distributor_request_duration_seconds",
                    "protocol", bound=1),
            panel("Batches not acknowledged", (rate("clew_distributor_append_failures_total", "reason"),
                                               "{{reason}}"), unit="ops"),
            panel("Batches not sent home", (rate("clew_distributor_fallback_batches_total"), "batches"),
                  unit="ops", told="A shard had no leader; another place took its spans."),
            latency("From proposal to commit", "clew_ingester_append_duration_seconds"),
            latency("Sync of the log", "clew_raft_log_sync_seconds",
                    told="One synced write is shared by all shards of a process."),
        ]),
        ("Out to the bucket", [
            panel("Spans in heads and in objects", (rate("clew_ingester_spans_total"), "into heads"),
                  (rate("clew_ingester_flushed_spans_total"), "into objects"), unit="ops"),
            latency("Steps of a flush", "clew_ingester_flush_duration_seconds", "step"),
            panel("Failed steps", (rate("clew_ingester_flush_failures_total", "step"), "{{step}}"),
                  unit="ops"),
            panel("Bytes per span in the bucket",
                  (rate("clew_ingester_flushed_bytes_total") + " / "
                   + rate("clew_ingester_flushed_spans_total"), "bytes"), unit="bytes"),
            panel("CPU per million spans", (rate("clew_cpu_seconds_total", "phase") + " / scalar("
                                            + rate("clew_ingester_spans_total") + ") * 1e6",
                                            "{{phase}}"), unit="s", stack=True),
        ]),
    ]


def reads():
    return [
        ("Queries", [
            panel("Rate by route", (rate("clew_querier_requests_total", "route"), "{{route}}"),
                  unit="reqps"),
            panel("By answer", (rate("clew_querier_requests_total", "code"), "{{code}}"), unit="reqps"),
            latency("Search", "clew_querier_request_duration_seconds", more='route="search"', bound=2.5),
            latency("Trace by id", "clew_querier_request_duration_seconds", more='route=~"trace_v."',
                    bound=2.5),
            latency("Tags", "clew_querier_request_duration_seconds", more='route=~"tag.*"', bound=2.5),
        ]),
        ("What they take", [
            panel("Running", (gauge("clew_querier_inflight_queries", "instance"), "{{instance}}")),
            panel("Waiting", (gauge("clew_querier_queued_queries", "instance"), "{{instance}}"),
                  thresholds=[(1, "orange")]),
            panel("Blocks considered", (rate("clew_querier_blocks_total"), "blocks"), unit="ops"),
            panel("Started again", (rate("clew_querier_restarts_total"), "queries"), unit="ops",
                  told="A shard flushed in the middle of them."),
            panel("Asked of other queriers", (rate("clew_querier_block_calls_total", "result"), "{{result}}"),
                  unit="ops", told="Blocks are read by the querier that has them in its cache."),
            panel("Cache", (gauge("clew_querier_cache_bytes", "instance"), "{{instance}}"),
                  unit="bytes"),
        ]),
        ("What is missing", [
            panel("Partial answers", (rate("clew_querier_partial_total", "reason"), "{{reason}}"),
                  unit="ops"),
            panel("Blocks that do not verify",
                  (f"sum (increase(clew_querier_damaged_blocks_total{where()}[1h]))", "blocks"),
                  thresholds=[(1, "red")]),
            panel("Seen from outside", (rate("clew_probe_checks_total", "check, outcome",
                                             'outcome!~"ok|skipped"'), "{{check}} {{outcome}}"), unit="ops"),
            latency("From ack to found, from outside", "clew_probe_duration_seconds", "check"),
        ]),
    ]


def shards():
    return [
        ("The cluster, as the metastore's leader sees it", [
            panel("Shards by health", (gauge("clew_cluster_shards", "health"), "{{health}}"),
                  stack=True),
            panel("Ingesters", (gauge("clew_cluster_ingesters", "state"), "{{state}}"), stack=True),
            panel("Members of the metastore", (gauge("clew_cluster_metastore_members", "state"),
                                               "{{state}}"), stack=True),
            panel("Leader of the metastore", (gauge("clew_metastore_leading", "instance", how="max"),
                                              "{{instance}}")),
            panel("Commands", (f"max (deriv(clew_metastore_revision{where()}[5m]))",
                               "commands"), unit="ops"),
        ]),
        ("Shards", [
            panel("Led by", (gauge("clew_ingester_leading", "instance"), "{{instance}}"), stack=True),
            panel("Entries above the watermark",
                  (f"max by (shard) ((clew_ingester_consumed_index{where()} - "
                   f"clew_ingester_watermark{where()}) and clew_ingester_leading{where()} == 1)",
                   "shard {{shard}}")),
            panel("Watermarks", (f"max by (shard) (deriv(clew_ingester_watermark{where()}[10m]))",
                                 "shard {{shard}}"), unit="ops", told="Entries that went to the bucket."),
            panel("Oldest span that is not flushed",
                  (gauge("clew_ingester_unflushed_age_seconds", "shard", how="max"), "shard {{shard}}"),
                  unit="s", thresholds=[(900, "red")]),
            panel("Stopped shards", (gauge("clew_ingester_registering_stopped", "instance"),
                                     "{{instance}}"), thresholds=[(1, "red")]),
        ]),
        ("Logs", [
            panel("Entries", (rate("clew_ingester_log_bytes_total", "instance"), "{{instance}}"),
                  unit="Bps"),
            panel("Written", (rate("clew_raft_log_written_bytes_total", "instance"), "{{instance}}"),
                  unit="Bps"),
            panel("Writes per sync", (rate("clew_raft_log_writes_total") + " / "
                                      + rate("clew_raft_log_sync_seconds_count"), "writes"),
                  told="How much group commit puts together."),
            latency("Sync", "clew_raft_log_sync_seconds", "instance"),
        ]),
    ]


def blocks():
    return [
        ("Objects", [
            panel("In the catalog", (gauge("clew_metastore_objects", how="max"), "objects")),
            panel("Written", (rate("clew_ingester_flushes_total"), "flushes"), unit="ops"),
            panel("Size of a flush", (rate("clew_ingester_flushed_bytes_total") + " / "
                                      + rate("clew_ingester_flushes_total"), "bytes"), unit="bytes"),
            panel("Spans of a flush", (rate("clew_ingester_flushed_spans_total") + " / "
                                       + rate("clew_ingester_flushes_total"), "spans")),
            panel("Bytes per span by section",
                  (rate("clew_ingester_flushed_section_bytes_total", "section") + " / scalar("
                   + rate("clew_ingester_flushed_spans_total") + ")", "{{section}}"), unit="bytes",
                  stack=True),
        ]),
        ("Compaction", [
            panel("Jobs", (rate("clew_compactor_jobs_total", "outcome"), "{{outcome}}"), unit="ops"),
            latency("Duration of a job", "clew_compactor_job_duration_seconds"),
            panel("Objects", (rate("clew_compactor_input_objects_total"), "merged"),
                  (rate("clew_compactor_output_objects_total"), "made"), unit="ops"),
            panel("Bytes", (rate("clew_compactor_input_bytes_total"), "read"),
                  (rate("clew_compactor_output_bytes_total"), "written"), unit="Bps"),
            panel("In the catalog", (gauge("clew_compactor_live_objects", how="max"), "live"),
                  (gauge("clew_compactor_dead_objects", how="max"), "to be deleted"),
                  (gauge("clew_compactor_parked_objects", how="max"), "parked")),
            panel("Left out", (rate("clew_compactor_dropped_traces_total", "reason"),
                               "traces: {{reason}}"),
                  (rate("clew_compactor_duplicate_spans_total"), "duplicate spans"), unit="ops"),
        ]),
        ("The bucket", [
            panel("Requests", (rate("clew_storage_requests_total", "operation"), "{{operation}}"),
                  unit="reqps"),
            panel("Errors", (rate("clew_storage_requests_total", "operation, outcome", BAD_STORAGE),
                             "{{operation}} {{outcome}}"), unit="reqps"),
            latency("Duration", "clew_storage_request_duration_seconds", "operation"),
            panel("Bytes", (rate("clew_storage_bytes_total", "operation"), "{{operation}}"), unit="Bps"),
        ]),
        ("Traces in pieces", [
            panel("Fragments marked split", (rate("clew_ingester_split_traces_total"), "fragments"),
                  unit="ops", told="A trace that may have spans elsewhere costs a query a gather."),
        ]),
    ]


def tenants():
    tenant = 'tenant=~"$tenant"'

    def top(metric, by="tenant"):
        return f"topk(20, {rate(metric, by, tenant)})"

    return [
        ("What they send", [
            panel("Spans", (top("clew_distributor_spans_received_total"), "{{tenant}}"), unit="ops"),
            panel("Bytes", (top("clew_distributor_bytes_received_total"), "{{tenant}}"), unit="Bps"),
            panel("Bytes per span", (rate("clew_distributor_bytes_received_total", "tenant", tenant)
                                     + " / " + rate("clew_distributor_spans_received_total", "tenant",
                                                    tenant), "{{tenant}}"), unit="bytes"),
        ]),
        ("What is not taken", [
            panel("Refused requests", (top("clew_distributor_requests_refused_total",
                                           "tenant, reason"), "{{tenant}} {{reason}}"), unit="reqps"),
            panel("Rejected spans", (top("clew_distributor_spans_rejected_total", "tenant, reason"),
                                     "{{tenant}} {{reason}}"), unit="ops"),
        ]),
    ]


def resources():
    job = 'job="clew"'
    return [
        ("Processor", [
            panel("Utilization", (rate("process_cpu_seconds_total", "instance", job), "{{instance}}"),
                  told="Cores in use."),
            panel("By phase of ingest", (rate("clew_cpu_seconds_total", "phase"), "{{phase}}"),
                  stack=True),
            panel("Saturation: requests being worked on",
                  (gauge("clew_distributor_inflight_bytes", "instance"), "{{instance}}"), unit="bytes"),
            panel("Threads", (gauge("process_threads", "instance", job), "{{instance}}")),
        ]),
        ("Memory", [
            panel("Resident", (gauge("process_resident_memory_bytes", "instance", job), "{{instance}}"),
                  unit="bytes"),
            panel("Handed out by the allocator", (gauge("clew_allocated_bytes", "instance"),
                                                  "{{instance}}"), unit="bytes"),
            panel("Heads of their limit", (gauge("clew_ingester_head_bytes", "instance", how="max")
                                           + " / " + gauge("clew_ingester_head_limit_bytes", "instance",
                                                           how="max"), "{{instance}}"),
                  unit="percentunit", thresholds=[(0.85, "red")]),
        ]),
        ("Disk", [
            panel("Free", (gauge("clew_disk_available_bytes", "instance", how="max") + " / "
                           + gauge("clew_disk_size_bytes", "instance", how="max"), "{{instance}}"),
                  unit="percentunit", told="Below a tenth somebody is called."),
            panel("Written to logs", (rate("clew_raft_log_written_bytes_total", "instance"),
                                      "{{instance}}"), unit="Bps"),
            latency("Saturation: sync", "clew_raft_log_sync_seconds", "instance"),
        ]),
        ("Process", [
            panel("File descriptors of their limit",
                  (gauge("process_open_fds", "instance", job, how="max") + " / "
                   + gauge("process_max_fds", "instance", job, how="max"), "{{instance}}"),
                  unit="percentunit", thresholds=[(0.8, "red")]),
            panel("Age", (f"time() - max by (instance) (process_start_time_seconds{where(job)})",
                          "{{instance}}"), unit="s"),
            panel("Ready", (gauge("clew_ready", "instance", how="min"), "{{instance}}")),
            panel("Versions", (gauge("clew_build_info", "version", how="count"), "{{version}}"),
                  stack=True),
        ]),
    ]


DASHBOARDS = {
    "overview": ("Clew / Overview", overview), "writes": ("Clew / Writes", writes),
    "reads": ("Clew / Reads", reads), "shards": ("Clew / Shards and logs", shards),
    "blocks": ("Clew / Blocks and bucket", blocks), "tenants": ("Clew / Tenants", tenants),
    "resources": ("Clew / Resources", resources),
}


def variable(name, query):
    return {"name": name, "label": name, "type": "query", "query": query, "refresh": 2,
            "datasource": {"type": "prometheus", "uid": "${datasource}"}, "includeAll": True,
            "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}


def dashboard(name):
    title, made = DASHBOARDS[name]
    panels, top = [], 0
    for heading, row in made():
        assert 1 <= len(row) <= ROW_MAX, f"{title}, {heading}: {len(row)} panels in a row"
        panels.append({"type": "row", "title": heading, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1}})
        width = WIDTH // len(row)
        height = 4 if all(each["type"] == "stat" for each in row) else HEIGHT
        for n, each in enumerate(row):
            panels.append({**each, "gridPos": {"x": n * width, "y": top + 1, "w": width, "h": height}})
        top += 1 + height
    for number, each in enumerate(panels, 1):
        each["id"] = number
    variables = [
        {"name": "datasource", "label": "data source", "type": "datasource", "query": "prometheus"},
        variable("cluster", "label_values(clew_build_info, cluster)"),
        variable("namespace", "label_values(clew_build_info, namespace)"),
    ]
    if name == "tenants":
        variables.append(variable("tenant", "label_values(clew_distributor_spans_received_total, tenant)"))
    return {
        "uid": f"clew-{name}", "title": title, "tags": ["clew"], "schemaVersion": 39, "version": 1,
        "editable": False, "refresh": "30s", "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser", "graphTooltip": 1, "templating": {"list": variables},
        "links": [{"type": "dashboards", "title": "Clew", "tags": ["clew"], "asDropdown": True,
                   "includeVars": True, "keepTime": True}],
        "panels": panels,
    }


def main():
    stale = []
    for name in DASHBOARDS:
        path = CHART / "dashboards" / f"clew-{name}.json"
        text = json.dumps(dashboard(name), indent=1) + "\n"
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                stale.append(path.name)
        else:
            path.write_text(text)
    if stale:
        raise SystemExit(f"not current, run python helm/monitoring/dashboards.py: {', '.join(stale)}")


if __name__ == "__main__":
    main()
