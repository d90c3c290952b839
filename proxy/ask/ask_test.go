package ask_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-proxy/sluice/proxy/ask"
)

// asOther makes the test binary ask, as the user that the test starts it as.
const asOther = "SLUICE_TEST_ASK"

func TestMain(m *testing.M) {
	if name := os.Getenv(asOther); name != "" {
		body, err := get(name)
		fmt.Println(body, err)
		return
	}
	os.Exit(m.Run())
}

func get(name string) (string, error) {
	response, err := ask.NewClient(name).Get("http://node/hello")
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return fmt.Sprint(response.StatusCode, " ", string(body)), err
}

func serve(t *testing.T, name string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ask.Serve(ctx, name, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	}()
	return func() { cancel(); <-done }
}

func TestRootIsAnsweredAndOthersAreNot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root, to be another user as well: run the tests as root")
	}
	name := fmt.Sprintf("@sluice-test-%d", os.Getpid())
	stop := serve(t, name)
	defer stop()
	for {
		body, err := get(name)
		if err != nil && strings.Contains(err.Error(), "refused") {
			continue // it does not listen yet
		}
		if body != "200 hello" || err != nil {
			t.Errorf("root is told %q, %v", body, err)
		}
		break
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), asOther+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "403 only root may ask") {
		t.Errorf("somebody else is told %s, %v", out, err)
	}
}

func TestNobodyThereIsSaidPlainly(t *testing.T) {
	_, err := get(fmt.Sprintf("@sluice-test-none-%d", os.Getpid()))
	if err == nil || !strings.Contains(err.Error(), "no Sluice that can be asked runs") {
		t.Errorf("got %v", err)
	}
}

func TestSuccessorTakesTheNameOver(t *testing.T) {
	name := fmt.Sprintf("@sluice-test-two-%d", os.Getpid())
	stopFirst := serve(t, name)
	for {
		if _, err := get(name); err == nil {
			break
		}
	}
	stopSecond := serve(t, name)
	stopFirst()
	defer stopSecond()
	for {
		if body, err := get(name); err == nil {
			if body != "200 hello" {
				t.Errorf("the successor says %q", body)
			}
			return
		}
	}
}
