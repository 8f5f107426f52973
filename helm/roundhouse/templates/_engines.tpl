{{/* The engines by name, each with the defaults, its object's name and its served name. */}}
{{- define "roundhouse.engines" -}}
{{- $engines := dict -}}
{{- range .Values.engines -}}
{{- $engine := mergeOverwrite (deepCopy $.Values.engineDefaults) (deepCopy .) -}}
{{- if hasKey $engines .name -}}
{{- fail (printf "\n\nengines: two have the name %s. Give each its own.\n" .name) -}}
{{- end -}}
{{- $fullname := printf "%s-engine-%s" (include "roundhouse.fullname" $) .name -}}
{{- /* Of a group Kubernetes makes longer names and labels, and none may have over 63 characters. */}}
{{- $longest := ternary 42 63 (gt (int $engine.nodes) 1) -}}
{{- if gt (len $fullname) $longest -}}
{{- fail (printf "\n\nengines: %s makes names of more than %d characters. Shorten it, or set fullnameOverride.\n" .name $longest) -}}
{{- end -}}
{{- range $reserved := list "host" "port" "served-model-name" "revision" "nnodes" "node-rank" "master-addr" "master-port" "headless" "shutdown-timeout" "api-key" "uds" "ssl-keyfile" "ssl-certfile" -}}
{{- if hasKey $engine.args $reserved -}}
{{- fail (printf "\n\nengines: args.%s of %s: the chart sets it. Remove it.\n" $reserved $engine.name) -}}
{{- end -}}
{{- end -}}
{{- range $flag, $_ := $engine.args -}}
{{- if not (regexMatch `^[a-zA-Z][a-zA-Z0-9._-]*$` $flag) -}}
{{- fail (printf "\n\nengines: args.%s of %s: write flags of vLLM without the dashes, such as max-model-len.\n" $flag $engine.name) -}}
{{- end -}}
{{- end -}}
{{- if not (($engine.resources.limits | default dict).memory) -}}
{{- fail (printf "\n\nengines: set resources.limits.memory of %s, or it may take all memory of its node.\n" $engine.name) -}}
{{- end -}}
{{- $cache := $engine.cache -}}
{{- if and (eq $cache.kind "hostPath") (not $cache.hostPath) -}}
{{- fail (printf "\n\nengines: set cache.hostPath of %s, the folder of the node.\n" .name) -}}
{{- end -}}
{{- $pods := mul (int64 $engine.replicas) (int64 $engine.nodes) -}}
{{- if and (eq $cache.kind "pvc") (not $cache.existingClaim) (gt $pods 1) (not (has "ReadWriteMany" $cache.accessModes)) -}}
{{- fail (printf "\n\nengines: the %d pods of %s share one claim, so that cache.accessModes needs ReadWriteMany, and a storage class that has it.\n" $pods .name) -}}
{{- end -}}
{{- $path := or (hasPrefix "/" .model) (hasPrefix "." .model) -}}
{{- $_ := set $engine "fullname" $fullname -}}
{{- $_ := set $engine "servedName" ($engine.servedName | default (ternary .name .model $path)) -}}
{{- $_ := set $engines .name $engine -}}
{{- end -}}
{{- range $name, $engine := $engines -}}
{{- if and (gt (int $engine.nodes) 1) (hasKey $engines (printf "%s-nodes" $name)) -}}
{{- fail (printf "\n\nengines: LeaderWorkerSet makes a Service for %s that has the name of %s-nodes'. Give one of them another.\n" $name $name) -}}
{{- end -}}
{{- end -}}
{{- toYaml $engines -}}
{{- end }}

{{/* Labels of an engine's pods and objects. Take `root`, `engine`. */}}
{{- define "roundhouse.engine.selector" -}}
{{ include "roundhouse.selector" .root }}
app.kubernetes.io/component: engine
roundhouse-engine: {{ .engine.name | quote }}
{{- end }}

{{- define "roundhouse.engine.labels" -}}
{{ include "roundhouse.labels" .root }}
app.kubernetes.io/component: engine
roundhouse-engine: {{ .engine.name | quote }}
{{- end }}

