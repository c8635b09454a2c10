package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Sizes of a cluster: what `--size` accepts.
const (
	sizeControlPlane = "control-plane"
	sizeNode         = "node"
)

// Options are what the caller of `up` chose. A running cluster is used again only for the same options.
type Options struct {
	Size       string `json:"size"`
	AuditLog   string `json:"auditLog,omitempty"`
	AuditLevel string `json:"auditLevel,omitempty"`
}

// Record is what `up` writes before it makes anything, so that `down` finds all of it after any crash.
type Record struct {
	// ID marks everything outside DIR that belongs to this cluster: the host's link and the cgroups.
	ID      string  `json:"id"`
	Options Options `json:"options"`
	// Port is the API server's. Nodes have a network of their own and need no choice.
	Port int `json:"port"`
	// Network is set for nodes only.
	Network *HostNetwork `json:"network,omitempty"`
	// Supervisor started all other processes; as a node's process 1 it takes them all with it.
	Supervisor Process `json:"supervisor"`
}

func (r Record) isNode() bool { return r.Options.Size == sizeNode }

// serverAddress is where the host reaches the API server.
func (r Record) serverAddress() string {
	if r.isNode() {
		return r.Network.NodeAddress
	}
	return "127.0.0.1"
}

// link and cgroup are the names of what a node makes on the host.
func (r Record) link() string   { return "gw-" + r.ID }
func (r Record) cgroup() string { return "godwit-" + r.ID }

// readRecord returns false when no cluster was recorded.
func readRecord(layout Layout) (Record, bool, error) {
	var record Record
	found, err := readJSON(layout.Record(), &record)
	return record, found, err
}

func (r Record) write(layout Layout) error { return writeJSON(layout.Record(), r) }

func readJSON(path string, into any) (bool, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(content, into); err != nil {
		return false, fmt.Errorf("reading %s: %w", path, err)
	}
	return true, nil
}

// writeJSON replaces the file in one step: a reader, or a crash, never meets half a file.
func writeJSON(path string, value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(content, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// lock makes commands on one folder wait for each other. The kernel releases it when the process ends.
func lock(layout Layout) (release func(), err error) {
	if err := os.MkdirAll(layout.Root, 0o755); err != nil {
		return nil, fmt.Errorf("making --dir: %w", err)
	}
	file, err := os.OpenFile(layout.Lock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the cluster's lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("locking %s: %w", layout.Root, err)
	}
	return func() { _ = file.Close() }, nil
}
