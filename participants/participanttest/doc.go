// Package participanttest holds what the tests of drivers and of the coordinator
// share: the conformance suite that every driver passes, and a participant whose
// answers can be scripted.
//
// [Run] puts a driver through the contract of package participants, one subtest
// per promise, each naming its rule. It assumes nothing about the resource: a
// [Subject] tells how to have an effect on it and how to look at that effect
// from outside, and leaves out what the resource does not have.
//
// [Fake] keeps the contract in memory unless a test scripts a call otherwise: a
// vote, an error, a request or an answer that is lost, a call that is held up or
// carried out after its caller has gone. It records every call in order and
// checks the caller's side of the contract by itself.
package participanttest