{{/* vLLM's arguments. Takes `engine` and `role`. */}}
{{- define "roundhouse.engine.args" -}}
{{- $engine := .engine -}}
{{- $args := deepCopy $engine.args -}}
{{- if and (gt (int $engine.gpus) 1) (not (hasKey $args "tensor-parallel-size")) -}}
{{- $_ := set $args "tensor-parallel-size" (int64 $engine.gpus) -}}
{{- end -}}
{{- $list := list $engine.model "--host=0.0.0.0" "--port=8000" -}}
{{- $list = append $list (printf "--served-model-name=%s" $engine.servedName) -}}
{{- $list = append $list (printf "--shutdown-timeout=%d" (int64 $engine.drainSeconds)) -}}
{{- with $engine.revision }}{{ $list = append $list (printf "--revision=%s" .) }}{{ end -}}
{{- if gt (int $engine.nodes) 1 -}}
{{- if not (hasKey $args "pipeline-parallel-size") -}}
{{- $_ := set $args "pipeline-parallel-size" (int64 $engine.nodes) -}}
{{- end -}}
{{- /* The kubelet puts in what LeaderWorkerSet tells each pod. */}}
{{- $list = concat $list (list "--nnodes=$(LWS_GROUP_SIZE)" "--node-rank=$(LWS_WORKER_INDEX)" "--master-addr=$(LWS_LEADER_ADDRESS)" "--master-port=29501") -}}
{{- if eq .role "worker" }}{{ $list = append $list "--headless" }}{{ end -}}
{{- end -}}
{{- $json := list "allowed-origins" "allowed-methods" "allowed-headers" -}}
{{- $withoutTwin := list "headless" "grpc" "disable-log-stats" "aggregate-engine-logging" "data-parallel-multi-port-external-lb" -}}
{{- range $flag, $value := $args -}}
{{- if and (kindIs "bool" $value) (not $value) (has $flag $withoutTwin) -}}
{{- /* Off is how it is. */}}
{{- else if kindIs "bool" $value -}}
{{- $list = append $list (printf "--%s%s" (ternary "" "no-" $value) $flag) -}}
{{- else if and (kindIs "slice" $value) (not (has $flag $json)) -}}
{{- /* As of the server's own engines: after the flag, but for the one that is said again. */}}
{{- range $index, $item := $value -}}
{{- $item = ternary $item (toJson $item) (kindIs "string" $item) -}}
{{- if hasPrefix "-" $item -}}
{{- fail (printf "\n\nengines: args.%s of %s: %s begins with a dash, and would be taken for a flag. Use extraArgs.\n" $flag $engine.name $item) -}}
{{- end -}}
{{- if or (eq $index 0) (eq $flag "middleware") }}{{ $list = append $list (printf "--%s" $flag) }}{{ end -}}
{{- $list = append $list $item -}}
{{- end -}}
{{- else if kindIs "string" $value -}}
{{- $list = append $list (printf "--%s=%s" $flag $value) -}}
{{- else -}}
{{- $list = append $list (printf "--%s=%s" $flag ($value | toJson)) -}}
{{- end -}}
{{- end -}}
{{- concat $list $engine.extraArgs | toYaml -}}
{{- end }}

{{/* A container's variables, before `extraEnv`. Takes an engine. */}}
{{- define "roundhouse.engine.env" -}}
- {name: HOME, value: /home/engine}
# The number that it runs as has no name, and libraries ask for one.
- {name: USER, value: engine}
- {name: XDG_CACHE_HOME, value: /cache}
- {name: HF_HOME, value: /cache/huggingface}
- {name: VLLM_CACHE_ROOT, value: /cache/vllm}
- {name: TORCHINDUCTOR_CACHE_DIR, value: /cache/inductor}
- {name: TRITON_CACHE_DIR, value: /cache/triton}
- {name: FLASHINFER_WORKSPACE_BASE, value: /cache}
- {name: CUDA_CACHE_PATH, value: /cache/cuda}
- {name: VLLM_NO_USAGE_STATS, value: "1"}
# Seconds that a connection may rest; the gateway keeps its own for less.
- {name: VLLM_HTTP_TIMEOUT_KEEP_ALIVE, value: "75"}
{{- if gt (int .nodes) 1 }}
# Where the other machines reach this one; by itself it would guess.
- name: VLLM_HOST_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- end }}
{{- with .hfToken.existingSecret }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ . | quote }}
      key: {{ $.hfToken.key | quote }}
{{- end }}
{{- end }}

