package scaffold

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	audithost "github.com/audit-host/audit-host"
)

// module is what a plugin in Go requires, and sdkPackages are those of its
// packages that come with it.
const module = "github.com/audit-host/audit-host"

var sdkPackages = []string{"abi", "abi/guest"}

// unpublished is the version of a module that is in no repository, as Go's own
// commands write it.
const unpublished = "v0.0.0-00010101000000-000000000000"

// semver is a version as Go modules have it; with + it would be another's.
var semver = regexp.MustCompile(`^v[01]\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)

// ModuleVersion makes the version of a require line of that of the program: a
// release or a commit as it is, and for a program that was built from neither a
// version that says that it is not published.
func ModuleVersion(program string) string {
	version, _, _ := strings.Cut(program, "+") // +dirty
	if !semver.MatchString(version) {
		return unpublished
	}
	return version
}

// golang adds a plugin in Go, with the SDK in its folder vendor.
func (p Project) golang(out map[string][]byte) error {
	example, err := fs.Sub(templates, "golang")
	if err != nil {
		return err
	}
	if _, err := copyTree(out, "", example, p.Grant, p.named); err != nil {
		return err
	}
	build, err := fs.ReadFile(example, "build.sh")
	if err != nil {
		return err
	}
	_, out["build.sh"] = p.named("", build)
	version, err := goVersion()
	if err != nil {
		return err
	}
	// A path with a dot in it, or a plugin called fmt could not be built.
	out["go.mod"] = fmt.Appendf(nil, "module example.org/%s\n\ngo %s\n\nrequire %s %s\n", p.Name, version, module, p.Version)
	// As "go mod vendor" writes it, which a test compares.
	list := fmt.Appendf(nil, "# %s %s\n## explicit; go %s\n", module, p.Version, version)
	for _, dir := range sdkPackages {
		list = fmt.Appendf(list, "%s/%s\n", module, dir)
		files, err := fs.ReadDir(audithost.GuestSources, dir)
		if err != nil {
			return err
		}
		for _, f := range files {
			if f.IsDir() || strings.HasSuffix(f.Name(), "_test.go") {
				continue
			}
			text, err := fs.ReadFile(audithost.GuestSources, path.Join(dir, f.Name()))
			if err != nil {
				return err
			}
			out[path.Join("vendor", module, dir, f.Name())] = text
		}
	}
	out["vendor/modules.txt"] = list
	return nil
}

// goVersion is that of Go which the SDK needs.
func goVersion() (string, error) {
	text, err := fs.ReadFile(audithost.GuestSources, "go.mod")
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(text) {
		if v, ok := bytes.CutPrefix(line, []byte("go ")); ok {
			return string(bytes.TrimSpace(v)), nil
		}
	}
	return "", errors.New("go.mod has no line with the version of Go")
}
