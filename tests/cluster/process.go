package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process names one process for good: pids are used again, a pid with its start time and boot is not.
type Process struct {
	Pid   int    `json:"pid"`
	Start string `json:"start"`
	Boot  string `json:"boot"`
}

// identify records the process that has this pid now.
func identify(pid int) (Process, error) {
	start, _, err := processStat(pid)
	if err != nil {
		return Process{}, fmt.Errorf("identifying process %d: %w", pid, err)
	}
	return Process{Pid: pid, Start: start, Boot: bootID()}, nil
}

// alive is true while exactly this process runs. A zombie counts as gone: it holds nothing any more.
func (p Process) alive() bool {
	if p.Pid <= 0 || p.Boot != bootID() {
		return false
	}
	start, state, err := processStat(p.Pid)
	return err == nil && start == p.Start && state != "Z" && state != "X"
}

// kill ends the process and waits until it is gone. For a node's process 1 the kernel ends every process of its
// namespace first, so gone means all gone.
func (p Process) kill(ctx context.Context) error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("killing process %d: %w", p.Pid, err)
	}
	return await(ctx, fmt.Sprintf("process %d to end", p.Pid), func(context.Context) error {
		if p.alive() {
			return errors.New("it still runs")
		}
		return nil
	})
}

// processStat reads start time (field 22) and state (field 3); the name in field 2 may hold spaces and brackets.
func processStat(pid int) (start, state string, err error) {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", "", err
	}
	_, rest, found := strings.Cut(string(content[strings.LastIndexByte(string(content), ')'):]), " ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 20 {
		return "", "", errors.New("unexpected format of stat")
	}
	return fields[19], fields[0], nil
}

func bootID() string {
	content, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(content))
}

// await asks again until the answer is nil or the context ends, then says what was waited for and why not.
func await(ctx context.Context, what string, ask func(ctx context.Context) error) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		var final *finalError
		if errors.As(err, &final) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (last answer: %w)", what, ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// finalError ends an await at once: asking again cannot help.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }
