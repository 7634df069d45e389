"""Starts the real binary on free ports and a temporary folder, and talks to it from outside."""

import contextlib
import ctypes
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import wire

BINARY = os.environ.get("CLEW_BINARY", "")

# Below the range from which the kernel picks the ports of outgoing connections.
PORTS = range(12_000, 30_000)


def free_ports(count):
    """Ports nobody listens on right now."""
    with contextlib.ExitStack() as stack:
        found = []
        while len(found) < count:
            port = random.choice(PORTS)
            each = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                each.bind(("127.0.0.1", port))
                found.append(port)
        return found


def clean_env(extra=None):
    """This process's environment without the settings it may hold for Clew."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CLEW_", "FAILPOINTS"))}
    return {**kept, **(extra or {})}


def exchange(one, other):
    """Swap what lies at two paths in one step: no server that writes meanwhile finds a gap to make a
    folder in."""
    at_cwd, rename_exchange = -100, 2  # linux/fcntl.h, linux/fs.h
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), rename_exchange):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(one), None, str(other))


def run_clew(*arguments, env=None, timeout=60, text=True, cwd=None):
    """One short run of the binary; its exit code, output and error output."""
    assert BINARY, "CLEW_BINARY names the binary under test"
    return subprocess.run([BINARY, *arguments], env=clean_env(env), timeout=timeout, cwd=cwd,
                          capture_output=True, text=text, check=False)


class Answer:
    """A response: status, headers, body."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.text[:300]!r}>"


def http(method, url, body=None, headers=None, timeout=30):
    """One request; an error status is an answer, not an exception."""
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


class Clew:
    """One `clew serve` process, restartable on the same data."""

    def __init__(self, settings=(), env=None, roles=(), host="127.0.0.1", launcher=()):
        # Where it listens, and what starts it there (a network namespace).
        self.host = host
        self.launcher = list(launcher)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="clew-e2e-"))
        self.http_port, self.grpc_port, self.otlp_http_port, self.rpc_port = free_ports(4)
        self.settings = list(settings)
        self.roles = list(roles)
        self.env = dict(env or {})
        self.process = None
        self.log = self.dir / "log"
        # ERROR in the log means that a human must look; a test that provokes it says so.
        self.errors_expected = False

    @property
    def data(self):
        return self.dir / "data"

    @property
    def url(self):
        return f"http://{self.host}:{self.http_port}"

    @property
    def rpc_addr(self):
        return f"{self.host}:{self.rpc_port}"

    @property
    def otlp_grpc(self):
        return f"{self.host}:{self.grpc_port}"

    @property
    def otlp_http(self):
        return f"http://{self.host}:{self.otlp_http_port}/v1/traces"

    def start(self, wait=True, env=None):
        assert BINARY, "CLEW_BINARY names the binary under test"
        command = [
            *self.launcher, BINARY, "serve",
            "--data-dir", str(self.data),
            "--http-addr", f"{self.host}:{self.http_port}",
            "--otlp-grpc-addr", f"{self.host}:{self.grpc_port}",
            "--otlp-http-addr", f"{self.host}:{self.otlp_http_port}",
            "--rpc-addr", f"{self.host}:{self.rpc_port}",
        ]
        for role in self.roles:
            command += ["--role", role]
        for setting in self.settings:
            command += ["--set", setting]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=clean_env({**self.env, **(env or {})}))
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout=60):
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"the process ended: {self.process.returncode}\n{self.tail()}")
            with contextlib.suppress(OSError):
                if http("GET", self.url + "/ready", timeout=5).status == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(f"not ready after {timeout} s\n{self.tail()}")

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines=40):
        return "\n".join(self.log_text().splitlines()[-lines:])

    def alarms(self):
        """Lines of the log that say that something went wrong inside."""
        bad = ("panicked at",) if self.errors_expected else ("panicked at", " ERROR ")
        return [line for line in self.log_text().splitlines() if any(word in line for word in bad)]

    def assert_alive(self):
        assert self.process.poll() is None, f"the process ended\n{self.tail()}"
        assert self.get("/ready").status == 200
        assert self.get("/api/echo").text == "echo\n"

    def kill9(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def wait_dead(self, timeout=60):
        """Waits for the process to end by itself (a failpoint)."""
        return self.process.wait(timeout)

    def stop(self, timeout=40):
        """SIGTERM; returns the exit code."""
        if self.process is None or self.process.poll() is not None:
            return None if self.process is None else self.process.returncode
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
        shutil.rmtree(self.dir, ignore_errors=True)

    # --- the API -------------------------------------------------------------------------------

    def get(self, path, headers=None, timeout=30, **parameters):
        query = "?" + urllib.parse.urlencode(parameters, doseq=True) if parameters else ""
        return http("GET", self.url + path + query, headers=headers, timeout=timeout)

    def search(self, q, headers=None, **parameters):
        answer = self.get("/api/search", headers=headers, q=q, **parameters)
        assert answer.status == 200, f"{q}: {answer}"
        return answer.json()

    def found_ids(self, q, headers=None, **parameters):
        """Trace ids (32 digits) a search returns, in order."""
        traces = self.search(q, headers=headers, **parameters)["traces"]
        return [trace["traceID"].rjust(32, "0") for trace in traces]

    def trace(self, trace_id, headers=None):
        """A trace by id through protobuf on v2: resource spans, and the message of a PARTIAL."""
        from opentelemetry.proto.trace.v1 import trace_pb2

        answer = self.get(f"/api/v2/traces/{trace_id}",
                          headers={"Accept": "application/protobuf", **(headers or {})})
        assert answer.status == 200, answer
        fields = wire.fields(answer.body)
        # tempopb.TraceByIDResponse: field 1 is wire-compatible with TracesData.
        traces = trace_pb2.TracesData.FromString(fields.get(1, [b""])[0])
        return traces.resource_spans, fields.get(4, [b""])[0].decode()

    def trace_spans(self, trace_id, headers=None):
        """Span ids (hex) of a trace by id, as a list; the answer must be complete."""
        resource_spans, message = self.trace(trace_id, headers)
        assert not message, message
        return [span.span_id.hex() for resource in resource_spans
                for scope in resource.scope_spans for span in scope.spans]

    def flush(self):
        """Seals and flushes every shard; returns when registered."""
        answer = http("POST", self.url + "/flush", timeout=120)
        assert answer.status in (200, 204), answer

    def metric(self, name):
        """The sum of a metric over its labels."""
        total = 0.0
        for line in self.get("/metrics").text.splitlines():
            head, _, value = line.rpartition(" ")
            if head == name or head.startswith(name + "{"):
                total += float(value)
        return total
