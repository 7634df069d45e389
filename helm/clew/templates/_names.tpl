{{/* Names and labels. */}}

{{- define "clew.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "clew.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "clew.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "clew.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of a role's objects: (dict "root" $ "role" "querier"). One process has the plain name. */}}
{{- define "clew.roleName" -}}
{{- if eq .role "single" -}}
{{- include "clew.fullname" .root -}}
{{- else -}}
{{- printf "%s-%s" (include "clew.fullname" .root) .role -}}
{{- end -}}
{{- end -}}

{{- define "clew.selectorLabels" -}}
app.kubernetes.io/name: {{ include "clew.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- if .role }}
app.kubernetes.io/component: {{ .role }}
{{- end }}
{{- end -}}

{{/* Labels of an object or pod: (dict "root" $ "role" "" "labels" map). What the chart sets stays. */}}
{{- define "clew.labels" -}}
{{- $own := include "clew.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- $_ := set $own "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- /* Alerts know Clew's processes by it. */ -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "clew" -}}
{{- toYaml (merge $own (deepCopy (default dict .labels)) (deepCopy (default dict .root.Values.global.commonLabels))) -}}
{{- end -}}

{{/* metadata: (dict "root" $ "role" "" "name" "…" "labels" map "annotations" map "namespace" "") */}}
{{- define "clew.metadata" -}}
name: {{ .name }}
namespace: {{ default .root.Release.Namespace .namespace }}
labels:
  {{- include "clew.labels" . | nindent 2 }}
{{- with merge (dict) (default (dict) .annotations) .root.Values.global.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "clew.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "clew.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* An image: (dict "root" $ "image" map). */}}
{{- define "clew.image" -}}
{{- $registry := default .image.registry .root.Values.global.imageRegistry -}}
{{- with $registry }}{{ . }}/{{ end -}}
{{- .image.repository -}}
{{- if .image.digest -}}
@{{ .image.digest }}
{{- else -}}
:{{ default .root.Chart.AppVersion .image.tag }}
{{- end -}}
{{- end -}}

{{/* A value that may be a template: (dict "root" $ "value" …). */}}
{{- define "clew.tplValue" -}}
{{- if kindIs "string" .value -}}
{{- tpl .value .root -}}
{{- else -}}
{{- toYaml .value -}}
{{- end -}}
{{- end -}}

{{/* The roles that are made, separated by spaces. */}}
{{- define "clew.roles" -}}
{{- if eq .Values.mode "single" -}}
single
{{- else -}}
metastore ingester distributor {{ if .Values.compactor.enabled }}compactor {{ end }}querier
{{- end -}}
{{- end -}}

{{/* The DNS suffix of services in the release's namespace. */}}
{{- define "clew.domain" -}}
{{ .Release.Namespace }}.svc.{{ .Values.global.clusterDomain }}
{{- end -}}

{{/* Where spans go to: the host of the service. */}}
{{- define "clew.otlpHost" -}}
{{- $role := ternary "single" "distributor" (eq .Values.mode "single") -}}
{{ include "clew.roleName" (dict "root" . "role" $role) }}.{{ include "clew.domain" . }}
{{- end -}}

{{/* Where queries go to: the host of the service. */}}
{{- define "clew.queryHost" -}}
{{- $role := ternary "single" "querier" (eq .Values.mode "single") -}}
{{ include "clew.roleName" (dict "root" . "role" $role) }}.{{ include "clew.domain" . }}
{{- end -}}

{{/* `true` if the bucket is reached over the network. */}}
{{- define "clew.bucketIsRemote" -}}
{{- if regexMatch "^(s3|gs|az|azure)://" .Values.bucket.url }}true{{ end -}}
{{- end -}}

{{/* The port of an address such as `http://host:9000/path`; that of its scheme if it names none. */}}
{{- define "clew.urlPort" -}}
{{- $host := regexReplaceAll "^[a-z]+://" . "" | splitList "/" | first -}}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default (ternary "80" "443" (hasPrefix "http://" .)) -}}
{{- end -}}

{{/* Ports that pods may connect to for the bucket, separated by spaces. */}}
{{- define "clew.bucketPorts" -}}
{{- $ports := list -}}
{{- range .Values.networkPolicy.bucketPorts }}{{ $ports = append $ports (int . | toString) }}{{ end -}}
{{- with .Values.bucket.endpoint }}{{ $ports = append $ports (include "clew.urlPort" .) }}{{ end -}}
{{- $ports | uniq | join " " -}}
{{- end -}}

{{/* The folder of a bucket that is one; empty for others. */}}
{{- define "clew.bucketFolder" -}}
{{- if and .Values.bucket.url (not (include "clew.bucketIsRemote" .)) -}}
{{- trimPrefix "file://" .Values.bucket.url -}}
{{- end -}}
{{- end -}}

{{/* A number of bytes, from `1.5Gi` or `512MiB` or `1000`; 0 if it cannot be read. */}}
{{- define "clew.bytes" -}}
{{- $text := ternary (toString .) (int64 . | toString) (kindIs "string" .) -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text | default "0" | float64 -}}
{{- $unit := regexReplaceAll "^[0-9]+(\\.[0-9]+)? *" $text "" | trimSuffix "B" -}}
{{- $sizes := dict "" 1 "k" 1000 "K" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- if hasKey $sizes $unit }}{{ mulf $number (get $sizes $unit) | int64 }}{{ else }}0{{ end -}}
{{- end -}}
