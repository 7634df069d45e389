"""Settings, the command line, the life of a process, and roles in processes of their own."""

import contextlib
import json
import signal
import socket
import threading
import time

import grpc
import pytest

from harness import http, run_clew
from ledger import Ledger, request, span

# --- clew config ---------------------------------------------------------------------------------


def config(*arguments, **more):
    done = run_clew("config", *arguments, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(text):
    """`key: value` lines without their indentation."""
    return {line.strip() for line in text.splitlines()}


def test_config_prints_every_default():
    text = config()
    for line in ["http_addr: 0.0.0.0:3200", "otlp_grpc_addr: 0.0.0.0:4317",
                 "otlp_http_addr: 0.0.0.0:4318", "multitenancy_enabled: false"]:
        assert line in lines(text)
    assert "rpc_addr: " in text and ":9095" in text
    for section in ["bucket:", "distributor:", "ingester:", "metastore:", "querier:", "telemetry:"]:
        assert section in text.splitlines()


def test_what_config_prints_is_a_config(tmp_path):
    file = tmp_path / "clew.yaml"
    text = config("--set", "ingester.flush.age_max=17s")
    file.write_text(text)
    assert config("--config", str(file)) == text


def test_later_places_win(tmp_path):
    file = tmp_path / "clew.yaml"
    file.write_text("http_addr: 1.1.1.1:1\ningester:\n  flush:\n    age_max: 11s\n    spans_max: 111\n"
                    "querier:\n  query:\n    default_limit: 11\n")
    base = ["--config", str(file)]
    env = {"CLEW_HTTP_ADDR": "2.2.2.2:2", "CLEW_INGESTER_FLUSH_AGE_MAX": "22s",
           "CLEW_QUERIER_QUERY_DEFAULT_LIMIT": "22"}
    sets = ["--set", "http_addr=3.3.3.3:3", "--set", "querier.query.default_limit=33"]
    assert {"http_addr: 1.1.1.1:1", "age_max: 11s", "spans_max: 111", "default_limit: 11"} <= lines(
        config(*base))
    assert {"http_addr: 2.2.2.2:2", "age_max: 22s", "spans_max: 111", "default_limit: 22"} <= lines(
        config(*base, env=env))
    assert {"http_addr: 3.3.3.3:3", "age_max: 22s", "default_limit: 33"} <= lines(
        config(*base, *sets, env=env))
    assert "http_addr: 4.4.4.4:4" in lines(config(*base, *sets, "--http-addr", "4.4.4.4:4", env=env))


def test_every_flag_of_serve_sets_its_key():
    text = config("--data-dir", "/x/y", "--http-addr", "h:1", "--otlp-grpc-addr", "g:2",
                  "--otlp-http-addr", "o:3", "--rpc-addr", "r:4", "--role", "querier",
                  "--set", "metastore.members=[m:1]")
    for line in ["data_dir: /x/y", "http_addr: h:1", "otlp_grpc_addr: g:2", "otlp_http_addr: o:3",
                 "rpc_addr: r:4", "- querier"]:
        assert line in lines(text)
    assert "- ingester" not in lines(text)


CANARY = "canary-7f3a"
SECRETS = ["bucket.secret_access_key", "bucket.session_token", "bucket.account_key",
           "bucket.sse_customer_key"]


def test_secrets_are_never_shown(clew, tmp_path):
    file = tmp_path / "clew.yaml"
    file.write_text(f"bucket:\n  secret_access_key: {CANARY}\n")
    assert CANARY not in config("--config", str(file))
    for key in SECRETS:
        assert CANARY not in config("--set", f"{key}={CANARY}")
        variable = "CLEW_" + key.replace(".", "_").upper()
        assert CANARY not in config(env={variable: CANARY})
        # A secret of the wrong type is not repeated in the error either.
        section, name = key.split(".")
        for wrong in [f"[{CANARY}]", f"{{a: {CANARY}}}"]:
            # By --set and in the environment whatever is given is the text.
            assert CANARY not in config("--set", f"{key}={wrong}")
            file.write_text(f"{section}:\n  {name}: {wrong}\n")
            done = run_clew("config", "--config", str(file))
            assert CANARY not in done.stdout + done.stderr
            assert done.returncode != 0 and key in done.stderr, done.stderr
    server = clew("bucket.url=s3://traces/here", "bucket.endpoint=http://127.0.0.1:1",
                  "bucket.access_key_id=me", f"bucket.secret_access_key={CANARY}",
                  "telemetry.log_level=debug", wait=False)
    server.errors_expected = True
    # It does not begin before it knows whether the bucket is empty.
    until = time.monotonic() + 60
    while "has to know first" not in server.log_text() and time.monotonic() < until:
        time.sleep(0.05)
    for path in ["/status", "/status/config", "/metrics"]:
        assert CANARY not in server.get(path).text
    http("POST", server.url + "/flush", timeout=60)
    assert CANARY not in server.log_text()


@pytest.mark.parametrize("setting", [
    "bucket.endpoint=https://user:%s@host", "telemetry.otlp_endpoint=http://user:%s@host:4317",
    "bucket.url=s3://user:%s@bucket/prefix"])
def test_a_password_in_a_url_is_not_shown(setting):
    done = run_clew("config", "--set", setting % CANARY)
    assert CANARY not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments,env,words", [
    (["--set", "nope=1"], {}, ["nope"]),
    (["--set", "ingester.flush.nope=1"], {}, ["nope", "age_max"]),
    (["--set", "ingester.flush=5"], {}, ["ingester.flush"]),
    (["--set", "http_addr.x=5"], {}, ["http_addr"]),
    (["--set", "noequals"], {}, ["noequals", "key=value"]),
    (["--set", "=5"], {}, []),
    ([], {"CLEW_NOPE": "1"}, ["CLEW_NOPE"]),
    ([], {"CLEW_INGESTER_FLUSH_NOPE": "1"}, ["CLEW_INGESTER_FLUSH_NOPE"]),
    ([], {"CLEW_INGESTER_FLUSH_AGE_MAX": "soon"}, ["ingester.flush.age_max", "soon", "30s"]),
    (["--set", "ingester.flush.age_max=soon"], {}, ["ingester.flush.age_max", "soon", "30s"]),
    (["--set", "ingester.flush.age_max=30"], {}, ["ingester.flush.age_max", "30s"]),
    (["--set", "ingester.flush.age_max=-1s"], {}, ["ingester.flush.age_max", "-1s"]),
    (["--set", "ingester.flush.bytes_max=-1"], {}, ["ingester.flush.bytes_max", "-1", "64MiB"]),
    (["--set", "ingester.flush.bytes_max=many"], {}, ["ingester.flush.bytes_max", "many"]),
    (["--set", "ingester.flush.spans_max=-5"], {}, ["ingester.flush.spans_max", "-5"]),
    (["--set", "ingester.flush.spans_max=99999999999"], {}, ["ingester.flush.spans_max"]),
    (["--set", "metastore.shards=x"], {}, ["metastore.shards", "x"]),
    (["--set", "multitenancy_enabled=maybe"], {}, ["multitenancy_enabled", "maybe"]),
    (["--set", "roles=[gardener]"], {}, ["roles", "gardener", "ingester"]),
    (["--set", "roles=[]"], {}, ["roles", "ingester"]),
    (["--role", "gardener"], {}, ["gardener", "ingester"]),
    (["--role", "querier"], {}, ["metastore.members", "host:9095"]),
    (["--set", "metastore.members=[http://m:1]"], {}, ["metastore.members", "host:port"]),
    (["--set", "metastore.members=[m:1]"], {}, ["metastore.members", "node.advertise_addr"]),
    (["--config", "/nowhere/clew.yaml"], {}, ["/nowhere/clew.yaml"]),
    (["--config", "/"], {}, ["/"]),
    (["--nope"], {}, ["--nope"]),
])
def test_wrong_settings_name_the_key_and_what_is_allowed(arguments, env, words):
    for command in ["config", "serve"]:
        done = run_clew(command, *arguments, env=env)
        assert done.returncode not in (0, 101), (command, done.stderr)
        for word in words:
            assert word in done.stderr, (command, done.stderr)
        assert done.stdout == ""


