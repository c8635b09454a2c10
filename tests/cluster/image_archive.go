package main

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Names that an image goes by in the archive's index: containerd's own, and the standard's.
const (
	imageNameAnnotation = "io.containerd.image.name"
	refNameAnnotation   = "org.opencontainers.image.ref.name"
)

// legacyImage is an entry of manifest.json, which `docker load` and `kind load image-archive` read.
type legacyImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// archiveWriter writes an OCI image layout as one tar; each blob once.
type archiveWriter struct {
	tar     *tar.Writer
	written map[v1.Hash]bool
	index   v1.IndexManifest
	legacy  []legacyImage
}

// writeArchive replaces the file in one step, and only when the images differ: what depends on the file by its time is
// not done again for nothing.
func writeArchive(images []builtImage, out string) error {
	if same, err := holdsSame(images, out); err != nil || same {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	file, err := os.Create(out + ".new")
	if err != nil {
		return err
	}
	defer file.Close()
	writer := &archiveWriter{tar: tar.NewWriter(file), written: map[v1.Hash]bool{}}
	writer.index = v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	// The index comes first: who loads the archive then knows at once what is in it.
	for _, image := range images {
		if err := writer.describe(image); err != nil {
			return err
		}
	}
	if err := writer.writeIndexes(); err != nil {
		return err
	}
	for _, image := range images {
		if err := writer.writeBlobs(image.image); err != nil {
			return fmt.Errorf("writing %s: %w", out, err)
		}
	}
	if err := writer.tar.Close(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(out+".new", out)
}

// holdsSame compares by digest.
func holdsSame(images []builtImage, out string) (bool, error) {
	if _, err := os.Stat(out); err != nil {
		return false, nil
	}
	index, err := readArchiveIndex(out)
	if err != nil {
		// Whatever lies there, it is replaced.
		return false, nil
	}
	if len(index.Manifests) != len(images) {
		return false, nil
	}
	for i, image := range images {
		digest, err := image.image.Digest()
		if err != nil {
			return false, err
		}
		there := index.Manifests[i]
		if there.Digest != digest || there.Annotations[imageNameAnnotation] != fullName(image.name) {
			return false, nil
		}
	}
	return true, nil
}

// fullName is what a bare name means to containerd and the kubelet.
func fullName(name string) string { return "docker.io/library/" + name }

func (w *archiveWriter) describe(built builtImage) error {
	manifest, err := built.image.Manifest()
	if err != nil {
		return err
	}
	digest, err := built.image.Digest()
	if err != nil {
		return err
	}
	size, err := built.image.Size()
	if err != nil {
		return err
	}
	w.index.Manifests = append(w.index.Manifests, v1.Descriptor{
		MediaType: types.OCIManifestSchema1, Digest: digest, Size: size,
		Annotations: map[string]string{imageNameAnnotation: fullName(built.name), refNameAnnotation: fullName(built.name)},
	})
	legacy := legacyImage{Config: blobName(manifest.Config.Digest), RepoTags: []string{built.name}}
	for _, layer := range manifest.Layers {
		legacy.Layers = append(legacy.Layers, blobName(layer.Digest))
	}
	w.legacy = append(w.legacy, legacy)
	return nil
}

func (w *archiveWriter) writeIndexes() error {
	if err := w.writeFile("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	index, err := json.Marshal(w.index)
	if err != nil {
		return err
	}
	if err := w.writeFile("index.json", index); err != nil {
		return err
	}
	legacy, err := json.Marshal(w.legacy)
	if err != nil {
		return err
	}
	return w.writeFile("manifest.json", legacy)
}

func (w *archiveWriter) writeBlobs(image v1.Image) error {
	manifest, err := image.RawManifest()
	if err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	if err := w.writeFile(blobName(digest), manifest); err != nil {
		return err
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return err
	}
	if digest, err = image.ConfigName(); err != nil {
		return err
	}
	if err := w.writeFile(blobName(digest), config); err != nil {
		return err
	}
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		if err := w.writeLayer(layer); err != nil {
			return err
		}
	}
	return nil
}

func (w *archiveWriter) writeLayer(layer v1.Layer) error {
	digest, err := layer.Digest()
	if err != nil || w.written[digest] {
		return err
	}
	w.written[digest] = true
	size, err := layer.Size()
	if err != nil {
		return err
	}
	content, err := layer.Compressed()
	if err != nil {
		return err
	}
	defer content.Close()
	if err := w.writeHeader(blobName(digest), size); err != nil {
		return err
	}
	_, err = io.Copy(w.tar, content)
	return err
}

func (w *archiveWriter) writeFile(name string, content []byte) error {
	if err := w.writeHeader(name, int64(len(content))); err != nil {
		return err
	}
	_, err := w.tar.Write(content)
	return err
}

func (w *archiveWriter) writeHeader(name string, size int64) error {
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: epoch})
}

func blobName(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }
