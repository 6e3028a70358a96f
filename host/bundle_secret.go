package host

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// redactedText stands for what is left out.
const redactedText = "(redacted)"

// secretName matches the names of keys whose values are left out of a bundle.
var secretName = regexp.MustCompile(`(?i)secret|token|passw|passphrase|pwd|credential|cookie|auth|bearer|dsn|signature|(^|[^a-z])(api|access|private|signing|encryption)?[-_ .]?keys?$|apikey|accesskey|privatekey`)

// redact returns a configuration without its secrets, and where they stood.
// What is no JSON object is left out as a whole.
func redact(config json.RawMessage) (json.RawMessage, []string) {
	dec := json.NewDecoder(bytes.NewReader(config))
	dec.UseNumber()
	var v map[string]any
	if err := dec.Decode(&v); err != nil {
		return json.RawMessage("{}"), []string{"all: it is no JSON object"}
	}
	var places []string
	redactIn(v, "", &places)
	if places == nil {
		return config, nil // to the byte
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return json.RawMessage("{}"), []string{"all: it can't be written as JSON"}
	}
	return bytes.TrimSpace(b.Bytes()), places
}

// redactIn replaces the secrets in v and returns it.
func redactIn(v any, at string, places *[]string) any {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			place := strings.TrimPrefix(at+"."+k, ".")
			if _, isFlag := v[k].(bool); secretName.MatchString(k) && v[k] != nil && !isFlag {
				v[k] = redactedText
				*places = append(*places, place)
				continue
			}
			v[k] = redactIn(v[k], place, places)
		}
	case []any:
		for i := range v {
			v[i] = redactIn(v[i], fmt.Sprintf("%s[%d]", at, i), places)
		}
	case string:
		if u, err := url.Parse(v); err == nil && u.User != nil {
			*places = append(*places, at+" (the user in its URL)")
			u.User = url.User("redacted")
			return u.String()
		}
		if strings.Contains(v, "-----BEGIN ") || strings.HasPrefix(strings.ToLower(v), "bearer ") {
			*places = append(*places, at)
			return redactedText
		}
	}
	return v
}
