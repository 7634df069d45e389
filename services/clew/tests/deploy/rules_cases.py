"""For each alert: series under which it fires, and series under which it does not.

A case is (fires, stays quiet, minutes after which the question is asked). Values are promtool's: `0+1x60`
grows by one a minute for an hour.
"""

L = 'cluster="c", namespace="n", instance="i", job="clew"'
MINUTES = "x300"
LONG = 240  # Ratios do not care that less than a window has passed.


def s(metric, **more):
    """The name of a series, as promtool takes it."""
    return metric + "{" + L + "".join(f', {key}="{value}"' for key, value in more.items()) + "}"


def burning(bad, good):
    """A counter of bad events that fires both alerts of an objective, and one that does not."""
    return ({good: f"0+1000{MINUTES}", bad: f"0+500{MINUTES}"}, {good: f"0+1000{MINUTES}", bad: f"0+0{MINUTES}"},
            LONG)


def slow(metric, bound):
    def series(quick):
        return {s(f"{metric}_count"): f"0+1000{MINUTES}",
                s(f"{metric}_bucket", le=bound): f"0+{quick}{MINUTES}"}
    return series(500), series(1000), LONG


def levels(name, high, low, minutes=60, **more):
    return {s(name, **more): f"{high}x300"}, {s(name, **more): f"{low}x300"}, minutes


def share(name, of, high, low, minutes=60):
    return ({s(name): f"{high}x300", s(of): "100x300"},
            {s(name): f"{low}x300", s(of): "100x300"}, minutes)


def counted(name, minutes=60, **more):
    return {s(name, **more): "0x30 0+10x200"}, {s(name, **more): "0x300"}, minutes


INGEST = burning(s("clew_distributor_requests_refused_total", reason="no_leader"),
                 s("clew_distributor_requests_total", code="200"))
QUERY = burning(s("clew_querier_requests_total", code="500"),
                s("clew_querier_requests_total", code="200"))


def probed(**bad):
    """A thousand rounds a minute, of which some checks fail; what is not made after a failed write."""
    made = {}
    for check in ("write", "trace", "search", "tags", "older"):
        failed = bad.get(check, 0)
        made[s("clew_probe_checks_total", check=check, outcome="error")] = f"0+{failed}{MINUTES}"
        made[s("clew_probe_checks_total", check=check, outcome="ok")] = f"0+{1000 - failed}{MINUTES}"
    return made


PROBE = (probed(search=500), probed(), LONG)
SLOW_INGEST = slow("clew_distributor_request_duration_seconds", "1")
SLOW_QUERY = slow("clew_querier_request_duration_seconds", "2.5")