@pytest.mark.parametrize("yaml", ["a: [", "- 1\n- 2\n", "just text", "\t: x", "http_addr: {a: 1}\n",
                                  "ingester: 5\n", "nope: 1\n", "&a [*a]", "\x00"])
def test_a_wrong_file_is_named(tmp_path, yaml):
    file = tmp_path / "broken.yaml"
    file.write_text(yaml)
    done = run_clew("config", "--config", str(file))
    assert done.returncode not in (0, 101) and done.stderr.startswith("clew: "), done.stderr


@pytest.mark.parametrize("setting,words", [
    ("ingester.flush.zstd_level=99", ["ingester.flush.zstd_level", "99", "19"]),
    ("ingester.flush.spans_max=0", ["ingester.flush.spans_max"]),
    ("ingester.entry_bytes_max=1GiB", ["ingester.entry_bytes_max", "1GiB"]),
    ("ingester.head_bytes_max=1MiB", ["ingester.head_bytes_max"]),
    ("querier.query.default_limit=0", ["querier.query.default_limit", "0"]),
    ("querier.concurrent_queries_max=0", ["querier.concurrent_queries_max"]),
    ("querier.http_api_prefix=tempo", ["querier.http_api_prefix", "tempo", "/tempo"]),
    ("distributor.body_bytes_max=0", ["distributor.body_bytes_max"]),
    ("distributor.value_depth_max=1000000", ["distributor.value_depth_max", "1000000"]),
    ("distributor.cors_origins=[no origin]", ["distributor.cors_origins", "no origin"]),
    ("telemetry.trace_ratio=7", ["telemetry.trace_ratio", "7"]),
    ("telemetry.log_level=a=b=c", ["telemetry.log_level"]),
    ("telemetry.log_format=xml", ["telemetry.log_format", "xml", "json"]),
    ("bucket.url=ftp://host/x", ["bucket", "url", "ftp://host/x", "s3://"]),
    ("bucket.url=s3://", ["bucket", "url"]),
    ("bucket.endpoint=nonsense", ["bucket", "endpoint"]),
    ("http_addr=nonsense", ["http_addr", "nonsense"]),
    ("http_addr=127.0.0.1:99999", ["http_addr", "99999"]),
    ("otlp_grpc_addr=300.1.1.1:1", ["otlp_grpc_addr", "300.1.1.1"]),
    ("rpc_addr=", ["rpc_addr"]),
    ("data_dir=/proc/nowhere", ["data_dir", "/proc/nowhere"]),
    ("data_dir=/dev/null", ["data_dir", "/dev/null"]),
])
def test_settings_that_cannot_work_end_the_start(clew, setting, words):
    server = clew(run=False)
    flags = ["--data-dir", str(server.data), "--http-addr", f"127.0.0.1:{server.http_port}",
             "--otlp-grpc-addr", f"127.0.0.1:{server.grpc_port}",
             "--otlp-http-addr", f"127.0.0.1:{server.otlp_http_port}",
             "--rpc-addr", f"127.0.0.1:{server.rpc_port}"]
    key = setting.split("=")[0]
    flag = "--" + key.replace("_", "-")
    if flag in flags:
        at = flags.index(flag)
        del flags[at:at + 2]
    done = run_clew("serve", *flags, "--set", setting)
    output = done.stdout + done.stderr
    assert done.returncode not in (0, 101), output
    assert "panicked" not in output
    for word in words:
        assert word in output, output


