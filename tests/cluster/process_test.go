package main

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestAProcessIsKilledOnlyWhileItIsTheRecordedOne(t *testing.T) {
	command := exec.Command("sleep", "600")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = command.Wait() }()
	recorded, err := identify(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	later := recorded
	later.Start += "1"
	if err := later.kill(ctx); err != nil {
		t.Fatal(err)
	}
	if !recorded.alive() {
		t.Fatal("a process that only shares the pid was killed")
	}
	if err := recorded.kill(ctx); err != nil {
		t.Fatal(err)
	}
	if recorded.alive() {
		t.Fatal("the recorded process still runs")
	}
	if err := recorded.kill(ctx); err != nil {
		t.Fatalf("killing it again: %v", err)
	}
}

func TestAProcessOfAnEarlierBootIsGone(t *testing.T) {
	self, err := identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !self.alive() {
		t.Fatal("this process is not found alive")
	}
	self.Boot = "another"
	if self.alive() {
		t.Fatal("a process of another boot is found alive")
	}
}

func TestRemovalLeavesWhatIsNotTheClusters(t *testing.T) {
	layout := Layout{Root: t.TempDir()}
	for _, name := range []string{"notes.txt", "kubeconfig", "logs"} {
		if err := os.WriteFile(layout.path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := layout.remove(); err != nil {
		t.Fatal(err)
	}
	for name, kept := range map[string]bool{"notes.txt": true, "logs": true, "kubeconfig": false} {
		if _, err := os.Stat(layout.path(name)); (err == nil) != kept {
			t.Errorf("%s: %v", name, err)
		}
	}
}
