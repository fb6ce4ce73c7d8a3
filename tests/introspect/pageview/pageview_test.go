// SPDX-License-Identifier: Apache-2.0

package pageview

import (
	"bytes"
	"testing"
)

func TestFilesComeBackFromScatteredPages(t *testing.T) {
	token := [TokenSize]byte{1, 2, 3}
	long := bytes.Repeat([]byte("0123456789"), 2000)
	files := map[string][]byte{"long": long, "short": []byte("x"), "full": long[:Payload]}
	var pages [][]byte
	for name, content := range files {
		mem := make([]byte, Pages(len(content))*PageSize)
		Put(mem, token, name, content)
		for at := 0; at < len(mem); at += PageSize {
			pages = append([][]byte{mem[at:][:PageSize], make([]byte, PageSize)}, pages...)
		}
	}
	c := NewCollector(token)
	for _, page := range pages {
		c.Add(page)
	}
	for name, want := range files {
		if got, err := c.File(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(want), err)
		}
	}
	if _, err := c.File("none"); err == nil {
		t.Error("a file that was not there was found")
	}
	delete(c.parts["long"], 1)
	if _, err := c.File("long"); err == nil {
		t.Error("a file with a page missing was found")
	}
}
