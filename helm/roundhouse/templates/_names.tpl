{{/* Names and labels. A release's objects share a prefix of at most 30 characters, which leaves room
for an engine's name and for what Kubernetes adds to a pod's. */}}
{{- define "roundhouse.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 30 | trimSuffix "-" -}}
{{- end }}

{{- define "roundhouse.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 30 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "roundhouse.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 30 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 30 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "roundhouse.selector" -}}
app.kubernetes.io/name: {{ include "roundhouse.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of every object. What a selector uses is put in last: nobody may change it. */}}
{{- define "roundhouse.labels" -}}
{{- $own := include "roundhouse.selector" . | fromYaml -}}
{{- $more := dict
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_")
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
  "app.kubernetes.io/part-of" "roundhouse" -}}
{{- mergeOverwrite (omit .Values.commonLabels "app.kubernetes.io/component" "roundhouse-engine" "roundhouse-role") $more $own | toYaml -}}
{{- end }}

{{- define "roundhouse.gateway.selector" -}}
{{ include "roundhouse.selector" . }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "roundhouse.gateway.labels" -}}
{{ include "roundhouse.labels" . }}
app.kubernetes.io/component: gateway
{{- end }}

{{/* Labels of pods: without versions, so that a new chart does not replace pods that it leaves alone.
Takes `labels` of the user's and `selector`. */}}
{{- define "roundhouse.podLabels" -}}
{{- mergeOverwrite (dict) .labels (.selector | fromYaml) | toYaml -}}
{{- end }}

{{- define "roundhouse.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "roundhouse.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{- define "roundhouse.secretName" -}}
{{- .Values.secrets.existingSecret | default (include "roundhouse.fullname" .) -}}
{{- end }}

{{/* An image's name. Takes `image`, `where` (its place in values) and `tag`, used when it has none. */}}
{{- define "roundhouse.image" -}}
{{- if not .image.repository -}}
{{- fail (printf "\n\nSet %s.repository to an image that your cluster can pull; there is no default.\n" .where) -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else if .image.tag | default .tag -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .tag) -}}
{{- else -}}
{{- fail (printf "\n\nSet %s.tag or %s.digest: which version of %s is to run?\n" .where .where .image.repository) -}}
{{- end -}}
{{- end }}

{{/* What every container has. */}}
{{- define "roundhouse.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* What every pod has. Takes runAsUser and runAsGroup. */}}
{{- define "roundhouse.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .runAsUser | int64 }}
runAsGroup: {{ .runAsGroup | int64 }}
fsGroup: {{ .runAsGroup | int64 }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}
