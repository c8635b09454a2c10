// Command cluster brings up a real Kubernetes for the tests and the demo, without Docker, a registry or a download, and
// removes it without a trace. The Makefile and the test tiers call it; nothing that Godwit ships depends on it.
//
// One file is everything: the upstream programs are linked in (components.go) and this program starts copies of itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

const usage = `cluster brings up a real Kubernetes and removes it again.

  cluster up --dir DIR [--size control-plane|node] [--audit-log FILE [--audit-level LEVEL]] [--timeout 3m]
  cluster down --dir DIR
  cluster status --dir DIR
  cluster kubeconfig --dir DIR
  cluster image build --from CONTENTS.json --out IMAGE.tar [--root DIR] [--cache DIR]
  cluster image load --dir DIR IMAGE.tar...
  cluster tools --out DIR
  cluster deps [--size control-plane|node] [--image-build]
`

// verbs maps each command to the function that carries it out. The last two are started by this program itself.
var verbs = map[string]func(ctx context.Context, args []string) error{
	"up":         runUp,
	"down":       runDown,
	"status":     runStatus,
	"kubeconfig": runKubeconfig,
	"image":      runImage,
	"tools":      runTools,
	"deps":       runDeps,
	"supervise":  runSupervise,
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "component" {
		run, known := components[os.Args[2]]
		if !known {
			fail(fmt.Errorf("no component is called %q", os.Args[2]))
		}
		os.Exit(run(os.Args[3:]))
	}
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	verb, known := verbs[os.Args[1]]
	if !known {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := verb(ctx, os.Args[2:]); err != nil {
		stop()
		fail(err)
	}
}

func fail(err error) {
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, "cluster:", err)
	os.Exit(1)
}

// progress tells the person at the terminal what happens. Standard output is kept for results that scripts read.
func progress(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "cluster: "+format+"\n", values...)
}

// newFlags starts a flag set whose errors are returned instead of ending the process.
func newFlags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet("cluster "+name, flag.ContinueOnError)
	flags.SetOutput(os.Stderr)
	return flags
}

// parseDir parses args and returns the layout of the required --dir.
func parseDir(flags *flag.FlagSet, args []string) (Layout, error) {
	dir := flags.String("dir", "", "folder that holds everything this cluster is made of")
	if err := flags.Parse(args); err != nil {
		return Layout{}, err
	}
	if *dir == "" {
		return Layout{}, fmt.Errorf("%s needs --dir", strings.TrimPrefix(flags.Name(), "cluster "))
	}
	absolute, err := filepath.Abs(*dir)
	if err != nil {
		return Layout{}, fmt.Errorf("resolving --dir: %w", err)
	}
	return Layout{Root: absolute}, nil
}