# --- the life of a process -----------------------------------------------------------------------


def test_version_and_help():
    done = run_clew("version")
    assert done.returncode == 0
    name, number = done.stdout.split()
    assert name == "clew" and len(number.split(".")) >= 3
    text = run_clew("--help").stdout
    assert all(command in text for command in ["serve", "config", "version"])
    nothing = run_clew()
    assert nothing.returncode != 0 and "serve" in nothing.stderr


@pytest.mark.parametrize("port,key", [
    ("http_port", "http_addr"), ("grpc_port", "otlp_grpc_addr"),
    ("otlp_http_port", "otlp_http_addr"), ("rpc_port", "rpc_addr")])
def test_a_port_in_use_is_named(clew, port, key):
    server = clew(run=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", getattr(server, port)))
        taken.listen()
        server.start(wait=False)
        assert server.wait_dead(30) != 0
    text = server.tail()
    assert key in text and str(getattr(server, port)) in text and "in use" in text.lower(), text
    # Nothing was opened, so the next start is a first one.
    server.start()
    server.assert_alive()


def test_two_processes_never_share_a_data_dir(clew):
    first = clew()
    second = clew(run=False)
    second.dir, other = first.dir, second.dir
    second.log = other / "log"
    second.start(wait=False)
    assert second.wait_dead(60) != 0
    assert str(first.data) in second.tail() or "lock" in second.tail().lower(), second.tail()
    ledger = Ledger(first)
    assert ledger.send(ledger.batch())
    ledger.verify()
    second.dir = other


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_zero(clew, sign):
    server = clew()
    ledger = Ledger(server)
    assert ledger.send(ledger.batch())
    server.process.send_signal(sign)
    assert server.process.wait(40) == 0


def test_a_stop_under_load_keeps_its_word(clew):
    server = clew()
    ledger = Ledger(server)
    stop = threading.Event()

    def send_all():
        number = 0
        while not stop.is_set():
            ledger.send(ledger.batch(number=number), timeout=10)
            number += 1

    sender = threading.Thread(target=send_all)
    sender.start()
    time.sleep(1)
    assert server.stop() == 0
    stop.set()
    sender.join()
    server.start()
    ledger.connect()
    assert len(ledger.acked) > 5
    ledger.verify()


def test_idle_connections_do_not_keep_a_process_alive(clew):
    server = clew()
    held = [socket.create_connection(("127.0.0.1", port)) for port in
            (server.http_port, server.grpc_port, server.otlp_http_port, server.rpc_port)]
    channel = grpc.insecure_channel(server.otlp_grpc)
    grpc.channel_ready_future(channel).result(10)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 20
    for each in held:
        each.close()
    channel.close()


def test_a_second_signal_ends_at_once(clew):
    server = clew()
    with socket.create_connection(("127.0.0.1", server.otlp_http_port)) as slow:
        # A request that never ends keeps the drain waiting.
        slow.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                     b"Content-Length: 1000\r\n\r\n{")
        time.sleep(0.2)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with contextlib.suppress(ProcessLookupError):
            server.process.send_signal(signal.SIGTERM)
        server.process.wait(10)
        assert time.monotonic() - began < 5


