package main

import (
	"fmt"
	"strings"

	"github.com/audit-host/audit-host/abi"
)

const notice = "Written by abi/sdk/gen from the constants of package abi. Do not edit."

// language is how one language spells a constant and a host function.
type language struct {
	file       string
	head, tail string
	comment    func(text string) string
	constant   func(name string, value string) string
	// before and after stand around the host functions.
	before, after string
	imported      func(s abi.Signature) string
}

// files are the files by their path in the folder of the SDKs.
func files() map[string][]byte {
	out := map[string][]byte{}
	for _, l := range []language{c(), rust(), assemblyScript(), zig()} {
		out[l.file] = []byte(render(l))
	}
	return out
}

func render(l language) string {
	var b strings.Builder
	b.WriteString(l.head)
	for _, g := range groups() {
		fmt.Fprintf(&b, "\n%s\n", l.comment(g.title))
		for _, n := range g.list {
			line := l.constant(snake(g.prefix+n.name), literal(n.value))
			if n.doc != "" {
				line += " " + l.comment(n.doc)
			}
			b.WriteString(line + "\n")
		}
	}
	fmt.Fprintf(&b, "\n%s\n%s", l.comment("The host's functions, as they cross the boundary. A module imports those that it calls, and no others."), l.before)
	for _, s := range abi.Imports() {
		line := l.imported(s)
		if s.Capability != "" {
			line += " " + l.comment("capability "+s.Capability)
		}
		b.WriteString(line + "\n")
	}
	b.WriteString(l.after)
	b.WriteString(l.tail)
	return b.String()
}

// literal writes a number as all four languages read it.
func literal(v uint32) string {
	if v < 1<<16 {
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("%#x", v)
}

// params lists the parameters of a signature by position.
func params(s abi.Signature, spell func(i int, t abi.ValueType) string) string {
	var list []string
	for i, t := range s.Params {
		list = append(list, spell(i, t))
	}
	return strings.Join(list, ", ")
}

func result(s abi.Signature, none string, spell map[abi.ValueType]string) string {
	if len(s.Results) == 0 {
		return none
	}
	return spell[s.Results[0]]
}

func slashes(text string) string { return "// " + text }

func c() language {
	types := map[abi.ValueType]string{abi.I32: "uint32_t", abi.I64: "uint64_t"}
	return language{
		file: "c/audit_host_abi.h",
		head: "/* " + notice + " */\n#ifndef AUDIT_HOST_ABI_H\n#define AUDIT_HOST_ABI_H\n\n#include <stdint.h>\n",
		tail: "\n#endif\n",
		comment: func(text string) string {
			return "/* " + text + " */"
		},
		constant: func(name string, value string) string { return fmt.Sprintf("#define AUDIT_%s %su", name, value) },
		before:   fmt.Sprintf("#define AUDIT_IMPORT(name) __attribute__((import_module(%q), import_name(name)))\n", abi.ImportModule),
		imported: func(s abi.Signature) string {
			list := params(s, func(_ int, t abi.ValueType) string { return types[t] })
			if list == "" {
				list = "void"
			}
			return fmt.Sprintf("AUDIT_IMPORT(%q) %s audit_import_%s(%s);", s.Name, result(s, "void", types), s.Name, list)
		},
	}
}

func rust() language {
	types := map[abi.ValueType]string{abi.I32: "u32", abi.I64: "u64"}
	return language{
		file:     "rust/src/abi.rs",
		head:     "// " + notice + "\n//! Names and numbers of the ABI.\n",
		comment:  slashes,
		constant: func(name string, value string) string { return fmt.Sprintf("pub const %s: u32 = %s;", name, value) },
		before:   fmt.Sprintf("#[link(wasm_import_module = %q)]\nextern \"C\" {\n", abi.ImportModule),
		after:    "}\n",
		imported: func(s abi.Signature) string {
			arrow := result(s, "", types)
			if arrow != "" {
				arrow = " -> " + arrow
			}
			list := params(s, func(i int, t abi.ValueType) string { return fmt.Sprintf("p%d: %s", i, types[t]) })
			return fmt.Sprintf("    #[link_name = %q]\n    pub fn import_%s(%s)%s;", s.Name, s.Name, list, arrow)
		},
	}
}

func assemblyScript() language {
	types := map[abi.ValueType]string{abi.I32: "u32", abi.I64: "u64"}
	return language{
		file:     "as/abi.ts",
		head:     "// " + notice + "\n",
		comment:  slashes,
		constant: func(name string, value string) string { return fmt.Sprintf("export const %s: u32 = %s;", name, value) },
		imported: func(s abi.Signature) string {
			list := params(s, func(i int, t abi.ValueType) string { return fmt.Sprintf("p%d: %s", i, types[t]) })
			return fmt.Sprintf("// @ts-ignore: decorator\n@external(%q, %q)\nexport declare function import_%s(%s): %s;", abi.ImportModule, s.Name, s.Name, list, result(s, "void", types))
		},
	}
}

func zig() language {
	types := map[abi.ValueType]string{abi.I32: "u32", abi.I64: "u64"}
	return language{
		file:    "zig/abi.zig",
		head:    "// " + notice + "\n",
		comment: slashes,
		constant: func(name string, value string) string {
			return fmt.Sprintf("pub const %s: u32 = %s;", strings.ToLower(name), value)
		},
		before: "pub const import = struct {\n",
		after:  "};\n",
		imported: func(s abi.Signature) string {
			list := params(s, func(i int, t abi.ValueType) string { return fmt.Sprintf("p%d: %s", i, types[t]) })
			return fmt.Sprintf("    pub extern %q fn %s(%s) %s;", abi.ImportModule, s.Name, list, result(s, "void", types))
		},
	}
}
