"""The image, the compose file and the files below deploy/."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from chart import ROOT, named, render
from harness import BINARY, clean_env

COLLECTOR = os.environ.get("OTELCOL") or shutil.which("otelcol-contrib") or shutil.which("otelcol")
COLLECTOR_FILES = sorted((ROOT / "deploy" / "collector").glob("*.yaml"))


def read(name):
    return (ROOT / name).read_text()


def compose():
    return yaml.safe_load(read("compose.yaml"))


def test_hadolint_has_nothing_to_say():
    hadolint = pathlib.Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_is_built_as_make_does_and_runs_without_rights():
    text = read("Dockerfile")
    assert "make release" in text
    last = text[text.rindex("\nFROM "):]
    assert last.startswith("\nFROM scratch")
    assert re.search(r"^USER 65532:65532$", last, re.MULTILINE)
    assert "latest" not in text and "ADD http" not in text and "curl" not in text
    wanted = re.search(r"rust-version = \"([\d.]+)\"", read("Cargo.toml"))[1]
    assert f"FROM rust:{wanted}-bookworm" in text


def test_what_the_build_reads_is_sent_to_it():
    """Every file that cargo and make need is let through by .dockerignore."""
    kept = [line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")]
    for needed in ("Cargo.toml", "Cargo.lock", "Makefile", ".cargo", ".ci", "libs", "services", "proto",
                   "loadtest", "deploy/image"):
        assert needed in kept, needed
    for name in kept:
        assert (ROOT / name).exists(), f"{name} is gone"


@pytest.mark.skipif(os.geteuid() != 0, reason="a look from inside the image needs chroot, which needs root")
def test_the_binary_runs_in_the_image_as_nobody(tmp_path):
    root = tmp_path / "rootfs"
    subprocess.run([ROOT / "deploy" / "image" / "rootfs", BINARY, root], check=True)
    def run(*arguments):
        return subprocess.run(["chroot", "--userspec=65532:65532", str(root), "/usr/bin/clew", *arguments],
                              capture_output=True, text=True, env=clean_env(), check=False)

    # A container's runtime lays this one into it.
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    done = run("version")
    assert done.returncode == 0 and done.stdout.startswith("clew "), done
    done = run("config", "--data-dir=/var/lib/clew")
    assert done.returncode == 0, done
    # Names are looked up and certificates are found with what is in the image.
    done = run("health", "--url=http://localhost:1")
    assert done.returncode == 1 and "refused" in done.stderr, done
    assert not (root / "bin" / "sh").exists()
    assert (root / "var" / "lib" / "clew").stat().st_uid == 65532


def test_compose_names_files_that_exist_and_images_with_versions():
    services = compose()["services"]
    assert {"clew", "prober", "collector", "prometheus", "grafana"} <= set(services)
    ports = []
    for name, service in services.items():
        if "build" not in service and service["image"] != "clew:local":
            assert re.search(r":v?\d+\.\d+", service["image"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name}: {source}"
            else:
                assert source in compose()["volumes"], f"{name}: {source}"
        ports += [port.rsplit(":", 1)[0] for port in service.get("ports", [])]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    assert len(ports) == len(set(ports)), "a port is published twice"


@pytest.mark.parametrize("service", ["clew", "prober"])
def test_commands_in_compose_are_ones_that_clew_knows(service):
    """Each flag is in the help of its command, and the health check is a command, too."""
    made = compose()["services"][service]
    for command in (made["command"], made["healthcheck"]["test"][2:]):
        shown = subprocess.run([BINARY, command[0], "--help"], capture_output=True, text=True, check=False)
        assert shown.returncode == 0, command
        for flag in command[1:]:
            assert flag.split("=")[0] in shown.stdout, flag


def collector_config(path):
    return yaml.safe_load(path.read_text())


def chart_collector_config():
    objects = render({"collector": {"enabled": True}})
    return yaml.safe_load(named(objects, "ConfigMap", "clew-collector")["data"]["config.yaml"])


CONFIGS = {path.stem: collector_config(path) for path in COLLECTOR_FILES} | {
    "chart": chart_collector_config()}


@pytest.mark.parametrize("name", CONFIGS)
def test_collector_configurations_use_what_they_define(name):
    config = CONFIGS[name]
    connectors = set(config.get("connectors", {}))
    used = {"receivers": set(), "processors": set(), "exporters": set()}
    for pipeline in config["service"]["pipelines"].values():
        for kind, names in used.items():
            names.update(pipeline.get(kind, []))
        order = pipeline.get("processors", [])
        if "traces" in config["service"]["pipelines"] and "batch" in order:
            assert order[0] == "memory_limiter" and order[-1] == "batch", "the usual order"
    for kind, names in used.items():
        assert names - connectors == set(config.get(kind, {})), kind
    assert connectors <= used["receivers"] & used["exporters"]
    assert set(config["service"]["extensions"]) == set(config["extensions"])


def test_values_have_the_types_that_the_collector_reads_them_as():
    """It converts none, and makes no folder that it is not told to."""
    dns = CONFIGS["tail-sampling-front"]["exporters"]["loadbalancing"]["resolver"]["dns"]
    assert dns["port"] == "4317"
    storage = CONFIGS["gateway"]["extensions"]["file_storage"]
    assert storage["create_directory"] is True


def test_metrics_of_spans_have_the_names_that_grafana_asks_for():
    config = CONFIGS["gateway"]
    assert config["connectors"]["spanmetrics"]["namespace"] == "traces.spanmetrics"
    assert config["connectors"]["spanmetrics"]["histogram"]["unit"] == "s"
    (rules,) = config["processors"]["transform"]["metric_statements"]
    assert rules["statements"] == [
        'set(unit, "") where name == "traces.spanmetrics.duration"',
        'set(name, "traces.spanmetrics.latency") where name == "traces.spanmetrics.duration"']
    assert config["service"]["pipelines"]["metrics"]["processors"] == ["transform"]


@pytest.mark.skipif(COLLECTOR is None, reason="no OpenTelemetry Collector here: set OTELCOL to a binary of "
                    "otelcol-contrib")
@pytest.mark.parametrize("name", CONFIGS)
def test_a_real_collector_accepts_the_configurations(name, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIGS[name]))
    env = {**os.environ, "CLEW_OTLP_ENDPOINT": "127.0.0.1:4317", "CLEW_TENANT": "t", "SAMPLERS": "localhost",
           "NODE_NAME": "node"}
    done = subprocess.run([COLLECTOR, "validate", f"--config={path}"], capture_output=True, text=True,
                          env=env, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_accepts_its_configuration(tmp_path):
    (tmp_path / "rules").mkdir()
    for path in (ROOT / "helm" / "clew" / "rules").glob("*.yaml"):
        shutil.copy(path, tmp_path / "rules")
    path = shutil.copy(ROOT / "deploy" / "prometheus" / "prometheus.yaml", tmp_path)
    done = subprocess.run(["promtool", "check", "config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_is_provisioned_with_what_compose_has():
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "clew.yaml").read_text())["datasources"]
    services = compose()["services"]
    for source in sources:
        assert re.match(r"http://(\w+):", source["url"])[1] in services
    (clew,) = [source for source in sources if source["type"] == "tempo"]
    assert clew["jsonData"]["serviceMap"]["datasourceUid"] in {source["uid"] for source in sources}
    provider = yaml.safe_load((folder / "dashboards" / "clew.yaml").read_text())["providers"][0]
    mounts = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts
