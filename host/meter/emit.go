package meter

// emitter writes the code section. Its buffers are reused.
type emitter struct {
	m      *module
	a      *added
	f      function
	s      asm
	extra  []funcType        // appended types for blocks with several results
	blocks map[string]uint32 // type index of a block by its results
	most   int64             // largest frame
	points int               // charges written
}

func newEmitter(m *module, a *added) *emitter {
	e := &emitter{m: m, a: a, s: asm{a: a}, blocks: map[string]uint32{}}
	for i, t := range m.types {
		if len(t.params) == 0 && len(t.results) > 1 {
			e.blocks[string(t.results)] = uint32(i)
		}
	}
	return e
}

// code appends the bodies of all functions, the module's own and the helpers.
func (e *emitter) code(dst []byte) ([]byte, *Error) {
	helpers := e.m.helpers(e.a)
	dst = appendU32(dst, uint32(len(e.m.bodies)+len(helpers)))
	for i := range e.m.bodies {
		fn := e.m.imported + i
		if err := e.m.decode(&e.f, fn); err != nil {
			return nil, err
		}
		plan(&e.f)
		e.s.out = e.s.out[:0]
		e.body(fn)
		dst = append(appendU32(dst, uint32(len(e.s.out))), e.s.out...)
	}
	for _, h := range helpers {
		e.s.out = append(e.s.out[:0], h.locals...)
		h.code(&e.s)
		e.s.op(opEnd)
		dst = append(appendU32(dst, uint32(len(e.s.out))), e.s.out...)
	}
	return dst, nil
}

// body writes one function. A function that is charged for its frame gets its
// body wrapped into a block with the function's results, so that every way out
// comes by the end of that block, where the frame is given back: branches to
// the function's own label now mean the block as they stand, and a return
// becomes a branch to it.
func (e *emitter) body(fn int) {
	m, f, s := e.m, &e.f, &e.s
	framed := f.calls || f.frame > leafFrame
	s.op(m.b[m.bodies[fn-m.imported].start:f.code]...) // locals
	if framed {
		s.enter(f.entry, f.frame)
		s.op(opBlock)
		e.blockType(m.types[m.funcs[fn]].results)
		e.most = max(e.most, f.frame)
	} else {
		s.charge(f.entry)
		if f.loops || f.entry > leafUnits {
			s.check()
		}
	}
	e.points++

	done := f.code
	for i := range f.events {
		ev := &f.events[i]
		s.op(m.b[done:ev.start]...)
		done = ev.end
		switch ev.kind {
		case evFill:
			s.call(e.a.fill)
		case evCopy:
			s.call(e.a.copy)
		case evGrow:
			s.call(e.a.grow)
		case evReturn:
			if framed {
				s.idx(opBr, uint32(ev.depth))
				break
			}
			fallthrough
		default:
			switch ev.kind {
			case evBytes:
				s.call(e.a.bytes)
			case evItems:
				s.call(e.a.items)
			}
			s.op(m.b[ev.start:ev.end]...)
		}
		if ev.charge > 0 {
			s.charge(ev.charge)
			if ev.kind == evLoop {
				s.check()
			}
			e.points++
		}
	}
	if framed {
		s.leave(f.frame)
		s.op(opEnd)
	}
}

// blockType writes the type of a block without parameters.
func (e *emitter) blockType(results []byte) {
	switch len(results) {
	case 0:
		e.s.op(blockVoid)
	case 1:
		e.s.op(results[0])
	default:
		i, ok := e.blocks[string(results)]
		if !ok {
			i = e.a.typesEnd + uint32(len(e.extra))
			e.extra = append(e.extra, funcType{results: results})
			e.blocks[string(results)] = i
		}
		e.s.out = appendS64(e.s.out, int64(i))
	}
}
