package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
)

// containerdSocket is containerd's, as the node sees it.
const containerdSocket = "/run/containerd/containerd.sock"

// hostView is where the host finds a file of the node, mounts included: through the node's process 1.
func hostView(record Record, path string) string {
	return filepath.Join("/proc", strconv.Itoa(record.Supervisor.Pid), "root", path)
}

// containerdAnswers is asked from the host.
func containerdAnswers(record Record) func(ctx context.Context) error {
	return answersOn(hostView(record, containerdSocket))
}

func containerd(layout Layout) Component {
	return Component{
		Name:    "containerd",
		Program: "/usr/bin/containerd",
		Args:    []string{"--config", layout.Config("containerd.toml"), "--log-level", "warn"},
		Ready:   answersOn(containerdSocket),
	}
}

func scheduler(layout Layout) Component {
	kubeconfig := layout.Credential("scheduler")
	return Component{
		Name: "kube-scheduler",
		Args: []string{
			"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig,
			"--authorization-kubeconfig=" + kubeconfig, "--leader-elect=false", "--profiling=false",
		},
	}
}

func kubelet(layout Layout) Component {
	return Component{
		Name: "kubelet",
		Args: []string{
			"--config=" + layout.Config("kubelet.yaml"), "--kubeconfig=" + layout.Credential("kubelet"),
			"--hostname-override=" + nodeName,
			// A loopback address would leave the node without one, and with it pods without logs and exec.
			"--node-ip=" + bridgeAddress,
		},
	}
}

func kubeProxy(layout Layout) Component {
	return Component{Name: "kube-proxy", Args: []string{"--config=" + layout.Config("proxy.yaml")}}
}

func coreDNS(layout Layout) Component {
	return Component{Name: "coredns", Args: []string{"-conf", layout.Config("Corefile")}}
}

// writeNodeConfig writes the files above as the node will read them: all paths in them are the node's own.
func writeNodeConfig(layout Layout, record Record) error {
	inner := Layout{Root: innerRoot}
	files := map[string]string{
		"containerd.toml": fmt.Sprintf(containerdConfig, pauseImage, inner.Config("cni")),
		"kubelet.yaml": fmt.Sprintf(kubeletConfig, inner.PKI("ca.crt"), inner.PKI("kubelet.crt"),
			inner.PKI("kubelet.key"), record.cgroup(), inner.Config("resolv.conf")),
		"proxy.yaml":           fmt.Sprintf(proxyConfig, inner.Credential("proxy"), nodeName, podRange),
		"Corefile":             fmt.Sprintf(corefile, inner.Credential("coredns")),
		"cni/10-pods.conflist": fmt.Sprintf(cniConfig, bridgeName, podRange),
		// Empty, so that no search domain of the host's gets into a pod and every other name fails at once.
		"resolv.conf": "",
	}
	return writeFiles(layout, files)
}
