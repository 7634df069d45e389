"""Makes what is derived from values.yaml: `values.schema.json` and the chart's README.

What may stand below `config` comes from the settings' reference, docs/configuration.md.

    python helm/generate.py          writes both
    python helm/generate.py --check  fails if they are not current

The schema's types come from the default values; what defaults cannot say (allowed words, forms of
Kubernetes objects, numbers that may be absent) is in `RULES`, by the path of a value.
"""

import json
import pathlib
import re
import sys

import yaml

CHART = pathlib.Path(__file__).resolve().parent / "clew"
SETTINGS = CHART.parents[1] / "docs" / "configuration.md"

QUANTITY = {"type": "string", "pattern": "^$|^[0-9]+(\\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}
AMOUNT = {"anyOf": [QUANTITY, {"type": "number", "exclusiveMinimum": 0}]}
TEXTS = {"type": "array", "items": {"type": "string"}}
OBJECTS = {"type": "array", "items": {"type": "object"}}
TEXT_MAP = {"type": "object", "additionalProperties": {"type": "string"}}
DURATION = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}
REPLICAS = {"type": ["integer", "null"], "minimum": 1, "maximum": 1000}
PEERS = {"type": "array", "items": {
    "type": "object", "minProperties": 1, "additionalProperties": False,
    "properties": {"namespaceSelector": {"type": "object"}, "podSelector": {"type": "object"},
                   "ipBlock": {"type": "object"}}}}
RESOURCES = {
    "type": "object", "additionalProperties": False,
    "properties": {
        "requests": {"type": "object", "additionalProperties": AMOUNT},
        "limits": {"type": "object", "additionalProperties": AMOUNT},
        "claims": OBJECTS,
    },
}
ENV = {"type": "array", "items": {
    "type": "object", "required": ["name"], "additionalProperties": False,
    "properties": {"name": {"type": "string", "minLength": 1}, "value": {"type": "string"},
                   "valueFrom": {"type": "object"}}}}
