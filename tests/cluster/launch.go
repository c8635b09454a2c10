package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"syscall"
)

// nodePort is the API server's port inside a node's own network.
const nodePort = 6443

// namespaces are a node's own, so that its mounts, links, packet filter rules and processes end with its process 1.
const namespaces = syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC |
	syscall.CLONE_NEWUTS

// launch starts the supervisor detached from this process. It records each thing before making it: after a crash at any
// line, `down` knows what to look for.
func launch(ctx context.Context, layout Layout, record *Record) error {
	if err := record.write(layout); err != nil {
		return err
	}
	if record.isNode() {
		if err := makeCgroups(record.cgroup()); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(layout.Log("supervisor"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command("/proc/self/exe", "supervise", "--dir", layout.Root)
	command.Args[0] = "cluster"
	command.Dir, command.Stdout, command.Stderr = "/", log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if record.isNode() {
		command.SysProcAttr.Cloneflags = namespaces
	}
	gate, err := command.StdinPipe()
	if err != nil {
		return err
	}
	defer gate.Close()
	if err := command.Start(); err != nil {
		return fmt.Errorf("starting the supervisor: %w", err)
	}
	// Collected here while this process lives, by process 1 afterwards.
	go func() { _ = command.Wait() }()
	if record.Supervisor, err = identify(command.Process.Pid); err != nil {
		return err
	}
	if err := record.write(layout); err != nil {
		return err
	}
	if record.isNode() {
		if err := linkToHost(*record, command.Process.Pid); err != nil {
			return err
		}
	}
	if _, err := gate.Write([]byte{1}); err != nil {
		return fmt.Errorf("telling the supervisor to go on: %w", err)
	}
	return nil
}

// choosePort looks below the range from which the kernel takes ports for outgoing connections, so that only another
// listener could take it in between.
func choosePort() (int, error) {
	for range 100 {
		port := 20000 + rand.IntN(10000)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("found no free port between 20000 and 30000 on 127.0.0.1")
}
