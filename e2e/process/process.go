// Package process runs programs inside a lab's network namespaces.
package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// stopLimit is how long a program may take to end after SIGTERM.
var stopLimit = lab.Patient(30 * time.Second)

// Process is a running or ended program. It is safe for concurrent use.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read after done
}

// Start starts a program in the namespace, with both its outputs written to log. The program is
// killed if the calling process ends, and does not get the terminal's signals.
func Start(ns *lab.Namespace, log io.Writer, path string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		// Pdeathsig is sent when the thread that started the program ends: it must live as long.
		p.err = ns.Do(func() error {
			err := p.cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			return p.cmd.Wait()
		})
	}()
	select {
	case err := <-started:
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", path, err)
		}
		return p, nil
	case <-p.done: // the namespace could not be entered
		return nil, fmt.Errorf("start %s: %w", path, p.err)
	}
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err waits until the program has ended and says how: nil is exit code 0.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Signal sends a signal, and is harmless after the end.
func (p *Process) Signal(s os.Signal) {
	_ = p.cmd.Process.Signal(s)
}

// Stop asks the program to end (SIGTERM) and says how it did. It kills a program that does not obey,
// which is an error.
func (p *Process) Stop() error {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.err
	case <-time.After(stopLimit):
		p.Kill()
		return fmt.Errorf("%s ignored SIGTERM", p.cmd.Path)
	}
}

// Kill ends the program at once and waits for that.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// ExitCode is what the program returned, -1 if a signal ended it. It waits for the end.
func (p *Process) ExitCode() int {
	var exit *exec.ExitError
	if err := p.Err(); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// PID is the program's process id, and its process group.
func (p *Process) PID() int { return p.cmd.Process.Pid }
