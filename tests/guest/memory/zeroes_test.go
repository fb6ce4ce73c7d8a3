// SPDX-License-Identifier: Apache-2.0

package memory

import "testing"

func TestCheckZeroes(t *testing.T) {
	z, err := CheckZeroes(16 * PageSize)
	if err != nil || z.Pages != 16 || z.Wrong != 0 {
		t.Fatalf("new memory is %+v, %v", z, err)
	}
	page := make([]byte, PageSize)
	page[100] = 1
	if z.look(page); z.Pages != 17 || z.Wrong != 1 || z.First[0].Offset != 96 {
		t.Fatalf("after a page that holds something: %+v", z)
	}
}
