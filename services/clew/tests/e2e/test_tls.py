"""Certificates: nodes that show each other theirs, strangers that are refused and told why, renewal
without a restart, and public ports with TLS."""

import http.client
import socket
import ssl
import time
import urllib.request

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from authority import Authority, Files
from cluster import Cluster, ClusterLedger, Load, wait_until
from harness import run_clew
from ledger import request, span

SETTINGS = ["metastore.shards=6", "ingester.flush.spans_max=2000", "ingester.flush.age_max=5s"]
EXPIRY = "clew_tls_certificate_expiry_timestamp_seconds"
FAILURES = "clew_tls_handshake_failures_total"


@pytest.fixture
def authority():
    return Authority("the cluster's")


@pytest.fixture
def files(authority, tmp_path):
    return Files(tmp_path / "nodes", authority)


@pytest.fixture
def cluster(clew, files):
    return Cluster(clew, settings=[*SETTINGS, *files.settings])


def status(node, *flags):
    return run_clew("cluster", "--addr", node.rpc_addr, *flags, "status")


def test_nodes_with_certificates_are_one_system(cluster, files):
    ledger = ClusterLedger(cluster)
    with Load(cluster, ledger) as load:
        load.let_flow()
        cluster.wait_healthy()
        for node in cluster.nodes[:2]:
            node.kill9()
            load.let_flow()
            node.start(wait=False)
            node.wait_ready(120)
            cluster.wait_healthy()
    cluster.verify(ledger)
    cluster.flush()
    cluster.verify(ledger)
    assert all(len(shard["replicas"]) == 3 for shard in cluster.status()["shards"])
    for node in cluster.nodes:
        assert 29 < (node.metric(EXPIRY) - time.time()) / 86_400 < 31
    # Commands that talk to the metastore do so with a certificate, from flags or variables.
    for command in (["block", *files.flags, "list"], ["cluster", *files.flags, "shards", "9"],
                    ["tenant", "set", "a", "--retention", "1h", *files.flags]):
        done = run_clew(*command, "--addr", cluster.nodes[1].rpc_addr)
        assert done.returncode == 0, (command, done)
    env = {"CLEW_RPC_TLS_CA_FILE": str(files.ca), "CLEW_RPC_TLS_CERT_FILE": str(files.cert),
           "CLEW_RPC_TLS_KEY_FILE": str(files.key)}
    done = run_clew("cluster", "status", "--addr", cluster.nodes[0].rpc_addr, env=env)
    assert done.returncode == 0 and "node-2" in done.stdout, done
    settings = [f"--set={each}" for each in files.settings]
    done = run_clew("fsck", "--addr", cluster.nodes[0].rpc_addr, *settings,
                    "--set", f"bucket.url={cluster.bucket}")
    assert done.returncode == 0, done


def test_strangers_are_refused_and_told_why(cluster, clew, authority, tmp_path):
    node = cluster.nodes[0]
    stranger = Files(tmp_path / "stranger", Authority("another's"))
    for _ in range(3):
        plain = status(node)
        assert plain.returncode == 1 and "it speaks TLS" in plain.stderr, plain
        other = status(node, *stranger.flags)
        assert other.returncode == 1 and "none of the authorities" in other.stderr, other
    unlisted = Files(tmp_path / "unlisted", authority, authority.sign("somebody"))
    done = status(node, *unlisted.flags)
    assert done.returncode == 1 and "not for the name clew" in done.stderr, done
    # What is said of one who tries again and again is said once.
    log = node.log_text()
    assert log.count("a client was refused: it does not speak TLS") == 1, node.tail()
    assert node.metric(FAILURES) >= 6
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        read_without_certificate(node, authority)
    # A process with another authority's certificate is no part of the cluster.
    intruder = clew(*SETTINGS, *stranger.settings, f"metastore.members=[{cluster.members}]",
                    roles=["querier"], wait=False)
    intruder.errors_expected = True
    wait_until(lambda: "none of the authorities" in intruder.log_text(), "a reason in the log")
    for _ in range(3):
        wait_until(lambda: intruder.get("/ready").status == 503, "not ready")
        time.sleep(0.5)
    for member in cluster.members.split(","):
        assert intruder.log_text().count(f"link: cannot talk to {member}") == 1, intruder.tail()
    assert len(cluster.status()["nodes"]) == 3


