// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/pagecensus"
	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun"
	"github.com/fbpp-project/fbpp/driver-ebpf/workingset"
)

// kept is a program that is in use, and that the agent runs over the guest's pages.
type kept struct {
	io.Closer
	digest protocol.Digest
}

// counter is what Programs needs of a [pagecensus.Counter], and sampler of a
// [workingset.Sampler].
type (
	counter interface {
		Count(ctx context.Context) (protocol.CensusReport, error)
	}
	sampler interface {
		Sample(
			ctx context.Context, interval time.Duration, part func(first uint64, hot, free []byte) error,
		) (pagerun.Work, error)
	}
)

var (
	_ counter = (*pagecensus.Counter)(nil)
	_ sampler = (*workingset.Sampler)(nil)
)

// errNotKept says that no program of a kind is in use.
var errNotKept = errors.New("no program of this kind is in use")

// loadOverPages loads a program that runs over the guest's pages, and tries it.
func (p *Programs) loadOverPages(
	ctx context.Context, o *protocol.Offer, object []byte,
) (loaded io.Closer, err error) {
	if p.isEndless(o.Digest) {
		return nil, pagerun.ErrEndless
	}
	load := func(shared map[string]*ebpf.Map) (*ebpf.Program, error) {
		loader := *p.loader
		loader.Maps = shared
		return loader.Load(ctx, o, object)
	}
	if o.Kind == protocol.KindSampler {
		loaded, err = workingset.Load(ctx, p.turn, load)
	} else {
		loaded, err = pagecensus.Load(ctx, p.turn, load)
	}
	if err != nil {
		p.note(o.Digest, err)
		return nil, err // not loaded, which is an interface that is not nil
	}
	return loaded, nil
}

func (p *Programs) isEndless(d protocol.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.endless[d]
	return ok
}

// note remembers a program of which a run did not end.
func (p *Programs) note(d protocol.Digest, err error) {
	if !errors.Is(err, pagerun.ErrEndless) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endless[d] = struct{}{}
}

// Keep implements [agent.Programs]. The program has passed its trial in Load.
func (p *Programs) Keep(o *protocol.Offer, nonce uint64, loaded io.Closer) error {
	fits := false
	switch o.Kind {
	case protocol.KindCensus:
		_, fits = loaded.(counter)
	case protocol.KindSampler:
		_, fits = loaded.(sampler)
	}
	if !fits {
		return errors.Join(fmt.Errorf("use %T as a %v", loaded, o.Kind), loaded.Close())
	}
	if err := p.accept(o, nonce); err != nil {
		return errors.Join(err, loaded.Close())
	}
	p.mu.Lock()
	before, was := p.kept[o.Kind]
	p.kept[o.Kind] = kept{loaded, o.Digest}
	p.mu.Unlock()
	if !was {
		return nil
	}
	if err := before.Close(); err != nil {
		p.lg.Warn("close the program before", zap.Stringer("kind", o.Kind), zap.Error(err))
	}
	return nil
}

// Drop implements [agent.Programs].
func (p *Programs) Drop(kind protocol.ProgramKind) error {
	p.mu.Lock()
	before, was := p.kept[kind]
	delete(p.kept, kind)
	p.mu.Unlock()
	if !was {
		return nil
	}
	return before.Close()
}

func (p *Programs) inUse(kind protocol.ProgramKind) kept {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kept[kind]
}

// Count implements [agent.Programs].
func (p *Programs) Count(ctx context.Context) (protocol.CensusReport, error) {
	in := p.inUse(protocol.KindCensus)
	c, ok := in.Closer.(counter)
	if !ok {
		return protocol.CensusReport{}, errNotKept
	}
	report, err := c.Count(ctx)
	p.note(in.digest, err)
	return report, err
}

// Sample implements [agent.Programs].
func (p *Programs) Sample(
	ctx context.Context, interval time.Duration, part func(first uint64, hot, free []byte) error,
) (protocol.SampleReport, error) {
	in := p.inUse(protocol.KindSampler)
	s, ok := in.Closer.(sampler)
	if !ok {
		return protocol.SampleReport{}, errNotKept
	}
	work, err := s.Sample(ctx, interval, part)
	p.note(in.digest, err)
	return protocol.SampleReport{
		State: protocol.SampleDone, Runs: work.Runs, RunMaxUS: work.RunMaxUS(),
	}, err
}
