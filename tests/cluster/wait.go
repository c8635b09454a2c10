package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Ports on which a node's DNS and proxy tell whether they are ready.
const (
	dnsReadyPort   = "8181"
	proxyReadyPort = "10256"
)

// health tells why a recorded cluster cannot be used; nil means that it can.
func health(ctx context.Context, layout Layout, record Record) error {
	if err := standing(layout, record); err != nil {
		return err
	}
	if _, err := os.Stat(layout.Started()); err != nil {
		return errors.New("not all components were started")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return apiServerReady(layout.Kubeconfig())(ctx)
}

// standing fails for good when the supervisor or a component has ended: nothing brings them back.
func standing(layout Layout, record Record) error {
	for name, how := range exits(layout) {
		return &finalError{fmt.Errorf("%s ended: %s", name, how)}
	}
	if !record.Supervisor.alive() {
		return &finalError{errors.New("the supervisor ended")}
	}
	return nil
}

// awaitCluster returns when a pod may be created, and for a node when it would run and find Services by name.
func awaitCluster(ctx context.Context, layout Layout, record Record) error {
	step := func(what string, ask func(ctx context.Context) error) error {
		return await(ctx, what, func(ctx context.Context) error {
			if err := standing(layout, record); err != nil {
				return err
			}
			return ask(ctx)
		})
	}
	if record.isNode() {
		// While the API server starts: containerd needs only itself to take the image that every pod is built on.
		if err := step("containerd", containerdAnswers(record)); err != nil {
			return err
		}
		if err := loadPauseImage(ctx, layout, record); err != nil {
			return err
		}
	}
	if err := step("the API server", apiServerReady(layout.Kubeconfig())); err != nil {
		return err
	}
	client, err := connect(layout.Kubeconfig())
	if err != nil {
		return err
	}
	if record.isNode() {
		apply := func(ctx context.Context) error { return applyNodeObjects(ctx, client) }
		if err := step("the node's objects", apply); err != nil {
			return err
		}
	}
	if err := step("all components to be started", func(context.Context) error {
		_, err := os.Stat(layout.Started())
		return err
	}); err != nil {
		return err
	}
	if err := step("the default service account", defaultAccount(client)); err != nil || !record.isNode() {
		return err
	}
	if err := step("the node to be Ready", nodeReady(client)); err != nil {
		return err
	}
	address := record.Network.NodeAddress
	if err := step("DNS", answersOK("http://"+net.JoinHostPort(address, dnsReadyPort)+"/ready")); err != nil {
		return err
	}
	return step("the proxy", answersOK("http://"+net.JoinHostPort(address, proxyReadyPort)+"/healthz"))
}

func defaultAccount(client *kubernetes.Clientset) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", meta.GetOptions{})
		return err
	}
}

func nodeReady(client *kubernetes.Clientset) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		node, err := client.CoreV1().Nodes().Get(ctx, nodeName, meta.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == core.NodeReady && condition.Status != core.ConditionTrue {
				return errors.New(condition.Message)
			}
		}
		for _, taint := range node.Spec.Taints {
			return fmt.Errorf("it still has the taint %s", taint.Key)
		}
		return nil
	}
}

// answersOK asks directly: a proxy of the person at the terminal must not come between.
func answersOK(url string) func(ctx context.Context) error {
	client := &http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answered %s", url, response.Status)
		}
		return nil
	}
}

// runStatus prints what runs, and fails when the cluster cannot be used.
func runStatus(ctx context.Context, args []string) error {
	layout, err := parseDir(newFlags("status"), args)
	if err != nil {
		return err
	}
	record, found, err := readRecord(layout)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("no cluster in %s", layout.Root)
	}
	fmt.Printf("size        %s\nsupervisor  pid %d\nserver      https://%s:%d\nkubeconfig  %s\n", record.Options.Size,
		record.Supervisor.Pid, record.serverAddress(), record.Port, layout.Kubeconfig())
	if record.Options.AuditLog != "" {
		fmt.Printf("audit log   %s\n", record.Options.AuditLog)
	}
	ended := exits(layout)
	for _, stage := range stages(layout, record) {
		for _, component := range stage {
			if how, dead := ended[component.Name]; dead {
				fmt.Printf("%s: %s\n%s\n", component.Name, how, indent(logTail(layout, component.Name, 5)))
			}
		}
	}
	if err := health(ctx, layout, record); err != nil {
		return fmt.Errorf("not usable: %w", err)
	}
	fmt.Println("ready")
	return nil
}

// runKubeconfig prints the path of a recorded cluster's kubeconfig.
func runKubeconfig(_ context.Context, args []string) error {
	layout, err := parseDir(newFlags("kubeconfig"), args)
	if err != nil {
		return err
	}
	if _, found, err := readRecord(layout); err != nil || !found {
		return errors.Join(fmt.Errorf("no cluster in %s", layout.Root), err)
	}
	fmt.Println(layout.Kubeconfig())
	return nil
}

func indent(text string) string { return "    " + strings.ReplaceAll(text, "\n", "\n    ") }