def read_without_certificate(node, authority):
    """Trusts the server, and shows it nothing."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((node.host, node.rpc_port)) as plain:
        with context.wrap_socket(plain, server_hostname="clew") as stream:
            assert stream.selected_alpn_protocol() == "h2"
            stream.recv(1)


def test_certificates_are_renewed_without_a_restart(cluster, files, authority, tmp_path):
    """From one authority to another, in the order in which nobody is locked out."""
    later = Authority("the next one")
    ledger = ClusterLedger(cluster)
    with Load(cluster, ledger) as load:
        load.let_flow()
        files.trust(authority, later)
        # Taken up with the next connection, a few seconds later at most.
        newcomer = Files(tmp_path / "newcomer", later)
        newcomer.trust(authority, later)
        for node in cluster.nodes:
            wait_until(lambda: status(node, *newcomer.flags).returncode == 0, "both are trusted")
        files.show(later.sign(days=60))
        newcomer.trust(later)
        for node in cluster.nodes:
            wait_until(lambda: status(node, *newcomer.flags).returncode == 0, "new certificates")
            assert node.metric(EXPIRY) - time.time() > 59 * 86_400
        files.trust(later)
        past = Files(tmp_path / "past", authority)
        past.trust(authority, later)
        for node in cluster.nodes:
            wait_until(lambda: "does not know the authority" in status(node, *past.flags).stderr,
                       "the old authority is nobody")
        # New connections between nodes are made with what is new.
        for node in cluster.nodes:
            assert node.stop(timeout=60) == 0
            load.let_flow()
            node.start(wait=False)
            node.wait_ready(120)
            cluster.wait_healthy()
    cluster.verify(ledger)
    # Half of a renewal changes nothing.
    files.key.write_bytes(later.sign()[1])
    node = cluster.nodes[0]
    wait_until(lambda: status(node, *newcomer.flags).returncode == 0
               and "the old certificates stay in use" in node.log_text(), "a warning")


def test_files_that_cannot_work_end_the_start_with_a_reason(authority, files, tmp_path):
    def refused(*settings):
        flags = [part for setting in settings for part in ("--set", setting)]
        done = run_clew("serve", "--data-dir", str(tmp_path / "data"), *flags)
        assert done.returncode == 64, done
        return done.stderr

    assert "rpc.tls.key_file: it is empty" in refused(*files.settings[:2])
    assert "server.tls.cert_file: it is empty" in refused(f"server.tls.key_file={files.key}")
    missing = refused(*files.settings[:2], "rpc.tls.key_file=/nowhere/key.pem")
    assert "rpc.tls.key_file: /nowhere/key.pem: cannot be read" in missing
    files.show((authority.sign()[0], authority.sign()[1]))
    assert "rpc.tls.key_file" in (text := refused(*files.settings)) and "not the key of" in text
    files.show(authority.sign(days=-1))
    assert "rpc.tls.cert_file" in (text := refused(*files.settings)) and "has expired" in text
    files.show(Authority("another's").sign())
    assert "none of the authorities" in refused(*files.settings)


def test_public_ports_speak_tls(clew, authority, tmp_path):
    pair = authority.sign("localhost", ips=["127.0.0.1"])
    files = Files(tmp_path / "public", authority, pair)
    settings = [f"server.tls.cert_file={files.cert}", f"server.tls.key_file={files.key}"]
    server = clew(*settings, wait=False)
    context = ssl.create_default_context(cafile=files.ca)
    url = server.url.replace("http://", "https://")

    def get(path, context=context):
        with urllib.request.urlopen(url + path, context=context, timeout=30) as answer:
            return answer.read().decode()

    wait_until(lambda: get("/ready") == "ready\n", "readiness")
    env = {"SSL_CERT_FILE": str(files.ca)}
    assert run_clew("health", "--url", url, env=env).returncode == 0
    otlp_url = f"https://127.0.0.1:{server.otlp_http_port}"
    probed = run_clew("probe", "--once", "--query-url", url, "--otlp-url", otlp_url, env=env)
    assert probed.returncode == 0, probed
    for command in (["explain", "{ }", "--url", url], ["delete", "--list", "--api", url]):
        done = run_clew(*command, env=env)
        assert done.returncode == 0, (command, done)
    credentials = grpc.ssl_channel_credentials(authority.pem)
    with grpc.secure_channel(server.otlp_grpc, credentials) as channel:
        stub = trace_service_pb2_grpc.TraceServiceStub(channel)
        stub.Export(request([span(b"\x01" * 16, b"\x02" * 8)]), timeout=10)
    assert '"trace"' in get(f"/api/v2/traces/{'01' * 16}")
    with pytest.raises((OSError, http.client.HTTPException)):
        server.get("/ready")
    # With an authority for clients, those that it has not signed are refused.
    server.stop()
    server.settings.append(f"server.tls.client_ca_file={files.ca}")
    server.start(wait=False)
    known = ssl.create_default_context(cafile=files.ca)
    known.load_cert_chain(files.cert, files.key)
    wait_until(lambda: get("/ready", known) == "ready\n", "readiness")
    with pytest.raises(OSError):
        get("/ready")
