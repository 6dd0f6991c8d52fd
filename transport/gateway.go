package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/loopback"
)

// This file is the JSON face of the API. A generated gateway turns each HTTP
// request into a call over a connection in memory to the same gRPC server, so that
// there is one implementation and one set of checks, and streams work.
//
// JSON has the names of the .proto files. Fields that are zero are written all the
// same, so that a script finds "delivered": false; messages that are not set are
// left out. Unknown fields and parameters are refused. Errors look the same from
// every path:
//
//	{"code": "NOT_FOUND", "reason": "UNKNOWN_PARTICIPANT", "message": "...", "txid": "..."}

const (
	// inwardBuffer is what may lie in the connection in memory, each way.
	inwardBuffer = 256 << 10

	// Times of the HTTP server. Answers may take as long as a transaction and
	// watches have no end, so each single write is bounded instead of the whole.
	httpHeaderTimeout = 5 * time.Second
	httpBodyTimeout   = 30 * time.Second
	httpWriteTimeout  = 30 * time.Second
	httpIdleTimeout   = 2 * time.Minute
	httpMaxHeader     = 32 << 10

	// maxNesting bounds how deep values lie in each other. Protobuf ends at 10,000
	// messages and takes up to three for a level of JSON; past that the call would
	// fail as if the server were broken.
	maxNesting = 1000
)

// openGateway makes the HTTP server and its way into the gRPC server.
func (s *Server) openGateway() error {
	conn, err := grpc.NewClient("passthrough:///inward",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.inward.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes), grpc.MaxCallSendMsgSize(math.MaxInt32)),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
	)
	if err != nil {
		return fmt.Errorf("open the gateway: %w", err)
	}
	s.gateway = conn
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newJSON()),
		runtime.WithMarshalerOption(eventStream, eventMessages{newJSON()}),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
			writeError(w, status.Convert(err))
		}),
		runtime.WithRoutingErrorHandler(routingError),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(inwardMetadata),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
	ctx := context.Background() // unused: the connection is ours to close
	if err := errors.Join(
		decreev1.RegisterTransactionsHandlerClient(ctx, mux, decreev1.NewTransactionsClient(conn)),
		decreev1.RegisterTimelinesHandlerClient(ctx, mux, decreev1.NewTimelinesClient(conn)),
		decreev1.RegisterLiveHandlerClient(ctx, mux, decreev1.NewLiveClient(conn)),
		decreev1.RegisterParticipantsHandlerClient(ctx, mux, decreev1.NewParticipantsClient(conn)),
		decreev1.RegisterClusterHandlerClient(ctx, mux, decreev1.NewClusterClient(conn)),
		decreev1.RegisterOperationsHandlerClient(ctx, mux, decreev1.NewOperationsClient(conn)),
	); err != nil {
		return fmt.Errorf("open the gateway: %w", err)
	}
	root := http.NewServeMux()
	root.HandleFunc("GET /healthz", s.healthz)
	root.HandleFunc("GET /readyz", s.readyz)
	if s.cfg.Page != nil {
		root.Handle("GET /{$}", s.cfg.Page)
		root.Handle("GET /ui/", s.cfg.Page)
	}
	root.Handle("/", s.identified(s.checked(mux)))
	s.http = &http.Server{
		// A page of another origin must not move money through a browser.
		Handler:           http.NewCrossOriginProtection().Handler(root),
		ReadHeaderTimeout: httpHeaderTimeout,
		ReadTimeout:       httpBodyTimeout,
		IdleTimeout:       httpIdleTimeout,
		MaxHeaderBytes:    httpMaxHeader,
		// What it has to say is about connections of strangers.
		ErrorLog: s.logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	if c := s.cfg.Security.Certificates; c != nil {
		s.http.TLSConfig = c.Server("h2", "http/1.1")
	} else {
		s.http.Handler = loopback.Guard(s.http.Handler)
	}
	return nil
}

