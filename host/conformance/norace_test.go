//go:build !race

package conformance

// raceDetector tells that the tests run under the race detector.
const raceDetector = false
