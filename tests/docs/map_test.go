// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// branch is a line of the tree in CONTRIBUTING.md.
var branch = regexp.MustCompile(`(?m)^    (  )?([a-z0-9.-]+)/ +(\S.*)$`)

// folders returns the paths of the tree with their descriptions.
func folders(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, tree, found := strings.Cut(string(text), "\n## The map\n")
	tree, _, ends := strings.Cut(tree, "\n## ")
	if !found || !ends {
		t.Fatal("CONTRIBUTING.md has no section that is called The map")
	}
	said, above := make(map[string]string), ""
	for _, m := range branch.FindAllStringSubmatch(tree, -1) {
		if m[1] == "" {
			above = m[2]
			said[above] = m[3]
		} else {
			said[filepath.Join(above, m[2])] = m[3]
		}
	}
	return said
}

// The map in CONTRIBUTING.md names every folder of the project, and no others.
func TestTheMapNamesEachFolder(t *testing.T) {
	said := folders(t)
	if len(said) < 20 {
		t.Fatalf("the map has %d folders: is it written otherwise now?", len(said))
	}
	for path := range said {
		if info, err := os.Stat(filepath.Join(root, path)); err != nil || !info.IsDir() {
			t.Errorf("the map has %s, which is no folder: %v", path, err)
		}
	}
	for _, pattern := range []string{"*", "*/*"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			path = strings.TrimPrefix(path, root+"/")
			if info, err := os.Stat(filepath.Join(root, path)); err != nil || !info.IsDir() {
				continue
			}
			// Leave out build output, hidden folders, and folders without code.
			if top, _, _ := strings.Cut(path, "/"); top == "build" || path == "docs/img" ||
				strings.HasPrefix(top, ".") || filepath.Base(path) == "testdata" {
				continue
			}
			if said[path] == "" {
				t.Errorf("the map lacks %s", path)
			}
		}
	}
}
