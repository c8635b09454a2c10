package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchies lists the cgroup trees of the host: one per controller in version 1, one altogether in version 2. What
// the kubelet never writes to (such as version 2's tree beside version 1) is harmless to include.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{cgroupRoot}, nil
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, fmt.Errorf("listing cgroups: %w", err)
	}
	var found []string
	for _, entry := range entries {
		// Links such as cpu -> cpu,cpuacct name a tree a second time.
		if entry.IsDir() {
			found = append(found, filepath.Join(cgroupRoot, entry.Name()))
		}
	}
	return found, nil
}

// makeCgroups makes the parent under which the kubelet puts all pods. The kubelet insists that it exists everywhere.
func makeCgroups(name string) error {
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		group := filepath.Join(tree, name)
		if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making a cgroup: %w", err)
		}
		// A new cpuset of version 1 owns no cores, and so takes no process.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			content, err := os.ReadFile(filepath.Join(tree, file))
			if err != nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(group, file), content, 0o644); err != nil {
				return fmt.Errorf("filling a cgroup: %w", err)
			}
		}
	}
	return delegateControllers(trees)
}

// delegateControllers lets the children of version 2's root use every controller, as systemd would have done.
func delegateControllers(trees []string) error {
	if len(trees) != 1 || trees[0] != cgroupRoot {
		return nil
	}
	content, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(content)) {
		// One that cannot be delegated is reported by the kubelet if it needs it.
		_ = os.WriteFile(filepath.Join(cgroupRoot, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
	}
	return nil
}

// removeCgroups removes the group and all below it, leaves first. A group stays busy until its last process is
// reaped, which is a moment after it was killed.
func removeCgroups(ctx context.Context, name string) error {
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		group := filepath.Join(tree, name)
		remove := func(context.Context) error { return removeTree(group) }
		if err := await(ctx, "the cgroup "+group+" to empty", remove); err != nil {
			return err
		}
	}
	return nil
}

func removeTree(group string) error {
	entries, err := os.ReadDir(group)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(group, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(group); err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("removing %s: %w", group, err)
	}
	return nil
}
