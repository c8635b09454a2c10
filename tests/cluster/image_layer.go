package main

import (
	"bytes"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// plainLayer is a layer that is stored as the tar it is. Layers travel from one folder of this machine to another, and
// compressing them would only cost time.
type plainLayer struct {
	digest v1.Hash
	size   int64
	open   func() (io.ReadCloser, error)
}

func (l *plainLayer) Digest() (v1.Hash, error)             { return l.digest, nil }
func (l *plainLayer) DiffID() (v1.Hash, error)             { return l.digest, nil }
func (l *plainLayer) Size() (int64, error)                 { return l.size, nil }
func (l *plainLayer) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }
func (l *plainLayer) Compressed() (io.ReadCloser, error)   { return l.open() }
func (l *plainLayer) Uncompressed() (io.ReadCloser, error) { return l.open() }

func memoryLayer(content []byte) (v1.Layer, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(content))
	return &plainLayer{digest, size, func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}}, err
}

func (b Base) layer() (v1.Layer, error) {
	digest, err := v1.NewHash(b.Digest)
	return &plainLayer{digest, b.Size, func() (io.ReadCloser, error) { return os.Open(b.Layer) }}, err
}
