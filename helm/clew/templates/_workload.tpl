{{/* A StatefulSet: (dict "root" $ "role" "ingester" "component" map "name" "…" "zone" "" "replicas" 3) */}}
{{- define "clew.statefulSet" -}}
{{- $headless := printf "%s-headless" (include "clew.roleName" .) -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "clew.metadata" (dict "root" .root "role" .role "name" .name "annotations" .component.annotations) | nindent 2 }}
spec:
  replicas: {{ .replicas }}
  serviceName: {{ $headless }}
  # Members wait for each other at the first start; one after the other would wait for ever.
  podManagementPolicy: Parallel
  minReadySeconds: {{ .component.minReadySeconds }}
  updateStrategy:
    {{- if .component.updateStrategy }}
    {{- toYaml .component.updateStrategy | nindent 4 }}
    {{- else if and .zone (not (has .zone .root.Values.ingester.rollZones)) }}
    # The StatefulSets of zones do not wait for each other: each is replaced when it is told to.
    type: RollingUpdate
    rollingUpdate: {partition: {{ .replicas }}}
    {{- else }}
    type: RollingUpdate
    {{- end }}
  selector:
    matchLabels:
      {{- include "clew.selectorLabels" . | nindent 6 }}
      {{- with .zone }}
      clew.dev/zone: {{ . | quote }}
      {{- end }}
  template:
    {{- include "clew.pod" (merge (dict "headless" $headless) .) | nindent 4 }}
  {{- with .component.persistence }}
  {{- if .enabled }}
  persistentVolumeClaimRetentionPolicy: {whenDeleted: {{ .whenDeleted }}, whenScaled: {{ .whenScaled }}}
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata:
        name: data
        {{- with .labels }}
        labels: {{- toYaml . | nindent 10 }}
        {{- end }}
        {{- with .annotations }}
        annotations: {{- toYaml . | nindent 10 }}
        {{- end }}
      spec:
        accessModes: {{- toYaml .accessModes | nindent 10 }}
        {{- with default $.root.Values.global.storageClass .storageClass }}
        storageClassName: {{ . | quote }}
        {{- end }}
        resources: {requests: {storage: {{ .size }}}}
  {{- end }}
  {{- end }}
{{- end -}}

{{/* A Deployment: (dict "root" $ "role" "querier" "component" map) */}}
{{- define "clew.deployment" -}}
{{- $name := include "clew.roleName" . -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "clew.metadata" (dict "root" .root "role" .role "name" $name "annotations" .component.annotations) | nindent 2 }}
spec:
  {{- if not .component.autoscaling.enabled }}
  replicas: {{ .component.replicas }}
  {{- else }}
  {{- /* The autoscaler's number stays. Without one, Kubernetes would go to a single pod when autoscaling is switched on. */}}
  {{- with lookup "apps/v1" "Deployment" .root.Release.Namespace $name }}
  replicas: {{ max (int .spec.replicas) (int $.component.autoscaling.minReplicas) }}
  {{- end }}
  {{- end }}
  minReadySeconds: {{ .component.minReadySeconds }}
  strategy:
    {{- if .component.updateStrategy }}
    {{- toYaml .component.updateStrategy | nindent 4 }}
    {{- else }}
    type: RollingUpdate
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
    {{- end }}
  selector:
    matchLabels: {{- include "clew.selectorLabels" . | nindent 6 }}
  template:
    {{- include "clew.pod" (merge (dict "headless" "" "zone" "" "name" $name) .) | nindent 4 }}
{{- end -}}

{{/* Refuses what would change the claims of a StatefulSet that is there, which Kubernetes does not allow:
     (dict "root" $ "role" "ingester" "name" "…" "persistence" map) */}}
{{- define "clew.keepsClaims" -}}
{{- $found := lookup "apps/v1" "StatefulSet" .root.Release.Namespace .name -}}
{{- if $found -}}
  {{- $claim := dict -}}
  {{- range default list $found.spec.volumeClaimTemplates -}}
    {{- if eq .metadata.name "data" }}{{ $claim = .spec }}{{ end -}}
  {{- end -}}
  {{- $was := "" -}}
  {{- if $claim -}}
    {{- $was = printf "%s, storage class %s, %s" (dig "resources" "requests" "storage" "" $claim) (dig "storageClassName" "" $claim | default "of the cluster") (dig "accessModes" list $claim | join " ") -}}
  {{- end -}}
  {{- $is := "" -}}
  {{- if .persistence.enabled -}}
    {{- $size := .persistence.size -}}
    {{- if eq (include "clew.bytes" $size) (dig "resources" "requests" "storage" "" $claim | include "clew.bytes") -}}
      {{- $size = dig "resources" "requests" "storage" "" $claim -}}
    {{- end -}}
    {{- $is = printf "%s, storage class %s, %s" $size (.persistence.storageClass | default .root.Values.global.storageClass | default "of the cluster") (.persistence.accessModes | join " ") -}}
  {{- end -}}
  {{- if ne $was $is -}}
    {{- fail (printf "%s.persistence: Kubernetes does not let StatefulSet %s change its claims from (%s) to (%s). Set %s.persistence.size, .storageClass and .accessModes to what is there (another preset has other sizes), or take the StatefulSet away and leave its pods: kubectl delete statefulset %s --namespace %s --cascade=orphan; see \"Larger disks\" in docs/kubernetes.md" .role .name (default "none" $was) (default "none" $is) .role .name .root.Release.Namespace) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
