package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// innerRoot is where a node sees its DIR. A fixed short path keeps socket names within their 107 bytes and lets the
// node cover /tmp, /var/lib and /var/log without caring whether DIR lies below one of them.
const innerRoot = "/run/godwit"

// Layout names the files of one cluster below its folder. Nothing else may join paths below that folder.
type Layout struct{ Root string }

func (l Layout) path(parts ...string) string {
	return filepath.Join(append([]string{l.Root}, parts...)...)
}

func (l Layout) Lock() string                  { return l.path("lock") }
func (l Layout) Record() string                { return l.path("cluster.json") }
func (l Layout) Kubeconfig() string            { return l.path("kubeconfig") }
func (l Layout) LoadedImages() string          { return l.path("images.json") }
func (l Layout) PKI(name string) string        { return l.path("pki", name) }
func (l Layout) Config(name string) string     { return l.path("config", name) }
func (l Layout) Credential(name string) string { return l.path("config", name+".kubeconfig") }
func (l Layout) Log(name string) string        { return l.path("logs", name+".log") }
func (l Layout) EtcdData() string              { return l.path("etcd") }
func (l Layout) EtcdSocket() string            { return l.path("run", "etcd.sock") }
func (l Layout) Pid(name string) string        { return l.path("run", "pids", name) }
func (l Layout) Pids() string                  { return l.path("run", "pids") }
func (l Layout) Exit(name string) string       { return l.path("run", "exits", name) }
func (l Layout) Exits() string                 { return l.path("run", "exits") }
func (l Layout) Started() string               { return l.path("run", "started") }
func (l Layout) Node(name string) string       { return l.path("node", name) }

// owned lists what belongs to a cluster in its folder. Removal names these one by one, so that a wrong --dir never
// costs anybody a file of their own. Logs stay until the next start: they are what one wants after a failure.
var owned = []string{"cluster.json", "kubeconfig", "images.json", "pki", "config", "run", "etcd", "node"}

// prepare empties the folder of an earlier cluster's files and makes the folders a new one writes to.
func (l Layout) prepare() error {
	if err := l.remove(); err != nil {
		return err
	}
	if err := os.RemoveAll(l.path("logs")); err != nil {
		return fmt.Errorf("removing old logs: %w", err)
	}
	for _, folder := range []string{"pki", "config", "run/pids", "run/exits", "logs"} {
		if err := os.MkdirAll(l.path(folder), 0o700); err != nil {
			return fmt.Errorf("making the cluster's folder: %w", err)
		}
	}
	return nil
}

func (l Layout) remove() error {
	for _, name := range owned {
		if err := os.RemoveAll(l.path(name)); err != nil {
			return fmt.Errorf("removing the cluster's files: %w", err)
		}
	}
	return nil
}
