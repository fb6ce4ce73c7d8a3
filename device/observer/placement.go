// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"context"
	"fmt"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/placement"
	"github.com/fbpp-project/fbpp/device/source"
)

// Sets fills empty sets with what the guest's kernel says of its memory now. It may have to look
// for the kernel, and fails as Kernel does. What the guest changes meanwhile may be in a wrong set,
// so nothing may rely on one.
func (o *Observer) Sets(ctx context.Context, sets *placement.Sets) error {
	k, release, err := o.Kernel(ctx)
	if err != nil {
		return err
	}
	defer release()
	var batch []freeset.Block
	free := func(blocks []introspect.Block) error {
		batch = batch[:0]
		for _, b := range blocks {
			batch = append(batch, freeset.Block{First: b.PFN, Count: 1 << b.Order})
		}
		if _, _, err := sets.Free.Add(batch, true); err != nil {
			return fmt.Errorf("note free pages: %w", err)
		}
		return nil
	}
	_, err = k.Scan(ctx, introspect.ScanOptions{
		Workers: workers(), Free: free, CPULists: free,
		Order: o.addTo(&source.Order{Hot: sets.Hot, Cold: sets.Cold}),
	})
	return err
}
