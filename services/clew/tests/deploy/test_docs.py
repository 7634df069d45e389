"""Documentation: links lead somewhere, commands exist, examples are accepted, the quickstart works."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import textwrap

import pytest
import yaml

import chart
from chart import ROOT
from harness import BINARY, clean_env, run_clew

PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md",
                ROOT / "CHANGELOG.md", ROOT / "helm" / "clew" / "README.md"])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def anchor(heading):
    """As the usual renderers make it."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def blocks(page, language):
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


def commands(page):
    """Lines of shell blocks, continued ones together, here-documents left out."""
    for block in blocks(page, "sh"):
        block = re.sub(r"<<'(\w+)'\n.*?^\1$", "", block, flags=re.DOTALL | re.MULTILINE)
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"^([A-Z_]+=\S+ )*(clew|make|helm|kubectl) ", line):
                yield line


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, fragment = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if fragment:
            assert fragment in anchors(found), target


def test_every_page_is_linked_to():
    linked = set()
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text()):
            if "://" not in target:
                linked.add((page.parent / target).resolve())
    for page in (ROOT / "docs").glob("*.md"):
        assert page.resolve() in linked, page.name


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_exist(page):
    """Words and flags of `clew`, targets of make, of every shell block."""
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in commands(page):
        line = line.partition(" -- /usr/bin/")[2] or line
        parts = shlex.split(line, comments=True)
        parts = [part for part in parts if not re.match(r"^[A-Z][A-Z0-9_]*=", part)]
        if parts[:1] == ["make"]:
            for target in parts[1:]:
                assert target in targets, line
        if parts[:1] == ["clew"]:
            words = []
            while len(words) < 2 and parts[1 + len(words):] and re.match("^[a-z]", parts[1 + len(words)]):
                words.append(parts[1 + len(words)])
            shown = run_clew(*words, "--help")
            if shown.returncode != 0:
                shown = run_clew(words[0], "--help")
            assert shown.returncode == 0, line
            for flag in parts:
                if flag.startswith("--"):
                    assert flag.split("=")[0] in shown.stdout, f"{line}: {flag}"
            for n, part in enumerate(parts):
                if part == "--set" and "key=value" not in parts[n + 1]:
                    done = run_clew("config", "--set", parts[n + 1])
                    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_helm_accepts_what_pages_say(page, tmp_path):
    """`helm install` and `upgrade` with the values of the page before them."""
    for block in blocks(page, "yaml"):
        if block.startswith("# values.yaml"):
            done = chart.helm("template", "clew", str(chart.CHART), values=yaml.safe_load(block))
            assert done.returncode == 0, f"{block}\n{done.stderr}"
    for line in commands(page):
        parts = shlex.split(line, comments=True)
        if parts[:2] not in (["helm", "install"], ["helm", "upgrade"]):
            continue
        if "--values" in parts:
            at = parts.index("--values")
            del parts[at:at + 2]
        rest = [part for part in parts[2:] if part != "--create-namespace"]
        done = subprocess.run([chart.HELM, "template", *rest], capture_output=True, text=True, cwd=ROOT,
                              check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_yaml_can_be_read(page):
    for block in blocks(page, "yaml"):
        assert yaml.safe_load(block) is not None


def test_metrics_in_pages_exist():
    """Every metric that a page names is registered somewhere in the code."""
    code = "\n".join(path.read_text() for folder in ("libs", "services")
                     for path in (ROOT / folder).rglob("*.rs"))
    for page in PAGES:
        for name in re.findall(r"`(clew_[a-z0-9_]+)[`{]", page.read_text()):
            base = re.sub(r"_(bucket|count|sum)$", "", name)
            # Names of crates are written alike.
            if not (ROOT / "libs" / name.removeprefix("clew_").split("_")[0]).exists():
                assert f'"{base}"' in code, f"{page.name}: {name}"


def test_settings_in_pages_exist():
    """Words such as `ingester.flush.age_max` are settings, if they begin as settings do."""
    known = yaml.safe_load(run_clew("config").stdout)

    values = yaml.safe_load((chart.CHART / "values.yaml").read_text())

    def exists(at, key):
        for part in key.split("."):
            if not isinstance(at, dict) or part not in at:
                return False
            at = at[part]
        return True

    for page in PAGES:
        if page.name == "README.md" and page.parent.name == "clew" or "design" in page.parts:
            continue
        for key in re.findall(r"`((?:node|bucket|telemetry|distributor|ingester|metastore|querier)"
                              r"\.[a-z_.]+[a-z])`", page.read_text()):
            assert exists(known, key) or exists(values, key), f"{page.name}: {key}"


def test_reasons_of_rejected_spans_are_told():
    code = (ROOT / "libs/model/src/otlp/request/rejection.rs").read_text()
    reasons = re.findall(r'RejectReason::\w+ => "(\w+)"', code)
    assert len(reasons) >= 8
    page = (ROOT / "docs" / "api.md").read_text()
    assert [reason for reason in reasons if f"| `{reason}` |" not in page] == []


def test_the_configuration_page_is_current():
    done = subprocess.run([sys.executable, ROOT / "docs" / "reference.py", BINARY, "--check"],
                          capture_output=True, text=True, env=clean_env(), check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_quickstart_works(start):
    """Its commands, in order, against a server on other ports."""
    server = start()
    script = ["set -euo pipefail"]
    for block in blocks(ROOT / "docs" / "quickstart.md", "sh"):
        if "make " in block or "cluster status" in block:
            continue
        block = block.replace("localhost:3200", f"127.0.0.1:{server.http_port}")
        block = block.replace("localhost:4318", f"127.0.0.1:{server.otlp_http_port}")
        script.append(re.sub(r"^clew ", f"{BINARY} ", block, flags=re.MULTILINE))
    text = "\n".join(script)
    assert text.count("curl") >= 4 and "probe --once" in text
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=60,
                          env=clean_env(), check=False)
    assert done.returncode == 0, done.stderr
    assert '"batches"' in done.stdout and "5b8efff798038103d269b633813fc60c" in done.stdout
    assert re.search(r"search +ok", done.stdout), done.stdout


TEMPO = sorted((pathlib.Path(__file__).parent / "tempo").glob("*.yaml"))


@pytest.mark.parametrize("path", TEMPO, ids=[path.stem for path in TEMPO])
def test_configurations_of_tempo_are_migrated(path, tmp_path):
    done = run_clew("migrate-config", str(path))
    assert done.returncode == 0, done.stderr
    made = tmp_path / "clew.yaml"
    made.write_text(done.stdout)
    checked = run_clew("config", "--config", str(made))
    assert checked.returncode == 0, checked.stderr
    # Every key is told of, and all of them are known.
    assert "unknown" not in done.stderr.partition("\n")[2], done.stderr

    def leaves(tree, prefix=""):
        for key, value in tree.items():
            if isinstance(value, dict) and value:
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    for key in leaves(yaml.safe_load(path.read_text())):
        assert f" {key}" in done.stderr, key
    assert "SECRET_KEY}" not in done.stdout


def test_what_is_no_configuration_of_tempo_is_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("[1, 2")
    assert run_clew("migrate-config", str(path)).returncode == 64
    assert run_clew("migrate-config", str(tmp_path / "nowhere.yaml")).returncode == 64


def test_scripts_of_the_repository_can_be_run():
    for path in [*(ROOT / ".ci").iterdir(), ROOT / "deploy" / "image" / "rootfs"]:
        assert os.access(path, os.X_OK), path
        done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
