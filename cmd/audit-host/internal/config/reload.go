package config

import "fmt"

// Fixed lists what differs between two configurations outside of the sinks and needs a
// restart, one text for each key: "queue.backend: \"disk\" is now \"memory\"". A
// daemon that has read c needs one to follow to in these.
func (c *Config) Fixed(to *Config) []string {
	out := fixed(c.rows(), to.rows(), restart)
	if c.HTTP.TokenFile == to.HTTP.TokenFile && c.HTTP.Token != to.HTTP.Token {
		out = append(out, "http.token_file: it holds another token now")
	}
	return out
}

// Fixed lists what differs between two sinks of one name and needs a restart.
func (s Sink) Fixed(to Sink) []string { return fixed(s.rows(), to.rows(), exchange) }

func fixed(was, now []row, f follow) (out []string) {
	before := map[string]string{}
	for _, r := range leaves(was, "", f) {
		before[r.name] = r.shown()
	}
	for _, r := range leaves(now, "", f) {
		if w := before[r.name]; r.follow == restart && w != r.shown() {
			out = append(out, fmt.Sprintf("%s: %s is now %s", r.name, w, r.shown()))
		}
	}
	return out
}

// shown is the value as others may see it.
func (r row) shown() string {
	if v := r.get(); v != nil {
		return written(v, r.secret)
	}
	return "not set"
}

// OfPlugin returns the part of the sink that its plugin is made of: all else, which can
// change without an exchange, has its default.
func (s Sink) OfPlugin() Sink {
	for _, r := range s.rows() {
		if r.nest == nil && r.follow != "" {
			r.reset()
		}
	}
	return s
}

// Lines returns what is granted, a text for each key but those of hosts and secrets, in
// the form of audit.lock: `sql.read_only = false`. relative says how paths are written.
func (g Grant) Lines(relative func(path string) string) []string {
	list := []string{}
	for _, r := range leaves(g.rows(), "", "") {
		switch v := r.get().(type) {
		case file:
			list = append(list, fmt.Sprintf("%s = %q", r.name, relative(string(v))))
		case string:
			list = append(list, fmt.Sprintf("%s = %q", r.name, v))
		case []string:
			for _, v := range v {
				list = append(list, fmt.Sprintf("%s = %s", r.name, v))
			}
		default:
			if !r.unlocked || v != any(false) && v != any(Size(0)) {
				list = append(list, fmt.Sprintf("%s = %v", r.name, v))
			}
		}
	}
	return list
}