{{/* What a pod asks for: GPUs, and a node's disk for a cache on it, lest it is found full when the
weights have come. Takes an engine. */}}
{{- define "roundhouse.engine.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- range list "requests" "limits" -}}
{{- $these := get $resources . | default dict -}}
{{- if $.gpus }}{{ $these = merge (dict $.gpuResource (int64 $.gpus)) $these }}{{ end -}}
{{- if and (eq . "requests") (eq $.cache.kind "emptyDir") (not (hasKey $these "ephemeral-storage")) -}}
{{- $_ := set $these "ephemeral-storage" $.cache.size -}}
{{- end -}}
{{- $_ := set $resources . $these -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{/* A pod of an engine. Takes `root`, `engine` and `role`: serving, or worker of a group's leader. */}}
{{- define "roundhouse.engine.pod" -}}
{{- $engine := .engine -}}
{{- $gpus := int64 $engine.gpus -}}
metadata:
  labels:
    {{- $role := printf "roundhouse-role: %s" .role }}
    {{- include "roundhouse.podLabels" (dict "labels" (merge (dict) $engine.podLabels .root.Values.commonLabels) "selector" (printf "%s\n%s" (include "roundhouse.engine.selector" .) $role)) | nindent 4 }}
  {{- with $engine.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "roundhouse.serviceAccountName" .root | quote }}
  automountServiceAccountToken: false
  # VLLM_PORT of a Service named vllm would be taken for a setting.
  enableServiceLinks: false
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $engine.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- with $engine.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  terminationGracePeriodSeconds: {{ add $engine.preStopSeconds $engine.drainSeconds 15 }}
  securityContext:
    {{- include "roundhouse.podSecurity" $engine | nindent 4 }}
  containers:
    - name: engine
      image: {{ include "roundhouse.image" (dict "image" $engine.image "where" "engineDefaults.image" "tag" "") | quote }}
      imagePullPolicy: {{ $engine.image.pullPolicy | quote }}
      command:
        {{- toYaml $engine.command | nindent 8 }}
      args:
        {{- include "roundhouse.engine.args" . | nindent 8 }}
      env:
        {{- include "roundhouse.env" (dict "own" (include "roundhouse.engine.env" $engine | fromYamlArray) "more" $engine.extraEnv) | nindent 8 }}
      {{- if eq .role "serving" }}
      ports:
        - name: http
          containerPort: 8000
      startupProbe:
        httpGet: {path: /health, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: {{ mul $engine.startupMinutes 6 }}
      livenessProbe:
        httpGet: {path: /health, port: http}
        periodSeconds: 10
        timeoutSeconds: 10
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /health, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 3
      {{- end }}
      {{- /* A worker outlasts its leader, whose requests it computes. */}}
      {{- $sleep := ternary $engine.preStopSeconds (add $engine.preStopSeconds $engine.drainSeconds) (eq .role "serving") | int64 }}
      {{- if $sleep }}
      lifecycle:
        preStop:
          sleep:
            seconds: {{ $sleep }}
      {{- end }}
      resources:
        {{- include "roundhouse.engine.resources" $engine | nindent 8 }}
      securityContext:
        {{- include "roundhouse.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - {name: cache, mountPath: /cache}
        - {name: home, mountPath: /home/engine}
        - {name: tmp, mountPath: /tmp}
        - {name: shm, mountPath: /dev/shm}
        {{- with $engine.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: cache
      {{- if eq $engine.cache.kind "pvc" }}
      persistentVolumeClaim:
        claimName: {{ $engine.cache.existingClaim | default (printf "%s-cache" $engine.fullname) | quote }}
      {{- else if eq $engine.cache.kind "hostPath" }}
      hostPath:
        path: {{ $engine.cache.hostPath | quote }}
        # Kubernetes would make it for root alone.
        type: Directory
      {{- else }}
      emptyDir:
        sizeLimit: {{ $engine.cache.size | quote }}
      {{- end }}
    - name: home
      emptyDir:
        sizeLimit: 4Gi
    - name: tmp
      emptyDir:
        sizeLimit: 16Gi
    - name: shm
      emptyDir:
        medium: Memory
        sizeLimit: {{ $engine.shm | quote }}
    {{- with $engine.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $engine.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $tolerations := $engine.tolerations }}
  {{- if $gpus }}
  {{- $tolerations = prepend $tolerations (dict "key" $engine.gpuResource "operator" "Exists" "effect" "NoSchedule") }}
  {{- end }}
  {{- with $tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $engine.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $engine.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
