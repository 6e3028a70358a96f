package config

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Token is a secret. It prints and marshals as "(redacted)"; convert it to a
// string to have its value.
type Token string

const redacted = "(redacted)"

// String hides the value, as do the methods below.
func (t Token) String() string {
	if t == "" {
		return ""
	}
	return redacted
}

// GoString implements [fmt.GoStringer].
func (t Token) GoString() string { return strconv.Quote(t.String()) }

// LogValue implements [slog.LogValuer].
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText implements [encoding.TextMarshaler].
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

const (
	minToken = 16   // characters; fewer can be guessed
	maxToken = 4096 // characters; more than a header should carry
)

// firstLine returns the first line of a file that holds a secret of some kind.
func firstLine(path, kind string) (string, error) {
	// A pipe would block and a device never end, so look before opening.
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", path)
	}
	// Windows has no such bits and reports a mode that is always open.
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o027 != 0 {
		return "", fmt.Errorf("%s has mode %04o, so others could use the %s: run chmod 600 %s", path, mode, kind, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, maxToken+2)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// readToken returns the first line of the file.
func readToken(path string) (Token, error) {
	token, err := firstLine(path, "token")
	if err != nil {
		return "", err
	}
	switch {
	case len(token) < minToken:
		return "", fmt.Errorf("the first line of %s has %d characters, at least %d are needed", path, len(token), minToken)
	case len(token) > maxToken:
		return "", fmt.Errorf("the first line of %s has more than %d characters", path, maxToken)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("the first line of %s has a character that a bearer token can't: only visible ASCII without spaces is sent", path)
	}
	return Token(token), nil
}

// ReadSecret returns the first line of a file that only its owner, or its group,
// may read.
func ReadSecret(path string) (string, error) { return firstLine(path, "secret") }
