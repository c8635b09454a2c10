package main

import (
	"context"
	"flag"
	"os"
	"time"

	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserverapp "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanagerapp "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxyapp "k8s.io/kubernetes/cmd/kube-proxy/app"
	schedulerapp "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeletapp "k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/pkg/controller/job"
)

// components are the upstream programs that are linked into this one. `cluster component NAME ARG…` becomes that
// program, so that the whole cluster is one file to build and to cache.
var components = map[string]func(args []string) int{
	"etcd": func(args []string) int {
		etcdmain.Main(append([]string{"etcd"}, args...))
		return 0
	},
	"coredns": func(args []string) int {
		// CoreDNS registers its flags on the global flag set and reads os.Args.
		os.Args = append([]string{"coredns"}, args...)
		flag.CommandLine.Init("coredns", flag.ExitOnError)
		coremain.Run()
		return 0
	},
	"kube-apiserver": cobraComponent(apiserverapp.NewAPIServerCommand),
	"kube-controller-manager": func(args []string) int {
		// Upstream waits this long before it looks at a Job again, to spare busy clusters. Here it would be most of the
		// time that a short Job takes.
		job.SyncJobBatchPeriod = 50 * time.Millisecond
		return cobraComponent(controllermanagerapp.NewControllerManagerCommand)(args)
	},
	"kube-scheduler": cobraComponent(func() *cobra.Command { return schedulerapp.NewSchedulerCommand() }),
	"kube-proxy":     cobraComponent(proxyapp.NewProxyCommand),
	// The kubelet sets up the process's only signal handler itself: a second one panics, hence the plain context.
	"kubelet": cobraComponent(func() *cobra.Command { return kubeletapp.NewKubeletCommand(context.Background()) }),
}

// cobraComponent runs an upstream command as its own main would.
func cobraComponent(build func() *cobra.Command) func(args []string) int {
	return func(args []string) int {
		command := build()
		command.SetArgs(args)
		return cli.Run(command)
	}
}
