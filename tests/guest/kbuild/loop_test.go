// SPDX-License-Identifier: Apache-2.0

package kbuild

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// objects returns objects with this content.
func objects(content map[string]string) Objects {
	o := make(Objects)
	for path, text := range content {
		o[path] = sha256.Sum256([]byte(text))
	}
	return o
}

func TestLoopComparesWithTheFirstBuild(t *testing.T) {
	first := objects(map[string]string{"a.o": "1", "b.o": "2"})
	for name, tc := range map[string]struct {
		later []Objects
		want  Status
	}{
		"one build": {nil, Status{Builds: 1}},
		"all alike": {[]Objects{first, first}, Status{Builds: 3, Compared: 4}},
		"one differs": {[]Objects{objects(map[string]string{"a.o": "1", "b.o": "3"}), first},
			Status{Builds: 3, Compared: 4, Different: []string{"b.o"}}},
		"one is missing": {[]Objects{objects(map[string]string{"a.o": "1"})},
			Status{Builds: 2, Compared: 2, Different: []string{"b.o"}}},
		"one is new": {[]Objects{objects(map[string]string{"a.o": "1", "b.o": "2", "c.o": "3"})},
			Status{Builds: 2, Compared: 2, Different: []string{"c.o"}}},
	} {
		t.Run(name, func(t *testing.T) {
			builds := append([]Objects{first}, tc.later...)
			l := NewLoop(func() (Objects, error) {
				if len(builds) == 0 {
					return nil, errors.New("the compiler died")
				}
				next := builds[0]
				builds = builds[1:]
				return next, nil
			})
			l.Run()
			tc.want.Error = "the compiler died"
			if diff := cmp.Diff(tc.want, l.Await()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAwaitWaitsForTheBuildThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finish := make(chan error)
		l := NewLoop(func() (Objects, error) { return Objects{}, <-finish })
		go l.Run()
		for want := 1; want <= 3; want++ {
			got := make(chan Status, 1)
			go func() { got <- l.Await() }()
			synctest.Wait()
			if len(got) > 0 {
				t.Fatalf("%+v came before the build ended", <-got)
			}
			finish <- nil
			if s := <-got; s.Builds != want {
				t.Errorf("got %+v, want %d builds", s, want)
			}
		}
		finish <- errors.New("no more")
	})
}

func TestDigestReadsObjectsAlone(t *testing.T) {
	dir := t.TempDir()
	if _, err := digest(dir); err == nil {
		t.Error("a build without objects was taken for one")
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a.o": "a.o", "sub/b.ko": "sub/b.ko"}
	for _, name := range []string{"a.c", "a.o", "sub/b.ko", "sub/b.mod", ".a.o.cmd"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := digest(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(objects(want), got); diff != "" {
		t.Error(diff)
	}
}
