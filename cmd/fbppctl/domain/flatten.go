// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// maxDepth bounds how deep elements may be nested. libvirt's own are nested less than
// ten deep.
const maxDepth = 64

// fact is one thing that a definition says: that there is an element, an attribute
// with its value, or the text of an element.
type fact struct {
	path  string // of the elements, with a slash before each
	name  string // of an attribute; "": the element, or its text
	value string
}

func (f fact) String() string {
	switch {
	case f.name != "":
		return fmt.Sprintf("the attribute %s=%q of %s", f.name, f.value, f.path)
	case f.value != "":
		return fmt.Sprintf("the text %q of %s", f.value, f.path)
	}
	return f.path
}

// flatten returns all facts of a definition but those below its metadata, which
// libvirtxml keeps as it is. Their order is that of the text.
func flatten(text string) ([]fact, error) {
	in := xml.NewDecoder(strings.NewReader(text))
	var facts []fact
	var path []string
	for {
		token, err := in.Token()
		switch {
		case errors.Is(err, io.EOF):
			return facts, nil
		case err != nil:
			return nil, err
		}
		at := strings.Join(path, "")
		switch token := token.(type) {
		case xml.StartElement:
			if len(path) == maxDepth {
				return nil, fmt.Errorf("elements are nested more than %d deep", maxDepth)
			}
			path = append(path, "/"+token.Name.Local)
			at += "/" + token.Name.Local
			facts = append(facts, fact{path: at})
			for _, a := range token.Attr {
				if keeps(at, a) {
					facts = append(facts, fact{at, a.Name.Local, a.Value})
				}
			}
			if at == "/domain/metadata" {
				if err := in.Skip(); err != nil {
					return nil, err
				}
				path = path[:len(path)-1]
			}
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.CharData:
			if s := strings.TrimSpace(string(token)); s != "" {
				facts = append(facts, fact{path: at, value: s})
			}
		}
	}
}

// plain returns the fact with numbers written in one way: libvirtxml writes some with
// more zeroes.
func (f fact) plain() fact {
	if n, err := strconv.ParseUint(f.value, 0, 64); err == nil {
		f.value = strconv.FormatUint(n, 10)
	}
	return f
}

// firstLost returns the first of the facts that is missing afterwards, in words, or "".
func firstLost(before, after []fact) string {
	left := make(map[fact]int)
	for _, f := range after {
		left[f.plain()]++
	}
	i := slices.IndexFunc(before, func(f fact) bool {
		f = f.plain()
		left[f]--
		return left[f] < 0
	})
	if i < 0 {
		return ""
	}
	return before[i].String()
}
