// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io"
	"time"

	"go.uber.org/zap"
)

// Pauses between two attempts to open a device. The first is short, because the device may
// only need a reset. They grow, because it may have been unplugged.
const (
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
)

// ClosingTransport is a transport that the agent may close.
type ClosingTransport interface {
	Transport
	io.Closer
}

// Serve keeps the agent on its device until ctx is done: it opens a transport,
// runs, and opens another one when the device went away, was reset, or failed.
// ready is called once, after the first HELLO was sent; it may be nil. If the first attempt
// to open fails, Serve returns its error: a misconfiguration is more likely then than a
// device that is late.
func (a *Agent) Serve(
	ctx context.Context, open func() (ClosingTransport, error), ready func(),
) error {
	missing := "" // why there is no device
	for attempt, pause := 0, retryMin; ; attempt++ {
		t, err := open()
		switch {
		case err != nil && attempt == 0:
			return err
		case err != nil && err.Error() != missing: // log each reason once
			missing = err.Error()
			a.lg.Warn("there is no device to serve, the agent goes on looking", zap.Error(err))
		case err != nil:
		default:
			missing = ""
			began := a.now()
			err = a.Run(ctx, &readyTransport{Transport: t, ready: ready})
			ready = nil
			if err = errors.Join(err, t.Close()); ctx.Err() != nil {
				return err
			}
			a.lg.Warn("device is left, and will be set up again", zap.Error(err))
			if a.now().Sub(began) > retryMax {
				pause = retryMin // the device was open, so it may be back at once
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMax)
	}
}

// readyTransport calls ready when the first message, which is HELLO, is out.
type readyTransport struct {
	Transport
	ready func()
}

func (t *readyTransport) Flush() {
	t.Transport.Flush()
	if t.ready != nil {
		t.ready()
		t.ready = nil
	}
}
