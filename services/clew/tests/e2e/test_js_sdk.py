"""The OpenTelemetry JavaScript SDK over OTLP/HTTP, in protobuf and JSON."""

import subprocess

import pytest

import npm


@pytest.fixture(scope="module")
def script():
    return npm.script("send.js")


@pytest.mark.parametrize("encoding", ["proto", "json"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_trace_of_the_javascript_sdk(server, script, encoding, compression):
    done = subprocess.run(["node", str(script), server.otlp_http, encoding, compression],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    trace_id = done.stdout.strip()
    assert len(server.trace_spans(trace_id)) == 2
    for query in [
        '{ resource.service.name = "browser" && kind = client && name = "click" }',
        "{ span.js.int = 42 && span.js.float = 1.5 && span.js.bool && span.js.many = 2 }",
        '{ span.js.text = "naïve 🚀" }', '{ resource.js.list = "b" && name = "fetch" }',
        '{ event:name = "retry" && event.attempt = 2 }', '{ event.exception.type = "TypeError" }',
        '{ status = error && statusMessage = "gave up" }',
        '{ instrumentation:name = "web-lib" && instrumentation:version = "3.2.1" }',
        '{ rootName = "click" && name = "fetch" }',
    ]:
        assert server.found_ids(query) == [trace_id], query