NAMED = {"type": "array", "items": {
    "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}}
PROBE = {"type": "object", "additionalProperties": False, "properties": {
    **{kind: {"type": "object"} for kind in ("httpGet", "exec", "tcpSocket", "grpc")},
    **{number: {"type": "integer", "minimum": 0} for number in (
        "initialDelaySeconds", "periodSeconds", "timeoutSeconds", "successThreshold",
        "failureThreshold", "terminationGracePeriodSeconds")}}}


def words(*allowed):
    return {"type": "string", "enum": list(allowed)}


def settings():
    """The keys that Clew knows. What their values may be is for the process to say."""
    made = {"type": "object", "additionalProperties": False, "properties": {}}
    for key in re.findall(r"^\| `([a-z0-9_.]+)` \|", SETTINGS.read_text(), re.MULTILINE):
        *sections, name = key.split(".")
        at = made
        for section in sections:
            at = at["properties"].setdefault(
                section, {"type": "object", "additionalProperties": False, "properties": {}})
        at["properties"][name] = {"type": ["string", "number", "boolean", "array", "null"]}
    return made


# A path matches from its end; `*` stands for one part. The first rule that matches counts.
RULES = [
    ("mode", words("single", "distributed")),
    ("preset", words("small", "medium", "large")),
    ("config", settings()),
    ("configStorageType", words("ConfigMap", "Secret")),
    ("shutdownDelay", {"type": "string", "pattern": "^[0-9]+s$"}),
    ("extraObjects", {"type": "array", "items": {"type": ["object", "string"]}}),
    ("image.pullPolicy", words("Always", "IfNotPresent", "Never")),
    ("image.digest", {"type": "string", "pattern": "^$|^sha256:[0-9a-f]{64}$"}),
    ("image.repository", {"type": "string", "minLength": 1}),
    ("bucket.url", {"type": "string",
                    "pattern": "^$|^/.+|^(s3|gs|az|azure)://.+|^file:///.+|^memory://$"}),
    ("bucket.endpoint", {"type": "string", "pattern": "^$|^https?://.+"}),
    ("imagePullSecrets", TEXTS),
    ("replicas", REPLICAS),
    ("zones", {"type": "array", "items": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"},
               "uniqueItems": True}),
    ("rollZones", TEXTS),
    ("resources", RESOURCES),
    ("persistence.size", QUANTITY),
    ("persistence.accessModes", {"type": "array", "minItems": 1, "items": words(
        "ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany")}),
    ("whenDeleted", words("Retain", "Delete")),
    ("whenScaled", words("Retain", "Delete")),
    ("podDisruptionBudget.maxUnavailable", {"anyOf": [
        {"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[0-9]+%$"}]}),
    ("podSecurityContext", {"type": "object"}),
    ("containerSecurityContext", {"type": "object"}),
    ("nodePorts", {"type": "object", "additionalProperties": False, "properties": {
        name: {"type": "integer", "minimum": 1, "maximum": 65535}
        for name in ("http", "otlp-grpc", "otlp-http")}}),
    ("service.type", words("ClusterIP", "NodePort", "LoadBalancer")),
    ("externalTrafficPolicy", words("", "Cluster", "Local")),
    ("sessionAffinity", words("", "None", "ClientIP")),
    ("loadBalancerSourceRanges", TEXTS),
    ("autoscaling.type", words("hpa", "keda")),
    ("minReplicas", {"type": "integer", "minimum": 1}),
    ("maxReplicas", {"type": "integer", "minimum": 1}),
    ("targetCPUUtilizationPercentage", {"type": "integer", "minimum": 0, "maximum": 1000}),
    ("targetMemoryUtilizationPercentage", {"type": "integer", "minimum": 0, "maximum": 1000}),
    ("triggers", OBJECTS),
    ("livenessProbe", PROBE),
    ("readinessProbe", PROBE),
    ("startupProbe", PROBE),
    ("affinity", {"type": ["object", "string"]}),
    ("topologySpreadConstraints", {"anyOf": [{"type": "string"}, OBJECTS]}),
    ("nodeSelector", TEXT_MAP),
    ("tolerations", OBJECTS),
    ("labels", TEXT_MAP),
    ("annotations", TEXT_MAP),
    ("commonLabels", TEXT_MAP),
    ("commonAnnotations", TEXT_MAP),
    ("podLabels", TEXT_MAP),
    ("podAnnotations", TEXT_MAP),
    ("alertLabels", TEXT_MAP),
    ("extraArgs", TEXTS),
    ("extraEnv", ENV),
    ("extraEnvFrom", OBJECTS),
    ("extraVolumes", NAMED),
    ("extraVolumeMounts", NAMED),
    ("extraContainers", NAMED),
    ("initContainers", NAMED),
    ("extraPorts", OBJECTS),
    ("hostAliases", OBJECTS),
    ("dnsConfig", {"type": "object"}),
    ("updateStrategy", {"type": "object"}),
    ("behavior", {"type": "object"}),
    ("collector.config", {"type": "object"}),
    ("extraIngress", OBJECTS),
    ("extraEgress", OBJECTS),
    ("otlpFrom", PEERS),
    ("queryFrom", PEERS),
    ("metricsFrom", PEERS),
    ("bucketTo", PEERS),
    ("telemetryTo", PEERS),
    ("bucketPorts", {"type": "array", "minItems": 1, "items": {
        "type": "integer", "minimum": 1, "maximum": 65535}}),
    ("hosts", TEXTS),
    ("hostnames", TEXTS),
    ("ingress.*.tls", OBJECTS),
    ("parentRefs", NAMED),
    ("relabelings", OBJECTS),
    ("metricRelabelings", OBJECTS),
    ("disabledAlerts", TEXTS),
    ("interval", DURATION),
    ("scrapeTimeout", DURATION),
    ("timeout", DURATION),
]


def rule(path):
    for pattern, schema in RULES:
        parts = pattern.split(".")
        end = path[-len(parts):]
        fits = len(end) == len(parts) and all(a in ("*", b) for a, b in zip(parts, end, strict=True))
        if fits and (len(parts) > 1 or len(path) == 1 or pattern not in TOP):
            return schema
    return None


# These words mean something else further down.
TOP = {"mode", "preset", "config", "configStorageType", "shutdownDelay", "extraObjects"}


def schema_of(value, path=()):
    known = rule(list(path)) if path else None
    if known is not None:
        return known
    if isinstance(value, dict):
        if not value:
            raise SystemExit(f"{'.'.join(path)}: an empty map needs a rule")
        return {"type": "object", "additionalProperties": False,
                "properties": {key: schema_of(each, (*path, key)) for key, each in value.items()}}
    if isinstance(value, list):
        raise SystemExit(f"{'.'.join(path)}: a list needs a rule")
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "minimum": 0}
    if isinstance(value, str):
        return {"type": "string"}
    raise SystemExit(f"{'.'.join(path)}: {value!r} needs a rule")


def schema(values):
    made = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart clew",
            **schema_of(values)}
    # Helm hands `global` to every chart of a release, with the keys of the others.
    made["properties"]["global"]["additionalProperties"] = True
    return json.dumps(made, indent=1) + "\n"


