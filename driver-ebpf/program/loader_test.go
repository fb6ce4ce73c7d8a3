// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

// TestMain makes the test's program a loader's child, too.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		os.Exit(m.Run())
	}
	var err error
	switch os.Args[1] {
	case ChildArg:
		err = Child(os.Args[2:])
	case "panic":
		panic("the parser is broken")
	case "confine":
		err = printConfined()
	case "silent":
	case "hang":
		time.Sleep(time.Hour)
	case "empty":
		err = sayNothing()
	case "early":
		err = answerEarly()
	case "agent":
		err = prepareForever()
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// sayNothing is a child that takes a request, and answers without a reason.
func sayNothing() error {
	conn, err := openSocket()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, _, err := receive(conn); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(taken)); err != nil {
		return err
	}
	return respond(conn, errors.New(""), times{}, nil)
}

// answerEarly is a child that does not wait for a request.
func answerEarly() error {
	conn, err := openSocket()
	if err != nil {
		return err
	}
	defer conn.Close()
	return respond(conn, errors.New("I know better"), times{}, nil)
}

func mustOffer(t *testing.T, object []byte) *protocol.Offer {
	t.Helper()
	b, err := bundle.New(protocol.Offer{Kind: protocol.KindWalk, Name: "walk"}, object)
	if err != nil {
		t.Fatal(err)
	}
	return &b.Offer
}

func TestChildSaysWhyItLoadsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		object []byte
		limits Limits
		want   string
	}{
		"no ELF": {[]byte("hello"), defaultLimits(t), "parse the object"},
		"a limit": {mustObject(t), mustPolicy(t, `{"limits": {"instructions": 9}}`).Limits,
			"instructions, at most 9"},
		"a damaged one": {append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 4000)...),
			defaultLimits(t), "parse the object"},
	} {
		t.Run(name, func(t *testing.T) {
			l := &Loader{Limits: c.limits}
			_, err := l.Load(t.Context(), mustOffer(t, c.object), c.object)
			if refused := new(refusedError); !errors.As(err, &refused) ||
				!strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

// requireTimes checks that the log says where the time of a load went.
func requireTimes(t *testing.T, logged *observer.ObservedLogs) {
	t.Helper()
	all := logged.FilterMessage("time of a load").All()
	if len(all) != 1 {
		t.Fatalf("logged %v, want the times of a load", all)
	}
	parts, fields := time.Duration(0), all[0].ContextMap()
	for _, name := range []string{"parse", "types", "load"} {
		part, ok := fields[name].(time.Duration)
		if !ok || part <= 0 {
			t.Errorf("%s took %v", name, fields[name])
		}
		parts += part
	}
	if took, ok := fields["took"].(time.Duration); !ok || took < parts {
		t.Errorf("the parts of a load took %v, and all of it %v", parts, fields["took"])
	}
}

// The built-in object reaches the kernel. Where the tests may load no programs, the refusal
// that comes back is the kernel's, and none of the loader or of the policy.
func TestChildReachesTheKernel(t *testing.T) {
	core, logged := observer.New(zap.InfoLevel)
	l := &Loader{Limits: defaultLimits(t), Constants: map[string]uint64{"vmemmap": 1 << 40},
		Log: zap.New(core)}
	object := mustObject(t)
	prog, err := l.Load(t.Context(), mustOffer(t, object), object)
	requireTimes(t, logged)
	if err == nil {
		defer prog.Close()
		if prog.Type() != ebpf.Kprobe {
			t.Fatalf("a program of type %v", prog.Type())
		}
		return
	}
	t.Log(err)
	if refused := new(refusedError); !errors.As(err, &refused) ||
		!strings.HasPrefix(refused.why, "the kernel refuses the program: ") &&
			!strings.Contains(refused.why, os.ErrPermission.Error()) &&
			!strings.Contains(refused.why, unix.EPERM.Error()) {
		t.Fatalf("the refusal is not the kernel's: %v", err)
	}
}

func TestAnotherObjectThanTheOfferIsNotLoaded(t *testing.T) {
	l := &Loader{Limits: defaultLimits(t), command: []string{"/nonexistent"}}
	object := mustObject(t)
	o := mustOffer(t, object)
	object[100]++
	if _, err := l.Load(t.Context(), o, object); !errors.Is(err, bundle.ErrDigest) {
		t.Fatalf("got %v, want ErrDigest", err)
	}
}

// Whatever becomes of a child, the agent gets an error that says so.
func TestChildThatFails(t *testing.T) {
	for does, want := range map[string]string{
		"panic": "panic: the parser is broken", "silent": "ended without an answer",
		"empty": "neither a program nor a reason",
	} {
		t.Run(does, func(t *testing.T) {
			l := &Loader{Limits: defaultLimits(t), command: []string{self, does}}
			object := []byte("object")
			_, err := l.Load(t.Context(), mustOffer(t, object), object)
			if err == nil || !strings.Contains(err.Error(), want) ||
				strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %v, want %q", err, want)
			}
		})
	}
	t.Run("hang", func(t *testing.T) {
		ctx, cancel := within(t.Context(), 100*time.Millisecond)
		defer cancel()
		l := &Loader{Limits: defaultLimits(t), command: []string{self, "hang"}}
		object := []byte("object")
		_, err := l.Load(ctx, mustOffer(t, object), object)
		if err == nil || !strings.Contains(err.Error(), "it took longer than 100ms") {
			t.Fatalf("got %v, want that it took too long", err)
		}
	})
}

func TestReasonIsTheUsefulEndOfTheLog(t *testing.T) {
	lines := []string{"func#0 @0"}
	for i := range 200 {
		lines = append(lines, fmt.Sprintf("%d: (bf) r1 = r2", i))
	}
	lines = append(lines, "R1 invalid mem access 'scalar'", "processed 201 insns (limit 1000000)")
	why, log := explain(fmt.Errorf("load: %w",
		&ebpf.VerifierError{Cause: os.ErrPermission, Log: lines}))
	const end = "R1 invalid mem access 'scalar'"
	if !strings.HasSuffix(why, end) || !strings.HasSuffix(log, end) ||
		strings.Contains(log, "processed") || len(log) > protocol.MaxProgramLog ||
		!strings.Contains(log[:20], ": (bf)") {
		t.Fatalf("why %q, log %q", why, log)
	}
}

// A child that sends descriptors in an empty message leaves none of them with the agent.
func TestDescriptorsOfAnEmptyAnswerAreClosed(t *testing.T) {
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	err = errors.Join(sendEmpty(theirs, unix.UnixRights(int(w.Fd()), int(w.Fd()))), w.Close())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := readAnswer(ours, ebpf.Kprobe); !errors.Is(err, errNoAnswer) {
		t.Errorf("an empty answer: %v", err)
	}
	if err := r.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("its descriptors are open: %v", err)
	}
}
