// SPDX-License-Identifier: Apache-2.0

// Package model checks a model of a migration with free page hints, written in Promela, with
// the model checker Spin. The order of steps that fbpp uses loses no write in any
// interleaving. Each order that docs/design.md rejects loses a write. docs/model.md says what
// is modelled.
package model
