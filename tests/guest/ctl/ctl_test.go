// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// pair returns a client whose server runs on this machine.
func pair(t *testing.T) (*Client, net.Conn) {
	t.Helper()
	host, guest := net.Pipe()
	server := NewServer(guest)
	go server.Serve(guest)
	client := NewClient(host)
	t.Cleanup(func() {
		client.Close()
		guest.Close()
	})
	return client, guest
}

// patience returns a context that ends a test that hangs. It asserts no speed.
func patience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestRunReturnsOutputAndStatus(t *testing.T) {
	c, _ := pair(t)
	script := "echo $WORD; echo err >&2; exit 3"
	r, err := c.Do(patience(t), Request{
		Op: OpRun, Args: []string{"/bin/sh", "-c", script}, Env: []string{"WORD=out"},
	})
	if err != nil || r.Exit != 3 || r.Output != "out\nerr" {
		t.Fatalf("got %+v, %v", r, err)
	}
	if _, err := c.Do(patience(t), Request{Op: OpRun, Args: []string{"/does/not/exist"}}); err == nil {
		t.Fatal("a program that does not exist ran")
	}
	if _, err := c.Do(patience(t), Request{Op: OpRun}); err == nil {
		t.Fatal("no program at all ran")
	}
}

func TestALongCommandDoesNotDelayAShortOne(t *testing.T) {
	c, _ := pair(t)
	ctx := patience(t)
	for name, args := range map[string][]string{"cat": {"cat"}, "sleep": {"sleep", "600"}} {
		if _, err := c.Do(ctx, Request{Op: OpStart, Name: name, Args: args}); err != nil {
			t.Fatal(err)
		}
	}
	long := make(chan Reply, 1)
	go func() {
		r, _ := c.Do(ctx, Request{Op: OpWait, Name: "sleep"})
		long <- r
	}()
	r, err := c.Do(ctx, Request{Op: OpTell, Name: "cat", Line: "are you there"})
	if err != nil || r.Output != "are you there" {
		t.Fatalf("got %+v, %v", r, err)
	}
	select {
	case r := <-long:
		t.Fatalf("sleep ended first: %+v", r)
	default:
	}
	_, err = c.Do(ctx, Request{Op: OpSignal, Name: "sleep", Signal: int(syscall.SIGTERM)})
	if err != nil {
		t.Fatal(err)
	}
	if r := <-long; r.Exit != -int(syscall.SIGTERM) {
		t.Fatalf("sleep ended with %+v", r)
	}
	if r, err := c.Do(ctx, Request{Op: OpWait, Name: "cat"}); err != nil || r.Exit != 0 {
		t.Fatalf("cat ended with %+v, %v", r, err)
	}
}

func TestOutputOfARunningProgram(t *testing.T) {
	c, _ := pair(t)
	ctx := patience(t)
	script := "echo one; read a; echo two; cat"
	_, err := c.Do(ctx, Request{Op: OpStart, Name: "x", Args: []string{"/bin/sh", "-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	// "one" was printed before the question, but it is the next line. So a program
	// that answers questions must print nothing else on its standard output.
	r, err := c.Do(ctx, Request{Op: OpTell, Name: "x", Line: "go"})
	if err != nil || r.Output != "one" {
		t.Fatalf("got %+v, %v", r, err)
	}
	for {
		r, err := c.Do(ctx, Request{Op: OpOutput, Name: "x"})
		if err != nil {
			t.Fatal(err)
		}
		if r.Output == "two" {
			break
		}
	}
	if r, err := c.Do(ctx, Request{Op: OpWait, Name: "x"}); err != nil || r.Exit != 0 {
		t.Fatalf("got %+v, %v", r, err)
	}
}

func TestSignalEndsAProgram(t *testing.T) {
	c, _ := pair(t)
	ctx := patience(t)
	for _, r := range []Request{
		{Op: OpStart, Name: "s", Args: []string{"sleep", "600"}},
		{Op: OpSignal, Name: "s", Signal: int(syscall.SIGKILL)},
	} {
		if _, err := c.Do(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := c.Do(ctx, Request{Op: OpWait, Name: "s"}); err != nil || r.Exit != -9 {
		t.Fatalf("got %+v, %v, want an end by signal 9", r, err)
	}
}

func TestTellingAProgramThatEndedSaysWhy(t *testing.T) {
	c, _ := pair(t)
	ctx := patience(t)
	script := "read line; echo no memory >&2; exit 1"
	_, err := c.Do(ctx, Request{Op: OpStart, Name: "x", Args: []string{"/bin/sh", "-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(ctx, Request{Op: OpTell, Name: "x", Line: "status"}); err == nil {
		t.Fatal("a program that ended answered")
	}
	r, err := c.Do(ctx, Request{Op: OpWait, Name: "x"})
	if err != nil || r.Exit != 1 || r.Output != "no memory" {
		t.Fatalf("got %+v, %v", r, err)
	}
}

func TestNoiseOnThePortIsSkipped(t *testing.T) {
	host, guest := net.Pipe()
	c := NewClient(host)
	defer c.Close()
	go func() {
		guest.Write([]byte("\x00\xffSeaBIOS (version 1)\r\n\r\n{broken\n{\"id\":0,\"ready\":\"6.1\"}\n"))
		guest.Close()
	}()
	if release, err := c.Ready(patience(t)); err != nil || release != "6.1" {
		t.Fatalf("got %q, %v", release, err)
	}
	if _, err := c.Do(patience(t), Request{Op: OpPing}); !errors.Is(err, ErrClosed) {
		t.Fatalf("a request on a dead channel: %v, want ErrClosed", err)
	}
}
