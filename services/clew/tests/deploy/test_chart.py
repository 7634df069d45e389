"""The chart renders, what it renders is what Kubernetes knows, and what cannot work is refused."""

import base64
import re
import subprocess
import sys

import pytest
import yaml

import cases
from chart import BUCKET, CHART, ROOT, helm, merged, named, of_kind, pod_specs, refusal, render, settings
from harness import run_clew
from schemas import VERSIONS, problems

# Of operators; their schemas are not Kubernetes'.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "HTTPRoute", "GRPCRoute"}


@pytest.mark.parametrize("name", cases.PRESETS)
def test_helm_lint(name):
    done = helm("lint", "--strict", str(CHART), values=cases.PRESETS[name])
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_generated_is_current():
    for script in ("generate.py", "monitoring/rules.py", "monitoring/dashboards.py"):
        done = subprocess.run([sys.executable, str(ROOT / "helm" / script), "--check"],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", cases.CASES)
def test_kubernetes_knows_every_object(name):
    objects = render(cases.CASES[name])
    checked = 0
    for each in objects:
        if each["kind"] in FOREIGN:
            assert each["metadata"]["name"] and each["spec"]
            continue
        for version in VERSIONS:
            assert not problems(each, version), (version, each['kind'], each['metadata']['name'])
            checked += 1
    assert checked >= 8 * len(VERSIONS)
    ids = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(ids) == len(set(ids)), "an object is there twice"


def test_the_schema_check_can_fail():
    bad = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"},
           "spec": {"ports": [{"port": "many"}]}}
    for version in VERSIONS:
        assert problems(bad, version)
        assert problems({**bad, "spec": {"prots": []}}, version), "unknown fields are refused"


@pytest.mark.parametrize("name", cases.CASES)
def test_clew_accepts_its_settings(name, tmp_path):
    """Each role with the variables of its container, as far as they are in the manifest."""
    objects = render(cases.CASES[name])
    path = tmp_path / "clew.yaml"
    path.write_text(settings(objects))
    seen = 0
    for owner, spec in pod_specs(objects):
        for container in spec["containers"]:
            arguments = container.get("args", [])
            if arguments[:1] != ["serve"]:
                continue
            role = [each for each in arguments if each.startswith("--role=")]
            if role and role[0].removeprefix("--role=") not in known_roles():
                print(f"skipped: this binary has no {role[0]}")
                continue
            env = {each["name"]: each.get("value", "x") for each in container["env"]
                   if each["name"].startswith("CLEW_")}
            variables = {"POD_NAME": owner["metadata"]["name"] + "-0",
                         "POD_IP": "fd00::7" if name.startswith("ipv6") else "10.0.0.7"}
            env = {key: substitute(value, variables) for key, value in env.items()}
            if "CLEW_BUCKET_ACCOUNT_KEY" in env:
                env["CLEW_BUCKET_ACCOUNT_KEY"] = "c2VjcmV0"
            if "CLEW_BUCKET_SSE_CUSTOMER_KEY" in env:
                env["CLEW_BUCKET_SSE_CUSTOMER_KEY"] = base64.b64encode(bytes(32)).decode()
            done = run_clew("config", "--config", str(path), *arguments[2:], env=env)
            assert done.returncode == 0, f"{role}: {done.stderr}"
            seen += 1
    assert seen


def substitute(text, variables):
    for name, value in variables.items():
        text = text.replace(f"$({name})", value)
    return text


def known_roles():
    """The roles that this binary has."""
    text = run_clew("serve", "--help").stdout
    return {role for role in ("distributor", "ingester", "metastore", "querier", "compactor")
            if role in text}


