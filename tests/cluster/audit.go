package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// innerAudit is where a node sees the folder of the audit log, which the caller may keep anywhere.
const innerAudit = "/run/godwit-audit"

// auditLevels are the levels that `--audit-level` accepts.
var auditLevels = []string{"Metadata", "Request", "RequestResponse"}

// auditPolicy leaves out what comes by itself and tells nothing about the operator: reading of events and leases and
// the health questions of this program.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    nonResourceURLs: ["/readyz*", "/livez*", "/healthz*"]
  - level: None
    verbs: [get, list, watch]
    resources:
      - group: ""
        resources: [events]
      - group: events.k8s.io
        resources: [events]
      - group: coordination.k8s.io
        resources: [leases]
  - level: %s
`

// writeAuditPolicy does nothing unless an audit log was asked for.
func writeAuditPolicy(layout Layout, options Options) error {
	if options.AuditLog == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(options.AuditLog), 0o755); err != nil {
		return fmt.Errorf("making the folder of --audit-log: %w", err)
	}
	content := fmt.Sprintf(auditPolicy, options.AuditLevel)
	return os.WriteFile(layout.Config("audit-policy.yaml"), []byte(content), 0o600)
}

// auditFlags are the API server's. Lines are written before the answer leaves, so that a test that saw an answer also
// finds its line.
func auditFlags(layout Layout, record Record) []string {
	log := record.Options.AuditLog
	if log == "" {
		return nil
	}
	if record.isNode() {
		log = filepath.Join(innerAudit, filepath.Base(log))
	}
	return []string{
		"--audit-log-path=" + log, "--audit-log-mode=blocking", "--audit-log-format=json",
		"--audit-policy-file=" + layout.Config("audit-policy.yaml"),
	}
}
