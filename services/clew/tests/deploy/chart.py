"""Renders the chart with the real helm, and says what is in it."""

import functools
import json
import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[4]
CHART = ROOT / "helm" / "clew"
HELM = pathlib.Path(sys.executable).parent / "helm"

BUCKET = {"mode": "distributed", "bucket": {"url": "s3://traces/prod", "region": "eu-central-1"}}


def merged(*maps):
    """Maps over each other, the last one on top."""
    out = {}
    for each in maps:
        for key, value in each.items():
            if isinstance(value, dict) and isinstance(out.get(key), dict):
                out[key] = merged(out[key], value)
            else:
                out[key] = value
    return out


def helm(*arguments, values=None):
    """One run of helm; its exit code, output and error output."""
    return subprocess.run([HELM, *arguments, "--values", "-"], input=json.dumps(values or {}),
                          capture_output=True, text=True, timeout=120, check=False)


@functools.cache
def _render(values, release, namespace):
    done = helm("template", release, str(CHART), "--namespace", namespace, values=json.loads(values))
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(values=None, release="clew", namespace="tracing"):
    """All objects of a release."""
    text = _render(json.dumps(values or {}, sort_keys=True), release, namespace)
    return [each for each in yaml.safe_load_all(text) if each]


def refusal(values):
    """Why helm refuses the values."""
    done = helm("template", "clew", str(CHART), values=values)
    assert done.returncode != 0, f"accepted: {values}"
    return done.stderr


def of_kind(objects, *kinds):
    return [each for each in objects if each["kind"] in kinds]


def named(objects, kind, name):
    (found,) = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


def pod_specs(objects):
    """Every pod that objects make: (object, pod spec)."""
    for each in objects:
        if each["kind"] == "Pod":
            yield each, each["spec"]
        elif each["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            yield each, each["spec"]["template"]["spec"]


def settings(objects):
    """The text of clew.yaml."""
    (found,) = [each for each in of_kind(objects, "ConfigMap", "Secret")
                if each["metadata"]["name"].endswith("-config")]
    return (found.get("data") or found.get("stringData"))["clew.yaml"]
