{{/* Labels of what Prometheus' operator reads: everybody's, and those that it selects by. */}}
{{- define "roundhouse.monitoring.labels" -}}
{{- mergeOverwrite (dict) .Values.monitoring.labels (include "roundhouse.labels" . | fromYaml) | toYaml -}}
{{- end }}