// healthz says that the process serves, and 503 once it is going away.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	if s.ended.Err() != nil || s.retired.Load() {
		writeError(w, status.Convert(refuse(errStopping, "")))
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"status": "serving"})
}

// readyz says whether this node knows of a leader, so that a call sent here can be
// carried out.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	leader, known := s.cfg.Node.Leader()
	if !known {
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"status": "no leader"})
		return
	}
	if s.retired.Load() {
		s.healthz(w, r)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"status": "ready", "leader": leader.ID})
}

// checked bounds and checks a request before the gateway reads it: the gateway
// ignores parameters that it does not know and what follows the JSON value.
func (s *Server) checked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := s.readBody(w, r)
		if err == nil {
			err = checkTarget(r)
		}
		if err != nil {
			writeError(w, status.Convert(refuse(err, "")))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(&boundedWriter{ResponseWriter: w, control: http.NewResponseController(w)}, r)
	})
}

func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(s.cfg.MaxRequestBytes)))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, invalidError{{reasonTooLarge, "body", fmt.Sprintf("more than %d bytes", over.Limit)}}
	case err != nil:
		return nil, invalidError{{reasonInvalidRequest, "body", err.Error()}}
	case len(bytes.TrimSpace(body)) > 0 && !json.Valid(body):
		return nil, invalidError{{reasonInvalidRequest, "body", "not JSON"}}
	case nesting(body) > maxNesting:
		return nil, invalidError{{reasonInvalidRequest, "body", fmt.Sprintf("values lie more than %d deep in each other", maxNesting)}}
	}
	if n := rounded(body); n != "" {
		return nil, invalidError{{reasonInvalidRequest, "body", fmt.Sprintf("the number %.40s would be rounded: send it as a string, or the content as payload", n)}}
	}
	// The body is read: from here on only writes are bounded. Left set, the
	// deadline would end a long call by way of the connection's background read.
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("lift the read deadline: %w", err)
	}
	return body, nil
}

// nesting is how deep objects and arrays lie in each other in what is JSON.
func nesting(text []byte) (deepest int) {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++ // whatever is escaped, it does not end the string
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == '['):
			depth++
			deepest = max(deepest, depth)
		case !quoted && (c == '}' || c == ']'):
			depth--
		}
	}
	return deepest
}

// checkTarget refuses what gRPC could not carry, and parameters that mean nothing.
func checkTarget(r *http.Request) error {
	var fields protoreflect.FieldDescriptors
	if r.Method == http.MethodGet {
		switch r.URL.Path {
		case "/v1/transactions":
			fields = (&decreev1.ListRequest{}).ProtoReflect().Descriptor().Fields()
		case "/v1/transactions:watch":
			fields = (&decreev1.WatchRequest{}).ProtoReflect().Descriptor().Fields()
		case "/v1/audit":
			fields = (&decreev1.ListAuditRequest{}).ProtoReflect().Descriptor().Fields()
		}
	}
	// What has no body for it, or another one, says why in the target.
	reasoned := r.Method == http.MethodDelete || r.Method == http.MethodPut
	var bad invalidError
	if !utf8.ValidString(r.URL.Path) {
		bad.add(reasonInvalidRequest, "path", "not UTF-8")
	}
	for name, values := range r.URL.Query() {
		known := fields != nil && (fields.ByName(protoreflect.Name(name)) != nil || fields.ByJSONName(name) != nil)
		if !known && !(reasoned && name == "reason") {
			bad.add(reasonInvalidRequest, strings.ToValidUTF8(name, "\uFFFD"), "no such parameter")
		} else if !utf8.ValidString(strings.Join(values, "")) {
			bad.add(reasonInvalidRequest, name, "not UTF-8")
		}
	}
	return bad.err()
}

// boundedWriter bounds each write, for a client that stops reading must not hold
// a handler for ever.
type boundedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (w *boundedWriter) Write(p []byte) (int, error) {
	if err := w.control.SetWriteDeadline(time.Now().Add(httpWriteTimeout)); err != nil {
		return 0, fmt.Errorf("set the write deadline: %w", err)
	}
	return w.ResponseWriter.Write(p) //nolint:wrapcheck // a Writer's own
}

