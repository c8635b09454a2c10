package main

import (
	"archive/tar"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// pauseImage is what every pod's sandbox runs. It is built from this machine's busybox.
const pauseImage = "godwit-pause:dev"

//go:embed images/pause.json
var pauseContents []byte

func runImageLoad(ctx context.Context, args []string) error {
	flags := newFlags("image load")
	layout, err := parseDir(flags, args)
	if err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("image load needs at least one archive")
	}
	release, err := lock(layout)
	if err != nil {
		return err
	}
	defer release()
	record, found, err := readRecord(layout)
	if err != nil || !found || !record.isNode() {
		return errors.Join(fmt.Errorf("no node runs in %s", layout.Root), err)
	}
	for _, archive := range flags.Args() {
		if err := loadArchive(ctx, layout, record, archive); err != nil {
			return fmt.Errorf("loading %s: %w", archive, err)
		}
	}
	return nil
}

// loadPauseImage is part of `up`: without it no pod starts.
func loadPauseImage(ctx context.Context, layout Layout, record Record) error {
	contents, err := parseContents(pauseContents)
	if err != nil {
		return err
	}
	image, err := buildImage(ctx, []Contents{contents}, "/", "")
	if err != nil {
		return err
	}
	archive := layout.Config("pause.tar")
	if err := writeArchive([]builtImage{image}, archive); err != nil {
		return err
	}
	return loadArchive(ctx, layout, record, archive)
}

// loadArchive imports the archive's images unless the node has exactly these, and of their layers only those that it
// has not: a new build of a program then costs its own layer, not the base's.
func loadArchive(ctx context.Context, layout Layout, record Record, archive string) error {
	index, err := readArchiveIndex(archive)
	if err != nil {
		return err
	}
	loaded := map[string]string{}
	if _, err := readJSON(layout.LoadedImages(), &loaded); err != nil {
		return err
	}
	fresh := false
	for _, image := range index.Manifests {
		fresh = fresh || loaded[image.Annotations[imageNameAnnotation]] != image.Digest.String()
	}
	if !fresh {
		return nil
	}
	present, err := blobsOf(ctx, record)
	if err != nil {
		return err
	}
	if err := importMissing(ctx, record, archive, present); err != nil {
		return err
	}
	for _, image := range index.Manifests {
		loaded[image.Annotations[imageNameAnnotation]] = image.Digest.String()
	}
	return writeJSON(layout.LoadedImages(), loaded)
}

// ctr is containerd's own client. It talks to the node's containerd from the host; the work is done in the node.
func ctr(ctx context.Context, record Record, args ...string) *exec.Cmd {
	fixed := []string{"--address", hostView(record, containerdSocket), "--namespace", "k8s.io"}
	return exec.CommandContext(ctx, "ctr", append(fixed, args...)...)
}

func blobsOf(ctx context.Context, record Record) (map[string]bool, error) {
	output, err := ctr(ctx, record, "content", "ls", "-q").Output()
	if err != nil {
		return nil, fmt.Errorf("listing the node's image layers: %w", err)
	}
	present := map[string]bool{}
	for _, digest := range strings.Fields(string(output)) {
		present["blobs/"+strings.ReplaceAll(digest, ":", "/")] = true
	}
	return present, nil
}

// importMissing streams the archive to containerd, leaving out the blobs that it has.
func importMissing(ctx context.Context, record Record, archive string, present map[string]bool) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	command := ctr(ctx, record, "images", "import", "-")
	input, err := command.StdinPipe()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	if err := command.Start(); err != nil {
		return err
	}
	copied := copyArchive(input, file, present)
	_ = input.Close()
	if err := command.Wait(); err != nil {
		return fmt.Errorf("importing images: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return copied
}

func copyArchive(out io.Writer, archive io.Reader, leaveOut map[string]bool) error {
	writer := tar.NewWriter(out)
	for reader := tar.NewReader(archive); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return writer.Close()
		}
		if err != nil {
			return err
		}
		// With manifest.json containerd would read the archive as docker's, where nothing may be left out.
		if leaveOut[header.Name] || header.Name == "manifest.json" {
			continue
		}
		if err := writer.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(writer, reader); err != nil {
			return err
		}
	}
}

// readArchiveIndex reads the archive up to its index, which this program writes near the front.
func readArchiveIndex(archive string) (v1.IndexManifest, error) {
	var index v1.IndexManifest
	file, err := os.Open(archive)
	if err != nil {
		return index, err
	}
	defer file.Close()
	for reader := tar.NewReader(file); ; {
		header, err := reader.Next()
		if err != nil {
			return index, fmt.Errorf("finding the index of %s: %w", archive, err)
		}
		if header.Name == "index.json" {
			return index, json.NewDecoder(reader).Decode(&index)
		}
	}
}
