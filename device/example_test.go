// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// A device serves one QEMU after the other at a socket, until its context ends.
func ExampleNew() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l, err := vhostuser.Listen("example.sock")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()

	d := device.New(device.Options{Logger: zap.NewNop()})
	srv, err := vhostuser.NewServer(d.VhostUser(), zap.NewNop())
	if err != nil {
		fmt.Println(err)
		return
	}
	cancel() // a real program serves until it is told to stop
	fmt.Println(srv.Serve(ctx, l), d.Status().DriverState)
	// Output: context canceled none
}
