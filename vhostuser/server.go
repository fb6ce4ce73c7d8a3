// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Server serves a Device to one frontend at a time. See [NewServer].
type Server struct {
	dev  *Device
	lg   *zap.Logger
	opts options
}

// Option changes how a [Server] serves.
type Option func(*options)

type options struct {
	userfault  *os.File // of /dev/userfaultfd, or nil
	noPostcopy bool
}

// WithUserfault creates the userfaultfds for postcopy migrations with dev, an open
// /dev/userfaultfd (see [OpenUserfault]). It is for programs that open the device and then
// drop their privileges. The caller closes dev after the server has ended; dev may be nil.
//
// If dev cannot create one, the library tries userfaultfd(2), and then opens the device
// itself. The last resort is UFFD_USER_MODE_ONLY, which needs no privilege. With that the
// library waits for one page at a time, and a wait keeps one of Go's processors busy. It is
// still safe: [Queue.Pop] and [Memory.Segments] wait for missing pages before a device can
// pass memory to a system call.
func WithUserfault(dev *os.File) Option { return func(o *options) { o.userfault = dev } }

// WithoutPostcopy makes the server not offer PAGEFAULT. QEMU then refuses to enable the
// capability postcopy-ram for the virtual machine.
func WithoutPostcopy() Option { return func(o *options) { o.noPostcopy = true } }

// OpenUserfault opens /dev/userfaultfd for [WithUserfault]. The caller closes it. A program can
// ignore the error: the kernel may lack the device, or not let this process open it.
func OpenUserfault() (*os.File, error) { return os.OpenFile(shm.UserfaultDevice, os.O_RDWR, 0) }

// maxQueues is how many queues SET_VRING_KICK could name, halved, since some
// frontends count in pairs.
const maxQueues = 128

// NewServer checks dev and makes a server of it. dev must not change afterwards. lg may be nil.
// Log lines have no stack traces, however lg is configured, because most of them are about
// errors of the frontend or driver.
func NewServer(dev *Device, lg *zap.Logger, opts ...Option) (*Server, error) {
	if lg == nil {
		lg = zap.NewNop()
	}
	lg = lg.WithOptions(zap.AddStacktrace(zap.FatalLevel))
	size := dev.MaxQueueSize
	switch {
	case dev.Kick == nil:
		return nil, errors.New("check device: it has no Kick")
	case dev.NumQueues < 1 || dev.NumQueues > maxQueues:
		return nil, fmt.Errorf("check device: %d queues are not 1 to %d", dev.NumQueues, maxQueues)
	case (dev.SaveState == nil) != (dev.LoadState == nil):
		return nil, errors.New("check device: it has one of SaveState and LoadState only")
	case size < 0 || size > 32768 || size&(size-1) != 0:
		return nil, fmt.Errorf("check device: queue size %d is not a power of two up to 32768", size)
	case dev.Features&vhostFeatures != 0:
		return nil, fmt.Errorf("check device: the library cannot keep the promise of %v",
			wire.Features(dev.Features))
	}
	for _, e := range dev.Extensions {
		switch {
		case e.Handle == nil:
			return nil, errors.New("check device: an extension has no Handle")
		case wire.Request(e.Request).Known() || e.Request == 0:
			return nil, fmt.Errorf("check device: extension's request %v is not private",
				wire.Request(e.Request))
		case e.ProtocolFeature <= wire.LastProtocolFeature || e.ProtocolFeature > 63:
			return nil, fmt.Errorf("check device: extension's protocol feature %d is not private",
				e.ProtocolFeature)
		}
	}
	s := &Server{dev: dev, lg: lg}
	for _, o := range opts {
		o(&s.opts)
	}
	return s, nil
}

// Serve serves the frontends that l accepts, one after the other. It returns
//
//   - the cause of ctx, when that ends;
//   - an error, if l fails;
//   - if l is an inherited connected socket, the error that ended the connection, or nil if
//     the frontend closed it between two messages.
//
// A frontend that connects while another one is served is refused, which is logged. If the
// other one has hung up already, the new frontend is served next. The goroutine that calls
// Serve is the message goroutine. Serve does not close l.
func (s *Server) Serve(ctx context.Context, l *Listener) error {
	var next *wire.Conn // has come already
	for {
		conn, err := next, error(nil)
		if conn == nil {
			conn, err = l.accept(ctx)
		}
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		next, err = s.serve(ctx, l, conn)
		switch {
		case ctx.Err() != nil:
			if next != nil {
				_ = next.Close()
			}
			return context.Cause(ctx)
		case err != nil && l.single:
			return err
		case err != nil:
			s.lg.Error("connection ended", zap.Error(err))
		default:
			s.lg.Info("frontend disconnected")
		}
	}
}

// serve serves one connection to its end. It returns the one that came next, if
// one did, and how this one ended.
func (s *Server) serve(ctx context.Context, l *Listener, conn *wire.Conn) (next *wire.Conn,
	err error) {
	s.lg.Info("frontend connected", zap.Int32("pid", conn.PeerPID()))
	if !l.single {
		d := watch(ctx, l, conn, s.lg)
		defer func() { next = d.leave() }()
	}
	return nil, newBackend(s.dev, conn, s.lg, s.opts).run(ctx)
}