def test_services_are_a_health_check(server):
    answer = server.get("/status/services")
    assert answer.status == 200
    roles = json.loads(server.get("/status").text)["roles"]
    lines = [line.split() for line in answer.text.splitlines()]
    assert lines == [["SERVICE", "STATUS"]] + [[role, "Running"] for role in roles]


def test_status_and_metrics(server):
    ledger = Ledger(server)
    assert ledger.send(ledger.batch())
    server.found_ids("{}")
    assert server.get("/ready").text.strip() == "ready"
    assert isinstance(json.loads(server.get("/status").text), dict)
    metrics = server.get("/metrics")
    assert metrics.headers["Content-Type"].startswith("text/plain")
    names = set()
    for line in metrics.text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            float(value)
            names.add(name.split("{")[0])
    # Rate, errors, duration and saturation of every role.
    for name in ["clew_distributor_spans_received_total", "clew_distributor_requests_total",
                 "clew_distributor_request_duration_seconds_bucket", "clew_ingester_head_bytes",
                 "clew_ingester_append_duration_seconds_count", "clew_querier_requests_total",
                 "clew_querier_request_duration_seconds_bucket", "process_resident_memory_bytes"]:
        assert name in names, name
    assert any(name.startswith("clew_metastore_") for name in names)
    assert server.metric("clew_distributor_spans_received_total") == 40
    assert not any(name.startswith("tempo_") for name in names)


def test_idle_memory_is_small(server):
    assert server.metric("process_resident_memory_bytes") < 100e6


# --- roles in processes of their own -------------------------------------------------------------


class Cluster:
    """A store (metastore and ingester), a distributor and a querier."""

    def __init__(self, clew, *settings):
        self.store = clew(*settings, roles=["metastore", "ingester"], run=False)
        bucket = f"bucket.url={self.store.dir}/bucket"
        self.store.settings.append(bucket)
        self.store.start()
        peers = [f"metastore.members=[{self.store.rpc_addr}]"]
        self.distributor = clew(*settings, *peers, roles=["distributor"])
        self.querier = clew(*settings, *peers, bucket, roles=["querier"])
        for process in (self.store, self.distributor, self.querier):
            process.errors_expected = True
        self.ledger = Ledger(self.distributor)

    def verify(self):
        self.ledger.server = self.querier
        self.ledger.verify()
        self.ledger.verify_search(10)
        self.ledger.server = self.distributor


