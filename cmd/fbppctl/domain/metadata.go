// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"encoding/xml"
	"strings"
)

// metadataTag returns the start tag of the machine's metadata as it is written, or "".
// libvirtxml keeps what is in the element, but not its attributes. Other managers declare
// the namespaces of their metadata there, and libvirt drops what has none.
func metadataTag(text string) string {
	in := xml.NewDecoder(strings.NewReader(text))
	for depth := 0; ; {
		from := in.InputOffset()
		token, err := in.Token()
		if err != nil {
			return ""
		}
		switch token := token.(type) {
		case xml.StartElement:
			if depth == 1 && token.Name.Local == "metadata" {
				tag := text[from:in.InputOffset()]
				return strings.TrimSuffix(strings.TrimSuffix(tag, ">"), "/") + ">"
			}
			depth++
		case xml.EndElement:
			depth--
		}
	}
}

// withMetadataTag puts the tag in place of the one that libvirtxml writes.
func withMetadataTag(text, tag string) string {
	if tag == "" {
		return text
	}
	return strings.Replace(text, "<metadata>", tag, 1)
}

// keeps tells whether an attribute counts as a fact. Names of namespaces do where metadata
// relies on them. libvirt's own are declared elsewhere by libvirtxml.
func keeps(path string, a xml.Attr) bool {
	if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
		return true
	}
	return path == "/domain/metadata" ||
		path == "/domain" && !strings.HasPrefix(a.Value, "http://libvirt.org/schemas/domain/")
}
