"""What the README tells a new user to type works as it stands there."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest

README = (pathlib.Path(__file__).resolve().parents[4] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def snippet():
    """The Python program inside the here-document."""
    (program,) = [match for block in blocks("sh")
                  for match in re.findall(r"<<'PY'\n(.*?)^PY$", block, re.DOTALL | re.MULTILINE)]
    return program


def on(server, text):
    """The text with the default ports replaced by this server's."""
    replaced = text.replace("localhost:4317", server.otlp_grpc)
    replaced = replaced.replace("localhost:3200", f"127.0.0.1:{server.http_port}")
    return replaced.replace("localhost:4318", f"127.0.0.1:{server.otlp_http_port}")


def test_the_first_query(server):
    assert "localhost:4317" in snippet()
    sent = subprocess.run([sys.executable, "-c", on(server, snippet())], capture_output=True,
                          text=True, timeout=60, check=True)
    exported = time.monotonic()
    trace_id = sent.stdout.strip().splitlines()[-1]
    assert re.fullmatch("[0-9a-f]{32}", trace_id), sent.stdout
    assert server.found_ids('{ resource.service.name = "checkout" && span.user.id = "u-42" }') == [trace_id]
    assert len(server.trace_spans(trace_id)) == 2
    assert time.monotonic() - exported < 1, "found less than a second after the export returned"

    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("curl")]
    assert len(commands) >= 2
    answers = []
    for command in commands:
        done = subprocess.run(["bash", "-c", on(server, command) + " --silent --fail"], text=True,
                              capture_output=True, timeout=60, check=True,
                              env={**os.environ, "TRACE_ID": trace_id})
        answers.append(json.loads(done.stdout))
    assert any(answer.get("batches") for answer in answers)
    found = [trace["traceID"] for answer in answers for trace in answer.get("traces", [])]
    assert found == [trace_id.lstrip("0")]


def test_settings_in_the_readme_exist(clew):
    """Every `--set key=value` of the README is accepted."""
    from harness import run_clew

    settings = re.findall(r"--set (\S+)", " ".join(blocks("sh")))
    settings = [each for each in settings if "key=value" not in each]
    assert settings
    for setting in settings:
        done = run_clew("config", "--set", setting)
        assert done.returncode == 0, done.stderr


def test_files_the_readme_links_to_exist():
    root = pathlib.Path(__file__).resolve().parents[4]
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README):
        if "://" not in target:
            assert (root / target).exists(), target
