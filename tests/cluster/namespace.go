package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

const nodeName = "godwit-node"

// nodeFolders are the places where a node writes by upstream's defaults; each becomes a folder below DIR.
var nodeFolders = map[string]string{"tmp": "/tmp", "var-lib": "/var/lib", "var-log": "/var/log"}

// kernelSettings are what the kubelet insists on. They are the whole machine's, so the node is shown files with these
// values instead: the kubelet finds its wish fulfilled and the host's kernel keeps its own.
var kernelSettings = map[string]int{
	"vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1,
	"kernel/keys/root_maxkeys": 1000000, "kernel/keys/root_maxbytes": 25000000,
}

// enterNode turns the new namespaces of this process into a node: its own view of the file system, its network and its
// name. It returns the layout as the node sees it.
func enterNode(layout Layout, record Record) (Layout, error) {
	// Nothing that is mounted from here on reaches the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return layout, fmt.Errorf("separating the mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return layout, fmt.Errorf("mounting /proc: %w", err)
	}
	inner, err := moveDirInside(layout, record.Options)
	if err != nil {
		return layout, err
	}
	for name, target := range nodeFolders {
		if err := bind(inner.Node(name), target); err != nil {
			return layout, err
		}
	}
	for name, value := range kernelSettings {
		shown := inner.Node(filepath.Join("kernel", name))
		if err := os.MkdirAll(filepath.Dir(shown), 0o755); err != nil {
			return layout, err
		}
		if err := os.WriteFile(shown, []byte(strconv.Itoa(value)+"\n"), 0o644); err != nil {
			return layout, err
		}
		if err := bind(shown, "/proc/sys/"+name); err != nil {
			return layout, err
		}
	}
	// Containers may ask to see mounts that appear later, which needs a shared root; it is shared within the node only.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return layout, fmt.Errorf("sharing the node's mounts: %w", err)
	}
	if err := unix.Sethostname([]byte(nodeName)); err != nil {
		return layout, fmt.Errorf("naming the node: %w", err)
	}
	if err := setUpNodeNetwork(*record.Network); err != nil {
		return layout, err
	}
	return inner, openVolumes()
}

// moveDirInside covers /run and shows DIR, and the audit log's folder, at fixed places in it. Both are held open
// before, because they may lie below what is covered.
func moveDirInside(layout Layout, options Options) (Layout, error) {
	shown := map[string]string{innerRoot: layout.Root}
	if options.AuditLog != "" {
		shown[innerAudit] = filepath.Dir(options.AuditLog)
	}
	held := map[string]*os.File{}
	for target, source := range shown {
		folder, err := os.Open(source)
		if err != nil {
			return layout, err
		}
		defer folder.Close()
		held[target] = folder
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return layout, fmt.Errorf("covering /run: %w", err)
	}
	for target, folder := range held {
		if err := os.Mkdir(target, 0o755); err != nil {
			return layout, err
		}
		if err := bind(fmt.Sprintf("/proc/self/fd/%d", folder.Fd()), target); err != nil {
			return layout, err
		}
	}
	inner := Layout{Root: innerRoot}
	for name := range nodeFolders {
		if err := os.MkdirAll(inner.Node(name), 0o755); err != nil {
			return layout, err
		}
	}
	// Programs in pods with a hostPath on it expect what /tmp always is.
	return inner, os.Chmod(inner.Node("tmp"), 0o777|os.ModeSticky)
}

func bind(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("showing %s as %s: %w", source, target, err)
	}
	return nil
}
