// SPDX-License-Identifier: Apache-2.0

package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// Newest remembers the newest accepted version of each kind in a file, so that a host
// cannot bring back an older one with known faults. Use it from one goroutine.
type Newest struct {
	path string
	all  map[string]accepted // by kind
}

// maxNewest bounds the file in bytes.
const maxNewest = 64 << 10

type accepted struct {
	Version uint64 `json:"version"`
	Digest  string `json:"digest"`
}

// OpenNewest reads the file. One that is missing is empty; one that cannot be read is an
// error, or removing a bit of it would allow what it forbids.
func OpenNewest(path string) (*Newest, error) {
	n := &Newest{path: path, all: make(map[string]accepted)}
	text, err := readTrusted(path, maxNewest)
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	} else if err == nil {
		err = json.Unmarshal(text, &n.all)
	}
	if err == nil && n.all == nil {
		err = errors.New("it has no object")
	}
	if err != nil {
		return nil, fmt.Errorf("read the accepted versions in %s: %w", path, err)
	}
	return n, nil
}

// Check returns an error that wraps [ErrDowngrade] for a lower version than the newest, and
// for another object with the same version.
func (n *Newest) Check(o *protocol.Offer) error {
	newest, ok := n.all[o.Kind.String()]
	switch {
	case ok && o.Version < newest.Version:
		return fmt.Errorf("version %d after %d: %w", o.Version, newest.Version, ErrDowngrade)
	case ok && o.Version == newest.Version && o.Digest.String() != newest.Digest:
		return fmt.Errorf("another object with version %d: %w", o.Version, ErrDowngrade)
	}
	return nil
}

// Accept makes the offer the newest of its kind. When it returns nil, that is on disk.
func (n *Newest) Accept(o *protocol.Offer) error {
	if err := n.Check(o); err != nil {
		return err
	}
	next := accepted{o.Version, o.Digest.String()}
	before, had := n.all[o.Kind.String()]
	if had && before == next {
		return nil
	}
	n.all[o.Kind.String()] = next
	if err := n.save(); err != nil {
		if n.all[o.Kind.String()] = before; !had {
			delete(n.all, o.Kind.String())
		}
		return fmt.Errorf("remember the accepted version: %w", err)
	}
	return nil
}

func (n *Newest) save() error {
	text, err := json.Marshal(n.all)
	if err != nil {
		return err
	}
	dir := filepath.Dir(n.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".newest-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), n.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
