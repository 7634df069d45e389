{{/* What a role is made of: its values, and the preset's where they say nothing, as YAML.
     (dict "root" $ "role" "ingester") */}}
{{- define "clew.component" -}}
{{- $preset := index (.root.Files.Get (printf "presets/%s.yaml" .root.Values.preset) | fromYaml) .role | default dict -}}
{{- $given := deepCopy (index .root.Values .role) -}}
{{- $replicas := default (default 1 $preset.replicas) $given.replicas | int -}}
{{- $_ := set $given "replicas" $replicas -}}
{{- if not $given.resources }}{{ $_ := set $given "resources" (default dict $preset.resources) }}{{ end -}}
{{- if $given.persistence -}}
{{- $size := default (dig "persistence" "size" "10Gi" $preset) $given.persistence.size -}}
{{- $_ := set $given.persistence "size" $size -}}
{{- end -}}
{{- $_ := set $given "headBytes" (default "" $preset.headBytes) -}}
{{- $_ := set $given "cacheBytes" (default "" $preset.cacheBytes) -}}
{{- toYaml $given -}}
{{- end -}}

{{/* The StatefulSets of the ingesters, as YAML: a list of {name, zone, replicas} under `sets`. */}}
{{- define "clew.ingesterSets" -}}
{{- $component := include "clew.component" (dict "root" . "role" "ingester") | fromYaml -}}
{{- $name := include "clew.roleName" (dict "root" . "role" "ingester") -}}
{{- $replicas := int $component.replicas -}}
{{- $sets := list -}}
{{- if .Values.ingester.zones -}}
{{- range .Values.ingester.zones -}}
{{- $sets = append $sets (dict "name" (printf "%s-%s" $name .) "zone" . "replicas" (div $replicas (len $.Values.ingester.zones))) -}}
{{- end -}}
{{- else -}}
{{- $sets = append $sets (dict "name" $name "zone" "" "replicas" $replicas) -}}
{{- end -}}
{{- toYaml (dict "sets" $sets) -}}
{{- end -}}

{{/* The address of all interfaces. */}}
{{- define "clew.anyAddress" -}}
{{ ternary "[::]" "0.0.0.0" .Values.global.ipv6 }}
{{- end -}}

{{/* The settings of every process, as YAML. */}}
{{- define "clew.config" -}}
{{- $single := include "clew.component" (dict "root" . "role" "single") | fromYaml -}}
{{- $ingester := include "clew.component" (dict "root" . "role" "ingester") | fromYaml -}}
{{- $querier := include "clew.component" (dict "root" . "role" "querier") | fromYaml -}}
{{- $isSingle := eq .Values.mode "single" -}}
{{- $any := include "clew.anyAddress" . -}}
{{- $bucket := dict -}}
{{- with .Values.bucket -}}
{{- if .url }}{{ $_ := set $bucket "url" .url }}{{ end -}}
{{- if .endpoint }}{{ $_ := set $bucket "endpoint" .endpoint }}{{ end -}}
{{- if .region }}{{ $_ := set $bucket "region" .region }}{{ end -}}
{{- if hasPrefix "s3://" .url }}{{ $_ := set $bucket "path_style" .pathStyle }}{{ end -}}
{{- if .accountName }}{{ $_ := set $bucket "account_name" .accountName }}{{ end -}}
{{- if .existingSecret.serviceAccountKey }}{{ $_ := set $bucket "service_account_path" "/etc/clew-bucket/service-account.json" }}{{ end -}}
{{- end -}}
{{- $config := dict
      "data_dir" "/var/lib/clew"
      "http_addr" (printf "%s:3200" $any)
      "otlp_grpc_addr" (printf "%s:4317" $any)
      "otlp_http_addr" (printf "%s:4318" $any)
      "rpc_addr" (ternary "127.0.0.1:9095" (printf "%s:9095" $any) $isSingle)
      "shutdown_delay" .Values.shutdownDelay
      "multitenancy_enabled" .Values.multitenancy
      "telemetry" (dict "log_format" "json")
      "ingester" (dict "head_bytes_max" (ternary $single.headBytes $ingester.headBytes $isSingle))
      "querier" (dict "cache_bytes" (ternary $single.cacheBytes $querier.cacheBytes $isSingle)) -}}
{{- if $bucket }}{{ $_ := set $config "bucket" $bucket }}{{ end -}}
{{- if not $isSingle -}}
{{- $preset := .Files.Get (printf "presets/%s.yaml" .Values.preset) | fromYaml -}}
{{- $metastore := include "clew.component" (dict "root" . "role" "metastore") | fromYaml -}}
{{- $name := include "clew.roleName" (dict "root" . "role" "metastore") -}}
{{- $members := list -}}
{{- range until (int $metastore.replicas) -}}
{{- $members = append $members (printf "%s-%d.%s-headless.%s:9095" $name . $name (include "clew.domain" $)) -}}
{{- end -}}
{{- $_ := set $config "metastore" (dict "members" $members "shards" (int $preset.shards)) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.config)) -}}
{{- end -}}

{{/* The name of the object that holds clew.yaml. */}}
{{- define "clew.configName" -}}
{{ include "clew.fullname" . }}-config
{{- end -}}

{{/* The certificate for port 9095: environment variables of a container, which commands in it take up, too. */}}
{{- define "clew.rpcTlsEnv" -}}
{{- if .Values.rpc.tls.existingSecret.name }}
- {name: CLEW_RPC_TLS_CA_FILE, value: /etc/clew-rpc-tls/ca.crt}
- {name: CLEW_RPC_TLS_CERT_FILE, value: /etc/clew-rpc-tls/tls.crt}
- {name: CLEW_RPC_TLS_KEY_FILE, value: /etc/clew-rpc-tls/tls.key}
- {name: CLEW_RPC_TLS_SERVER_NAME, value: {{ .Values.rpc.tls.serverName | quote }}}
{{- end -}}
{{- end -}}

{{- define "clew.rpcTlsMount" -}}
{{- if .Values.rpc.tls.existingSecret.name }}
- {name: rpc-tls, mountPath: /etc/clew-rpc-tls, readOnly: true}
{{- end -}}
{{- end -}}

{{- define "clew.rpcTlsVolume" -}}
{{- with .Values.rpc.tls.existingSecret -}}
{{- if .name }}
- name: rpc-tls
  secret:
    secretName: {{ .name | quote }}
    # For the owner and the pod's group.
    defaultMode: 0440
    items:
      - {key: {{ .caKey | quote }}, path: ca.crt}
      - {key: {{ .certKey | quote }}, path: tls.crt}
      - {key: {{ .keyKey | quote }}, path: tls.key}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Which secret holds which setting: environment variables of a container. */}}
{{- define "clew.bucketEnv" -}}
{{- with .Values.bucket.existingSecret -}}
{{- $secret := .name -}}
{{- range $variable, $key := dict
      "CLEW_BUCKET_ACCESS_KEY_ID" .accessKeyIdKey
      "CLEW_BUCKET_SECRET_ACCESS_KEY" .secretAccessKeyKey
      "CLEW_BUCKET_SESSION_TOKEN" .sessionTokenKey
      "CLEW_BUCKET_SSE_CUSTOMER_KEY" .sseCustomerKeyKey
      "CLEW_BUCKET_ACCOUNT_KEY" .accountKeyKey }}
{{- if $key }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: {{ $key | quote }}}}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}
