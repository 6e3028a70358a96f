package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// schema is what the kit reads of a JSON Schema; it knows no other keywords.
type schema struct {
	Type       any                        `json:"type"`
	Enum       []json.RawMessage          `json:"enum"`
	Const      json.RawMessage            `json:"const"`
	Default    json.RawMessage            `json:"default"`
	Examples   []json.RawMessage          `json:"examples"`
	Required   []string                   `json:"required"`
	Properties map[string]json.RawMessage `json:"properties"`
	Additional json.RawMessage            `json:"additionalProperties"`
	Pattern    string                     `json:"pattern"`
	Format     string                     `json:"format"`
	MinLength  int                        `json:"minLength"`
	Minimum    *json.Number               `json:"minimum"`
}

// readSchema reads a schema; true and {} allow everything.
func readSchema(text json.RawMessage) (schema, error) {
	var s schema
	if t := strings.TrimSpace(string(text)); t == "" || t == "true" {
		return s, nil
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("read config_schema: %w", err)
	}
	return s, nil
}

// types are those that are allowed; none is any.
func (s *schema) types() []string {
	switch t := s.Type.(type) {
	case string:
		return []string{t}
	case []any:
		var list []string
		for _, v := range t {
			list = append(list, fmt.Sprint(v))
		}
		return list
	}
	return nil
}

// closed tells that unknown keys are not allowed.
func (s *schema) closed() bool { return strings.TrimSpace(string(s.Additional)) == "false" }

// example makes a value that the schema allows, as far as the kit understands it.
func (s *schema) example(name, origin string) json.RawMessage {
	switch {
	case s.Const != nil:
		return s.Const
	case s.Default != nil:
		return s.Default
	case len(s.Examples) > 0:
		return s.Examples[0]
	case len(s.Enum) > 0:
		return s.Enum[0]
	}
	typ := "string"
	if t := s.types(); len(t) > 0 {
		typ = t[0]
	} else if name == "" || s.Properties != nil {
		typ = "object" // a configuration is one
	}
	switch typ {
	case "string":
		text := strings.Repeat("x", max(1, s.MinLength))
		if strings.Contains(s.Pattern, "http") || s.Format == "uri" || s.Format == "url" || strings.Contains(strings.ToLower(name), "url") {
			text = origin + "/events"
		}
		b, _ := json.Marshal(text) // a text always can be
		return b
	case "integer", "number":
		if s.Minimum != nil {
			return json.RawMessage(s.Minimum.String())
		}
		return json.RawMessage("1")
	case "boolean":
		return json.RawMessage("false")
	case "array":
		return json.RawMessage("[]")
	case "null":
		return json.RawMessage("null")
	}
	object := map[string]json.RawMessage{}
	for _, key := range s.Required {
		if p, err := readSchema(s.Properties[key]); err == nil {
			object[key] = p.example(key, origin)
		}
	}
	b, _ := json.Marshal(object) // of texts that are JSON
	return b
}

// problem says why a configuration does not fit the schema; "" if it does.
func (s *schema) problem(config json.RawMessage) string {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(config, &object); err != nil {
		return "it is no JSON object: " + err.Error()
	}
	for _, key := range s.Required {
		if _, ok := object[key]; !ok {
			return key + " is missing, and required"
		}
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		text, known := s.Properties[key]
		if !known {
			if s.closed() {
				return key + " is no key of the schema"
			}
			continue
		}
		p, err := readSchema(text)
		if err != nil {
			continue // said in the case "manifest"
		}
		if t := p.types(); len(t) > 0 && !slices.Contains(t, typeOf(object[key])) && (typeOf(object[key]) != "integer" || !slices.Contains(t, "number")) {
			return fmt.Sprintf("%s is of type %s, wanted %s", key, typeOf(object[key]), strings.Join(t, " or "))
		}
		if len(p.Enum) > 0 && !slices.ContainsFunc(p.Enum, func(v json.RawMessage) bool { return string(v) == string(object[key]) }) {
			return fmt.Sprintf("%s is %s, which its enum does not have", key, object[key])
		}
	}
	return ""
}

