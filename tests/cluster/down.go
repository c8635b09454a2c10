package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// runDown removes everything that `up` made in or for this folder. With nothing there it succeeds.
func runDown(ctx context.Context, args []string) error {
	flags := newFlags("down")
	timeout := flags.Duration("timeout", time.Minute, "how long to wait until everything is gone")
	layout, err := parseDir(flags, args)
	if err != nil {
		return err
	}
	if _, err := os.Stat(layout.Root); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	release, err := lock(layout)
	if err != nil {
		return err
	}
	defer release()
	return takeDown(ctx, layout)
}

// takeDown works from the record alone and skips what is gone already. The record goes last: a take-down that fails can
// be repeated.
func takeDown(ctx context.Context, layout Layout) error {
	record, found, err := readRecord(layout)
	if err != nil {
		return err
	}
	if !found {
		return layout.remove()
	}
	if err := record.Supervisor.kill(ctx); err != nil {
		return err
	}
	if record.isNode() {
		// With process 1 went all its processes, and with the last of them the mounts and the network.
		if err := removeLink(ctx, record.link()); err != nil {
			return err
		}
		if err := removeCgroups(ctx, record.cgroup()); err != nil {
			return err
		}
	} else if err := killComponents(ctx, layout); err != nil {
		return err
	}
	return layout.remove()
}

// killComponents ends what the kernel did not end with the supervisor, should there be any.
func killComponents(ctx context.Context, layout Layout) error {
	entries, err := os.ReadDir(layout.Pids())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		var process Process
		if _, err := readJSON(layout.Pid(entry.Name()), &process); err != nil {
			return err
		}
		if err := process.kill(ctx); err != nil {
			return fmt.Errorf("ending %s: %w", entry.Name(), err)
		}
	}
	return nil
}
