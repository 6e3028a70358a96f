package config

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// row is one key: all that the package says about it but for what is between keys. It
// is bound to the value that it reads into and shows.
type row struct {
	name, help string
	value               // of a key that is no table
	nest       *nest    // of one that is
	needed     string   // said when it is missing; "" if it may be
	follow     follow   // "" is that of the table around it
	owned      []string // not nil: it names a file that no other key may name, and these are the endings
	secret     bool     // its texts are not for others
	unlocked   bool     // audit.lock has it only if it is not zero
}

// follow says how a daemon follows a key that has changed.
type follow string

const (
	restart  follow = "restart"  // with a restart only
	reload   follow = "reload"   // with a reload
	exchange follow = "exchange" // with a reload that makes the sink's plugin anew
)

// nest is what a table, or several, are to their key.
type nest struct {
	array, named bool
	open         func(*table) (rows []row, keep func()) // one to be read, and kept if it is there
	have         func() [][]row                         // those that are kept
}

func key(name string, v value, help string) row { return row{name: name, value: v, help: help} }

// on, required, owns, hidden and quiet return the row with what their fields say.
func (r row) on(f follow) row            { r.follow = f; return r }
func (r row) required(needed string) row { r.needed = needed; return r }
func (r row) owns(beside ...string) row  { r.owned = append([]string{""}, beside...); return r }
func (r row) hidden() row                { r.secret = true; return r }
func (r row) quiet() row                 { r.unlocked = true; return r }

// section is a table that is always there: an absent one is an empty one.
func section(name, help string, rows ...row) row {
	return row{name: name, help: help, nest: &nest{
		open: func(*table) ([]row, func()) { return rows, func() {} },
		have: func() [][]row { return [][]row{rows} },
	}}
}

// optional is a table whose presence means something: without it *into is nil.
func optional[T any](name, help string, into **T, rows func(*T) []row) row {
	return row{name: name, help: help, nest: &nest{
		open: func(*table) ([]row, func()) {
			v := new(T)
			return rows(v), func() { *into = v }
		},
		have: func() (all [][]row) {
			if *into != nil {
				all = append(all, rows(*into))
			}
			return all
		},
	}}
}

// array is an array of tables.
func array[T any](name, help string, into *[]T, rows func(*T) []row) row {
	return row{name: name, help: help, nest: &nest{
		array: true,
		open: func(*table) ([]row, func()) {
			v := new(T)
			return rows(v), func() { *into = append(*into, *v) }
		},
		have: func() (all [][]row) {
			for i := range *into {
				all = append(all, rows(&(*into)[i]))
			}
			return all
		},
	}}
}

// secrets is a table of tables whose keys are the secrets' names.
func secrets(name, help string, into *[]HTTPSecret) row {
	under := func(list []HTTPSecret, spell func(string) string) (rows []row) {
		for i := range list {
			rows = append(rows, section(spell(list[i].Name), "One secret.", list[i].rows()...))
		}
		return rows
	}
	return row{name: name, help: help, nest: &nest{
		named: true,
		open: func(t *table) ([]row, func()) {
			var list []HTTPSecret
			for _, name := range slices.Sorted(maps.Keys(t.values)) {
				list = append(list, HTTPSecret{Name: name})
			}
			return under(list, func(s string) string { return s }), func() { *into = list }
		},
		have: func() (all [][]row) {
			if len(*into) > 0 {
				all = append(all, under(*into, quote))
			}
			return all
		},
	}}
}

// read reads a table. Each key gets its default first, and keeps it if its value is
// refused.
func (t *table) read(rows []row) {
	for _, r := range rows {
		t.known = append(t.known, r.name)
		there := t.set(r.name)
		if r.nest == nil {
			if r.reset(); there {
				r.value.read(found{t, r.name, t.at.kid(r.name), t.values[r.name]})
			}
		} else {
			there = false
			for _, one := range t.tables(r.name, r.nest.array) {
				rows, keep := r.nest.open(one)
				if one.read(rows); one.present {
					keep()
					there = true
				}
			}
		}
		if !there && r.needed != "" && t.present && !t.faulty[r.name] {
			t.missing(r.name, "%s", r.needed)
		}
		if r.owned != nil {
			t.c.owners = append(t.c.owners, owner{t, r})
		}
	}
}

// leaves returns the keys of single tables, with their full names and how they are
// followed. What is in arrays of tables, or has a name of its own, is not among them.
func leaves(rows []row, around string, f follow) (list []row) {
	for _, r := range rows {
		r.name, r.follow = join(around, r.name), cmp.Or(r.follow, f)
		if r.nest == nil {
			list = append(list, r)
		} else if !r.nest.array && !r.nest.named {
			for _, rows := range r.nest.have() {
				list = append(list, leaves(rows, r.name, r.follow)...)
			}
		}
	}
	return list
}

// join puts the name of a key behind that of its table.
func join(table, key string) string { return strings.TrimPrefix(table+"."+key, ".") }
