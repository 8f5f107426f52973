{{/* At most 30 characters of a name, which leaves room for an engine's and for what Kubernetes adds to
a pod's. Of two long ones that begin alike each keeps its own. */}}
{{- define "roundhouse.short" -}}
{{- if gt (len .) 30 -}}
{{- printf "%s-%s" (trunc 21 . | trimSuffix "-") (sha256sum . | trunc 8) -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end }}

{{- define "roundhouse.name" -}}
{{- include "roundhouse.short" (.Values.nameOverride | default .Chart.Name) -}}
{{- end }}

{{/* What the names of all objects begin with. */}}

{{- define "roundhouse.fullname" -}}
{{- $name := include "roundhouse.name" . -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- end -}}
{{- if not (regexMatch `^[a-z]([-a-z0-9]*[a-z0-9])?$` $full) -}}
{{- fail (printf "\n\n%s: a Service may not have this name. Choose a release that begins with a letter and has no dots, or set fullnameOverride.\n" $full) -}}
{{- end -}}
{{- include "roundhouse.short" $full -}}
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

{{/* Of the pod that asks for `helm test`. */}}
{{- define "roundhouse.test.selector" -}}
{{ include "roundhouse.selector" . }}
app.kubernetes.io/component: test
{{- end }}

{{- define "roundhouse.test.labels" -}}
{{ include "roundhouse.labels" . }}
app.kubernetes.io/component: test
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

{{/* Variables of a container: `own`, and `more`, which win: a name may stand in a list but once. */}}
{{- define "roundhouse.env" -}}
{{- $names := dict -}}
{{- range .more }}{{ $_ := set $names .name true }}{{ end -}}
{{- $env := list -}}
{{- range .own }}{{ if not (hasKey $names .name) }}{{ $env = append $env . }}{{ end }}{{ end -}}
{{- concat $env .more | toYaml -}}
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
