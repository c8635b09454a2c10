package main

import (
	"context"
	"fmt"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Addresses that every node's own network repeats: nothing outside sees them.
const (
	serviceRange      = "10.96.0.0/16"
	serviceAPIAddress = "10.96.0.1"
)

// etcd listens on a socket in the cluster's folder, so that several clusters never meet. The addresses for others,
// on which it insists, are any free port: there are no others.
func etcd(layout Layout) Component {
	socket, port := "unix://"+layout.EtcdSocket(), "http://127.0.0.1:0"
	return Component{
		Name: "etcd",
		Args: []string{
			"--name=godwit", "--data-dir=" + layout.EtcdData(),
			"--listen-client-urls=" + socket, "--advertise-client-urls=" + port,
			"--listen-peer-urls=" + port, "--initial-advertise-peer-urls=" + port,
			"--initial-cluster=godwit=" + port,
			// The data does not outlive the cluster; waiting for the disk would only slow every write down.
			"--unsafe-no-fsync",
			// It elects itself; shorter terms only make that sooner.
			"--heartbeat-interval=20", "--election-timeout=100",
			"--log-level=warn",
		},
		Ready: answersOn(layout.EtcdSocket()),
	}
}

func apiServer(layout Layout, record Record) Component {
	args := []string{
		"--etcd-servers=unix://" + layout.EtcdSocket(),
		fmt.Sprintf("--secure-port=%d", record.Port),
		"--tls-cert-file=" + layout.PKI("apiserver.crt"), "--tls-private-key-file=" + layout.PKI("apiserver.key"),
		"--client-ca-file=" + layout.PKI("ca.crt"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--service-cluster-ip-range=" + serviceRange,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + layout.PKI("service-accounts.pub"),
		"--service-account-signing-key-file=" + layout.PKI("service-accounts.key"),
		"--kubelet-certificate-authority=" + layout.PKI("ca.crt"),
		"--kubelet-client-certificate=" + layout.PKI("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + layout.PKI("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--profiling=false",
	}
	if record.isNode() {
		// Pods find the API server behind the `kubernetes` Service, whose endpoint is this address.
		args = append(args, "--bind-address=0.0.0.0", "--advertise-address="+bridgeAddress)
	} else {
		// No pod will ever ask for that Service, and a loopback endpoint would be refused over and over.
		args = append(args, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
			"--endpoint-reconciler-type=none")
	}
	return Component{
		Name:  "kube-apiserver",
		Args:  append(args, auditFlags(layout, record)...),
		Ready: apiServerReady(layout.Credential("admin")),
	}
}

func controllerManager(layout Layout) Component {
	return Component{
		Name: "kube-controller-manager",
		Args: []string{
			"--kubeconfig=" + layout.Credential("controller-manager"),
			"--use-service-account-credentials", "--leader-elect=false",
			"--root-ca-file=" + layout.PKI("ca.crt"),
			"--service-account-private-key-file=" + layout.PKI("service-accounts.key"),
			"--enable-hostpath-provisioner=true",
			// At the default rate the controllers' own accounts alone take four seconds to make.
			"--kube-api-qps=200", "--kube-api-burst=400",
			// How often a node that became Ready is looked at, to let pods on it.
			"--node-monitor-period=1s",
			"--flex-volume-plugin-dir=" + layout.path("node", "flex-volumes"),
			// Its own port serves metrics and health only; without it several clusters never meet.
			"--secure-port=0",
			"--profiling=false",
		},
	}
}

// apiServerReady asks /readyz, which turns true only after the built-in roles exist.
func apiServerReady(kubeconfig string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		client, err := connect(kubeconfig)
		if err != nil {
			return err
		}
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}
}

func connect(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}