// typeOf is the JSON Schema type of a value.
func typeOf(v json.RawMessage) string {
	text := strings.TrimSpace(string(v))
	switch {
	case strings.HasPrefix(text, `"`):
		return "string"
	case strings.HasPrefix(text, "{"):
		return "object"
	case strings.HasPrefix(text, "["):
		return "array"
	case text == "true", text == "false":
		return "boolean"
	case text == "null":
		return "null"
	case strings.ContainsAny(text, ".eE"):
		return "number"
	}
	return "integer"
}

// bad is a configuration that has to be refused, and what is wrong with it.
type bad struct{ config, why string }

// maxBad bounds how many configurations are tried for the keys of a schema.
const maxBad = 40

// badConfigs makes configurations that the schema does not allow. good is one
// that it does.
func (s *schema) badConfigs(good json.RawMessage) []bad {
	list := []bad{{"hello", "no JSON"}, {`{"a":`, "JSON that is cut short"}, {"\x00\xff\xfe", "bytes that are no text"}}
	if t := s.types(); slices.Contains(t, "object") && len(t) == 1 {
		list = append(list, bad{"[]", "an array where an object is wanted"}, bad{`"text"`, "a text where an object is wanted"}, bad{"7", "a number where an object is wanted"})
	}
	with := func(key string, v json.RawMessage) string {
		object := map[string]json.RawMessage{}
		_ = json.Unmarshal(good, &object) // it was looked at before
		if object[key] = v; v == nil {
			delete(object, key)
		}
		b, _ := json.Marshal(object)
		return string(b)
	}
	if s.closed() {
		list = append(list, bad{with("no-such-key", json.RawMessage("1")), "a key that the schema does not have"})
	}
	for _, key := range s.Required {
		list = append(list, bad{with(key, nil), key + " is missing"})
	}
	for _, key := range slices.Sorted(maps.Keys(s.Properties)) {
		p, err := readSchema(s.Properties[key])
		if err != nil || len(list) >= maxBad {
			continue
		}
		types := p.types()
		for _, v := range []json.RawMessage{json.RawMessage(`{"a":[1]}`), json.RawMessage(`[[]]`), json.RawMessage(`"no such value"`), json.RawMessage("-3.5"), json.RawMessage("true")} {
			typ := typeOf(v)
			switch {
			case len(p.Enum) > 0:
				list = append(list, bad{with(key, v), key + " has a value that its enum does not have"})
			case len(types) > 0 && !slices.Contains(types, typ):
				list = append(list, bad{with(key, v), fmt.Sprintf("%s is of type %s, wanted %s", key, typ, strings.Join(types, " or "))})
			default:
				continue
			}
			break
		}
	}
	return list
}

// onLoopback replaces the origin of each URL in a configuration by that of the
// kit's server: a check sends nothing to a real collector.
func onLoopback(config json.RawMessage, origin string) (json.RawMessage, error) {
	var v any
	d := json.NewDecoder(strings.NewReader(string(config)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return json.Marshal(replaced(v, origin))
}

func replaced(v any, origin string) any {
	switch v := v.(type) {
	case string:
		if u, err := url.Parse(v); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
			_, rest, _ := strings.Cut(v, "://")
			if at := strings.IndexAny(rest, "/?#"); at >= 0 {
				return origin + rest[at:]
			}
			return origin
		}
	case map[string]any:
		for key := range v {
			v[key] = replaced(v[key], origin)
		}
	case []any:
		for i := range v {
			v[i] = replaced(v[i], origin)
		}
	}
	return v
}

var secretForm = regexp.MustCompile(`\{\{secret ([^{}]+)\}\}`)

// secretNames lists the secrets that a configuration uses.
func secretNames(config json.RawMessage) []string {
	var list []string
	for _, m := range secretForm.FindAllSubmatch(config, -1) {
		list = append(list, strings.TrimSpace(string(m[1])))
	}
	return list
}