def test_roles_in_three_processes_are_one_system(clew):
    cluster = Cluster(clew)
    for number in range(5):
        assert cluster.ledger.send(cluster.ledger.batch(number=number))
    cluster.verify()
    cluster.querier.flush()
    cluster.verify()
    assert cluster.ledger.send(cluster.ledger.batch(number=6))
    cluster.verify()
    values = cluster.querier.get("/api/v2/search/tag/span.batch.number/values").json()["tagValues"]
    assert {each["value"] for each in values} == {"0", "1", "2", "3", "4", "6"}
    # Each process has what is its own, and no more.
    assert cluster.store.get("/api/search?q={}").status == 404
    assert cluster.distributor.get("/api/traces/12").status == 404
    for port in (cluster.querier.grpc_port, cluster.store.otlp_http_port):
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1)
    for process in (cluster.store, cluster.distributor, cluster.querier):
        assert process.get("/ready").status == 200
        assert process.get("/metrics").status == 200
    # The querier keeps nothing: a new one answers the same.
    cluster.querier.kill9()
    cluster.querier.start()
    cluster.verify()
    for process in (cluster.querier, cluster.distributor, cluster.store):
        assert process.stop() == 0


@pytest.mark.parametrize("role", ["store", "querier", "distributor"])
def test_every_process_can_be_told_to_flush(clew, role):
    cluster = Cluster(clew)
    assert cluster.ledger.send(cluster.ledger.batch())
    getattr(cluster, role).flush()
    assert any(path.is_file() for path in (cluster.store.dir / "bucket").rglob("*"))
    cluster.verify()


def test_without_the_store_answers_say_so_and_come_back(clew):
    cluster = Cluster(clew, "querier.leader_wait=500ms")
    assert cluster.ledger.send(cluster.ledger.batch())
    cluster.querier.flush()
    assert cluster.ledger.send(cluster.ledger.batch())
    cluster.verify()
    cluster.store.kill9()
    for path in ["/api/search?q={}", "/api/v2/search/tags",
                 "/api/v2/traces/" + next(iter(cluster.ledger.acked))]:
        answer = cluster.querier.get(path, timeout=90)
        if answer.status == 200:
            assert answer.headers["X-Clew-Partial"] and answer.json()["status"] == "PARTIAL"
        else:
            assert answer.status in (503, 504), answer
    message = cluster.ledger.batch()
    with pytest.raises(grpc.RpcError) as error:
        cluster.ledger.stub.Export(message, timeout=60)
    assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    cluster.store.start()
    until = time.monotonic() + 30
    while not cluster.ledger.send(cluster.ledger.batch()):
        assert time.monotonic() < until, "ingest did not come back"
        time.sleep(0.2)
    cluster.ledger.unknown = {
        **cluster.ledger.unknown,
        **{each.trace_id.hex(): {each.span_id.hex()} for each in
           message.resource_spans[0].scope_spans[0].spans}}
    cluster.verify()


def test_peers_may_come_later(clew):
    """Processes of a cluster are started in any order."""
    store = clew(roles=["metastore", "ingester"], run=False)
    bucket = f"bucket.url={store.dir}/bucket"
    store.settings.append(bucket)
    peers = [f"metastore.members=[{store.rpc_addr}]"]
    distributor = clew(*peers, roles=["distributor"], wait=False)
    querier = clew(*peers, bucket, roles=["querier"], wait=False)
    for process in (store, distributor, querier):
        process.errors_expected = True
    time.sleep(1)
    store.start()
    for process in (distributor, querier):
        if process.process.poll() is not None:
            # Ending with an error is fine for a supervisor that starts it again.
            assert process.process.returncode != 0
            process.start(wait=False)
        process.wait_ready()
    ledger = Ledger(distributor)
    assert ledger.send(request([span(b"P" * 16, b"12345678")]))
    assert querier.trace_spans(b"P".hex() * 16) == [b"12345678".hex()]


def test_a_node_that_nobody_can_stand_in_for_is_not_drained(clew):
    server = clew()
    at = ["--addr", server.rpc_addr]
    (node,) = json.loads(run_clew("cluster", *at, "status", "--json").stdout)["nodes"]
    for more in ([], ["--no-wait"]):
        done = run_clew("cluster", *at, "drain", node["node"], *more)
        assert done.returncode == 1 and "no other node" in done.stderr, done
    (node,) = json.loads(run_clew("cluster", *at, "status", "--json").stdout)["nodes"]
    assert node["state"] == "active", node
