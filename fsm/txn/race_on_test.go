//go:build race

package txn_test

// raceDetector says that everything takes several times as long.
const raceDetector = true
