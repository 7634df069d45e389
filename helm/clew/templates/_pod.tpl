{{/* What the restricted pod security standard asks of a pod and a container. */}}
{{- define "clew.podSecurity" -}}
{{- toYaml (default . .root).Values.podSecurityContext -}}
{{- end -}}

{{- define "clew.containerSecurity" -}}
{{- toYaml (default . .root).Values.containerSecurityContext -}}
{{- end -}}

{{/* A probe: (dict "given" map "path" "/ready" "rest" map) */}}
{{- define "clew.probe" -}}
{{- if .given -}}
{{- toYaml .given -}}
{{- else -}}
httpGet: {path: {{ .path }}, port: {{ default "http" .port }}}
{{ toYaml .rest }}
{{- end -}}
{{- end -}}

{{/* Where pods go, as YAML for the pod's spec: (dict "root" $ "role" … "component" …) */}}
{{- define "clew.scheduling" -}}
{{- $c := .component -}}
{{- with $c.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $c.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $c.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $c.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- with $c.dnsConfig }}
dnsConfig: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $c.hostAliases }}
hostAliases: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The pod template of a role.
     (dict "root" $ "role" "ingester" "component" map "name" "…" "headless" "…" "zone" "") */}}
{{- define "clew.pod" -}}
{{- $root := .root -}}
{{- $c := .component -}}
{{- $isSingle := eq .role "single" -}}
{{- $isStateful := has .role (list "single" "metastore" "ingester") -}}
{{- $folder := include "clew.bucketFolder" $root -}}
{{- $labels := include "clew.selectorLabels" . | fromYaml -}}
metadata:
  labels:
    {{- $more := deepCopy (default dict $c.podLabels) -}}
    {{- with .zone }}{{ $_ := set $more "clew.dev/zone" . }}{{ end -}}
    {{- include "clew.labels" (dict "root" $root "role" .role "labels" $more) | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: clew
    checksum/config: {{ include "clew.config" $root | sha256sum }}
    {{- with $c.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "clew.serviceAccountName" $root }}
  automountServiceAccountToken: false
  # Variables of services would look like settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $c.terminationGracePeriodSeconds }}
  securityContext: {{- include "clew.podSecurity" . | nindent 4 }}
  {{- with $root.Values.global.imagePullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- include "clew.scheduling" . | nindent 2 }}
  affinity:
    {{- if $c.affinity }}
    {{- include "clew.tplValue" (dict "root" $root "value" $c.affinity) | nindent 4 }}
    {{- else }}
    {{- if .zone }}
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
          - matchExpressions:
              - {key: {{ $root.Values.ingester.zoneLabel }}, operator: In, values: [{{ .zone | quote }}]}
    {{- end }}
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels: {{- toYaml $labels | nindent 16 }}
    {{- end }}
  topologySpreadConstraints:
    {{- if $c.topologySpreadConstraints }}
    {{- include "clew.tplValue" (dict "root" $root "value" $c.topologySpreadConstraints) | nindent 4 }}
    {{- else }}
    - maxSkew: 1
      topologyKey: {{ $root.Values.ingester.zoneLabel }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- toYaml $labels | nindent 10 }}
    {{- end }}
  {{- with $c.initContainers }}
  initContainers: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: clew
      image: {{ include "clew.image" (dict "root" $root "image" $root.Values.image) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args:
        - serve
        - --config=/etc/clew/clew.yaml
        {{- if not $isSingle }}
        - --role={{ .role }}
        {{- end }}
        {{- with $c.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      env:
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        - name: CLEW_NODE_NAME
          value: $(POD_NAME)
        - name: CLEW_NODE_ADVERTISE_ADDR
          {{- if $isStateful }}
          value: $(POD_NAME).{{ .headless }}.{{ include "clew.domain" $root }}:9095
          {{- else }}
          value: {{ ternary "[$(POD_IP)]:9095" "$(POD_IP):9095" $root.Values.global.ipv6 | quote }}
          {{- end }}
        - name: CLEW_NODE_ZONE
          {{- if .zone }}
          value: {{ .zone | quote }}
          {{- else }}
          # Kubernetes 1.35 and later copy the node's zone to its pods; before, this is empty.
          valueFrom: {fieldRef: {fieldPath: "metadata.labels['{{ $root.Values.ingester.zoneLabel }}']"}}
          {{- end }}
        {{- include "clew.bucketEnv" $root | nindent 8 }}
        {{- include "clew.rpcTlsEnv" $root | nindent 8 }}
        {{- with $root.Values.global.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $c.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with concat $root.Values.global.extraEnvFrom $c.extraEnvFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - {name: http, containerPort: 3200, protocol: TCP}
        {{- if has .role (list "single" "distributor") }}
        - {name: otlp-grpc, containerPort: 4317, protocol: TCP}
        - {name: otlp-http, containerPort: 4318, protocol: TCP}
        {{- end }}
        {{- if has .role (list "metastore" "ingester" "querier") }}
        - {name: rpc, containerPort: 9095, protocol: TCP}
        {{- end }}
        {{- with $c.extraPorts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      # Answered from the first moment, also while the log is read back.
      startupProbe:
        {{- include "clew.probe" (dict "given" $c.startupProbe "path" "/status/version" "rest" (dict "periodSeconds" 2 "failureThreshold" 60)) | nindent 8 }}
      livenessProbe:
        {{- include "clew.probe" (dict "given" $c.livenessProbe "path" "/status/version" "rest" (dict "periodSeconds" 10 "timeoutSeconds" 5 "failureThreshold" 6)) | nindent 8 }}
      readinessProbe:
        {{- include "clew.probe" (dict "given" $c.readinessProbe "path" "/ready" "rest" (dict "periodSeconds" 3 "timeoutSeconds" 3 "failureThreshold" 2)) | nindent 8 }}
      resources: {{- toYaml $c.resources | nindent 8 }}
      securityContext: {{- include "clew.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/clew, readOnly: true}
        - {name: data, mountPath: /var/lib/clew}
        {{- if and $folder $root.Values.bucket.existingClaim }}
        - {name: bucket, mountPath: {{ $folder }}}
        {{- end }}
        {{- if $root.Values.bucket.existingSecret.serviceAccountKey }}
        - {name: bucket-secret, mountPath: /etc/clew-bucket, readOnly: true}
        {{- end }}
        {{- include "clew.rpcTlsMount" $root | nindent 8 }}
        {{- with $c.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $c.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      {{- if eq $root.Values.configStorageType "Secret" }}
      secret: {secretName: {{ include "clew.configName" $root }}}
      {{- else }}
      configMap: {name: {{ include "clew.configName" $root }}}
      {{- end }}
    {{- if not (and $isStateful $c.persistence.enabled) }}
    - {name: data, emptyDir: {}}
    {{- end }}
    {{- if and $folder $root.Values.bucket.existingClaim }}
    - {name: bucket, persistentVolumeClaim: {claimName: {{ $root.Values.bucket.existingClaim }}}}
    {{- end }}
    {{- with $root.Values.bucket.existingSecret }}
    {{- if .serviceAccountKey }}
    - name: bucket-secret
      secret:
        secretName: {{ .name }}
        items: [{key: {{ .serviceAccountKey }}, path: service-account.json}]
    {{- end }}
    {{- end }}
    {{- include "clew.rpcTlsVolume" $root | nindent 4 }}
    {{- with $c.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
