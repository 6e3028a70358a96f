package meter

import (
	"strings"
	"unicode/utf8"
)

// rebuild writes the module with everything appended and data segments joined. All
// other sections are copied byte for byte.
func (m *module) rebuild(a *added, e *emitter, code []byte) (out []byte, dropped []string) {
	out = make([]byte, 0, len(m.b)+len(code)/2+1024)
	out = append(out, m.b[:8]...)

	// The sections the rewriting extends or adds, in their order.
	wanted := []byte{secType, secFunction, secTable, secGlobal, secExport, secCode}
	last := 0 // index after the last section that is not custom
	for i, s := range m.sections {
		if s.id != secCustom {
			last = i + 1
		}
	}
	add := func(before int) {
		for len(wanted) > 0 && sectionOrder[wanted[0]] < before {
			out = appendSection(out, wanted[0], m.extend(a, e, section{id: wanted[0]}, code))
			wanted = wanted[1:]
		}
	}
	for i, s := range m.sections {
		if i == last {
			add(sectionOrder[secData] + 1)
		}
		if s.id == secCustom {
			body, keep := m.custom(s, a)
			if keep {
				out = appendSection(out, secCustom, append(appendName(nil, s.name), body...))
			} else {
				dropped = append(dropped, s.name)
			}
			continue
		}
		add(sectionOrder[s.id])
		if len(wanted) > 0 && wanted[0] == s.id {
			wanted = wanted[1:]
			out = appendSection(out, s.id, m.extend(a, e, s, code))
			continue
		}
		if s.id == secData {
			if body, ok := m.joined(s); ok {
				out = appendSection(out, secData, body)
				continue
			}
		}
		out = append(out, m.b[s.header:s.end]...)
	}
	add(sectionOrder[secData] + 1)
	return out, dropped
}

func appendSection(out []byte, id byte, body []byte) []byte {
	out = appendU32(append(out, id), uint32(len(body)))
	return append(out, body...)
}

// extend gives the new contents of a section: what the module had in it, if it
// had it, and what is added.
func (m *module) extend(a *added, e *emitter, s section, code []byte) []byte {
	if s.id == secCode {
		return code
	}
	var more []byte
	n := 0
	switch s.id {
	case secType:
		more = append(more,
			0x60, 0, 0,
			0x60, 1, typeI32, 1, typeI32,
			0x60, 3, typeI32, typeI32, typeI32, 0)
		n = 3
		for _, t := range e.extra {
			more = append(more, 0x60, 0)
			more = appendU32(more, uint32(len(t.results)))
			more = append(more, t.results...)
			n++
		}
	case secFunction:
		for _, h := range m.helpers(a) {
			more = appendU32(more, h.typ)
			n++
		}
	case secTable:
		more = append(more, typeFuncref, 1, 0, 0)
		n = 1
	case secGlobal:
		for _, initial := range []int64{m.o.Fuel, m.o.Stack << stackShift, 0} {
			more = append(more, typeI64, 1, opI64Const)
			more = append(appendS64(more, initial), opEnd)
		}
		more = append(more, typeI32, 1, opI32Const, 0, opEnd)
		n = len(globalNames)
	case secExport:
		for i, name := range globalNames {
			more = appendName(more, name)
			more = appendU32(append(more, 3), a.fuel+uint32(i))
		}
		n = len(globalNames)
	}
	out := appendU32(nil, uint32(s.count+n))
	if s.id == secTable {
		out = m.clampTables(out, s)
	} else {
		out = append(out, m.b[s.items:s.end]...)
	}
	return append(out, more...)
}

// clampTables copies the module's tables with their maximum lowered to what
// is allowed, so that table.grow fails beyond it.
func (m *module) clampTables(out []byte, s section) []byte {
	done := s.items
	share := (int64(m.o.MaxTableElements) - m.elements) / int64(max(1, len(m.own)))
	for _, t := range m.own {
		most := int64(t.min) + share
		if t.hasMax && int64(t.max) <= most {
			continue
		}
		out = append(out, m.b[done:t.limits]...)
		out = appendU32(append(out, 1), t.min)
		out = appendU32(out, uint32(most))
		done = t.end
	}
	return append(out, m.b[done:s.end]...)
}

// custom gives the contents of a custom section, or that it is to be dropped:
// tables of code offsets, which would lie, and a name section that is not well
// formed, which a runtime might allocate by.
func (m *module) custom(s section, a *added) (body []byte, keep bool) {
	body = m.b[s.start:s.end]
	switch {
	case strings.HasPrefix(s.name, ".debug_"), strings.HasPrefix(s.name, "reloc."),
		s.name == "linking", s.name == "sourceMappingURL", s.name == "external_debug_info",
		strings.HasPrefix(s.name, "metadata.code."):
		return nil, false
	case s.name == "name":
		return m.names(s, a)
	}
	return body, true
}

// Names in a stack trace, which has up to 30 of them. The runtime puts the
// module's before each of its functions'.
const (
	maxFunctionName = 256     // longer ones are cut
	maxNames        = 4 << 20 // all of them; the functions after that have none
)

// names checks the name section in full and writes it anew: the names of the
// module and of the functions, those of the added functions with them, and no
// others, as a stack trace shows no others.
func (m *module) names(s section, a *added) (body []byte, keep bool) {
	r := &reader{b: m.b, pos: s.start, end: s.end, fn: -1}
	var out []byte
	last := -1
	for r.more() {
		id := r.byte("name subsection")
		size := r.u32("name subsection size")
		if r.fail != nil || int(id) <= last {
			return nil, false
		}
		last = int(id)
		in := r.sub(int(size), "name subsection")
		switch id {
		case 0:
			out = appendSection(out, id, appendName(nil, shortName(&in, "module name")))
		case 1:
			n := in.count("function names")
			kept := 0
			var items []byte
			for i, prev := 0, -1; i < n && in.fail == nil; i++ {
				at := in.pos
				v := in.index("function", len(m.funcs))
				if v <= prev {
					in.errorf(at, "function names out of order")
				}
				prev = v
				if name := shortName(&in, "function name"); len(items)+len(name) < maxNames {
					items = appendName(appendU32(items, uint32(v)), name)
					kept++
				}
			}
			if in.fail == nil {
				out = appendSection(out, id, m.nameHelpers(kept, items, a))
			}
		case 2: // of locals: no stack trace shows them
			for n := in.count("local names"); n > 0 && in.fail == nil; n-- {
				in.u32("function index")
				for k := in.count("local names"); k > 0 && in.fail == nil; k-- {
					in.u32("local index")
					in.text("local name")
				}
			}
		default:
			in.pos = in.end
		}
		if in.fail != nil || in.pos != in.end {
			return nil, false
		}
	}
	return out, r.fail == nil
}

// shortName reads a name and cuts it between two characters.
func shortName(r *reader, what string) string {
	b := r.text(what)
	if len(b) > maxFunctionName {
		n := maxFunctionName
		for n > 0 && !utf8.RuneStart(b[n]) {
			n--
		}
		b = b[:n]
	}
	return string(b)
}

func (m *module) nameHelpers(n int, items []byte, a *added) []byte {
	helpers := m.helpers(a)
	out := append(appendU32(nil, uint32(n+len(helpers))), items...)
	for i, h := range helpers {
		out = appendName(appendU32(out, uint32(len(m.funcs)+i)), h.name)
	}
	return out
}
