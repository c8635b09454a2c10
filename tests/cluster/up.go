package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// runUp makes the cluster, or finds it running, and prints the path of its kubeconfig.
func runUp(ctx context.Context, args []string) error {
	flags := newFlags("up")
	var options Options
	flags.StringVar(&options.Size, "size", sizeControlPlane, "control-plane or node (runs pods, needs root)")
	flags.StringVar(&options.AuditLog, "audit-log", "", "file to which the API server writes its audit log")
	flags.StringVar(&options.AuditLevel, "audit-level", "Metadata", "one of "+strings.Join(auditLevels, ", "))
	timeout := flags.Duration("timeout", 3*time.Minute, "how long to wait until the cluster is ready")
	layout, err := parseDir(flags, args)
	if err != nil {
		return err
	}
	if options, err = options.checked(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	release, err := lock(layout)
	if err != nil {
		return err
	}
	defer release()
	running, err := reuse(ctx, layout, options)
	if err != nil {
		return err
	}
	if !running {
		if err := create(ctx, layout, options); err != nil {
			return err
		}
	}
	fmt.Println(layout.Kubeconfig())
	return nil
}

// checked refuses what cannot work and makes equal wishes compare as equal.
func (o Options) checked() (Options, error) {
	if o.Size != sizeControlPlane && o.Size != sizeNode {
		return o, fmt.Errorf("--size is %s or %s, not %q", sizeControlPlane, sizeNode, o.Size)
	}
	if o.Size == sizeNode && os.Geteuid() != 0 {
		return o, errors.New("--size=node needs root: it makes namespaces, mounts and cgroups")
	}
	if !slices.Contains(auditLevels, o.AuditLevel) {
		return o, fmt.Errorf("--audit-level is one of %s, not %q", strings.Join(auditLevels, ", "), o.AuditLevel)
	}
	if o.AuditLog == "" {
		o.AuditLevel = ""
		return o, nil
	}
	absolute, err := filepath.Abs(o.AuditLog)
	o.AuditLog = absolute
	return o, err
}

// reuse is true when the recorded cluster lives and is what the caller wants. A half-dead one is removed.
func reuse(ctx context.Context, layout Layout, options Options) (bool, error) {
	record, found, err := readRecord(layout)
	if err != nil {
		return false, err
	}
	if !found {
		return false, nil
	}
	if health(ctx, layout, record) == nil {
		if record.Options != options {
			return false, fmt.Errorf("a cluster with other options runs in %s: take it down first", layout.Root)
		}
		return true, nil
	}
	progress("removing what is left of an earlier cluster in %s", layout.Root)
	return false, takeDown(ctx, layout)
}

// create tries again when another program took the chosen port in between.
func create(ctx context.Context, layout Layout, options Options) error {
	if err := installMissing(ctx, packagesFor(options.Size)); err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		err := bringUp(ctx, layout, options)
		if err == nil {
			return nil
		}
		tails := failureReport(layout)
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		removal := takeDown(clean, layout)
		cancel()
		if removal == nil && attempt < 3 && strings.Contains(tails, "address already in use") {
			continue
		}
		return errors.Join(fmt.Errorf("bringing the cluster up: %w\n%s", err, tails), removal)
	}
}

func bringUp(ctx context.Context, layout Layout, options Options) error {
	start := time.Now()
	if err := layout.prepare(); err != nil {
		return err
	}
	record, err := newRecord(options)
	if err != nil {
		return err
	}
	if len(layout.EtcdSocket()) > 100 && !record.isNode() {
		return fmt.Errorf("--dir %s is too long for a socket in it: choose one of at most 80 bytes", layout.Root)
	}
	if err := writeCredentials(layout, record); err != nil {
		return err
	}
	if err := writeAuditPolicy(layout, options); err != nil {
		return err
	}
	if record.isNode() {
		if err := writeNodeConfig(layout, record); err != nil {
			return err
		}
	}
	if err := launch(ctx, layout, &record); err != nil {
		return err
	}
	if err := awaitCluster(ctx, layout, record); err != nil {
		return err
	}
	progress("%s cluster ready after %.1f s", options.Size, time.Since(start).Seconds())
	return nil
}

func newRecord(options Options) (Record, error) {
	id := make([]byte, 4)
	if _, err := rand.Read(id); err != nil {
		return Record{}, err
	}
	record := Record{ID: hex.EncodeToString(id), Options: options, Port: nodePort}
	var err error
	if record.isNode() {
		record.Network, err = chooseHostNetwork()
	} else {
		record.Port, err = choosePort()
	}
	return record, err
}

// failureReport shows the end of the log of each component that died, or of all when none did.
func failureReport(layout Layout) string {
	var report strings.Builder
	ended := exits(layout)
	logs, _ := filepath.Glob(layout.Log("*"))
	for _, path := range logs {
		name := strings.TrimSuffix(filepath.Base(path), ".log")
		how, dead := ended[name]
		if len(ended) > 0 && !dead {
			continue
		}
		fmt.Fprintf(&report, "--- last lines of %s %s\n%s\n", path, how, logTail(layout, name, 12))
	}
	return report.String()
}
