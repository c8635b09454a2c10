package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
)

// nodePrograms maps what a node starts to the Debian package that brings it.
var nodePrograms = map[string]string{
	"/usr/bin/containerd":     "containerd",
	"/usr/bin/ctr":            "containerd",
	"/usr/sbin/runc":          "runc",
	"/usr/lib/cni/bridge":     "containernetworking-plugins",
	"/usr/lib/cni/host-local": "containernetworking-plugins",
	"/usr/sbin/iptables":      "iptables",
	"/usr/bin/ip":             "iproute2",
	"/usr/sbin/conntrack":     "conntrack",
	"/usr/bin/busybox":        "busybox-static",
}

// imagePrograms are needed to make an image's base layer.
var imagePrograms = map[string]string{
	"/usr/bin/mmdebstrap": "mmdebstrap",
}

// alternatives are other places where a program may be: Debian moved /bin into /usr/bin, older images did not.
var alternatives = map[string]string{"/usr/bin/ip": "/bin/ip", "/usr/bin/busybox": "/bin/busybox"}

func packagesFor(size string) map[string]string {
	if size == sizeNode {
		return nodePrograms
	}
	return nil
}

// runDeps installs what is missing, or names it.
func runDeps(ctx context.Context, args []string) error {
	flags := newFlags("deps")
	size := flags.String("size", sizeNode, "control-plane or node")
	images := flags.Bool("image-build", false, "also what building images needs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := installMissing(ctx, packagesFor(*size)); err != nil || !*images {
		return err
	}
	return installMissing(ctx, imagePrograms)
}

// installMissing does nothing when all programs are there.
func installMissing(ctx context.Context, programs map[string]string) error {
	missing := missingPackages(programs)
	if len(missing) == 0 {
		return nil
	}
	install := "apt-get install -y --no-install-recommends " + strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("missing Debian packages; as root: %s", install)
	}
	progress("installing %s", strings.Join(missing, " "))
	if aptGet(ctx, append([]string{"install"}, missing...)...) != nil {
		// A fresh machine has no package lists, or old ones.
		if err := aptGet(ctx, "update"); err != nil {
			return fmt.Errorf("reading the package lists: %w", err)
		}
		if err := aptGet(ctx, append([]string{"install"}, missing...)...); err != nil {
			return fmt.Errorf("%s: %w", install, err)
		}
	}
	if still := missingPackages(programs); len(still) > 0 {
		return fmt.Errorf("still missing after installation: %s", strings.Join(still, " "))
	}
	return nil
}

func missingPackages(programs map[string]string) []string {
	set := map[string]bool{}
	for program, name := range programs {
		if _, err := os.Stat(program); err == nil {
			continue
		}
		if other, ok := alternatives[program]; ok {
			if _, err := os.Stat(other); err == nil {
				continue
			}
		}
		set[name] = true
	}
	var names []string
	for name := range set {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func aptGet(ctx context.Context, args ...string) error {
	fixed := []string{"-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"}
	command := exec.CommandContext(ctx, "apt-get", append(fixed, args...)...)
	command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	return command.Run()
}

// cacheDir is where base layers are kept between runs.
func cacheDir(chosen string) (string, error) {
	if chosen != "" {
		return filepath.Abs(chosen)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache folder: %w", err)
	}
	return filepath.Join(base, "godwit"), nil
}
