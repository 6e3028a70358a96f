package config

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"regexp"
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

func (c *checker) http(t *table, dir string, h *HTTP) {
	host := ""
	if t.text("address", &h.Address) && h.Address != "" {
		var err error
		if host, err = splitAddress(h.Address); err != nil {
			t.refuse("address", t.at.kid("address"), "", "address: %v", err)
		}
	}
	t.optionalPath("token_file", dir, &h.TokenFile)
	if h.TokenFile != "" {
		c.claim(t, "token_file", h.TokenFile)
		var err error
		if h.Token, err = readToken(h.TokenFile); err != nil {
			t.refuse("token_file", t.at.kid("token_file"), "", "token_file: %v", err)
		}
	}
	if t.set("address") && h.Address != "" && !t.faulty["address"] && h.TokenFile == "" && !t.faulty["token_file"] && !loopback(host) {
		t.refuse("address", t.at.kid("address"), "",
			"address %q can be reached from other machines and needs a bearer token: set token_file, or listen on 127.0.0.1", h.Address)
	}
	t.size("max_body", KiB, GiB, &h.MaxBody)
	t.size("max_event", KiB, 64*MiB, &h.MaxEvent)
	if at, ok := either(t, "max_event", t, "max_body"); ok && h.MaxEvent > h.MaxBody {
		c.add(at.value, "", "max_event (%v) is more than max_body (%v)", h.MaxEvent, h.MaxBody)
	}
	t.number("max_connections", 1, 1<<20, &h.MaxConnections)
	t.duration("read_header_timeout", moment, &h.ReadHeaderTimeout)
	t.duration("read_timeout", moment, &h.ReadTimeout)
	t.duration("idle_timeout", moment, &h.IdleTimeout)
	t.duration("ack_timeout", moment, &h.AckTimeout)

	opa := t.table("opa")
	for _, p := range []struct {
		key      string
		required bool
		into     *[]string
	}{
		{"agent", true, &h.OPA.Agent},
		{"decision", true, &h.OPA.Decision},
		{"rule", false, &h.OPA.Rule},
		{"reason", false, &h.OPA.Reason},
	} {
		opa.texts(p.key, checkPointer, p.into)
		if p.required && len(*p.into) == 0 && !opa.faulty[p.key] {
			opa.refuse(p.key, opa.at.kid(p.key), "", "%s needs at least one JSON pointer: without it every entry is rejected", p.key)
		}
	}
}

// hostName is a name of RFC 1123 whose last label is not a number, so that a
// misspelt IPv4 address is not taken for one.
var hostName = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// splitAddress checks host:port and returns the host, which is empty if all
// interfaces are meant.
func splitAddress(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf(`%q is not of the form "127.0.0.1:8480"`, brief(address))
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("the port %q is not a number from 0 to 65535", brief(port))
	}
	if host == "" || len(host) <= 253 && hostName.MatchString(host) {
		return host, nil
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return "", fmt.Errorf("%q is neither an IP address nor a host name", brief(host))
	}
	return host, nil
}

// loopback reports whether a listener on host is out of reach of other
// machines.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

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
	}
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return "", fmt.Errorf("the first line of %s holds a character that a bearer token can't: only visible ASCII without spaces is sent", path)
		}
	}
	return Token(token), nil
}
