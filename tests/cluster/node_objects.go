package main

import (
	"context"

	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// applyNodeObjects creates what a node's users expect to be there: a default storage class and the right of the DNS
// server to look around.
func applyNodeObjects(ctx context.Context, client *kubernetes.Clientset) error {
	reclaim, binding := core.PersistentVolumeReclaimDelete, storage.VolumeBindingImmediate
	class := &storage.StorageClass{
		ObjectMeta: meta.ObjectMeta{
			Name:        "standard",
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		Provisioner:       "kubernetes.io/host-path",
		ReclaimPolicy:     &reclaim,
		VolumeBindingMode: &binding,
	}
	_, err := client.StorageV1().StorageClasses().Create(ctx, class, meta.CreateOptions{})
	if err != nil && !errors.IsAlreadyExists(err) {
		return err
	}
	look := []string{"list", "watch"}
	role := &rbac.ClusterRole{
		ObjectMeta: meta.ObjectMeta{Name: clients["coredns"].name},
		Rules: []rbac.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"services", "namespaces", "pods", "endpoints"}, Verbs: look},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: look},
		},
	}
	_, err = client.RbacV1().ClusterRoles().Create(ctx, role, meta.CreateOptions{})
	if err != nil && !errors.IsAlreadyExists(err) {
		return err
	}
	grant := &rbac.ClusterRoleBinding{
		ObjectMeta: meta.ObjectMeta{Name: role.Name},
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbac.Subject{{APIGroup: rbac.GroupName, Kind: rbac.UserKind, Name: role.Name}},
	}
	_, err = client.RbacV1().ClusterRoleBindings().Create(ctx, grant, meta.CreateOptions{})
	if errors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
