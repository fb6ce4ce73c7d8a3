// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"encoding/json"
	"fmt"
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
	return a.find(func(o option) bool { return driver(o.value) == DeviceDriver })
}

// find returns the first option that adds a device and is such a one.
func (a arguments) find(such func(option) bool) (option, bool) {
	all := a.options("-device")
	if i := slices.IndexFunc(all, such); i >= 0 {
		return all[i], true
	}
	return option{}, false
}

// driver returns QEMU's name of the device that an option adds.
func driver(device string) string {
	if isJSON(device) {
		return property(device, "driver")
	}
	name, _, _ := strings.Cut(device, ",")
	return name
}

// chardev returns the option that connects a device.
func (a arguments) chardev(device option) (option, bool) {
	id := property(device.value, "chardev")
	for _, o := range a.options("-chardev") {
		if id != "" && property(o.value, "id") == id {
			return o, true
		}
	}
	return option{}, false
}

// requireFree returns an error if another option has the id of a chardev or a device of fbpp's.
func (a arguments) requireFree(chardev, device string) error {
	for _, ours := range []struct{ name, id string }{{"-chardev", chardev}, {"-device", device}} {
		if slices.ContainsFunc(a.options(ours.name), func(o option) bool {
			return property(o.value, "id") == ours.id
		}) {
			return fmt.Errorf("qemu:commandline has an option with id=%s, which fbpp's would have, too",
				ours.id)
		}
	}
	return nil
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
