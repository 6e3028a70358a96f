//go:build !linux

package control

import "errors"

// shorten has no means here.
func shorten(string) (name string, done func(), err error) {
	return "", nil, errors.New("this system has no shorter name for it")
}
