// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

// These commands work on files, and need no fbppd.

func keygenCommand() *cobra.Command {
	forKernel := false
	cmd := &cobra.Command{
		Use: "keygen NAME", Short: "make a pair of keys: NAME.key to sign with, NAME.pem for guests",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if forKernel {
				return generateKernelKey(args[0], time.Now())
			}
			private, public, err := bundle.GenerateKey()
			if err != nil {
				return err
			}
			if err := writePair(args[0], private, ".pem", public); err != nil {
				return err
			}
			key, err := bundle.ReadPublicKey(args[0] + ".pem")
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "key %x\n", bundle.KeyID(key))
			return err
		},
	}
	cmd.Flags().BoolVar(&forKernel, "kernel", false,
		"make a key for sign --kernel-key, and NAME.crt for guests instead of NAME.pem")
	return cmd
}

// writePair writes NAME.key and a public file, or neither: half of a pair is of no use.
func writePair(name string, private []byte, suffix string, public []byte) error {
	if err := writeNew(name+".key", private, 0o600); err != nil {
		return err
	}
	if err := writeNew(name+suffix, public, 0o644); err != nil {
		return errors.Join(err, os.Remove(name+".key"))
	}
	return nil
}

// writeNew writes a file, which must not exist: a key is not overwritten.
func writeNew(path string, text []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return nil
}

// signing is the command line of sign.
type signing struct {
	key, out, name, forVM, nonce string
	version                      uint64
	kind                         protocol.ProgramKind
	validFor                     time.Duration
	unsigned                     bool
	kernel                       kernelSigning
}

// defaultValid is how long a signature is good for.
const defaultValid = 90 * 24 * time.Hour

