// SPDX-License-Identifier: Apache-2.0

// Package model checks a model of a migration with free page hints, written
// in Promela, with the model checker Spin: the order of steps that fbpp uses
// loses no write in any interleaving, and each order that docs/design.md
// rejects does lose one. docs/model.md says what is modelled.
package model
