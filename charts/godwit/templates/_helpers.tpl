{{- define "godwit.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "godwit.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else if contains (include "godwit.name" .) .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "godwit.name" .) | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "godwit.selectorLabels" -}}
app.kubernetes.io/name: {{ include "godwit.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "godwit.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
app.kubernetes.io/name: {{ include "godwit.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: godwit
{{- end -}}

{{- define "godwit.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "godwit.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "godwit.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- /* The worker is of the operator's version unless its image is named in full. */ -}}
{{- define "godwit.workerImage" -}}
{{- $image := .Values.worker.image -}}
{{- if not $image.repository -}}
{{- if or $image.tag $image.digest -}}
{{- fail "worker.image.tag and worker.image.digest need worker.image.repository" -}}
{{- end -}}
{{ include "godwit.image" . }}
{{- else if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- /* What the operator does in every namespace it looks after. It can read no Secret. */ -}}
{{- define "godwit.rules" -}}
- apiGroups: [godwit.dev]
  resources: [migrations, cohorts]
  verbs: [get, list, watch, patch]
- apiGroups: [godwit.dev]
  resources: [approvals]
  verbs: [list, watch]
- apiGroups: [godwit.dev]
  resources: [migrations/status, cohorts/status]
  verbs: [update, patch]
# OpenShift asks for this right where a child blocks the deletion of its owner.
- apiGroups: [godwit.dev]
  resources: [migrations/finalizers, cohorts/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
# The route table: read and written by name only; to list ConfigMaps would be to read all of them.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
# Why a Job has no pod, or a pod no container, is told by events alone.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
# Where its namespace is being deleted too, no Job can put the databases in order any more.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
{{- range .Values.rbac.conditionReaders }}
- apiGroups: {{ toJson .apiGroups }}
  resources: {{ toJson .resources }}
  verbs: [get]
{{- end }}
{{- end -}}
