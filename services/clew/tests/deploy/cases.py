"""Values that have to render: every preset in both modes, and every option at least once."""

from chart import BUCKET, merged

PRESETS = {
    f"{mode}-{preset}": merged(values, {"preset": preset})
    for mode, values in (("single", {}), ("distributed", BUCKET))
    for preset in ("small", "medium", "large")
}

MONITORING = {"monitoring": {
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"},
                       "relabelings": [{"action": "labeldrop", "regex": "pod"}]},
    "prometheusRule": {"enabled": True, "alertLabels": {"team": "tracing"},
                       "disabledAlerts": ["ClewNotReady"]},
    "dashboards": {"enabled": True}, "datasource": {
        "enabled": True, "prometheusUid": "prometheus", "lokiUid": "loki", "pyroscopeUid": "pyroscope"},
}}

POD = {
    "resources": {"requests": {"cpu": 2, "memory": "8Gi"}, "limits": {"memory": "16Gi"}},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "priorityClassName": "high",
    "podLabels": {"team": "tracing"}, "podAnnotations": {"note": "x"}, "annotations": {"note": "y"},
    "extraArgs": ["--set=telemetry.log_level=debug"],
    "extraEnv": [{"name": "CLEW_TELEMETRY_TRACE_RATIO", "value": "0.5"}],
    "extraEnvFrom": [{"secretRef": {"name": "more"}}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "extraContainers": [{"name": "beside", "image": "busybox:1"}],
    "initContainers": [{"name": "before", "image": "busybox:1"}],
    "extraPorts": [{"name": "more", "containerPort": 9999}],
    "affinity": "nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: []}",
    "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "kubernetes.io/hostname",
                                   "whenUnsatisfiable": "DoNotSchedule"}],
    "terminationGracePeriodSeconds": 120,
    "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 20},
    "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
    "hostAliases": [{"ip": "127.0.0.1", "hostnames": ["here"]}],
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}, "nodePorts": {"http": 30200},
                "loadBalancerClass": "example.com/internal",
                "loadBalancerSourceRanges": ["10.0.0.0/8"], "externalTrafficPolicy": "Local"},
    "networkPolicy": {"extraIngress": [{"from": [{"podSelector": {}}]}],
                      "extraEgress": [{"to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}]}]},
}

CASES = {
    **PRESETS,
    "single-on-bucket": {"bucket": BUCKET["bucket"]},
    "single-without-claim": {"single": {"persistence": {"enabled": False}}},
    "monitoring": merged(BUCKET, MONITORING),
    "monitoring-single": MONITORING,
    "ipv6": merged(BUCKET, {"global": {"ipv6": True}, "collector": {"enabled": True},
                            "prober": {"enabled": True}}),
    "ipv6-single": {"global": {"ipv6": True}},
    "openshift": merged(BUCKET, {"podSecurityContext": {
        "runAsUser": None, "runAsGroup": None, "fsGroup": None}}),
    "every-pod-option": merged(BUCKET, {role: POD for role in (
        "metastore", "ingester", "distributor", "compactor", "querier")}),
    "every-pod-option-single": {"single": POD},
    "prober-options": {"prober": {key: POD[key] for key in POD if key not in (
        "terminationGracePeriodSeconds", "service")}},
    "prober-from-outside": {"prober": {"otlpUrl": "https://otlp.example.com",
                                       "queryUrl": "https://traces.example.com"}},
    "zones": merged(BUCKET, {"ingester": {"replicas": 6, "zones": ["eu-1a", "eu-1b", "eu-1c"]}}),
    "hpa": merged(BUCKET, {role: {"autoscaling": {
        "enabled": True, "targetMemoryUtilizationPercentage": 80,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}}}}
        for role in ("distributor", "compactor", "querier")}),
    "keda": merged(BUCKET, {"querier": {"autoscaling": {
        "enabled": True, "type": "keda", "triggers": [{"type": "prometheus", "metadata": {
            "serverAddress": "http://prometheus:9090", "query": "1", "threshold": "1"}}]}}}),
    "secrets-s3": merged(BUCKET, {"configStorageType": "Secret", "bucket": {
        "endpoint": "https://minio:9000", "existingSecret": {
            "name": "s3", "accessKeyIdKey": "id", "secretAccessKeyKey": "key", "sessionTokenKey": "t"}}}),
    "rpc-tls": merged(BUCKET, {"rpc": {"tls": {"serverName": "clew.prod", "existingSecret": {
        "name": "clew-rpc", "caKey": "authority"}}}}),
    "secrets-azure": {"mode": "distributed", "bucket": {
        "url": "az://traces", "accountName": "account",
        "existingSecret": {"name": "azure", "accountKeyKey": "key"}}},
    "secrets-gcs": {"mode": "distributed", "bucket": {
        "url": "gs://traces", "existingSecret": {"name": "gcs", "serviceAccountKey": "json"}}},
    "workload-identity": merged(BUCKET, {"serviceAccount": {
        "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/clew"},
        "labels": {"azure.workload.identity/use": "true"}}}),
    "shared-folder": {"mode": "distributed", "bucket": {"url": "/bucket", "existingClaim": "shared"}},
    "routes": merged(BUCKET, {
        "ingress": {name: {"enabled": True, "className": "nginx", "hosts": ["traces.example"],
                           "tls": [{"secretName": "tls", "hosts": ["traces.example"]}],
                           "annotations": {"a": "b"}} for name in ("otlp", "query")},
        "gateway": {name: {"enabled": True, "parentRefs": [{"name": "public"}],
                           "hostnames": ["traces.example"]}
                    for name in ("otlpHttp", "otlpGrpc", "query")}}),
    "routes-single": {"ingress": {"query": {"enabled": True, "hosts": ["traces.example"]}},
                      "gateway": {"otlpGrpc": {"enabled": True, "parentRefs": [{"name": "public"}]}}},
    "collector": merged(BUCKET, {"multitenancy": True, "collector": {
        "enabled": True, "tenant": "team-a",
        "config": {"processors": {"batch": {"timeout": "2s"}}}}}),
    "collector-single": {"collector": {"enabled": True, "kubernetesAttributes": False,
                                       "hostPorts": False}},
    "no-extras": merged(BUCKET, {
        "compactor": {"enabled": False}, "prober": {"enabled": False}, "tests": {"enabled": False},
        "networkPolicy": {"enabled": False}, "serviceAccount": {"create": False, "name": "other"},
        **{role: {"podDisruptionBudget": {"enabled": False}} for role in (
            "metastore", "ingester", "distributor", "querier")}}),
    "rolled-zone": merged(BUCKET, {"ingester": {
        "zones": ["eu-1a", "eu-1b", "eu-1c"], "rollZones": ["eu-1b"]}}),
    "datasource-of-a-tenant": merged(MONITORING, {
        "multitenancy": True, "monitoring": {"datasource": {"tenant": "team-a"}}}),
    "half-gibibytes": merged(BUCKET, {"ingester": {"resources": {
        "requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": "1.5Gi"}}}}),
    "bytes": merged(BUCKET, {"config": {"ingester": {"head_bytes_max": 1_000_000_000}}, "ingester": {
        "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": 2_000_000_000}}}}),
    "customer-key": merged(BUCKET, {"config": {"bucket": {"sse": "customer"}}, "bucket": {
        "existingSecret": {"name": "s3", "sseCustomerKeyKey": "key"}}}),
    "policies": merged(BUCKET, {"networkPolicy": {
        "otlpFrom": [{"namespaceSelector": {}}], "queryFrom": [{"podSelector": {}}],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        "bucketTo": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "bucketPorts": [9000]}}),
    "names-and-labels": merged(BUCKET, {
        "fullnameOverride": "traces", "global": {
            "imageRegistry": "registry.example", "imagePullSecrets": ["pull"],
            "storageClass": "fast", "clusterDomain": "example.local",
            "commonLabels": {"owner": "us", "app.kubernetes.io/part-of": "shop"}, "commonAnnotations": {"why": "so"},
            "extraEnv": [{"name": "CLEW_TELEMETRY_LOG_LEVEL", "value": "debug"}]},
        "image": {"digest": "sha256:" + "0" * 64},
        "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "more"}},
                         "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-x'}"]}),
    "five-metastores": merged(BUCKET, {"metastore": {"replicas": 5}, "multitenancy": True}),
    "config": merged(BUCKET, {"config": {
        "ingester": {"flush": {"age_max": "30s"}}, "querier": {"query_timeout": "30s"},
        "distributor": {"tenant_rate_bytes": "20MiB"}}}),
}
