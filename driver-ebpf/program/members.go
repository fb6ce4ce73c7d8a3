// SPDX-License-Identifier: Apache-2.0

package program

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// checkMembers refuses what encoding/json takes in silence, and what would have a policy say
// something else than its owner reads: members that are there twice or are spelled in another
// case, 0 or null where that would mean the default, and text behind the object.
func checkMembers(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := checkValue(d); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the policy")
	}
	return nil
}

func checkValue(d *json.Decoder) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	switch token {
	case nil:
		return errors.New("null: leave it out for the default")
	case json.Delim('{'):
		return checkObject(d)
	case json.Delim('['):
		for d.More() {
			if err := checkValue(d); err != nil {
				return err
			}
		}
		_, err = d.Token()
	case json.Number("0"), json.Number("-0"):
		err = errors.New("a limit of 0: leave it out for the default")
	}
	return err
}

func checkObject(d *json.Decoder) error {
	seen := make(map[string]bool)
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name, ok := token.(string)
		switch {
		case !ok:
			return fmt.Errorf("%v is no name of a member", token)
		case seen[name]:
			return fmt.Errorf("member %q is there twice", name)
		case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "":
			return fmt.Errorf("unknown member %q: names are in lower case", name)
		}
		seen[name] = true
		if err := checkValue(d); err != nil {
			return fmt.Errorf("member %q: %w", name, err)
		}
	}
	_, err := d.Token()
	return err
}
