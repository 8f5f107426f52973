{{/* Seconds, rounded up, of a duration as the server's config has it: 30, "500ms", "1h30m". Takes
`value` and `where`. */}}
{{- define "roundhouse.seconds" -}}
{{- $text := .value | toJson | trimAll "\"" | trim | lower -}}
{{- if regexMatch `^[0-9]+(\.[0-9]+)?$` $text -}}
{{- $text | float64 | ceil | int64 -}}
{{- else if regexMatch `^([0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)\s*)+$` $text -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll `[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)` $text -1 -}}
{{- $number := regexFind `^[0-9]+(\.[0-9]+)?` . | float64 -}}
{{- $sum = addf $sum (mulf $number (get $units (regexFind `[a-z]+$` .))) -}}
{{- end -}}
{{- $sum | ceil | int64 -}}
{{- else -}}
{{- fail (printf "\n\n%s: %s is no duration. Write seconds (30) or 500ms, 30s, 15m, 1h30m.\n" .where $text) -}}
{{- end -}}
{{- end }}

{{/* Everything in the config that looks like a secret and is no variable, one path a line. Takes
`node` and `at`. */}}
{{- define "roundhouse.literalSecrets" -}}
{{- $at := .at -}}
{{- if kindIs "map" .node -}}
{{- range $key, $value := .node -}}
{{- $here := printf "%s.%s" $at $key -}}
{{- $secret := has (lower $key) (list "api_key" "api_keys" "admin_key" "metrics_key" "key" "authorization" "x-api-key" "api-key") -}}
{{- if regexMatch `\.(headers|env)$` $at }}{{ $secret = or $secret (regexMatch `(?i)auth|token|secret|passw|cookie|key` $key) }}{{ end -}}
{{- if $secret -}}
{{- $found := $value -}}
{{- if not (kindIs "slice" $value) }}{{ $found = list $value }}{{ end -}}
{{- range $found -}}
{{- if and (kindIs "string" .) . (not (regexMatch `^([A-Za-z]+ )?\$\{[A-Za-z_][A-Za-z0-9_]*(:-)?\}$` .)) (not (hasPrefix "sha256:" .)) }}
{{ $here }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "roundhouse.literalSecrets" (dict "node" $value "at" $here) -}}
{{- end -}}
{{- else if kindIs "slice" .node -}}
{{- range $index, $value := .node -}}
{{- include "roundhouse.literalSecrets" (dict "node" $value "at" (printf "%s[%d]" $at $index)) -}}
{{- end -}}
{{- else if and (kindIs "string" .node) (regexMatch `://[^/@:]*:[^/@$]+@` .node) }}
{{ $at }}
{{- end -}}
{{- end }}

{{/* The server's config: that of values, with what only the chart knows. */}}
{{- define "roundhouse.config" -}}
{{- $config := deepCopy (.Values.config | default dict) -}}
{{- $server := get $config "server" | default dict -}}
{{- range list "host" "port" "admin" -}}
{{- if hasKey $server . -}}
{{- fail (printf "\n\nconfig.server.%s: the chart sets it. Remove it; service.port and adminService.port are the ports that others see.\n" .) -}}
{{- end -}}
{{- end -}}
{{- $literal := include "roundhouse.literalSecrets" (dict "node" $config "at" "config") | trim -}}
{{- if $literal -}}
{{- fail (printf "\n\nA secret has no place in a ConfigMap:\n%s\nWrite ${NAME} there, and give NAME by a secret that secrets.env names.\n" $literal) -}}
{{- end -}}
{{- $listeners := dict "host" "0.0.0.0" "port" 8000 "admin" "0.0.0.0:8001" -}}
{{- $_ := set $config "server" (merge $listeners $server) -}}
{{- $_ := set $config "version" 1 -}}
{{- $engines := get $config "engines" | default dict -}}
{{- range $name, $engine := include "roundhouse.engines" . | fromYaml -}}
{{- if hasKey $engines $name -}}
{{- fail (printf "\n\nconfig.engines.%s: one of `engines` has this name, too. Give one of them another.\n" $name) -}}
{{- end -}}
{{- $found := dict
  "runtime" "external"
  "discover" (printf "dns://%s.%s.svc:8000" $engine.fullname $.Release.Namespace)
  "model" $engine.servedName -}}
{{- range $key, $_ := $found -}}
{{- if hasKey $engine.config $key -}}
{{- fail (printf "\n\nengines: config.%s of %s: the chart sets it. Remove it.\n" $key $name) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $engines $name (merge $found $engine.config) -}}
{{- end -}}
{{- if $engines }}{{ $_ := set $config "engines" $engines }}{{ end -}}
{{- toYaml $config -}}
{{- end }}

{{/* How long a gateway's pod may take to end: longer than all that it does meanwhile. */}}
{{- define "roundhouse.gateway.grace" -}}
{{- $timeouts := (((.Values.config | default dict).server | default dict).timeouts | default dict) -}}
{{- $unready := include "roundhouse.seconds" (dict "value" ($timeouts.unready | default 0) "where" "config.server.timeouts.unready") | int64 -}}
{{- $drain := $timeouts.drain -}}
{{- if kindIs "invalid" $drain }}{{ $drain = "25s" }}{{ end -}}
{{- $drain = include "roundhouse.seconds" (dict "value" $drain "where" "config.server.timeouts.drain") | int64 -}}
{{- $needed := add .Values.gateway.preStopSeconds $unready $drain -}}
{{- $grace := .Values.gateway.terminationGracePeriodSeconds -}}
{{- if not $grace -}}
{{- add $needed 15 -}}
{{- else if le (int64 $grace) $needed -}}
{{- fail (printf "\n\ngateway.terminationGracePeriodSeconds: %d is too short: preStopSeconds and the config's unready and drain take %d. Give more, or 0.\n" (int64 $grace) $needed) -}}
{{- else -}}
{{- int64 $grace -}}
{{- end -}}
{{- end }}