REFUSED = {
    "typo": ({"ingster": {}}, "ingster is not allowed"),
    "typo-below": (merged(BUCKET, {"ingester": {"replica": 3}}), "replica is not allowed"),
    "typo-in-resources": ({"single": {"resources": {"request": {}}}}, "request is not allowed"),
    "mode": ({"mode": "scalable"}, "mode"),
    "preset": ({"preset": "huge"}, "preset"),
    "quantity": ({"single": {"persistence": {"size": "ten"}}}, "size"),
    "negative-replicas": (merged(BUCKET, {"querier": {"replicas": 0}}), "replicas"),
    "no-bucket": ({"mode": "distributed"}, "needs a bucket that all nodes share"),
    "local-bucket": ({"mode": "distributed", "bucket": {"url": "/bucket"}}, "existingClaim"),
    "memory-bucket": ({"mode": "distributed", "bucket": {"url": "memory://"}}, "lost with each pod"),
    "even-metastore": (merged(BUCKET, {"metastore": {"replicas": 4}}), "3, 5 or 7"),
    "one-metastore": (merged(BUCKET, {"metastore": {"replicas": 1}}), "3, 5 or 7"),
    "two-ingesters": (merged(BUCKET, {"ingester": {"replicas": 2}}), "at least 3"),
    "two-zones": (merged(BUCKET, {"ingester": {"zones": ["a", "b"]}}), "three zones or more"),
    "uneven-zones": (merged(BUCKET, {"ingester": {"replicas": 4, "zones": ["a", "b", "c"]}}),
                     "they divide"),
    "two-singles": ({"single": {"replicas": 2}}, "a second process would be a second store"),
    "lost-folder": ({"bucket": {"url": "/elsewhere"}}, "lost with the pod"),
    "claim-without-folder": (merged(BUCKET, {"bucket": {"existingClaim": "x"}}), "has to be a folder"),
    "keys-without-secret": (merged(BUCKET, {"bucket": {"existingSecret": {"accountKeyKey": "k"}}}),
                            "not the secret"),
    "half-a-secret": (merged(BUCKET, {"bucket": {"existingSecret": {
        "name": "s", "accessKeyIdKey": "k"}}}), "belong together"),
    "rpc-tls-in-settings": (merged(BUCKET, {"config": {"rpc": {"tls": {"ca_file": "/x"}}}}),
                            "rpc.tls.existingSecret"),
    "public-tls": (merged(BUCKET, {"config": {"server": {"tls": {"cert_file": "/x"}}}}),
                   "speak plain HTTP"),
    "nameless-rpc-tls": (merged(BUCKET, {"rpc": {"tls": {
        "serverName": "", "existingSecret": {"name": "s"}}}}), "a serverName"),
    "scaled-ingester": (merged(BUCKET, {"ingester": {"autoscaling": {"enabled": True}}}),
                        "hold data"),
    "inverted-scaling": (merged(BUCKET, {"querier": {"autoscaling": {
        "enabled": True, "minReplicas": 9, "maxReplicas": 3}}}), "above maxReplicas"),
    "scaling-by-nothing": (merged(BUCKET, {"querier": {"autoscaling": {
        "enabled": True, "targetCPUUtilizationPercentage": 0}}}), "goes by nothing"),
    "no-disk": (merged(BUCKET, {"ingester": {"persistence": {"enabled": False}}}), "loses its log"),
    "wide-budget": (merged(BUCKET, {"metastore": {"podDisruptionBudget": {"maxUnavailable": 2}}}),
                    "no majority"),
    "short-grace": (merged(BUCKET, {"ingester": {"terminationGracePeriodSeconds": 30}}),
                    "kills the process"),
    "long-delay": ({"shutdownDelay": "60s", "single": {"terminationGracePeriodSeconds": 60}},
                   "kills the process"),
    "little-memory": (merged(BUCKET, {"ingester": {"resources": {"limits": {"memory": "512Mi"}}}}),
                      "two times the heads"),
    "config-of-the-chart": ({"config": {"http_addr": "x"}}, "the chart sets it"),
    "members": (merged(BUCKET, {"config": {"metastore": {"members": ["a:1"]}}}), "lists the pods"),
    "secret-in-values": (merged(BUCKET, {"config": {"bucket": {"secret_access_key": "x"}}}),
                         "do not belong into values"),
    "more-secrets-in-values": (merged(BUCKET, {"config": {"bucket": {"sse_customer_key": "x"}}}),
                               "do not belong into values"),
    "bucket-in-settings": ({"config": {"bucket": {"url": "s3://x"}}}, "use bucket.url"),
    "endpoint-in-settings": (merged(BUCKET, {"config": {"bucket": {"endpoint": "http://x"}}}),
                             "use bucket.endpoint"),
    "typo-in-settings": ({"config": {"compactor": {"retension": {"age": "3d"}}}},
                         "retension is not allowed"),
    "typo-in-a-key": ({"config": {"compactor": {"retention": {"ages": "3d"}}}}, "ages is not allowed"),
    "section-for-a-key": ({"config": {"data_dir": {"x": 1}}}, "data_dir"),
    "queries-through-metrics": ({"networkPolicy": {"queryFrom": [{"podSelector": {}}]}},
                                "share port 3200"),
    "long-zone": (merged(BUCKET, {"fullnameOverride": "traces-of-the-whole-company-x", "ingester": {
        "zones": ["a", "b", "northamerica-northeast1-a"]}}), "52 are allowed"),
    "unknown-rolled-zone": (merged(BUCKET, {"ingester": {
        "zones": ["a", "b", "c"], "rollZones": ["d"]}}), "none of ingester.zones"),
    "datasource-without-tenant": ({"multitenancy": True, "monitoring": {"datasource": {
        "enabled": True}}}, "has to name its tenant"),
    "ingress-for-all": ({"ingress": {"query": {"enabled": True}}}, "no authentication"),
    "route-to-nowhere": ({"gateway": {"query": {"enabled": True}}}, "parentRefs"),
    "collector-without-tenant": ({"multitenancy": True, "collector": {"enabled": True}},
                                 "has to name its tenant"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_with_the_reason(name):
    values, reason = REFUSED[name]
    assert reason in refusal(values)


@pytest.mark.parametrize("name", cases.CASES)
def test_pods_are_restricted_and_bounded(name):
    """The restricted pod security standard, resources, probes, and no token of the API."""
    objects = render(cases.CASES[name])
    for owner, spec in pod_specs(objects):
        where = f"{owner['kind']} {owner['metadata']['name']}"
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True, where
        assert pod.get("runAsUser") == (None if name == "openshift" else 65532), where
        assert pod["seccompProfile"]["type"] == "RuntimeDefault", where
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), where
        assert all("hostPath" not in volume for volume in spec.get("volumes", [])), where
        is_collector = owner["metadata"]["labels"]["app.kubernetes.io/component"] == "collector"
        reads_pods = is_collector and cases.CASES[name]["collector"].get("kubernetesAttributes", True)
        assert spec["automountServiceAccountToken"] is reads_pods, where
        ours = [each for each in spec["containers"] if each["name"] != "beside"]
        for container in ours:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, where
            assert security["readOnlyRootFilesystem"] is True, where
            assert security["capabilities"] == {"drop": ["ALL"]}, where
            assert all("hostPort" not in port for port in container.get("ports", [])), where
            assert container["resources"]["requests"]["cpu"], where
            assert container["resources"]["limits"]["memory"], where
            assert not container["image"].endswith(":latest") and ":" in container["image"], where
            if owner["kind"] not in ("Pod", "Job"):
                assert "livenessProbe" in container and "readinessProbe" in container, where
            names = {port["name"] for port in container.get("ports", [])}
            for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
                if "httpGet" in container.get(probe, {}):
                    assert container[probe]["httpGet"]["port"] in names, where


@pytest.mark.parametrize("name", cases.PRESETS)
def test_every_workload_has_a_budget_a_policy_and_a_service(name):
    objects = render(cases.PRESETS[name])
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        role = each["metadata"]["labels"]["app.kubernetes.io/component"]
        labels = each["spec"]["template"]["metadata"]["labels"]

        def selects(selector, labels=labels):
            return all(labels.get(key) == value for key, value in selector.items())

        policies = [p for p in of_kind(objects, "NetworkPolicy")
                    if selects(p["spec"]["podSelector"]["matchLabels"])]
        assert len(policies) == 1 and policies[0]["spec"]["policyTypes"] == ["Ingress", "Egress"], role
        services = [s for s in of_kind(objects, "Service") if selects(s["spec"]["selector"])]
        assert services, role
        ports = {port["name"] for c in each["spec"]["template"]["spec"]["containers"]
                 for port in c["ports"]}
        for service in services:
            for port in service["spec"]["ports"]:
                assert port["targetPort"] in ports, service["metadata"]["name"]
        if role != "prober":
            budgets = [p for p in of_kind(objects, "PodDisruptionBudget")
                       if selects(p["spec"]["selector"]["matchLabels"])]
            assert len(budgets) == 1 and budgets[0]["spec"]["maxUnavailable"] == 1, role


def test_data_lies_on_claims_that_outlive_the_release():
    objects = render(BUCKET)
    sets = of_kind(objects, "StatefulSet")
    assert {each["metadata"]["name"] for each in sets} == {"clew-metastore", "clew-ingester"}
    for each in sets:
        spec = each["spec"]
        assert spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
        assert spec["persistentVolumeClaimRetentionPolicy"] == {
            "whenDeleted": "Retain", "whenScaled": "Retain"}
        # Members wait for each other at the first start.
        assert spec["podManagementPolicy"] == "Parallel"
        headless = named(objects, "Service", spec["serviceName"])
        assert headless["spec"]["clusterIP"] == "None"
        assert headless["spec"]["publishNotReadyAddresses"] is True


def test_the_internal_port_is_for_nodes_alone():
    for name in ("distributed-small", "policies"):
        objects = render(cases.CASES[name])
        for policy in of_kind(objects, "NetworkPolicy"):
            for rule in policy["spec"]["ingress"] or []:
                if any(port["port"] == 9095 for port in rule.get("ports", [])):
                    (peer,) = rule["from"]
                    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "clew"
        for service in of_kind(objects, "Service"):
            ports = {port["port"] for port in service["spec"]["ports"]}
            assert 9095 not in ports or service["spec"]["type"] == "ClusterIP"


# The metastore looks whether the bucket has a cluster already, and backs its catalog up into it.
USES_BUCKET = {"metastore", "ingester", "compactor", "querier"}

# Where names are asked for, on OpenShift behind the service, too.
DNS = {53, 5353}


def egress(objects, role):
    """The ports that pods of a role may connect to wherever they are."""
    (policy,) = [each for each in of_kind(objects, "NetworkPolicy")
                 if each["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == role]
    return {port["port"] for rule in policy["spec"]["egress"] if "to" not in rule
            for port in rule.get("ports", [])} - DNS


def test_whoever_uses_the_bucket_may_reach_it():
    objects = render(BUCKET)
    roles = {each["metadata"]["labels"]["app.kubernetes.io/component"]
             for each in of_kind(objects, "Deployment", "StatefulSet")}
    assert {role for role in roles if 443 in egress(objects, role)} == USES_BUCKET
    assert egress(render({"bucket": BUCKET["bucket"]}), "single") == {443}
    for endpoint, port in {"http://minio:9000": 9000, "https://store.example/path": 443,
                           "http://store.example": 80, "https://[::1]:9443/": 9443}.items():
        objects = render(merged(BUCKET, {"bucket": {"endpoint": endpoint}}))
        for role in USES_BUCKET:
            assert egress(objects, role) == {443, port}, endpoint


def test_own_traces_may_leave():
    values = merged(BUCKET, {"config": {"telemetry": {"otlp_endpoint": "http://collector.obs:4317"}}})
    objects = render(values)
    for role in (*USES_BUCKET, "distributor"):
        assert 4317 in egress(objects, role), role
    assert 4317 not in egress(objects, "prober")
    peers = [{"namespaceSelector": {"matchLabels": {"name": "obs"}}}]
    objects = render(merged(values, {"networkPolicy": {"telemetryTo": peers}}))
    (rule,) = [each for each in named(objects, "NetworkPolicy", "clew-distributor")["spec"]["egress"]
               if each["ports"][0]["port"] == 4317]
    assert rule["to"] == peers


def test_the_prober_may_reach_what_it_is_told_to_watch():
    policy = named(render(cases.CASES["prober-from-outside"]), "NetworkPolicy", "clew-prober")
    assert {} in policy["spec"]["egress"]
    policy = named(render({}), "NetworkPolicy", "clew-prober")
    assert {} not in policy["spec"]["egress"]


def test_secrets_come_by_reference_only():
    for name in ("secrets-s3", "secrets-azure", "secrets-gcs"):
        objects = render(cases.CASES[name])
        for owner, spec in pod_specs(objects):
            for container in spec["containers"]:
                for variable in container.get("env", []):
                    if "KEY" in variable["name"] or "TOKEN" in variable["name"]:
                        assert "secretKeyRef" in variable["valueFrom"], owner["metadata"]["name"]
        assert "secret_access_key" not in settings(objects)


def test_whoever_calls_the_internal_port_has_its_certificate():
    objects = render(cases.CASES["rpc-tls"])
    seen = set()
    for owner, spec in pod_specs(objects):
        for container in spec["containers"]:
            arguments = container.get("args", [])
            if arguments[:1] not in (["serve"], ["cluster"]):
                continue
            env = {each["name"]: each.get("value") for each in container["env"]}
            assert env["CLEW_RPC_TLS_SERVER_NAME"] == "clew.prod"
            (mount,) = [each for each in container["volumeMounts"] if each["name"] == "rpc-tls"]
            (volume,) = [each for each in spec["volumes"] if each["name"] == "rpc-tls"]
            assert volume["secret"]["secretName"] == "clew-rpc" and mount["readOnly"]
            paths = {each["path"]: each["key"] for each in volume["secret"]["items"]}
            files = {variable: env[f"CLEW_RPC_TLS_{variable}_FILE"] for variable in ("CA", "CERT", "KEY")}
            assert {kind: paths[file.removeprefix(mount["mountPath"] + "/")]
                    for kind, file in files.items()} == {
                        "CA": "authority", "CERT": "tls.crt", "KEY": "tls.key"}
            seen.add(owner["kind"])
    assert seen == {"StatefulSet", "Deployment", "Job"}
    assert "rpc-tls" not in str(render(BUCKET))


def test_zones_have_a_set_each():
    objects = render(cases.CASES["zones"])
    sets = [each for each in of_kind(objects, "StatefulSet") if "ingester" in each["metadata"]["name"]]
    assert [each["spec"]["replicas"] for each in sets] == [2, 2, 2]
    for each, zone in zip(sets, ["eu-1a", "eu-1b", "eu-1c"], strict=True):
        spec = each["spec"]["template"]["spec"]
        env = {e["name"]: e.get("value") for e in spec["containers"][0]["env"]}
        assert env["CLEW_NODE_ZONE"] == zone
        terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert terms["nodeSelectorTerms"][0]["matchExpressions"][0]["values"] == [zone]
        assert each["spec"]["selector"]["matchLabels"]["clew.dev/zone"] == zone


def test_zones_are_replaced_one_after_the_other():
    def partitions(values):
        return [each["spec"]["updateStrategy"].get("rollingUpdate", {}).get("partition", 0)
                for each in of_kind(render(values), "StatefulSet")
                if "ingester" in each["metadata"]["name"]]

    assert partitions(cases.CASES["zones"]) == [2, 2, 2]
    assert partitions(cases.CASES["rolled-zone"]) == [1, 0, 1]
    at_once = {"ingester": {"updateStrategy": {"type": "RollingUpdate"}}}
    assert partitions(merged(cases.CASES["zones"], at_once)) == [0, 0, 0]
    assert partitions(BUCKET) == [0], "one StatefulSet replaces one pod after the other"


def test_labels_of_the_chart_stay():
    for each in render(cases.CASES["names-and-labels"]):
        labels = each["metadata"].get("labels", {})
        assert labels.get("app.kubernetes.io/part-of", "clew") == "clew" and "shop" not in str(labels)
        if labels:
            assert labels["owner"] == "us"


def test_services_take_what_clouds_ask_for():
    service = named(render(cases.CASES["every-pod-option"]), "Service", "clew-distributor")["spec"]
    assert service["loadBalancerClass"] == "example.com/internal"
    ports = {port["name"]: port.get("nodePort") for port in service["ports"]}
    assert ports == {"http": 30200, "otlp-grpc": None, "otlp-http": None}


def test_a_data_source_names_its_tenant():
    values = cases.CASES["datasource-of-a-tenant"]
    text = named(render(values), "ConfigMap", "clew-datasource")["data"]["clew.yaml"]
    source = yaml.safe_load(text)["datasources"][0]
    assert source["jsonData"]["httpHeaderName1"] == "X-Scope-OrgID"
    assert source["secureJsonData"]["httpHeaderValue1"] == "team-a"


def test_all_data_sources_ask_for_what_the_collector_makes():
    chart = named(render(cases.CASES["monitoring"]), "ConfigMap", "clew-datasource")["data"]["clew.yaml"]
    compose = (ROOT / "deploy/grafana/provisioning/datasources/clew.yaml").read_text()
    page = (ROOT / "docs/grafana.md").read_text()
    collector = yaml.safe_load((ROOT / "deploy/collector/gateway.yaml").read_text())
    prefix = collector["connectors"]["spanmetrics"]["namespace"].replace(".", "_")
    for text in (chart, compose, page):
        assert f"{prefix}_calls_total" in text
        assert set(re.findall(r"traces_\w+_calls_total", text)) == {f"{prefix}_calls_total"}
        assert "key: service.name, value: service}" not in text
    links = yaml.safe_load(chart)["datasources"][0]["jsonData"]["tracesToMetrics"]
    assert links["tags"] == [{"key": "service.name", "value": "service_name"}]


def test_grafana_looks_a_trace_up_by_its_id_alone():
    """With a shift Grafana sends a range, and finds nothing outside of it; a negative shift moves it ahead."""
    chart = named(render(cases.CASES["monitoring"]), "ConfigMap", "clew-datasource")["data"]["clew.yaml"]
    compose = (ROOT / "deploy/grafana/provisioning/datasources/clew.yaml").read_text()
    for text in (chart, compose):
        (source,) = [each for each in yaml.safe_load(text)["datasources"] if each["type"] == "tempo"]
        assert source["jsonData"]["traceQuery"] == {"timeShiftEnabled": False}


@pytest.mark.parametrize("release", ["123456", "1e5", "0x10"])
def test_a_release_may_be_called_like_a_number(release):
    for each in render(BUCKET, release=release):
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == release
        selector = each["spec"].get("selector", {}) if each["kind"] in ("Deployment", "StatefulSet") else {}
        for value in selector.get("matchLabels", {}).values():
            assert isinstance(value, str), each["metadata"]["name"]


@pytest.mark.parametrize("preset", ["small", "medium", "large"])
def test_presets_are_as_the_page_on_sizing_says(preset):
    """Two shards per core of the ingesters, one each at least, and memory for three times the heads."""
    made = yaml.safe_load((CHART / "presets" / f"{preset}.yaml").read_text())
    ingesters, cpu = made["ingester"]["replicas"], made["ingester"]["resources"]["requests"]["cpu"]
    cores = ingesters * (int(cpu[:-1]) / 1000 if cpu.endswith("m") else int(cpu))
    assert max(ingesters, 2 * cores) <= made["shards"] <= 4 * ingesters
    units = {"Gi": 1024, "GiB": 1024, "Mi": 1, "MiB": 1}
    for role in ("single", "ingester"):
        limit, heads = (float(text.rstrip("GMiB")) * units[text.lstrip("0123456789")]
                        for text in (made[role]["resources"]["limits"]["memory"], made[role]["headBytes"]))
        assert limit >= 3 * heads, role


def test_scaling_in_moves_data_first():
    objects = render(merged(cases.CASES["zones"], {"ingester": {"scaleIn": {"always": True}}}))
    job = named(objects, "Job", "clew-scale-in")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-rollback,pre-upgrade"
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[0] == "cluster" and "scale" in arguments
    assert arguments[-3:] == [f"clew-ingester-eu-1{zone}=2" for zone in "abc"]
    done = run_clew(*arguments[:1], "--addr=127.0.0.1:1", *arguments[2:])
    assert done.returncode == 1 and "127.0.0.1:1" in done.stderr, done


def test_monitoring_objects_are_what_operators_look_for():
    objects = render(cases.CASES["monitoring"])
    (rule,) = of_kind(objects, "PrometheusRule")
    alerts = {each["alert"]: each for group in rule["spec"]["groups"] for each in group["rules"]
              if "alert" in each}
    assert "ClewNotReady" not in alerts and "ClewShardLost" in alerts
    assert all(each["labels"]["team"] == "tracing" for each in alerts.values())
    (monitor,) = of_kind(objects, "ServiceMonitor")
    assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/part-of"
    dashboards = [each for each in of_kind(objects, "ConfigMap") if "-dashboard-" in each["metadata"]["name"]]
    assert len(dashboards) == len(list((CHART / "dashboards").glob("*.json"))) >= 7
    assert all(each["metadata"]["labels"]["grafana_dashboard"] == "1" for each in dashboards)
    source = yaml.safe_load(named(objects, "ConfigMap", "clew-datasource")["data"]["clew.yaml"])
    data = source["datasources"][0]
    assert data["type"] == "tempo" and data["url"].startswith("http://clew-querier.tracing.svc")
    assert data["jsonData"]["serviceMap"]["datasourceUid"] == "prometheus"
    assert data["jsonData"]["tracesToLogsV2"]["datasourceUid"] == "loki"
    assert "$__tags" in data["jsonData"]["tracesToMetrics"]["queries"][0]["query"]


def test_alerts_about_the_prober_go_with_it():
    values = merged(cases.MONITORING, {"prober": {"enabled": False}})
    (rule,) = of_kind(render(values), "PrometheusRule")
    names = [each.get("alert", "") for group in rule["spec"]["groups"] for each in group["rules"]]
    assert names and not any(name.startswith("ClewProbe") for name in names)


def test_the_readme_names_every_value():
    text = (CHART / "README.md").read_text()
    for name in ("mode", "ingester.zones", "bucket.existingSecret.name", "prober.interval"):
        assert f"`{name}`" in text
