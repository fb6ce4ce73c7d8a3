// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
)

// serve is what fbppd does for its --control-path.
func serve(ctx context.Context) (path string, end func()) {
	dir, err := os.MkdirTemp("", "fbpp-example-")
	if err != nil {
		log.Fatal(err)
	}
	path = filepath.Join(dir, "control.sock")
	l, err := unixsock.Listen(path)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- control.Serve(ctx, l, device.New(device.Options{}), zap.NewNop()) }()
	return path, func() {
		cancel()
		if err := <-served; err != nil {
			log.Fatal(err)
		}
		os.RemoveAll(dir)
	}
}

// A program switches the optimisation off for an experiment, and on again.
func ExampleClient() {
	path, end := serve(context.Background())
	defer end()

	// Only the context bounds how long the client waits for an answer.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	client := control.NewClient(path)
	for _, on := range []bool{false, true} {
		status, err := client.SetEnabled(ctx, on)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("migrations skip free memory:", status.Enabled)
	}
	// Output:
	// migrations skip free memory: false
	// migrations skip free memory: true
}
