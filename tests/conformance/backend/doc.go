// SPDX-License-Identifier: Apache-2.0

// Package backend checks vhost-user backends, rule by rule, as a frontend would
// meet them.
package backend
