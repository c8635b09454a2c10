package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch is the time of everything in an image: equal contents give an equal digest.
var epoch = time.Unix(0, 0).UTC()

// builtImage is an image with its name.
type builtImage struct {
	name  string
	image v1.Image
}

// runImage is `image build` and `image load`.
func runImage(ctx context.Context, args []string) error {
	switch {
	case len(args) > 0 && args[0] == "build":
		return runImageBuild(ctx, args[1:])
	case len(args) > 0 && args[0] == "load":
		return runImageLoad(ctx, args[1:])
	}
	return errors.New("image needs one of: build, load")
}

func runImageBuild(ctx context.Context, args []string) error {
	flags := newFlags("image build")
	var lists []string
	flags.Func("from", "list of contents; may be repeated, equal layers are then stored once", func(path string) error {
		lists = append(lists, path)
		return nil
	})
	out := flags.String("out", "", "archive to write (OCI layout that docker load reads too)")
	root := flags.String("root", ".", "folder that sources of files are relative to")
	cacheFlag := flags.String("cache", "", "folder for base layers (default: the user's cache folder)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if len(lists) == 0 || *out == "" {
		return errors.New("image build needs --from and --out")
	}
	cache, err := cacheDir(*cacheFlag)
	if err != nil {
		return err
	}
	var images []builtImage
	for _, list := range lists {
		chain, err := readContents(list)
		if err != nil {
			return err
		}
		image, err := buildImage(ctx, chain, *root, cache)
		if err != nil {
			return fmt.Errorf("building %s: %w", list, err)
		}
		images = append(images, image)
	}
	return writeArchive(images, *out)
}

// buildImage puts one layer on another, the base first.
func buildImage(ctx context.Context, chain []Contents, root, cache string) (builtImage, error) {
	config := v1.Config{}
	env := map[string]string{}
	var layers []v1.Layer
	var base Base
	for _, contents := range chain {
		for name, value := range contents.Env {
			env[name] = value
		}
		if contents.User != "" {
			config.User = contents.User
		}
		if len(contents.Entrypoint) > 0 {
			config.Entrypoint = contents.Entrypoint
		}
		if contents.Debian != nil {
			var err error
			if base, err = makeBase(ctx, *contents.Debian, cache); err != nil {
				return builtImage{}, err
			}
			layer, err := base.layer()
			if err != nil {
				return builtImage{}, err
			}
			layers = append(layers, layer)
		}
		own, err := filesLayer(contents, &base, root)
		if err != nil {
			return builtImage{}, err
		}
		if own != nil {
			layers = append(layers, own)
		}
	}
	for name, value := range env {
		config.Env = append(config.Env, name+"="+value)
	}
	sort.Strings(config.Env)
	image, err := assemble(layers, config)
	return builtImage{chain[len(chain)-1].Name, image}, err
}

func assemble(layers []v1.Layer, config v1.Config) (v1.Image, error) {
	image, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Config, file.OS, file.Architecture = config, "linux", runtime.GOARCH
	file.Created = v1.Time{Time: epoch}
	for i := range file.History {
		file.History[i].Created = v1.Time{Time: epoch}
	}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return nil, err
	}
	return mutate.ConfigMediaType(image, types.OCIConfigJSON), nil
}

// filesLayer holds a list's own files and users. The grown user tables are left in base for the lists above.
func filesLayer(contents Contents, base *Base, root string) (v1.Layer, error) {
	entries := map[string]tarEntry{}
	for _, file := range contents.Files {
		mode, err := strconv.ParseInt(file.Mode, 8, 64)
		if err != nil {
			return nil, fmt.Errorf("mode of %s: %w", file.Path, err)
		}
		source := file.Source
		if !filepath.IsAbs(source) {
			source = filepath.Join(root, source)
		}
		content, err := os.ReadFile(source)
		if err != nil {
			return nil, fmt.Errorf("reading a file of the image: %w", err)
		}
		entries[file.Path] = tarEntry{mode, content}
	}
	for _, user := range contents.Users {
		base.Passwd += user.passwd() + "\n"
		base.Group += user.group() + "\n"
	}
	if len(contents.Users) > 0 {
		entries["/etc/passwd"] = tarEntry{0o644, []byte(base.Passwd)}
		entries["/etc/group"] = tarEntry{0o644, []byte(base.Group)}
	}
	if len(entries) == 0 {
		return nil, nil
	}
	return newLayer(entries)
}

type tarEntry struct {
	mode    int64
	content []byte
}

func newLayer(entries map[string]tarEntry) (v1.Layer, error) {
	var paths []string
	for path := range entries {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, path := range paths {
		entry := entries[path]
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(path, "/"), Mode: entry.mode,
			Size: int64(len(entry.content)), ModTime: epoch, Format: tar.FormatPAX,
		}
		if err := writer.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := writer.Write(entry.content); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return memoryLayer(buffer.Bytes())
}
