package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
)

// sideTools are built from Go modules, since nothing else can be fetched where the tests run. tools/go.mod says which
// versions.
var sideTools = []string{"helm.sh/helm/v4/cmd/helm", "github.com/yannh/kubeconform/cmd/kubeconform"}

// runTools builds the side tools that are not there yet. A tool that is there is used as it is.
func runTools(ctx context.Context, args []string) error {
	flags := newFlags("tools")
	out := flags.String("out", "", "folder for the programs")
	module := flags.String("module", "tests/cluster/tools", "folder of the Go module that names their versions")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" {
		return errors.New("tools needs --out")
	}
	folder, err := filepath.Abs(*out)
	if err != nil {
		return err
	}
	for _, tool := range sideTools {
		program := filepath.Join(folder, path.Base(tool))
		if _, err := os.Stat(program); err == nil {
			continue
		}
		progress("building %s", path.Base(tool))
		command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, tool)
		command.Dir = *module
		command.Env = append(os.Environ(), "CGO_ENABLED=0")
		command.Stdout, command.Stderr = os.Stderr, os.Stderr
		if err := command.Run(); err != nil {
			return fmt.Errorf("building %s: %w", tool, err)
		}
	}
	return nil
}
