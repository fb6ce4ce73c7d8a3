// SPDX-License-Identifier: Apache-2.0

package device

import "time"

// AgeSample makes the last sample older.
func (d *Device) AgeSample(by time.Duration) {
	x := d.driver.WorkingSet()
	x.Taken = x.Taken.Add(-by)
}
