package main

import (
	"fmt"
	"net"
	"os"
	"strconv"

	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
)

// Users of the API server, by the names that upstream's built-in roles are bound to.
var clients = map[string]subject{
	"controller-manager": {name: "system:kube-controller-manager"},
	"scheduler":          {name: "system:kube-scheduler"},
	"proxy":              {name: "system:kube-proxy"},
	"kubelet":            {name: "system:node:" + nodeName, groups: []string{"system:nodes"}},
	"coredns":            {name: "godwit:coredns"},
	"admin":              {name: "godwit-admin", groups: []string{"system:masters"}},
}

// writeCredentials makes all certificates and kubeconfigs of one cluster.
func writeCredentials(layout Layout, record Record) error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	if err := os.WriteFile(layout.PKI("ca.crt"), ca.pem, 0o600); err != nil {
		return err
	}
	if err := writeServiceAccountKey(layout); err != nil {
		return err
	}
	server := subject{
		name: "kube-apiserver",
		dns: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"},
		ips: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(serviceAPIAddress), net.ParseIP(bridgeAddress),
			net.ParseIP(record.serverAddress())},
	}
	kubelet := subject{name: nodeName, dns: []string{nodeName}, ips: []net.IP{net.ParseIP(bridgeAddress)}}
	files := map[string]subject{
		"apiserver": server,
		"kubelet":   kubelet,
		// The API server asks the kubelet for logs and exec; the kubelet grants that to this group without a role.
		"apiserver-kubelet-client": {name: "kube-apiserver", groups: []string{"system:masters"}},
	}
	for name, of := range files {
		if err := ca.issueFiles(layout, name, of); err != nil {
			return err
		}
	}
	inner := "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(record.Port))
	for name, of := range clients {
		if err := writeKubeconfig(ca, layout.Credential(name), inner, of); err != nil {
			return err
		}
	}
	outer := "https://" + net.JoinHostPort(record.serverAddress(), strconv.Itoa(record.Port))
	return writeKubeconfig(ca, layout.Kubeconfig(), outer, clients["admin"])
}

// writeKubeconfig embeds everything, so that the file may be copied and read from any working directory.
func writeKubeconfig(ca *authority, path, server string, of subject) error {
	certificate, key, err := ca.issue(of)
	if err != nil {
		return err
	}
	config := api.NewConfig()
	config.Clusters["godwit"] = &api.Cluster{Server: server, CertificateAuthorityData: ca.pem}
	config.AuthInfos["godwit"] = &api.AuthInfo{ClientCertificateData: certificate, ClientKeyData: key}
	config.Contexts["godwit"] = &api.Context{Cluster: "godwit", AuthInfo: "godwit", Namespace: "default"}
	config.CurrentContext = "godwit"
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
