//go:build race

package fsm

// raceDetector says that everything takes several times as long.
const raceDetector = true
