//go:build !race

package host

// raceDetector tells that the tests run under the race detector.
const raceDetector = false
