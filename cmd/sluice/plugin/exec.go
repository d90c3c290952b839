package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
)

// exec runs a command in a pod until it ends. It hands on what the command writes, and its exit code.
func (c *cluster) exec(ctx context.Context, pod target, command []string, stdout, stderr io.Writer) error {
	request := c.client.CoreV1().RESTClient().Post().Namespace(pod.namespace).Resource("pods").Name(pod.pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: pod.container, Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	sockets, err := remotecommand.NewWebSocketExecutor(c.config, "GET", request.URL().String())
	if err != nil {
		return err
	}
	spdy, err := remotecommand.NewSPDYExecutor(c.config, "POST", request.URL())
	if err != nil {
		return err
	}
	// As kubectl does: API servers before 1.30, and some proxies, do not take WebSockets.
	either, err := remotecommand.NewFallbackExecutor(sockets, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return err
	}
	err = either.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: stdout, Stderr: stderr})
	if exit, ok := errors.AsType[exec.CodeExitError](err); ok {
		return ExitCode(exit.Code)
	}
	if err != nil {
		return fmt.Errorf("run in pod %s/%s: %w", pod.namespace, pod.pod, err)
	}
	return nil
}