CASES = {
    "ClewIngestErrorsBurnFast": INGEST, "ClewIngestErrorsBurnSlow": INGEST,
    "ClewIngestSlowBurnFast": SLOW_INGEST, "ClewIngestSlowBurnSlow": SLOW_INGEST,
    "ClewQueryErrorsBurnFast": QUERY, "ClewQueryErrorsBurnSlow": QUERY,
    "ClewQuerySlowBurnFast": SLOW_QUERY, "ClewQuerySlowBurnSlow": SLOW_QUERY,
    "ClewProbeErrorsBurnFast": PROBE, "ClewProbeErrorsBurnSlow": PROBE,
    "ClewWatermarkStuck": (
        {s("clew_ingester_unflushed_age_seconds", shard="3"): "0+60x300"},
        # A shard that waits for its age, flushes, and waits again.
        {s("clew_ingester_unflushed_age_seconds", shard="3"): "0 60 90 30 " * 75}, 60),
    "ClewRegisteringStopped": levels("clew_ingester_registering_stopped", 1, 0),
    # The newest backup is from the first minute; another leader makes one each minute.
    "ClewCatalogBackupOld": ({s("clew_metastore_backup_timestamp_seconds"): "60x300"},
                             {s("clew_metastore_backup_timestamp_seconds"): "60+60x300"}, 120),
    "ClewFlushFailing": counted("clew_ingester_flush_failures_total", step="upload"),
    "ClewBucketErrors": (
        {s("clew_storage_requests_total", operation="put", outcome="unavailable"): "0+50x300",
         s("clew_storage_requests_total", operation="put", outcome="ok"): "0+50x300"},
        # What is not there is an answer.
        {s("clew_storage_requests_total", operation="get", outcome="not_found"): "0+50x300",
         s("clew_storage_requests_total", operation="put", outcome="ok"): "0+50x300"}, 60),
    "ClewDiskAlmostFull": share("clew_disk_available_bytes", "clew_disk_size_bytes", 5, 50),
    "ClewDiskFilling": (
        {s("clew_disk_available_bytes"): "100-0.1x900", s("clew_disk_size_bytes"): "100x900"},
        {s("clew_disk_available_bytes"): "30x900", s("clew_disk_size_bytes"): "100x900"},
        850),
    "ClewShardLost": levels("clew_cluster_shards", 1, 0, health="lost"),
    "ClewShardAtRisk": levels("clew_cluster_shards", 1, 0, health="at_risk"),
    "ClewMetastoreAtRisk": levels("clew_cluster_metastore_members", 1, 0, state="silent"),
    "ClewMetastoreNoLeader": levels("clew_metastore_leading", 0, 1),
    "ClewMetricsAbsent": ({s("up"): "0x300"}, {s("up"): "1x300"}, 60),
    "ClewProcessDown": levels("up", 0, 1),
    "ClewNotReady": levels("clew_ready", 0, 1),
    "ClewRestarting": ({s("process_start_time_seconds"): "0+60x300"},
                       {s("process_start_time_seconds"): "7x300"}, 60),
    "ClewHeadsFull": share("clew_ingester_head_bytes", "clew_ingester_head_limit_bytes", 95, 50),
    "ClewIngestSaturated": share("clew_distributor_inflight_bytes",
                                 "clew_distributor_inflight_limit_bytes", 90, 50),
    # A queue that is empty now and then is none.
    "ClewQueriesWait": ({s("clew_querier_queued_queries"): "3x300"},
                        {s("clew_querier_queued_queries"): "3 0 3 0 3 0 3 0 3 0 " * 30}, 60),
    "ClewPartialAnswers": (
        {s("clew_querier_partial_total", reason="shard"): "0+5x300",
         s("clew_querier_requests_total", code="200"): "0+100x300"},
        {s("clew_querier_partial_total", reason="shard"): "0+0x300",
         s("clew_querier_requests_total", code="200"): "0+100x300"}, 60),
    "ClewDamagedBlocks": counted("clew_querier_damaged_blocks_total"),
    "ClewDamagedBatches": counted("clew_ingester_damaged_batches_total"),
    "ClewCatalogFull": levels("clew_metastore_objects", 800_000, 600_000),
    "ClewCompactionStuck": (
        {s("clew_ingester_flushes_total"): "0+2x900", s("clew_compactor_input_objects_total"): "5x900"},
        {s("clew_ingester_flushes_total"): "0+2x900", s("clew_compactor_input_objects_total"): "0+2x900"},
        800),
    "ClewObjectsParked": levels("clew_compactor_parked_objects", 1, 0),
    "ClewOrphansKept": levels("clew_compactor_orphan_collection_stopped", 1, 0),
    "ClewDeletesFailing": ({s("clew_compactor_delete_failures_total"): "0+1x300"},
                           {s("clew_compactor_delete_failures_total"): "3x300"}, 120),
    "ClewSpansRejected": (
        {s("clew_distributor_spans_rejected_total", reason="bad_id"): "0+50x300",
         s("clew_distributor_spans_received_total"): "0+1000x300"},
        {s("clew_distributor_spans_rejected_total", reason="bad_id"): "0+1x300",
         s("clew_distributor_spans_received_total"): "0+1000x300"}, 120),
    "ClewFileHandles": ({s("process_open_fds"): "90x300", s("process_max_fds"): "100x300"},
                        {s("process_open_fds"): "9x300", s("process_max_fds"): "100x300"},
                        60),
    "ClewCertificateEnds": levels("clew_tls_certificate_expiry_timestamp_seconds",
                                  2 * 86_400, 5 * 86_400, 120, port="rpc"),
    "ClewProbeWrong": counted("clew_probe_checks_total", 40, check="trace", outcome="wrong"),
    "ClewProbeAbsent": ({s("up"): "1x300"},
                        {s("clew_probe_checks_total", check="trace", outcome="ok"): "1x300"}, 60),
}


def backups(failures, minutes):
    """A leader that has never backed its catalog up."""
    return {s("clew_metastore_backup_timestamp_seconds"): f"0x{minutes}",
            s("clew_metastore_leading"): f"1x{minutes}",
            s("clew_metastore_backup_failures_total"): f"0+{failures}x{minutes}"}


def members_gone(ingester, leading):
    """Ingesters whose metastore, on other instances, tells nothing from minute 20 on."""
    series = {s("clew_build_info"): "1x300", s("clew_ingester_head_limit_bytes"): ingester}
    return {**series, **{f'clew_metastore_leading{{cluster="c", namespace="n", instance="m{n}"}}': values
                         for n, values in enumerate(leading)}}


# More cases of an alert: (series, minutes, whether it fires).
MORE = {
    "ClewProbeErrorsBurnFast": [(probed(older=500), LONG, True), (probed(write=500), LONG, True)],
    "ClewCatalogBackupOld": [
        (backups(1, 300), 120, True),
        # A fresh cluster, and one in which nothing has changed yet.
        (backups(1, 300), 40, False), (backups(0, 300), 120, False)],
    "ClewMetastoreNoLeader": [
        (members_gone("5x300", ["1x20 _x280", "0x20 _x280"]), 60, True),
        # The ingesters wait for the metastore, too.
        (members_gone("5x30 _x270", ["1x20 _x280"]), 60, True),
        (members_gone("5x300", ["1x300", "0x20 _x280"]), 60, False),
        # A release that has no ingesters to be led, such as queriers elsewhere.
        ({s("clew_build_info"): "1x300"}, 60, False),
        # A release that is gone.
        ({s("clew_build_info"): "1x20 _x280", s("clew_ingester_head_limit_bytes"): "5x20 _x280",
          s("clew_metastore_leading"): "1x20 _x280"}, 40, False)],
}
