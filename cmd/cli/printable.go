// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"
	"strings"
	"unicode"
)

// printable is a writer to a terminal of text that others wrote.
type printable struct{ w io.Writer }

// Printable returns a writer to w that replaces what could steer a terminal by '?'. Names and
// reasons come from guests, and from processes that a guest may have taken over. A write has to
// end with a whole character.
func Printable(w io.Writer) io.Writer { return printable{w} }

// Write implements io.Writer. The count is that of p.
func (p printable) Write(text []byte) (int, error) {
	if _, err := p.w.Write([]byte(harmless(string(text)))); err != nil {
		return 0, err
	}
	return len(text), nil
}

// harmless keeps what can be seen, spaces, line ends and tabulators.
func harmless(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r != unicode.ReplacementChar && unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}
