package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// baseRecipe changes when the commands below do, so that a base made by older ones is not used again.
const baseRecipe = "1"

// Base is a finished base layer in the cache, with what images on it need to know.
type Base struct {
	Layer  string `json:"-"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	Passwd string `json:"passwd"`
	Group  string `json:"group"`
}

// makeBase returns the base layer, from the cache when its recipe has not changed.
func makeBase(ctx context.Context, recipe Debian, cache string) (Base, error) {
	text, err := json.Marshal(recipe)
	if err != nil {
		return Base{}, err
	}
	sum := sha256.Sum256(append([]byte(baseRecipe), text...))
	path := filepath.Join(cache, "base", hex.EncodeToString(sum[:8]))
	var base Base
	if found, err := readJSON(path+".json", &base); err != nil || found {
		base.Layer = path + ".tar"
		return base, err
	}
	if err := installMissing(ctx, imagePrograms); err != nil {
		return Base{}, err
	}
	progress("making the base layer (once; kept in %s)", cache)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return Base{}, err
	}
	if err := debootstrap(ctx, recipe, path+".new.tar"); err != nil {
		return Base{}, err
	}
	if base, err = inspectBase(path + ".new.tar"); err != nil {
		return Base{}, err
	}
	if err := os.Rename(path+".new.tar", path+".tar"); err != nil {
		return Base{}, err
	}
	base.Layer = path + ".tar"
	// Last, because this file says that the layer is whole.
	return base, writeJSON(path+".json", base)
}

func debootstrap(ctx context.Context, recipe Debian, out string) error {
	work, err := os.MkdirTemp(filepath.Dir(out), "work-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	// mmdebstrap's unprivileged modes enter the folder as another user.
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	args := []string{"--variant=minbase", "--include=" + strings.Join(recipe.Packages, ",")}
	for _, user := range recipe.Users {
		args = append(args, fmt.Sprintf(`--essential-hook=echo '%s' >> "$1/etc/passwd"`, user.passwd()),
			fmt.Sprintf(`--essential-hook=echo '%s' >> "$1/etc/group"`, user.group()))
	}
	for _, pattern := range recipe.Strip {
		args = append(args, `--customize-hook=rm -rf "$1"`+pattern)
	}
	command := exec.CommandContext(ctx, "mmdebstrap", append(args, recipe.Suite, out)...)
	command.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=0", "TMPDIR="+work)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	if os.Geteuid() == 0 {
		// What it mounts goes with it, also when it is killed.
		command.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	if err := command.Run(); err != nil {
		return fmt.Errorf("making the base layer with mmdebstrap: %w", err)
	}
	return nil
}

// inspectBase reads the layer once: its digest, and the user tables that images on it extend.
func inspectBase(path string) (Base, error) {
	file, err := os.Open(path)
	if err != nil {
		return Base{}, err
	}
	defer file.Close()
	hash := sha256.New()
	counted := &countingReader{from: io.TeeReader(file, hash)}
	base := Base{Layer: path}
	tables := map[string]*string{"etc/passwd": &base.Passwd, "etc/group": &base.Group}
	for reader := tar.NewReader(counted); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Base{}, fmt.Errorf("reading the base layer: %w", err)
		}
		if table, wanted := tables[strings.TrimPrefix(header.Name, "./")]; wanted {
			content, err := io.ReadAll(reader)
			if err != nil {
				return Base{}, err
			}
			*table = string(content)
		}
	}
	// What follows the archive's end mark belongs to the digest too.
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return Base{}, err
	}
	base.Digest, base.Size = "sha256:"+hex.EncodeToString(hash.Sum(nil)), counted.count
	if base.Passwd == "" || base.Group == "" {
		return Base{}, errors.New("the base layer has no user tables")
	}
	return base, nil
}

type countingReader struct {
	from  io.Reader
	count int64
}

func (r *countingReader) Read(into []byte) (int, error) {
	n, err := r.from.Read(into)
	r.count += int64(n)
	return n, err
}

func (u User) passwd() string {
	return fmt.Sprintf("%s:x:%d:%d::%s:%s", u.Name, u.UID, u.UID, u.Home, u.Shell)
}

func (u User) group() string { return fmt.Sprintf("%s:x:%d:", u.Name, u.UID) }
