package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Contents says what is in an image. The files in images/ are read by this program and by whoever writes the
// Containerfile for people with a registry.
type Contents struct {
	// Name is the image's name and tag.
	Name string `json:"name"`
	// From is another list of contents that this image builds on, relative to this one's file.
	From string `json:"from,omitempty"`
	// Debian is the base layer. A list has `from`, `debian`, or neither.
	Debian *Debian `json:"debian,omitempty"`
	// Users are added to the base's users.
	Users []User `json:"users,omitempty"`
	Files []File `json:"files,omitempty"`
	// Env adds to what `from` sets; User and Entrypoint replace it.
	Env        map[string]string `json:"env,omitempty"`
	User       string            `json:"user,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"`
}

// Debian is the recipe of a base layer.
type Debian struct {
	Suite    string   `json:"suite"`
	Packages []string `json:"packages"`
	// Users exist before the packages are installed, which makes their ids the same in every build.
	Users []User `json:"users,omitempty"`
	// Strip lists patterns of files that are removed at the end.
	Strip []string `json:"strip,omitempty"`
}

// User is a line of /etc/passwd and, with the same number, one of /etc/group.
type User struct {
	Name  string `json:"name"`
	UID   int    `json:"uid"`
	Home  string `json:"home"`
	Shell string `json:"shell"`
}

// File is copied into the image and belongs to root there.
type File struct {
	// Source is relative to `--root`.
	Source string `json:"source"`
	Path   string `json:"path"`
	// Mode is octal.
	Mode string `json:"mode"`
}

// readContents returns the list and those it builds on, the base first.
func readContents(path string) ([]Contents, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading an image's contents: %w", err)
	}
	chain, err := parseContents(content)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if chain.From == "" {
		return []Contents{chain}, nil
	}
	below, err := readContents(filepath.Join(filepath.Dir(path), chain.From))
	return append(below, chain), err
}

// parseContents refuses fields that nobody would act on.
func parseContents(content []byte) (Contents, error) {
	var parsed Contents
	decoder := json.NewDecoder(strings.NewReader(string(content)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&parsed); err != nil {
		return parsed, err
	}
	if parsed.Name == "" {
		return parsed, errors.New("name is missing")
	}
	if parsed.From != "" && parsed.Debian != nil {
		return parsed, errors.New("from and debian exclude each other")
	}
	if len(parsed.Users) > 0 && parsed.From == "" {
		return parsed, errors.New("users need a base to be added to")
	}
	return parsed, nil
}
