// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// countLimit bounds a count. A guest of 1 TiB takes less, also where eBPF is slow.
const countLimit = 2 * time.Minute

// Why nothing is counted.
var (
	errCountLate = fmt.Errorf("the count took longer than %v", countLimit)
	errNewDevice = errors.New("another session has begun")
	errNotInUse  = errors.New("no census with this digest is in use")
	errCounting  = errors.New("a count is under way")
	errStopped   = errors.New("the program was taken out of use")
	errMigration = errors.New("a migration has begun, which goes first")
)

// count is a census that is under way. Its program runs in a goroutine of its own: a
// migration does not wait for it, nor for a program that does not end.
type count struct {
	running bool
	cancel  context.CancelCauseFunc // of the last one
	done    chan counted            // has room for one, which running makes
}

// counted is the result of a count, as it is sent.
type counted struct {
	nonce  uint64
	report protocol.CensusReport
}

// stop ends a count that is under way: it is answered with why.
func (c *count) stop(why error) {
	if c.cancel != nil {
		c.cancel(why)
	}
}

// startCount begins the count that the device asks for. While a request is answered, none is
// begun.
func (a *Agent) startCount(
	ctx context.Context, t Transport, e *protocol.ProgramEvent, walking bool,
) error {
	report := protocol.CensusReport{Digest: e.Digest, Number: e.Number}
	active := a.active[protocol.KindCensus]
	var why error
	switch {
	case active == nil || active.Digest != e.Digest:
		why = errNotInUse
	case walking:
		why = errMigration
	case a.count.running:
		why = errCounting
	}
	if why != nil {
		return a.sayCounted(t, failed(report, why))
	}
	ctx, a.count.cancel = context.WithCancelCause(ctx)
	a.count.running = true
	nonce := a.nonce
	go func() {
		ctx, done := context.WithTimeoutCause(ctx, countLimit, errCountLate)
		defer done()
		result, err := a.programs.Count(ctx)
		result.Digest, result.Number = report.Digest, report.Number
		if err != nil {
			result = failed(report, err)
		}
		a.count.done <- counted{nonce, result}
		a.wake.call()
	}()
	return nil
}

func failed(r protocol.CensusReport, why error) protocol.CensusReport {
	return protocol.CensusReport{
		Digest: r.Digest, Number: r.Number, Failed: true, Reason: why.Error(),
	}
}

// counted sends the result of a count, if there is one, to the device that has asked.
func (a *Agent) counted(t Transport) error {
	select {
	case c := <-a.count.done:
		a.count.running = false
		a.count.cancel(nil)
		if c.nonce != a.nonce {
			return nil
		}
		return a.sayCounted(t, c.report)
	default: // also if the agent takes no programs: the channel is nil
		return nil
	}
}

func (a *Agent) sayCounted(t Transport, r protocol.CensusReport) error {
	err := a.sendProgram(t, protocol.MessageCensus, protocol.CensusReportSize, r.Encode)
	t.Flush()
	return err
}
