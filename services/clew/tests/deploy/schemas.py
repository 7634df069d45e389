"""Checks objects against the schemas of Kubernetes versions; the package's own check reads all of a
version's definitions again for each object."""

import functools
import json
import re

import jsonschema
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

VERSIONS = [f"1.{minor}" for minor in range(28, 38)]


@functools.cache
def _registry(version):
    definitions = schema_contents(f"kubernetes-json-schema/{_folder(version)}/_definitions.json", version)
    return Resource.from_contents(definitions) @ Registry()


def _folder(version):
    return f"v{version}.0-local-strict"


@functools.cache
def _validator(version, kind, api_version):
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = schema_contents(f"kubernetes-json-schema/{_folder(version)}/{kind.lower()}-{group}.json",
                             version)
    registry = Resource.from_contents(schema) @ _registry(version)
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def _check(text, version):
    each = json.loads(text)
    errors = _validator(version, each["kind"], each["apiVersion"]).iter_errors(each)
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in errors]


def problems(each, version):
    """What is wrong with an object in that version; nothing is checked twice."""
    return _check(json.dumps(each, sort_keys=True), version)
