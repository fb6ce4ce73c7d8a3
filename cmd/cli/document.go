// SPDX-License-Identifier: Apache-2.0

//go:build docs

package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// document writes the manual pages of root and its commands, and its shell completion,
// to the folder that follows --write-docs. SOURCE_DATE_EPOCH is their date. Only
// builds for packaging can do so.
func document(root *cobra.Command, args []string) (bool, error) {
	if len(args) != 3 || args[0] != "--write-docs" {
		return false, nil
	}
	prepare(root)
	root.InitDefaultHelpCmd()
	root.DisableAutoGenTag = true
	folder, section := args[1], args[2]
	err := doc.GenManTreeFromOpts(root, doc.GenManTreeOptions{
		Header:           &doc.GenManHeader{Section: section, Source: "fbpp", Manual: "fbpp"},
		Path:             folder,
		CommandSeparator: "-",
	})
	if err != nil {
		return true, fmt.Errorf("write manual pages: %w", err)
	}
	if root.HasSubCommands() {
		err = complete(root, folder)
	}
	if err == nil {
		err = ErrDone // or the program would begin its work
	}
	return true, err
}

// complete writes the completion of each shell under the name that packages use.
func complete(root *cobra.Command, folder string) error {
	for shell, name := range map[string]string{
		"bash": root.Name(), "fish": root.Name() + ".fish", "zsh": "_" + root.Name(),
	} {
		dir := filepath.Join(folder, shell)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("write completion: %w", err)
		}
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("write completion: %w", err)
		}
		root.SetOut(f)
		root.SetArgs([]string{"completion", shell})
		err = root.Execute()
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return fmt.Errorf("write completion: %w", err)
		}
	}
	return nil
}
