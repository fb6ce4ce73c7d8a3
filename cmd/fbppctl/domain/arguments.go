// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"encoding/json"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// arguments are the words of qemu:commandline, which libvirt gives to QEMU after its
// own.
type arguments []libvirtxml.DomainQEMUCommandlineArg

// option is one option of QEMU and its value: two words from index on.
type option struct {
	index int
	value string
}

// options returns the options of a name, such as "-device".
func (a arguments) options(name string) []option {
	var all []option
	for i := 0; i+1 < len(a); i++ {
		// QEMU takes long options with two dashes as well.
		if a[i].Value == name || a[i].Value == "-"+name {
			all = append(all, option{i, a[i+1].Value})
			i++
		}
	}
	return all
}

// without returns the words without some options.
func (a arguments) without(options ...option) arguments {
	var kept arguments
	for i, word := range a {
		if !slices.ContainsFunc(options, func(o option) bool {
			return i == o.index || i == o.index+1
		}) {
			kept = append(kept, word)
		}
	}
	return kept
}

// with returns the words with one more option.
func (a arguments) with(name, value string) arguments {
	return append(slices.Clone(a), libvirtxml.DomainQEMUCommandlineArg{Value: name},
		libvirtxml.DomainQEMUCommandlineArg{Value: value})
}

// device returns the option that adds the fbpp device, unless there is none.
func (a arguments) device() (option, bool) {
	for _, o := range a.options("-device") {
		driver, _, _ := strings.Cut(o.value, ",")
		if isJSON(o.value) {
			driver = property(o.value, "driver")
		}
		if driver == DeviceDriver {
			return o, true
		}
	}
	return option{}, false
}

// chardev returns the option that connects the fbpp device.
func (a arguments) chardev(device option) (option, bool) {
	id := property(device.value, "chardev")
	for _, o := range a.options("-chardev") {
		if id != "" && property(o.value, "id") == id {
			return o, true
		}
	}
	return option{}, false
}

// taken returns an id of fbpp's options that others have already, or "".
func (a arguments) taken() string {
	for name, id := range map[string]string{"-chardev": chardevID, "-device": deviceID} {
		for _, o := range a.options(name) {
			if property(o.value, "id") == id {
				return id
			}
		}
	}
	return ""
}

// isJSON tells which of QEMU's two forms the value of an option has.
func isJSON(value string) bool { return strings.HasPrefix(value, "{") }

// property returns a property in the value of an option of QEMU, or "". In the form
// key=value a comma is doubled.
func property(value, key string) string {
	if isJSON(value) {
		var all map[string]any
		if json.Unmarshal([]byte(value), &all) != nil {
			return ""
		}
		switch v := all[key].(type) {
		case string:
			return v
		case bool:
			return map[bool]string{true: "on", false: "off"}[v]
		}
		return ""
	}
	const comma = "\x00"
	for word := range strings.SplitSeq(strings.ReplaceAll(value, ",,", comma), ",") {
		if v, ok := strings.CutPrefix(word, key+"="); ok {
			return strings.ReplaceAll(v, comma, ",")
		}
	}
	return ""
}
