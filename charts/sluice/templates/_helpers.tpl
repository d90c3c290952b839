{{- define "sluice.labels" -}}
app.kubernetes.io/name: sluice
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "sluice.image" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
{{- with .Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end }}

{{- define "sluice.variable" -}}
- name: {{ .name }}
  valueFrom:
    configMapKeyRef:
      name: sluice
      key: {{ .key }}
{{- end }}
