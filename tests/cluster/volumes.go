package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// volumesFolder is fixed in upstream's host-path provisioner. A node sees a folder of DIR there.
const volumesFolder = "/tmp/hostpath_pv"

// openVolumes lets every user write to provisioned volumes. Upstream makes them for root alone, and the kubelet does
// not apply fsGroup to host paths, so that no pod under the restricted settings could use its claim otherwise.
func openVolumes() error {
	if err := os.MkdirAll(volumesFolder, 0o755); err != nil {
		return err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching for new volumes: %w", err)
	}
	if err := watcher.Add(volumesFolder); err != nil {
		return fmt.Errorf("watching for new volumes: %w", err)
	}
	go func() {
		for {
			select {
			case event := <-watcher.Events:
				openVolume(event)
			case err := <-watcher.Errors:
				fmt.Fprintln(os.Stderr, "watching for new volumes:", err)
			}
		}
	}()
	return nil
}

func openVolume(event fsnotify.Event) {
	if !event.Has(fsnotify.Create) || filepath.Dir(event.Name) != volumesFolder {
		return
	}
	if err := os.Chmod(event.Name, 0o777); err != nil {
		fmt.Fprintln(os.Stderr, "opening a volume:", err)
	}
}
