package main

import (
	"context"
	"fmt"
	"net"
)

// Component is one process of the cluster, as the supervisor starts it.
type Component struct {
	Name string
	// Program is empty for the upstream programs that are linked into this one.
	Program string
	Args    []string
	// Ready is asked before the next stage starts; nil asks nothing.
	Ready func(ctx context.Context) error
}

// stages lists what runs, in the order of need: the members of a stage start together.
func stages(layout Layout, record Record) [][]Component {
	first := []Component{etcd(layout)}
	last := []Component{controllerManager(layout)}
	if record.isNode() {
		first = append(first, containerd(layout))
		last = append(last, scheduler(layout), kubelet(layout), kubeProxy(layout), coreDNS(layout))
	}
	return [][]Component{first, {apiServer(layout, record)}, last}
}

// answersOn is ready when something listens on the socket.
func answersOn(socket string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err != nil {
			return fmt.Errorf("nothing answers on %s: %w", socket, err)
		}
		return connection.Close()
	}
}
