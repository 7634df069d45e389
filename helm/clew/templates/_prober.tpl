{{/* What `clew probe` is told: where to write and read, and as whom. */}}
{{- define "clew.probeArgs" -}}
- --otlp-url={{ default (printf "http://%s:4318" (include "clew.otlpHost" .)) .Values.prober.otlpUrl }}
- --query-url={{ default (printf "http://%s:3200" (include "clew.queryHost" .)) .Values.prober.queryUrl }}
- --timeout={{ .Values.prober.timeout }}
{{- if .Values.multitenancy }}
- --tenant={{ .Values.prober.tenant }}
{{- end }}
{{- end -}}
