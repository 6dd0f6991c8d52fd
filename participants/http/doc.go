// Package httpparticipant connects decree to services in any language that speak
// JSON over HTTP. It holds both ends of that wire:
//
//   - [Driver] is the coordinator's end. It turns calls of the participant
//     contract into requests, and their answers back into the contract's classes.
//   - [Handler] is the other end. It puts any participants.Participant behind the
//     wire.
//
// It owns the wire and refuses to add meaning to it. openapi.yaml describes it in
// full, and example/ holds a whole service in Node's standard library, with a
// transcript of a branch in curl.
//
// # The wire
//
// There are five operations: POST to prepare, commit, abort, status and recover
// below the service's url, with a JSON object each way. The last two are optional.
//
//	POST /prepare  {"cluster": "bank-eu", "txid": "0196…", "branch": 1,
//	                "epoch": 7, "horizon_ms": 1744000000000,
//	                "digest": "9f86…", "payload": {"counter": "a", "add": 1}}
//	  200 {"vote": "commit"}                       prepared, durably
//	  200 {"vote": "read_only"}                    nothing to do in phase two
//	  409 {"vote": "abort", "reason": "sold out"}  nothing was kept, nor will be
//	POST /commit   the same without digest and payload
//	  200 {"status": "committed"}                  now or before
//	  409 {"heuristic": "abort", "detail": "…"}    damage, on durable proof
//	POST /abort
//	  200 {"status": "aborted"}                    now or before, known or not
//	  409 {"heuristic": "commit", "detail": "…"}
//	any of them
//	  409 {"error": "stale_epoch"}                 another leader drives by now
//
// Nothing else is an answer. A redirect (never followed), any other status, another
// content type, a body that is too long, cut short or not one of these: all mean
// "not known", which is no for the decision and "ask again" for the delivery. So
// no proxy, framework or half-written service can vote, or report damage, by
// accident; and one word of the wire cannot be taken for another.
//
// What was chosen, and why:
//
//   - epoch is a number, though it could be a string: strings compare as text in
//     most languages, where "10" is below "9". It is a Raft term; one election
//     every millisecond takes 285,000 years to the 2^53 that JavaScript counts to,
//     and the driver sends nothing past that.
//   - horizon_ms is in milliseconds since 1970, which is what the first 48 bits of
//     a txid (a UUIDv7) hold: a service compares two integers. Nanoseconds would
//     lose digits in JavaScript. The horizon is rounded down, which only makes a
//     service remember longer.
//   - payload is the application's payload where that is JSON, value for value, and
//     payload_base64 its bytes where it is not: exactly one of them is there.
//     Services in most languages never see base64.
//   - Unknown fields are ignored by both sides, so that either can be upgraded
//     first; missing ones are not made up.
package httpparticipant
