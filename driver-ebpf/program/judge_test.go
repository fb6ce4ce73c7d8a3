// SPDX-License-Identifier: Apache-2.0

package program

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

// The moment and the session of these tests.
var (
	testNow = time.Unix(1_800_000_000, 0)
	testVM  = [16]byte{1, 2, 3}
)

const testNonce = 77

type court struct {
	*Judge
	key      ed25519.PrivateKey
	keyFile  string
	accepted string // the file of accepted versions
}

func mustCourt(t *testing.T, policy Policy) *court {
	t.Helper()
	dir := t.TempDir()
	private, public, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	c := &court{keyFile: filepath.Join(dir, "owner.pem"), accepted: filepath.Join(dir, "state", "a")}
	secret := filepath.Join(dir, "secret")
	for path, text := range map[string][]byte{c.keyFile: public, secret: private} {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if c.key, err = bundle.ReadPrivateKey(secret); err != nil {
		t.Fatal(err)
	}
	policy.KeyDir = dir
	policy.Limits = defaultLimits(t)
	newest, err := OpenNewest(c.accepted)
	if err != nil {
		t.Fatal(err)
	}
	c.Judge = NewJudge(&policy, newest)
	c.VM, c.Now = testVM, func() time.Time { return testNow }
	return c
}

// offer returns a signed offer that is all right, but for what change alters before.
func (c *court) offer(t *testing.T, change func(*protocol.Offer)) *protocol.Offer {
	t.Helper()
	b, err := bundle.New(protocol.Offer{
		Kind: protocol.KindWalk, Version: 5, Name: "walk", Expires: testNow.Add(time.Hour),
	}, []byte("object"))
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&b.Offer)
	}
	if err := bundle.Sign(&b.Offer, c.key); err != nil {
		t.Fatal(err)
	}
	return &b.Offer
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		policy Policy
		change func(*protocol.Offer) // before it is signed
		forge  func(*protocol.Offer) // after
		want   error
	}{
		"a signed offer":       {},
		"one for this VM":      {change: func(o *protocol.Offer) { o.VM = testVM }},
		"one for this session": {change: func(o *protocol.Offer) { o.Nonce = testNonce }},
		"one that is unsigned": {
			forge: func(o *protocol.Offer) { o.Signature = [64]byte{} },
			want:  bundle.ErrUnsigned},
		"a wrong signature": {
			forge: func(o *protocol.Offer) { o.Signature[3]++ },
			want:  bundle.ErrSignature},
		"a later version": {
			forge: func(o *protocol.Offer) { o.Version++ },
			want:  bundle.ErrSignature},
		"another object": {
			forge: func(o *protocol.Offer) { o.Digest[0]++ },
			want:  bundle.ErrSignature},
		"a later expiry": {
			forge: func(o *protocol.Offer) { o.Expires = o.Expires.Add(time.Hour) },
			want:  bundle.ErrSignature},
		"no expiry": {
			forge: func(o *protocol.Offer) { o.Expires = time.Time{} },
			want:  bundle.ErrSignature},
		"an expired one": {
			change: func(o *protocol.Offer) { o.Expires = testNow },
			want:   ErrExpired},
		"one for another VM": {
			change: func(o *protocol.Offer) { o.VM = [16]byte{9} },
			want:   ErrOtherVM},
		"one for another session": {change: func(o *protocol.Offer) { o.Nonce = 1 }, want: ErrReplayed},
		"one for any VM, which is not enough": {
			policy: Policy{RequireVM: true}, want: ErrOtherVM},
		"one for any session, which is not enough": {
			policy: Policy{RequireNonce: true}, want: ErrReplayed},
		"an unknown kind":   {change: func(o *protocol.Offer) { o.Kind = 31 }, want: ErrKind},
		"one that is large": {change: func(o *protocol.Offer) { o.Size = 1 << 20 }, want: ErrSize},
	} {
		t.Run(name, func(t *testing.T) {
			judge := mustCourt(t, c.policy)
			o := judge.offer(t, c.change)
			if c.forge != nil {
				c.forge(o)
			}
			if err := judge.Check(o, testNonce); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestKeyOfAnotherIsNotTrusted(t *testing.T) {
	mine, other := mustCourt(t, Policy{}), mustCourt(t, Policy{})
	o := other.offer(t, nil)
	if err := mine.Check(o, testNonce); !errors.Is(err, ErrUntrusted) {
		t.Fatalf("got %v, want ErrUntrusted", err)
	}
	o.KeyID = bundle.KeyID(mine.key.Public().(ed25519.PublicKey))
	if err := mine.Check(o, testNonce); !errors.Is(err, bundle.ErrSignature) {
		t.Fatalf("got %v, want ErrSignature", err)
	}
}

func TestRemovedKeyCountsNoMore(t *testing.T) {
	c := mustCourt(t, Policy{})
	o := c.offer(t, nil)
	if err := c.Check(o, testNonce); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(c.keyFile, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(o, testNonce); !errors.Is(err, ErrUnsafe) {
		t.Fatalf("with a key that all may write: %v", err)
	}
	if err := os.Remove(c.keyFile); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(o, testNonce); !errors.Is(err, ErrUntrusted) {
		t.Fatalf("got %v, want ErrUntrusted", err)
	}
}

func TestPinnedObjectNeedsNoSignature(t *testing.T) {
	c := mustCourt(t, Policy{})
	o := c.offer(t, nil)
	o.Signature = [64]byte{}
	c.Policy.Pinned = []string{o.Digest.String()}
	if err := errors.Join(c.Check(o, testNonce), c.Accept(o)); err != nil {
		t.Fatal(err)
	}
	// The version of what is not signed is the host's word only: it is not remembered.
	older := c.offer(t, func(o *protocol.Offer) { o.Version = 1; o.Digest[0]++ })
	if err := c.Check(older, testNonce); err != nil {
		t.Fatal(err)
	}
}

func TestLowerVersionIsRefusedAlsoAfterARestart(t *testing.T) {
	c := mustCourt(t, Policy{})
	newest := c.offer(t, nil)
	older := c.offer(t, func(o *protocol.Offer) { o.Version-- })
	twin := c.offer(t, func(o *protocol.Offer) { o.Digest[0]++ })
	if err := errors.Join(c.Check(older, testNonce), c.Accept(newest)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Check(newest, testNonce); err != nil {
			t.Errorf("the newest itself: %v", err)
		}
		for _, o := range []*protocol.Offer{older, twin} {
			if err := c.Check(o, testNonce); !errors.Is(err, ErrDowngrade) {
				t.Errorf("version %d: %v, want ErrDowngrade", o.Version, err)
			}
		}
		var err error
		if c.Newest, err = OpenNewest(c.accepted); err != nil { // as a new process does
			t.Fatal(err)
		}
	}
}

func TestVersionThatCannotBeRememberedIsNotAccepted(t *testing.T) {
	c := mustCourt(t, Policy{})
	c.Newest.path = "/proc/no/such/folder/file"
	o := c.offer(t, nil)
	if err := c.Accept(o); err == nil {
		t.Fatal("accepted")
	}
	if err := c.Check(c.offer(t, func(o *protocol.Offer) { o.Version = 1 }), testNonce); err != nil {
		t.Fatalf("what was not accepted is remembered: %v", err)
	}
	if err := os.WriteFile(c.keyFile+".state", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenNewest(c.keyFile + ".state"); err == nil {
		t.Fatal("a damaged file was taken for an empty one")
	}
}
