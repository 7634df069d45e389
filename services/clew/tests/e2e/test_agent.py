"""An OTLP agent of others between applications and Clew: it batches, compresses, and sends again."""

import importlib.util
import pathlib
import subprocess
import time

import pytest

from cluster import wait_until
from harness import clean_env, free_ports
from ledger import Ledger

BATCHES = 20


class Agent:
    """Rotel, which takes OTLP like a collector and forwards it."""

    def __init__(self, server, protocol, compression):
        program = pathlib.Path(importlib.util.find_spec("rotel").origin).parent / "rotel-agent"
        grpc_port, http_port = free_ports(2)
        self.otlp_grpc = f"127.0.0.1:{grpc_port}"
        endpoint = server.otlp_grpc if protocol == "grpc" else f"127.0.0.1:{server.otlp_http_port}"
        self.log = open(server.dir / "agent.log", "wb")
        self.process = subprocess.Popen([
            program, "start", "--exporter", "otlp",
            "--otlp-grpc-endpoint", self.otlp_grpc,
            "--otlp-http-endpoint", f"127.0.0.1:{http_port}",
            "--otlp-exporter-endpoint", f"http://{endpoint}",
            "--otlp-exporter-protocol", protocol,
            "--otlp-exporter-compression", compression,
        ], stdout=self.log, stderr=self.log, env=clean_env())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(30)
        self.log.close()


@pytest.mark.parametrize(("protocol", "compression"), [("grpc", "gzip"), ("http", "gzip"), ("grpc", "none")])
def test_what_an_agent_took_arrives_though_the_server_dies(clew, protocol, compression):
    server = clew()
    with Agent(server, protocol, compression) as agent:
        ledger = Ledger(agent)
        wait_until(lambda: ledger.send(ledger.batch()), "the agent takes spans")
        for number in range(BATCHES):
            if number == BATCHES // 2:
                server.kill9()
            assert ledger.send(ledger.batch(number=number))
        time.sleep(1)
        server.start()
        ledger.server = server
        wait_until(lambda: ledger.verify() or True, "everything that was acknowledged")
    ledger.verify_search()
