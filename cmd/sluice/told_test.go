package main

import (
	"strings"
	"testing"
)

func TestPasswordsAreLeftOut(t *testing.T) {
	for text, want := range map[string]string{
		"--master=https://admin:s3cret@10.0.0.1:6443": "--master=https://…@10.0.0.1:6443",
		`{"a":"https://x:y@host/","b":"no@secret"}`:   `{"a":"https://…@host/","b":"no@secret"}`,
		"--kubeconfig=/etc/sluice/kubeconfig":         "--kubeconfig=/etc/sluice/kubeconfig",
		"https://host/a@b":                            "https://host/a@b",
	} {
		if got := withoutPassword(text); got != want || strings.Contains(got, "s3cret") {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
