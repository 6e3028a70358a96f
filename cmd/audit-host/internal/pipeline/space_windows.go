package pipeline

import "golang.org/x/sys/windows"

// spaceAt is how many bytes a file system has for us; false if it does not say.
func spaceAt(path string) (free uint64, ok bool) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, false
	}
	err = windows.GetDiskFreeSpaceEx(name, &free, nil, nil)
	return free, err == nil
}
