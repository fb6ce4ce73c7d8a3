// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

func TestDeviceThatReturnsIsGreetedAgain(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	first, second := newFakeTransport(), newFakeTransport()
	first.fail = errUnplugged
	close(first.events)
	second.onSend = func(sentMessage) { cancel() }
	attempts, ready := 0, 0
	open := func() (ClosingTransport, error) {
		attempts++
		switch attempts {
		case 1:
			return first, nil
		case 2:
			return nil, errors.New("not there yet")
		}
		return second, nil
	}
	a := mustAgent(t, testGuest, newFakeWalker(fakeStep{state: walk.Done}))
	if err := a.Serve(ctx, open, func() { ready++ }); err != nil {
		t.Fatal(err)
	}
	wantKinds(t, first.sent, "hello")
	wantKinds(t, second.sent, "hello")
	if attempts != 3 || ready != 1 || first.closings != 1 || second.closings != 1 {
		t.Fatalf("%d attempts, ready %d times, closed %d and %d times",
			attempts, ready, first.closings, second.closings)
	}
}

func TestDeviceThatIsNotThereAtFirstIsAnError(t *testing.T) {
	a := mustAgent(t, testGuest, newFakeWalker(fakeStep{}))
	err := a.Serve(t.Context(), func() (ClosingTransport, error) { return nil, errUnplugged }, nil)
	if !errors.Is(err, errUnplugged) {
		t.Fatalf("error %v", err)
	}
}

// The reason why there is no device is logged once. Another reason is logged again.
func TestMissingDeviceIsLoggedOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	core, logs := observer.New(zap.WarnLevel)
	first := newFakeTransport()
	first.fail = errUnplugged
	close(first.events)
	attempts := 0
	open := func() (ClosingTransport, error) {
		switch attempts++; attempts {
		case 1:
			return first, nil
		case 2, 3:
			return nil, errors.New("another process drives it")
		case 5:
			cancel()
		}
		return nil, errUnplugged
	}
	a := mustAgent(t, testGuest, newFakeWalker(fakeStep{}))
	a.lg = zap.New(core)
	if err := a.Serve(ctx, open, nil); err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, entry := range logs.All() {
		said = append(said, fmt.Sprint(entry.ContextMap()["error"]))
	}
	want := []string{"receive event: unplugged", "another process drives it", "unplugged"}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Error(diff)
	}
}
