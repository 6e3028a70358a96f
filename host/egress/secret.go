package egress

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	// redacted is no longer than what it stands for, so that redacting never
	// makes an answer longer than its limit.
	redacted     = "[secret]"
	minSecret    = len(redacted)
	maxSecret    = 4 << 10
	handlePrefix = "{{secret "
	handleSuffix = "}}"
)

// Secret is a value that the host puts into headers. Printed, logged or encoded
// it is [secret]: the value lies in a closure, where fmt and reflection do
// not find it, not even inside another struct.
type Secret struct{ reveal func() string }

// NewSecret hides a value.
func NewSecret(value string) Secret { return Secret{func() string { return value }} }

// String returns [secret].
func (Secret) String() string { return redacted }

// GoString returns [secret].
func (Secret) GoString() string { return redacted }

// LogValue returns [secret].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns [secret].
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// expand replaces the handles {{secret NAME}} in a header value, once: what is
// put in is not looked at again.
func expand(value string, reveal func(name string) string) (string, error) {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(value, strings.TrimSuffix(handlePrefix, " "))
		b.WriteString(before)
		if !ok {
			return b.String(), nil
		}
		name, after, closed := strings.Cut(strings.TrimPrefix(rest, " "), handleSuffix)
		if !closed || !strings.HasPrefix(rest, " ") || !isSecretName(name) {
			return "", errors.New("a secret is written {{secret NAME}}")
		}
		b.WriteString(reveal(name))
		value = after
	}
}

func isSecretName(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// vault holds the secrets and takes them out of what comes back.
type vault struct {
	secrets map[string]Secret
	// forms returns the spellings that are looked for, the longest first.
	forms func() []string
}

func newVault(secrets map[string]Secret) (*vault, error) {
	v := &vault{secrets: make(map[string]Secret, len(secrets))}
	var forms []string
	for name, s := range secrets {
		if !isSecretName(name) {
			return nil, fmt.Errorf("http policy: secret %q: a name has 1 to 64 letters, digits, '.', '-', '_'", name)
		}
		if s.reveal == nil {
			return nil, fmt.Errorf("http policy: secret %q has no value", name)
		}
		value := s.reveal()
		switch {
		case len(value) < minSecret || len(value) > maxSecret:
			return nil, fmt.Errorf("http policy: secret %q: %d to %d bytes are needed, so that it can be told from other text", name, minSecret, maxSecret)
		case strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' }) || strings.TrimSpace(value) != value:
			return nil, fmt.Errorf("http policy: secret %q: a header takes printable ASCII without blanks at the ends; a newline at the end of a file, perhaps?", name)
		}
		v.secrets[name] = s
		forms = append(forms, spellings(value)...)
	}
	slices.SortFunc(forms, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	forms = slices.Compact(forms)
	v.forms = func() []string { return forms }
	return v, nil
}

func (v *vault) reveal(name string) string { return v.secrets[name].reveal() }

// spellings are the forms in which an honest server might repeat a value.
func spellings(value string) []string {
	quoted := strconv.Quote(value)
	marshalled, err := json.Marshal(value)
	if err != nil {
		marshalled = []byte(quoted) // a string always marshals
	}
	all := []string{
		value, quoted[1 : len(quoted)-1], string(marshalled[1 : len(marshalled)-1]), html.EscapeString(value),
		hex.EncodeToString([]byte(value)), strings.ToUpper(hex.EncodeToString([]byte(value))),
	}
	for _, s := range []string{url.QueryEscape(value), url.PathEscape(value), strings.ReplaceAll(url.QueryEscape(value), "+", "%20")} {
		all = append(all, s, lowerEscapes(s))
	}
	// In base64 the value looks different by where in the text it stands: as a
	// whole, or after a user and a colon. The characters at the ends that hold
	// bits of something else as well are left off.
	for off := range 3 {
		text := append(make([]byte, off), value...)
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			s := e.EncodeToString(text)[(off*8+5)/6:]
			if len(text)%3 != 0 {
				s = s[:len(s)-1]
			}
			all = append(all, s)
		}
	}
	return all
}

// lowerEscapes writes %2F as %2f.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}

// body redacts a body.
func (v *vault) body(b []byte) []byte {
	for _, form := range v.forms() {
		if bytes.Contains(b, []byte(form)) {
			b = bytes.ReplaceAll(b, []byte(form), []byte(redacted))
		}
	}
	return b
}

// text redacts a short text. Where the secret only shows when the text is
// unescaped, or in another case (host names), nothing of the text is left.
func (v *vault) text(s string) string {
	s = string(v.body([]byte(s)))
	views := []string{s}
	if u, err := url.PathUnescape(s); err == nil {
		views = append(views, u)
	}
	if u, err := url.QueryUnescape(s); err == nil {
		views = append(views, u)
	}
	for _, view := range views {
		view = strings.ToLower(view)
		for _, secret := range v.secrets {
			if strings.Contains(view, strings.ToLower(secret.reveal())) {
				return redacted
			}
		}
	}
	return s
}

// header redacts an answer's header and leaves out what concerns the connection.
func (v *vault) header(h http.Header) http.Header {
	out := make(http.Header, len(h))
	for name, values := range h {
		if slices.Contains(refusedFields, name) || strings.HasPrefix(name, "Proxy-") || strings.HasPrefix(name, "Set-Cookie") ||
			v.text(name) != name {
			continue
		}
		for _, value := range values {
			out[name] = append(out[name], v.text(value))
		}
	}
	return out
}
