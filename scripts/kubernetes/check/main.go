// Command check reads Kubernetes manifests as the API server of their types would:
// every field must exist and have its type, names must be given, and what selects pods
// must select those of the template.
//
// It has a module of its own, so that the API's types stay out of decree's.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// kinds are those that decree's manifests are of.
var kinds = map[string]func() runtime.Object{
	"v1/ServiceAccount":                  func() runtime.Object { return &corev1.ServiceAccount{} },
	"v1/ConfigMap":                       func() runtime.Object { return &corev1.ConfigMap{} },
	"v1/Service":                         func() runtime.Object { return &corev1.Service{} },
	"policy/v1/PodDisruptionBudget":      func() runtime.Object { return &policyv1.PodDisruptionBudget{} },
	"networking.k8s.io/v1/NetworkPolicy": func() runtime.Object { return &networkingv1.NetworkPolicy{} },
	"apps/v1/StatefulSet":                func() runtime.Object { return &appsv1.StatefulSet{} },
}

func main() {
	for _, path := range os.Args[1:] {
		objects, err := readFile(path)
		if err == nil {
			err = joined(objects)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			os.Exit(1)
		}
		fmt.Printf("%s: %d objects\n", path, len(objects))
	}
}

func readFile(path string) ([]runtime.Object, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var objects []runtime.Object
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		object, err := read(document)
		if err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
}

// read refuses unknown and repeated fields.
func read(document []byte) (runtime.Object, error) {
	var typed metav1.PartialObjectMetadata
	if err := yaml.Unmarshal(document, &typed); err != nil {
		return nil, err
	}
	kind := typed.APIVersion + "/" + typed.Kind
	make, known := kinds[kind]
	switch {
	case !known:
		return nil, fmt.Errorf("%s is not a kind that this command knows", kind)
	case typed.Name == "":
		return nil, fmt.Errorf("a %s has no name", kind)
	}
	object := make()
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		return nil, fmt.Errorf("%s %s: %w", kind, typed.Name, err)
	}
	return object, nil
}

// joined holds that the objects are about the same pods, and about ports that they have.
func joined(objects []runtime.Object) error {
	var set *appsv1.StatefulSet
	for _, o := range objects {
		if s, ok := o.(*appsv1.StatefulSet); ok {
			set = s
		}
	}
	if set == nil {
		return errors.New("no StatefulSet")
	}
	pods, ports := set.Spec.Template.Labels, map[string]bool{}
	for _, container := range set.Spec.Template.Spec.Containers {
		for _, p := range container.Ports {
			ports[p.Name] = true
		}
	}
	errs := []error{selects("StatefulSet", set.Spec.Selector, pods)}
	headless := false
	for _, o := range objects {
		switch o := o.(type) {
		case *corev1.Service:
			headless = headless || o.Name == set.Spec.ServiceName && o.Spec.ClusterIP == corev1.ClusterIPNone
			errs = append(errs, selects("Service "+o.Name, &metav1.LabelSelector{MatchLabels: o.Spec.Selector}, pods))
			for _, p := range o.Spec.Ports {
				if !ports[p.TargetPort.StrVal] {
					errs = append(errs, fmt.Errorf("Service %s: the pods have no port %s", o.Name, p.TargetPort.String()))
				}
			}
		case *policyv1.PodDisruptionBudget:
			errs = append(errs, selects("PodDisruptionBudget", o.Spec.Selector, pods))
		case *networkingv1.NetworkPolicy:
			errs = append(errs, selects("NetworkPolicy", &o.Spec.PodSelector, pods))
		}
	}
	if !headless {
		errs = append(errs, fmt.Errorf("no headless Service %s, which the StatefulSet names", set.Spec.ServiceName))
	}
	return errors.Join(errs...)
}

func selects(who string, selector *metav1.LabelSelector, pods map[string]string) error {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return fmt.Errorf("%s: %w", who, err)
	}
	if s.Empty() || !s.Matches(labels.Set(pods)) {
		return fmt.Errorf("%s does not select the pods", who)
	}
	return nil
}
