package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// supervisor starts the components and stays as their parent: of a node as process 1 of its namespaces. It restarts
// nothing: a component that dies is a finding, recorded for `status` and for the next `up`.
type supervisor struct {
	layout Layout
	record Record
	mutex  sync.Mutex
	names  map[int]string
}

// runSupervise is started by `up`, detached, with a pipe as standard input. It goes on when a byte arrives, which for
// a node is after the host made the network link; when the pipe closes without one, `up` died and so does this.
func runSupervise(ctx context.Context, args []string) error {
	layout, err := parseDir(newFlags("supervise"), args)
	if err != nil {
		return err
	}
	// A child is killed when the thread that started it ends, so all are started from one thread that never does.
	runtime.LockOSThread()
	if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
		return errors.New("the command that started this supervisor is gone")
	}
	record, found, err := readRecord(layout)
	if err != nil || !found {
		return errors.Join(errors.New("no cluster is recorded"), err)
	}
	if record.isNode() {
		if layout, err = enterNode(layout, record); err != nil {
			return fmt.Errorf("preparing the node: %w", err)
		}
	}
	s := &supervisor{layout: layout, record: record, names: map[int]string{}}
	if err := s.startAll(ctx); err != nil {
		return err
	}
	return s.stay(ctx)
}

// stay ends with the record: who deletes DIR without `down` leaves no cluster behind that nobody could name.
func (s *supervisor) stay(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if _, err := os.Stat(s.layout.Record()); errors.Is(err, os.ErrNotExist) {
				return errors.Join(errors.New("the cluster's record is gone, and with it the cluster"), s.leaveNothing(ctx))
			}
		}
	}
}

// leaveNothing removes what outlives a node's process 1. In a node, all other processes are this one's to end.
func (s *supervisor) leaveNothing(ctx context.Context) error {
	if !s.record.isNode() {
		return nil
	}
	if err := syscall.Kill(-1, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("ending the node's processes: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return removeCgroups(ctx, s.record.cgroup())
}

func (s *supervisor) startAll(ctx context.Context) error {
	go s.reap()
	for _, stage := range stages(s.layout, s.record) {
		for _, component := range stage {
			if err := s.start(component); err != nil {
				return err
			}
		}
		for _, component := range stage {
			if component.Ready == nil {
				continue
			}
			if err := await(ctx, component.Name, component.Ready); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(s.layout.Started(), nil, 0o600)
}

func (s *supervisor) start(component Component) error {
	log, err := os.OpenFile(s.layout.Log(component.Name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	none, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer none.Close()
	program, args := component.Program, append([]string{component.Name}, component.Args...)
	if program == "" {
		program, args = "/proc/self/exe", append([]string{"cluster", "component"}, args...)
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	process, err := os.StartProcess(program, args, &os.ProcAttr{
		Files: []*os.File{none, log, log},
		// Killing the supervisor is enough to end the cluster, even when no namespace does it.
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return fmt.Errorf("starting %s: %w", component.Name, err)
	}
	s.names[process.Pid] = component.Name
	identity, err := identify(process.Pid)
	if err != nil {
		return err
	}
	return writeJSON(s.layout.Pid(component.Name), identity)
}

// reap collects every child's end. As process 1 of a node these are also the orphans of containerd's shims.
func (s *supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.ECHILD) {
			s.awaitChild()
			continue
		}
		if err != nil {
			continue
		}
		s.mutex.Lock()
		name, known := s.names[pid]
		delete(s.names, pid)
		s.mutex.Unlock()
		if known {
			s.recordExit(name, status)
		}
	}
}

// awaitChild blocks while there is nothing to collect: only a start, which holds the mutex, can change that.
func (s *supervisor) awaitChild() {
	_ = await(context.Background(), "a child", func(context.Context) error {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		if len(s.names) == 0 {
			return errors.New("none")
		}
		return nil
	})
}

func (s *supervisor) recordExit(name string, status syscall.WaitStatus) {
	text := fmt.Sprintf("exit code %d", status.ExitStatus())
	if status.Signaled() {
		text = fmt.Sprintf("killed by signal %d (%s)", status.Signal(), status.Signal())
	}
	fmt.Fprintf(os.Stderr, "%s ended: %s\n", name, text)
	_ = os.WriteFile(s.layout.Exit(name), []byte(text), 0o600)
}

// exits tells which components ended, and how. In a running cluster there are none.
func exits(layout Layout) map[string]string {
	ended := map[string]string{}
	entries, _ := os.ReadDir(layout.Exits())
	for _, entry := range entries {
		content, _ := os.ReadFile(layout.Exit(entry.Name()))
		ended[entry.Name()] = string(content)
	}
	return ended
}

// logTail returns the last lines of a component's log.
func logTail(layout Layout, name string, lines int) string {
	content, err := os.ReadFile(layout.Log(name))
	if err != nil {
		return ""
	}
	all := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}
