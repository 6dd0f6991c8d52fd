package httpparticipant

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
)

// maxRequest bounds the body of a request: the largest payload that a cluster
// takes by default, a mebibyte, fits in base64 with room to spare.
const maxRequest = 4 << 20

// Options are the settings of a [Handler]. The zero Options admit everybody, which
// is right behind mutual TLS or a middleware that asks who calls, and on loopback.
type Options struct {
	// Tokens refer to the bearer tokens that are taken, any one of them, so that the
	// token can be replaced under traffic. They are resolved at each request.
	Tokens []participants.Reference
	// Log hears of tokens that cannot be resolved. The default is to say nothing.
	Log hclog.Logger
}

// Handler puts p behind the wire, at the paths /prepare, /commit, /abort, /status
// and /recover; http.StripPrefix puts these below another path. It checks what
// arrives, and p sees only well-formed branches. The caller keeps p and closes it
// once the HTTP server has stopped.
//
// It may be used by many goroutines. It bounds what it reads; how many requests
// come at once, and how slowly, is for the http.Server to bound.
func Handler(p participants.Participant, o Options) http.Handler {
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	s := &server{participant: p, options: o}
	mux := http.NewServeMux()
	for op, carryOut := range map[operation]carryOut{
		opPrepare: s.prepare,
		opCommit:  s.commit,
		opAbort:   s.abort,
		opStatus:  s.status,
		opRecover: s.recover,
	} {
		mux.HandleFunc("/"+string(op), func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, carryOut) })
	}
	return mux
}

// server holds what Handler was given.
type server struct {
	participant participants.Participant
	options     Options
}

// carryOut does one operation with the body of its request.
type carryOut func(ctx context.Context, body []byte) (response, error)

// response is a status code and the body that goes with it.
type response struct {
	code int
	body any
}

func ok(body any) response       { return response{http.StatusOK, body} }
func conflict(body any) response { return response{http.StatusConflict, body} }

// refusal is an error that has a place on the wire.
type refusal struct {
	code  int
	word  string
	cause error
}

func (r *refusal) Error() string { return r.cause.Error() }

func refuse(code int, word, format string, args ...any) error {
	return &refusal{code, word, fmt.Errorf(format, args...)}
}

func invalid(err error) error { return &refusal{http.StatusBadRequest, errorInvalid, err} }

// serve answers one request.
func (s *server) serve(w http.ResponseWriter, r *http.Request, do carryOut) {
	body, err := s.admit(w, r)
	var answer response
	if err == nil {
		answer, err = do(r.Context(), body)
	}
	if err != nil {
		answer = errorToWire(err)
	}
	write(w, answer)
}

func write(w http.ResponseWriter, answer response) {
	text, err := encode(answer.body)
	if err != nil { // the bodies of this wire always encode
		panic(fmt.Sprintf("encode %T: %v", answer.body, err))
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	switch answer.code {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodPost)
	}
	w.WriteHeader(answer.code)
	w.Write(text) //nolint:errcheck // a caller who has gone asks again
}

// errorToWire places an error on the wire. A stale epoch is the only one that
// means something to the caller; the others' texts are for people.
func errorToWire(err error) response {
	var r *refusal
	code, word := http.StatusInternalServerError, errorInternal
	switch {
	case errors.As(err, &r):
		code, word = r.code, r.word
	case errors.Is(err, participants.ErrStaleEpoch):
		code, word = http.StatusConflict, errorStaleEpoch
	case errors.Is(err, errors.ErrUnsupported):
		code, word = http.StatusNotImplemented, errorUnsupported
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		code, word = http.StatusServiceUnavailable, errorUnavailable
	}
	detail := strings.TrimPrefix(err.Error(), participants.ErrStaleEpoch.Error()+": ")
	return response{code, errorAnswer{word, forPeople(detail)}}
}

// admit checks who asks, and how, and reads the body.
func (s *server) admit(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Method != http.MethodPost {
		return nil, refuse(http.StatusMethodNotAllowed, errorInvalid, "method %s, want POST", r.Method)
	}
	if err := s.authenticate(r); err != nil {
		return nil, err
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != contentType {
		return nil, refuse(http.StatusUnsupportedMediaType, errorInvalid, "want a body of type %s", contentType)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, refuse(http.StatusRequestEntityTooLarge, errorInvalid, "the body has more than %d bytes", maxRequest)
	case err != nil:
		return nil, invalid(fmt.Errorf("the body was cut short: %w", err))
	}
	return body, nil
}

func (s *server) authenticate(r *http.Request) error {
	if len(s.options.Tokens) == 0 {
		return nil
	}
	kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	presented := sha256.Sum256([]byte(token)) // of one length, so that comparing takes one time
	for _, reference := range s.options.Tokens {
		taken, err := reference.Resolve()
		if err != nil {
			s.options.Log.Error("a token that callers may have cannot be read", "error", err)
			continue
		}
		expected := sha256.Sum256([]byte(taken))
		if subtle.ConstantTimeCompare(presented[:], expected[:]) == 1 && strings.EqualFold(kind, "Bearer") {
			return nil
		}
	}
	return refuse(http.StatusUnauthorized, errorUnauthenticated, "want a bearer token that is taken here")
}
