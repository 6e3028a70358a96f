// Package durable holds what it takes to have on disk what a file shows.
package durable

// Drop has the kernel forget what it has cached of a file, n bytes from off on, to
// the end if n is 0. Pages that wait to be written stay. It is for bytes that are
// about to be written again after a failed write or sync.
//
// To write the same bytes to the same place is not enough. On ext4 new blocks are
// marked as unwritten until their first write has succeeded; where it failed the
// cached page takes them for written, so that a later write reaches the blocks and
// not the mark. The bytes are read as long as the page is cached, and are zeros
// after the next mount. A page that was dropped is looked up again.
//
// The bytes have to be read before, and another reader of the file sees what the
// disk has until they are written. Only Linux drops pages; elsewhere this does
// nothing.
func Drop(f interface{ Fd() uintptr }, off, n int64) error { return drop(f.Fd(), off, n) }
