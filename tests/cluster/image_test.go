package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// built makes an image of one file that holds text.
func built(t *testing.T, text string) builtImage {
	t.Helper()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "program"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	contents := Contents{
		Name:       "sample:dev",
		Files:      []File{{Source: "program", Path: "/usr/bin/program", Mode: "0755"}},
		Env:        map[string]string{"B": "2", "A": "1"},
		Entrypoint: []string{"/usr/bin/program"},
	}
	image, err := buildImage(context.Background(), []Contents{contents}, root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func digestOf(t *testing.T, image builtImage) string {
	t.Helper()
	digest, err := image.image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

func TestEqualContentsGiveAnEqualDigest(t *testing.T) {
	first := digestOf(t, built(t, "one"))
	if second := digestOf(t, built(t, "one")); second != first {
		t.Errorf("%s, then %s", first, second)
	}
	if other := digestOf(t, built(t, "two")); other == first {
		t.Error("other contents have the same digest")
	}
}

func TestAnArchiveIsWrittenAgainOnlyWhenTheImageChanged(t *testing.T) {
	out := filepath.Join(t.TempDir(), "image.tar")
	past := time.Now().Add(-time.Hour).Truncate(time.Second)
	for _, step := range []struct {
		text    string
		written bool
	}{{"one", true}, {"one", false}, {"two", true}} {
		if err := writeArchive([]builtImage{built(t, step.text)}, out); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(out)
		if err != nil {
			t.Fatal(err)
		}
		if written := !info.ModTime().Equal(past); written != step.written {
			t.Errorf("%q: written is %v", step.text, written)
		}
		if err := os.Chtimes(out, past, past); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDockersReaderFindsTheImageInTheArchive(t *testing.T) {
	out := filepath.Join(t.TempDir(), "image.tar")
	if err := writeArchive([]builtImage{built(t, "one")}, out); err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(out, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(config.Config.Env, " "); got != "A=1 B=2" {
		t.Errorf("environment %q", got)
	}
}

func TestOnlyMissingBlobsAreSentToTheNode(t *testing.T) {
	out := filepath.Join(t.TempDir(), "image.tar")
	image := built(t, "one")
	if err := writeArchive([]builtImage{image}, out); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := image.image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layer, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	var sent bytes.Buffer
	if err := copyArchive(&sent, bytes.NewReader(content), map[string]bool{blobName(layer): true}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(sent.String(), blobName(layer)) {
		t.Error("a layer that the node has was sent")
	}
	if !strings.Contains(sent.String(), "index.json") {
		t.Error("the index was not sent")
	}
}

func TestContentsWithAFieldThatNobodyReadsAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"name": "a", "workdir": "/"}`: "unknown field",
		`{"files": []}`:                 "name is missing",
		`{"name": "a", "from": "b.json", "debian": {"suite": "s"}}`:      "exclude each other",
		`{"name": "a", "users": [{"name": "u", "uid": 1, "home": "/"}]}`: "need a base",
	} {
		if _, err := parseContents([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestTheListsInThisFolderAreWhole(t *testing.T) {
	lists, err := filepath.Glob("images/*.json")
	if err != nil || len(lists) == 0 {
		t.Fatal("no lists", err)
	}
	for _, list := range lists {
		if _, err := readContents(list); err != nil {
			t.Error(err)
		}
	}
}
