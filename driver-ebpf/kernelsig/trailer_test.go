// SPDX-License-Identifier: Apache-2.0

package kernelsig

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestSignatureFollowsTheFile(t *testing.T) {
	object := []byte("\x7fELF object")
	for _, signature := range []string{"first", "second, which takes its place"} {
		var err error
		if object, err = Append(object, []byte(signature)); err != nil {
			t.Fatal(err)
		}
		file, got, err := Split(object)
		if err != nil || string(file) != "\x7fELF object" || string(got) != signature {
			t.Fatalf("got %q, %q, %v", file, got, err)
		}
	}
	if file, signature, err := Split([]byte("plain")); string(file) != "plain" || signature != nil ||
		err != nil {
		t.Errorf("without a signature: %q, %q, %v", file, signature, err)
	}
}

func TestTrailerThatIsNotSound(t *testing.T) {
	for name, object := range map[string]string{
		"no size": magic, "of nothing": "file\x00\x00\x00\x00" + magic,
		"longer than the object": "file\x05\x00\x00\x00" + magic,
		"of a huge size":         strings.Repeat("x", 1<<14) + "\x01\x20\x00\x00" + magic,
	} {
		if _, _, err := Split([]byte(object)); !errors.Is(err, ErrTrailer) {
			t.Errorf("%s: %v, want ErrTrailer", name, err)
		}
		if _, err := Append([]byte(object), []byte("signature")); !errors.Is(err, ErrTrailer) {
			t.Errorf("%s, signed again: %v, want ErrTrailer", name, err)
		}
	}
	for _, signature := range [][]byte{nil, make([]byte, maxSignature+1)} {
		if _, err := Append([]byte("file"), signature); err == nil {
			t.Errorf("a signature of %d bytes was taken", len(signature))
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte("file"))
	f.Add([]byte("filesignature\x09\x00\x00\x00" + magic))
	f.Fuzz(func(t *testing.T, object []byte) {
		file, signature, err := Split(object)
		if err != nil || signature == nil {
			return
		}
		if again, err := Append(file, signature); err != nil || !bytes.Equal(again, object) {
			// A file that is itself one with a signature is not one that Append makes.
			if _, inner, innerErr := Split(file); innerErr == nil && inner == nil {
				t.Fatalf("%q became %q, %v", object, again, err)
			}
		}
	})
}
