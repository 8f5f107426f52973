{{/* Labels of what Prometheus' operator reads: everybody's, and those that it selects by. */}}
{{- define "roundhouse.monitoring.labels" -}}
{{- mergeOverwrite (dict) .Values.monitoring.labels (include "roundhouse.labels" . | fromYaml) | toYaml -}}
{{- end }}

{{/* When a monitor scrapes. The operator drops one whose scrape may take longer than its interval. */}}
{{- define "roundhouse.monitoring.times" -}}
{{- $interval := include "roundhouse.seconds" (dict "value" .monitor.interval "where" (printf "monitoring.%s.interval" .name)) | int64 -}}
{{- $timeout := include "roundhouse.seconds" (dict "value" .monitor.scrapeTimeout "where" (printf "monitoring.%s.scrapeTimeout" .name)) | int64 -}}
{{- if gt $timeout $interval -}}
{{- fail (printf "\n\nmonitoring.%s.scrapeTimeout is longer than its interval. Shorten it, or scrape less often.\n" .name) -}}
{{- end -}}
interval: {{ .monitor.interval | quote }}
scrapeTimeout: {{ .monitor.scrapeTimeout | quote }}
{{- end }}
