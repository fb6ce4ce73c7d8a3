// SPDX-License-Identifier: Apache-2.0

package program

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"
)

func mustSpare(t *testing.T, keep bool, command ...string) *Spare {
	t.Helper()
	s := NewSpare(keep, mustObject(t), zap.NewNop())
	s.command = command
	t.Cleanup(s.Close)
	return s
}

// now returns the child, which need not be ready.
func (s *Spare) now() *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.child
}

// requireEnd waits for the end of a process.
func requireEnd(t *testing.T, c *child) {
	t.Helper()
	select {
	case <-c.ended:
	case <-time.After(time.Minute):
		t.Fatal("the child goes on")
	}
}

// awaitOther waits for another child than c that is ready.
func awaitOther(t *testing.T, s *Spare, c *child) *child {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		other, ready := s.child, s.ready
		s.mu.Unlock()
		if ready && other != c {
			return other
		}
	}
	t.Fatal("no other child is made ready")
	return nil
}

// load loads the built-in object, and says whether by the child that was ready. Whether the kernel
// takes it is not the question here.
func load(t *testing.T, s *Spare) (ready bool) {
	t.Helper()
	core, logged := observer.New(zap.InfoLevel)
	l := &Loader{Limits: defaultLimits(t), Spare: s, Log: zap.New(core)}
	object := mustObject(t)
	prog, err := l.Load(t.Context(), mustOffer(t, object), object)
	if refused := new(refusedError); err == nil {
		prog.Close()
	} else if !errors.As(err, &refused) {
		t.Fatal(err)
	}
	requireTimes(t, logged)
	ready, _ = logged.FilterMessage("time of a load").All()[0].ContextMap()["ready"].(bool)
	return ready
}

func TestChildThatIsReadyLoadsOneObject(t *testing.T) {
	for _, keep := range []bool{false, true} {
		s := mustSpare(t, keep)
		s.Prepare()
		c := awaitOther(t, s, nil)
		if !load(t, s) {
			t.Errorf("keep %v: the child that was ready did not load", keep)
		}
		requireEnd(t, c)
		if load(t, s) {
			t.Errorf("keep %v: there was a second one at once", keep)
		}
	}
}

func TestNextChildIsMadeAfterALoad(t *testing.T) {
	s := mustSpare(t, true)
	s.next = time.Millisecond
	s.Prepare()
	c := awaitOther(t, s, nil)
	load(t, s)
	awaitOther(t, s, c)
	if !load(t, s) {
		t.Error("the next child did not load")
	}
}

// A load never fails because of the child that should be ready.
func TestLoadDoesNotNeedTheChildThatWaits(t *testing.T) {
	for _, keep := range []bool{false, true} {
		for name, command := range map[string][]string{
			"it has died": {self, "silent"}, "it panics": {self, "panic"}, "it hangs": {self, "hang"},
			"it answers before it is asked": {self, "early"},
			"there is no such program":      {"/nonexistent"},
		} {
			t.Run(fmt.Sprintf("%s, keep %v", name, keep), func(t *testing.T) {
				s := mustSpare(t, keep, command...)
				s.limit = time.Second
				s.Prepare()
				c := s.now()
				if load(t, s) {
					t.Error("it did load")
				}
				if s.Close(); c != nil {
					requireEnd(t, c)
				}
			})
		}
	}
}

func TestChildThatDiesIsReplaced(t *testing.T) {
	s := mustSpare(t, true)
	s.again = time.Millisecond
	s.Prepare()
	c := s.now()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitOther(t, s, c)
	if !load(t, s) {
		t.Error("the other child did not load")
	}
}

func TestOfferPreparesOneChild(t *testing.T) {
	s := mustSpare(t, false)
	s.Expect()
	c := s.now()
	s.Expect()
	if c == nil || s.now() != c {
		t.Error("each offer has a child of its own, or none")
	}
	if !load(t, s) {
		t.Error("it did not load")
	}
	kept := mustSpare(t, true)
	kept.Expect()
	kept.mu.Lock()
	ready := kept.ready
	kept.mu.Unlock()
	if !ready || !load(t, kept) {
		t.Error("an offer begins a rehearsal, which the load would wait for")
	}
}

func TestChildDoesNotWaitForALostOffer(t *testing.T) {
	s := mustSpare(t, false)
	s.wait = time.Millisecond
	s.Prepare()
	for begun := time.Now(); s.now() != nil; time.Sleep(time.Millisecond) {
		if time.Since(begun) > time.Minute {
			t.Fatal("the child goes on")
		}
	}
}

func TestClosedSpareHasNoChild(t *testing.T) {
	s := mustSpare(t, true)
	s.Prepare()
	c := s.now()
	s.Close()
	select {
	case <-c.ended:
	default:
		t.Error("the child goes on")
	}
	s.Prepare()
	s.renew()
	if s.now() != nil || load(t, s) {
		t.Error("there is another child")
	}
}

// prepareForever is an agent with a child that is ready. It prints the child's ID.
func prepareForever() error {
	core, logged := observer.New(zap.InfoLevel)
	s := NewSpare(true, nil, zap.New(core))
	s.Prepare()
	for logged.FilterMessage("loader is ready").Len() == 0 {
		time.Sleep(time.Millisecond)
	}
	fmt.Println(s.now().cmd.Process.Pid)
	time.Sleep(time.Hour)
	return nil
}

func TestChildEndsWithTheAgent(t *testing.T) {
	agent := exec.CommandContext(t.Context(), self, "agent")
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait() // it was killed
	for begun := time.Now(); runs(pid); time.Sleep(time.Millisecond) {
		if time.Since(begun) > time.Minute {
			t.Fatal("the child goes on")
		}
	}
}

// runs says whether a process is there, and has not ended.
func runs(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && !strings.Contains(string(text), "State:\tZ")
}

// A rehearsal gets as far as a load: to the kernel. Where the tests may load no programs, the
// kernel says so.
func TestRehearsalReachesTheKernel(t *testing.T) {
	c, err := startChild(nil, readyArg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.stop()
	refusal, err := c.rehearse(t.Context(), mustObject(t))
	if err != nil || refusal != "" && !strings.Contains(refusal, os.ErrPermission.Error()) &&
		!strings.Contains(refusal, unix.EPERM.Error()) {
		t.Errorf("refusal %q, error %v", refusal, err)
	}
}

func TestVerifierSaysHowLongItTook(t *testing.T) {
	for log, want := range map[string]time.Duration{
		"verification time 553123 usec\nstack depth 8\n": 553123 * time.Microsecond,
		"processed 9 insns\nverification time 7 usec":    7 * time.Microsecond,
		"": 0, "verification time -1 usec": 0, "verification time x usec": 0,
	} {
		if got := verifierTime(log); got != want {
			t.Errorf("%q is %v, want %v", log, got, want)
		}
	}
}
