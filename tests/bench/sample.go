// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// samplerObject is the sampler, as the build made it.
const samplerObject = "driver-ebpf/workingset/sampler_bpfel.o"

// policyPath is where a guest has the policy that takes the sampler.
const policyPath = "/policy.json"

// sampleInterval is how long a guest is watched, as by fbppctl sample.
const sampleInterval = 10 * time.Second

// readSampler returns the sampler. The policy of the guest pins it, so it is not signed.
func readSampler() (*bundle.Bundle, error) {
	object, err := os.ReadFile(samplerObject)
	if err != nil {
		return nil, err
	}
	return bundle.New(protocol.Offer{
		Kind: protocol.KindSampler, Version: 1, Name: "sampler",
	}, object)
}

// files are what the method's guest needs, by their path there.
func (m method) files(dir string) (map[string]string, error) {
	if m != fbppSample {
		return make(map[string]string), nil
	}
	b, err := readSampler()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "policy.json")
	policy := fmt.Appendf(nil, `{"kinds": ["sampler"], "pinned": [%q]}`, b.Offer.Digest.String())
	return map[string]string{policyPath[1:]: path}, os.WriteFile(path, policy, 0o600)
}

// errSampler ends a watch.
var errSampler = errors.New("the sampler is in use")

// sample pushes the sampler, and has the guest sample its working set.
func sample(ctx context.Context, backend *vm.Backend) error {
	b, err := readSampler()
	if err != nil {
		return err
	}
	if _, err := backend.Control.PushProgram(ctx, b.Encode(), driver.AtNow); err != nil {
		return err
	}
	err = backend.Control.Watch(ctx, func(s device.Status) error {
		for _, p := range s.Programs {
			if p.Digest != b.Offer.Digest.String() {
				continue
			}
			switch p.State {
			case protocol.ProgramActive.String():
				return errSampler
			case protocol.ProgramRefused.String():
				return fmt.Errorf("the guest refuses the sampler: %s", p.Reason)
			}
		}
		return nil
	})
	if !errors.Is(err, errSampler) {
		return err
	}
	_, err = backend.Control.SampleWorkingSet(ctx, sampleInterval)
	return err
}
