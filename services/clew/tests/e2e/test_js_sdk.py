"""The OpenTelemetry JavaScript SDK over OTLP/HTTP, in protobuf and JSON."""

import os
import pathlib
import shutil
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).parent / "js"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "clew" / "js"


@pytest.fixture(scope="module")
def script():
    """The script with its packages beside it, installed once per version of package.json."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node or npm is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted = (SOURCE / "package.json").read_text()
    stamp = CACHE / "installed.json"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.copy(SOURCE / "package.json", CACHE / "package.json")
        try:
            done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"],
                                  cwd=CACHE, capture_output=True, text=True, timeout=180, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip("npm did not finish in time: is there a network?")
        if done.returncode != 0:
            pytest.skip(f"npm cannot install the packages: {done.stderr[-500:]}")
        stamp.write_text(wanted)
    shutil.copy(SOURCE / "send.js", CACHE / "send.js")
    return CACHE / "send.js"


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