func signCommand() *cobra.Command {
	s := signing{kind: protocol.KindWalk}
	cmd := &cobra.Command{
		Use: "sign OBJECT", Short: "make a program file of an eBPF object, and sign it",
		Args: cobra.ExactArgs(1),
		Long: `sign makes a program file of an eBPF object. The signature covers the name, the kind, the
version, the object, and the time of expiry; with --for-vm and --for-session it is good
for one VM, and for one session of its agent, only. --kernel-key and --kernel-cert add to
the object a signature of its instructions, which the guest's kernel checks itself since
Linux 6.18.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			object, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("read object: %w", err)
			}
			if s.name == "" {
				s.name = strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0]))
			}
			if s.out == "" {
				s.out = s.name + ".fbpp"
			}
			b, err := s.make(object, time.Now())
			if err != nil {
				return err
			}
			if err := os.WriteFile(s.out, b.Encode(), 0o644); err != nil {
				return fmt.Errorf("write program: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", s.out, b.Offer.Digest)
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&s.key, "key", "", "sign with the private key in `FILE`")
	fs.BoolVar(&s.unsigned, "unsigned", false, "do not sign: for guests that pin the digest")
	fs.StringVar(&s.out, "out", "", "write `FILE`; default: the program's name with .fbpp")
	fs.StringVar(&s.name, "name", "", "`NAME` of the program; default: that of OBJECT")
	fs.Var(&s.kind, "kind", "what the program is for: walk, census or sampler")
	fs.Uint64Var(&s.version, "version-number", 1,
		"`NUMBER` of the version: a guest takes no lower one after it")
	fs.StringVar(&s.forVM, "for-vm", "", "good for the VM with this `UUID` only")
	fs.StringVar(&s.nonce, "for-session", "",
		"good for this `SESSION` of the agent only; fbppctl program status shows it")
	s.kernel.addFlags(fs)
	cli.Duration(fs, &s.validFor, "valid-for", defaultValid, time.Second, cli.NoMax,
		"`time` for which the signature is good")
	return cmd
}

// make returns the program file that the command line describes.
func (s *signing) make(object []byte, now time.Time) (*bundle.Bundle, error) {
	if s.unsigned == (s.key != "") {
		return nil, cli.Usagef("give either --key or --unsigned")
	}
	o := protocol.Offer{Kind: s.kind, Version: s.version, Name: s.name}
	if s.forVM != "" {
		id, err := hex.DecodeString(strings.ReplaceAll(s.forVM, "-", ""))
		if err != nil || len(id) != len(o.VM) {
			return nil, cli.Usagef("--for-vm %q is no UUID", s.forVM)
		}
		o.VM = [16]byte(id)
	}
	if s.nonce != "" {
		var err error
		if o.Nonce, err = strconv.ParseUint(s.nonce, 16, 64); err != nil || o.Nonce == 0 {
			return nil, cli.Usagef("--for-session %q is no session", s.nonce)
		}
	}
	if !s.unsigned {
		o.Expires = now.Add(s.validFor).Truncate(time.Second).UTC()
	}
	object, err := s.kernel.sign(object)
	if err != nil {
		return nil, err
	}
	b, err := bundle.New(o, object)
	if err != nil || s.unsigned {
		return b, err
	}
	key, err := bundle.ReadPrivateKey(s.key)
	if err != nil {
		return nil, err
	}
	return b, bundle.Sign(&b.Offer, key)
}

func verifyCommand(t *target) *cobra.Command {
	var key, kernelCert string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "show what a program file says, and check its signature",
		Args: cobra.ExactArgs(1),
		Long: `verify shows what a program file says, and checks its signature with the key that
--key names. With --kernel-cert it also checks the signature for the kernel. Exit status: 0
if the signatures are good, 1 if one is not, if there is none, if the first is not checked
for want of --key, or if the one for the kernel is cut off.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := bundle.Read(args[0])
			if err != nil {
				return err
			}
			bad := checkSignature(b, key)
			f := fileOf(b)
			f.Verified = bad == nil
			if f.KernelSigned, err = hasKernelSignature(b.Object); err != nil {
				bad = errors.Join(bad, err)
			}
			if bad == nil && kernelCert != "" {
				bad = checkKernelSignature(b.Object, kernelCert)
				f.KernelVerified = bad == nil
			}
			if err := t.show(cmd.OutOrStdout(), f, func(out io.Writer) error {
				return printFile(out, f)
			}); err != nil {
				return err
			}
			if bad != nil {
				return fmt.Errorf("verify %s: %w", args[0], bad)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "check the signature with the public key in `FILE`")
	cmd.Flags().StringVar(&kernelCert, "kernel-cert", "",
		"check the signature for the kernel with the certificate in `FILE`")
	return cmd
}

// errUnchecked says that a signature may be anybody's.
var errUnchecked = errors.New("the signature is not checked: give --key")

// checkSignature returns nil if the key in a file has signed b, and the signature is good now.
func checkSignature(b *bundle.Bundle, key string) error {
	if key == "" && b.Offer.Signed() {
		return errUnchecked
	} else if key == "" {
		return bundle.ErrUnsigned
	}
	public, err := bundle.ReadPublicKey(key)
	if err != nil {
		return err
	}
	if err := bundle.Verify(&b.Offer, public); err != nil {
		return err
	}
	if !time.Now().Before(b.Offer.Expires) {
		return errors.New("the signature has expired")
	}
	return nil
}

// programFile is what verify prints as JSON.
type programFile struct {
	Name    string     `json:"name"`
	Kind    string     `json:"kind"`
	Version uint64     `json:"version"`
	Digest  string     `json:"digest"`
	Size    uint32     `json:"size"`
	KeyID   string     `json:"key_id,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
	VM      string     `json:"vm_uuid,omitempty"`
	Session string     `json:"session,omitempty"`

	Verified bool `json:"verified"` // the signature is that of --key, and good

	// The object has a signature for the kernel, and it is that of --kernel-cert, and good.
	KernelSigned   bool `json:"kernel_signed"`
	KernelVerified bool `json:"kernel_verified"`
}

func fileOf(b *bundle.Bundle) programFile {
	o := &b.Offer
	f := programFile{
		Name: o.Name, Kind: o.Kind.String(), Version: o.Version,
		Digest: o.Digest.String(), Size: o.Size,
	}
	if o.Signed() {
		f.KeyID, f.Expires = hex.EncodeToString(o.KeyID[:]), &o.Expires
	}
	if o.VM != [16]byte{} {
		f.VM = fmt.Sprintf("%x-%x-%x-%x-%x", o.VM[:4], o.VM[4:6], o.VM[6:8], o.VM[8:10], o.VM[10:])
	}
	if o.Nonce != 0 {
		f.Session = fmt.Sprintf("%016x", o.Nonce)
	}
	return f
}

func printFile(out io.Writer, f programFile) error {
	_, err := fmt.Fprintf(out, "%s, %s, version %d, %d bytes, SHA-256 %s\n%s\n%s",
		f.Name, f.Kind, f.Version, f.Size, f.Digest, signedLine(f), choose(f.KernelSigned,
			choose(f.KernelVerified, "signed for the kernel\n",
				"signed for the kernel, not verified\n"), ""))
	return err
}

func signedLine(f programFile) string {
	if f.KeyID == "" {
		return "not signed"
	}
	line := choose(f.Verified, "signed by key ", "not verified: names key ") + f.KeyID +
		", until " + f.Expires.Format(time.RFC3339)
	if f.VM != "" {
		line += ", for VM " + f.VM
	}
	if f.Session != "" {
		line += ", for session " + f.Session
	}
	return line
}