// Unwrap lets http.ResponseController flush.
func (w *boundedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// jsonMessages is the gateway's JSON. It also gives errors in the middle of a
// stream the shape that they have elsewhere.
type jsonMessages struct{ runtime.JSONPb }

func newJSON() *jsonMessages {
	return &jsonMessages{runtime.JSONPb{
		MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true},
		UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
	}}
}

// Marshal implements runtime.Marshaler.
func (j *jsonMessages) Marshal(v any) ([]byte, error) {
	if chunk, ok := v.(map[string]proto.Message); ok {
		if st, ok := chunk["error"].(*spb.Status); ok {
			return json.Marshal(map[string]errorBody{"error": bodyOf(status.FromProto(st))}) //nolint:wrapcheck // it marshals
		}
	}
	return j.JSONPb.Marshal(v) //nolint:wrapcheck // a Marshaler's own
}

// errorBody is an error as JSON.
type errorBody struct {
	Code       string          `json:"code"`
	Reason     string          `json:"reason"`
	Message    string          `json:"message"`
	TxID       string          `json:"txid,omitempty"`
	RetryAfter string          `json:"retry_after,omitempty"`
	Violations []violationBody `json:"violations,omitempty"`
}

type violationBody struct {
	Field       string `json:"field"`
	Description string `json:"description"`
}

func bodyOf(st *status.Status) errorBody {
	b := errorBody{Code: codeName(st.Code()), Message: st.Message(), Reason: reasonInternal}
	if st.Code() == codes.InvalidArgument {
		b.Reason = reasonInvalidRequest // the gateway's own word for JSON that does not fit
	}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			b.Reason, b.TxID = d.GetReason(), d.GetMetadata()[metadataTxID]
		case *errdetails.RetryInfo:
			b.RetryAfter = d.GetRetryDelay().AsDuration().String()
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				b.Violations = append(b.Violations, violationBody{v.GetField(), v.GetDescription()})
			}
		}
	}
	return b
}

// codeName is a code as the gRPC documentation writes it: NOT_FOUND.
func codeName(c codes.Code) string {
	var out strings.Builder
	for i, r := range c.String() {
		if i > 0 && r >= 'A' && r <= 'Z' {
			out.WriteByte('_')
		}
		out.WriteRune(r)
	}
	return strings.ToUpper(out.String())
}

// httpStatus is the gateway's usual one, but for two: a state that is in the way
// is a conflict, and too much is 413.
func httpStatus(c codes.Code, reason string) int {
	switch {
	case reason == reasonTooLarge:
		return http.StatusRequestEntityTooLarge
	case c == codes.FailedPrecondition:
		return http.StatusConflict
	default:
		return runtime.HTTPStatusFromCode(c)
	}
}

func writeError(w http.ResponseWriter, st *status.Status) {
	body := bodyOf(st)
	if wait, err := time.ParseDuration(body.RetryAfter); err == nil {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	writeJSON(w, httpStatus(st.Code(), body.Reason), body)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v) //nolint:errcheck,errchkjson,gosec // the client may be gone
}

// routingError answers a path or a method that there is not.
func routingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	body := errorBody{Code: "NOT_FOUND", Reason: "NO_SUCH_METHOD", Message: fmt.Sprintf("no such resource: %s %s", r.Method, r.URL.Path)}
	switch code {
	case http.StatusMethodNotAllowed:
		body.Code, body.Message = "UNIMPLEMENTED", fmt.Sprintf("%s is not allowed on %s", r.Method, r.URL.Path)
	case http.StatusBadRequest:
		body.Code, body.Reason, body.Message = "INVALID_ARGUMENT", reasonInvalidRequest, "malformed path"
	}
	writeJSON(w, code, body)
}