KEY = re.compile(r"^( *)([A-Za-z0-9_]+):(.*)$")


def comments(text):
    """The comments that begin with `# --`, by the path of the value below them."""
    found, path, waiting = {}, [], []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# --"):
            waiting = [stripped[4:].strip()]
        elif stripped.startswith("#") and waiting:
            waiting.append(stripped[1:].strip())
        elif match := KEY.match(line):
            depth = len(match[1]) // 2
            path = [*path[:depth], match[2]]
            if waiting:
                found[tuple(path)] = " ".join(waiting)
            waiting = []
        else:
            waiting = []
    return found


def leaves(value, path=()):
    if isinstance(value, dict) and value and not (path and rule(list(path))):
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    else:
        yield path, value


HEAD = """# The chart of Clew

One chart for one process and for a cluster. [docs/kubernetes.md](../../docs/kubernetes.md) leads from
nothing to traces in Grafana; this page lists every value. It is made by `python helm/generate.py` from
`values.yaml`.

```sh
helm install clew helm/clew --namespace clew --create-namespace --wait --timeout 10m
helm test clew --namespace clew
```

A cluster on a bucket:

```sh
helm install clew helm/clew --namespace clew --create-namespace \\
  --set mode=distributed --set preset=medium \\
  --set bucket.url=s3://traces/prod --set bucket.region=eu-central-1
```

What cannot work is refused with the reason (`templates/validate.yaml`), and keys that are not in this
table are refused by `values.schema.json`.

## Presets

Sized for spans of about 570 bytes with half of the processor to spare
([how](../../docs/sizing.md)). Everything in them can be set by itself.

"""


def presets():
    roles = ["single", "metastore", "ingester", "distributor", "compactor", "querier"]
    lines = ["| | small | medium | large |", "|---|---|---|---|",
             "| spans/s | 20,000 | 100,000 | 500,000 |"]
    made = [yaml.safe_load((CHART / "presets" / f"{name}.yaml").read_text())
            for name in ("small", "medium", "large")]
    lines.append("| shards of a new cluster | " + " | ".join(str(p["shards"]) for p in made) + " |")
    for role in roles:
        cells = []
        for preset in made:
            each = preset[role]
            requests = each["resources"]["requests"]
            disk = each.get("persistence", {}).get("size")
            cells.append(f"{each.get('replicas', 1)} x {requests['cpu']} CPU, {requests['memory']}"
                         + (f", {disk} disk" if disk else ""))
        lines.append(f"| {role} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def readme(text, values):
    known = comments(text)
    # Values that every role has are told of once.
    generic = {path[1:]: told for path, told in known.items() if path[0] in ("single", "distributor")}
    lines = ["| value | default | what |", "|---|---|---|"]
    for path, default in leaves(values):
        told = known.get(path) or generic.get(path[1:], "")
        shown = json.dumps(default) if default is not None else "null"
        lines.append(f"| `{'.'.join(path)}` | `{shown}` | {told} |")
    return HEAD + presets() + "\n## Values\n\n" + "\n".join(lines) + "\n"


def main():
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    stale = []
    for name, made in (("values.schema.json", schema(values)), ("README.md", readme(text, values))):
        path = CHART / name
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != made:
                stale.append(name)
        else:
            path.write_text(made)
    if stale:
        raise SystemExit(f"not current, run python helm/generate.py: {', '.join(stale)}")


if __name__ == "__main__":
    main()
