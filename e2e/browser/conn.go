package browser

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// event is something that the browser says unasked.
type event struct {
	Method string
	Params json.RawMessage
}

// message is what goes over the pipes, ended by a zero byte: a call, the answer to one, or an event.
type message struct {
	ID        int             `json:"id,omitempty"`
	SessionID string          `json:"sessionId,omitempty"`
	Method    string          `json:"method,omitempty"`
	Params    json.RawMessage `json:"params,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Error     *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// conn is the two pipes. It is for one caller at a time.
type conn struct {
	in, out *os.File
	last    int
	answers chan message // closed when the browser is gone

	mu     sync.Mutex
	events []event
}

func newConn(in, out *os.File) *conn {
	c := &conn{in: in, out: out, answers: make(chan message, 1)}
	go c.read()
	return c
}

func (c *conn) close() { _, _ = c.in.Close(), c.out.Close() }

// read sorts what comes until the browser ends.
func (c *conn) read() {
	defer close(c.answers)
	for r := bufio.NewReader(c.in); ; {
		text, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			return
		}
		if m.ID != 0 {
			c.answers <- m
			continue
		}
		c.mu.Lock()
		c.events = append(c.events, event{m.Method, m.Params})
		c.mu.Unlock()
	}
}

func (c *conn) seen() []event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.events[:len(c.events):len(c.events)]
}

func (c *conn) call(session, method string, params, result any) error {
	if params == nil {
		params = map[string]any{}
	}
	raw, err := json.Marshal(params)
	if err != nil {
		return err
	}
	c.last++
	text, err := json.Marshal(message{ID: c.last, SessionID: session, Method: method, Params: raw})
	if err != nil {
		return err
	}
	if _, err := c.out.Write(append(text, 0)); err != nil {
		return err
	}
	limit := time.After(patience)
	for {
		select {
		case m, alive := <-c.answers:
			switch {
			case !alive:
				return errors.New("the browser has ended")
			case m.ID != c.last: // of a call that was given up
				continue
			case m.Error != nil:
				return errors.New(m.Error.Message)
			case result == nil:
				return nil
			}
			return json.Unmarshal(m.Result, result)
		case <-limit:
			return fmt.Errorf("no answer within %v", patience)
		}
	}
}
