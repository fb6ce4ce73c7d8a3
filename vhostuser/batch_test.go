// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"errors"
	"testing"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

func TestPopBatchTakesWhatThereIsAndHasRoom(t *testing.T) {
	eachDialect(t, func(t *testing.T, features uint64) {
		sizes := make(chan int, 3)
		e := newEcho()
		e.Kick = func(q *vhostuser.Queue) {
			var chains [2]*vhostuser.Chain
			for {
				n, err := q.PopBatch(chains[:])
				if n == 0 || err != nil {
					return
				}
				sizes <- n
				for _, c := range chains[:n] {
					if echoChain(q, c) != nil {
						return
					}
				}
			}
		}
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{}).speak(features)
		var outs []vhosttest.Buffer
		for _, text := range []string{"a", "b", "c"} {
			in, out := v.request(text)
			_, err := v.queues[0].Add(in, out)
			must(t, err)
			outs = append(outs, out)
		}
		v.start()
		must(t, v.queues[0].Kick.Raise())
		for i, text := range []string{"a", "b", "c"} {
			v.answer(0, outs[i], text)
		}
		if a, b := <-sizes, <-sizes; a != 2 || b != 1 {
			t.Errorf("batches of %d and %d chains", a, b)
		}
	})
}

func TestPopBatchReturnsWhatCameBeforeABadChain(t *testing.T) {
	e := newEcho()
	got := make(chan error, 1)
	e.Kick = func(q *vhostuser.Queue) {
		var chains [4]*vhostuser.Chain
		n, err := q.PopBatch(chains[:])
		if n == 0 {
			return // Kick may be called once more, without a chain
		}
		if n != 1 || err != nil {
			t.Errorf("%d chains, %v", n, err)
		}
		again, err := q.PopBatch(chains[n:])
		if again != 0 {
			t.Errorf("%d chains of a broken queue", again)
		}
		for _, c := range chains[:n] {
			_ = q.Push(c, 0)
		}
		got <- err
	}
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	in, out := v.request("good")
	_, err := v.queues[0].Add(in, out)
	must(t, err)
	_, err = v.queues[0].Add(vhosttest.Buffer{Addr: 1 << 50, Len: 1})
	must(t, err)
	v.start()
	must(t, v.queues[0].Kick.Raise())
	var broken *vhostuser.RingError
	if err := <-got; !errors.As(err, &broken) {
		t.Errorf("after the good chain: %v", err)
	}
}
