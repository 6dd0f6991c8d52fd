package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/transport/access"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/certs"
)

// This file finds out who calls, and whether they may. Without Security it has no part
// in anything: there are no interceptors then.
//
// Who calls is said by a bearer token, or else by the certificate of the connection. A
// node's certificate also says on whose behalf it passes a call on, in metadata that is
// believed from nobody else. The gateway, whose calls come through memory, has looked at
// the HTTP request in the same way, and tells in the same metadata.

// Security is how a node's API is secured. Its zero value is plain text for everybody.
type Security struct {
	// Certificates are the node's; nil is plain text.
	Certificates *certs.Source
	// Access has the tokens, and the limits of single identities; it may be nil.
	Access *access.File
	// Limits are of identities that have none of their own.
	Limits access.Limits
}

// metadataCaller carries an identity from node to node, and from the gateway.
const metadataCaller = "decree-caller"

// Errors of whoever may not.
var (
	errUnauthenticated = errors.New("who calls is not known")
	errDenied          = errors.New("not allowed")
)

// callerKey is where a context has its caller.
type callerKey struct{}

// callerOf is on whose behalf a call is made; nobody where callers are not asked who
// they are.
func callerOf(ctx context.Context) certs.Identity {
	who, _ := ctx.Value(callerKey{}).(certs.Identity)
	return who
}

// asCaller has a context say on whose behalf a call is made.
func asCaller(ctx context.Context, who certs.Identity) context.Context {
	return context.WithValue(coordinator.As(ctx, callerAs(who)), callerKey{}, who)
}

// passedOn is the outgoing context of a call that is passed on to the leader.
func passedOn(ctx context.Context) context.Context {
	if who := callerOf(ctx); who != (certs.Identity{}) {
		return metadata.AppendToOutgoingContext(ctx, metadataHop, "1", metadataCaller, who.String())
	}
	return metadata.AppendToOutgoingContext(ctx, metadataHop, "1")
}

// guard is the two interceptors, and what they ask.
type guard struct {
	access    *access.File
	meters    *access.Meters
	strangers strangers
}

func newGuard(s Security) *guard {
	if s.Certificates == nil {
		return nil
	}
	return &guard{access: s.Access, meters: access.NewMeters(s.Access, s.Limits)}
}

// admission is a call that was let in.
type admission struct {
	who  certs.Identity
	node bool // a node sent it, for itself or on behalf of who
	pass access.Pass
	// Of a token: a stream outlives it, unless it is asked about again.
	token string
	reads uint64 // atomic: of the access file, when the token was last looked for
}

// admit lets a call in, or says why not: a status. Who is let in leaves by its pass.
func (g *guard) admit(ctx context.Context, method string) (a admission, err error) {
	row := rights[method]
	if row.open() {
		return a, nil
	}
	if a, err = g.identify(ctx); err != nil {
		return a, refuse(err, "")
	}
	if !row.has(a.who.Role) {
		return a, refuse(deny(a.who, method, row), "")
	}
	if a.node {
		return a, nil // it was counted where it came in
	}
	a.pass, err = g.enter(a.who)
	return a, refuse(err, "")
}

// enter counts a call.
func (g *guard) enter(who certs.Identity) (access.Pass, error) {
	pass, err := g.meters.Enter(who)
	if over, ok := errors.AsType[*access.OverError](err); ok {
		err = &coordinator.BusyError{What: over.What, RetryAfter: over.RetryAfter}
	}
	return pass, err
}

func deny(who certs.Identity, method string, row roles) error {
	name := method[strings.LastIndexByte(method, '.')+1:] // Transactions/Submit
	if len(row) == 0 {
		return fmt.Errorf("%w: %s is nobody's to call", errDenied, name)
	}
	return fmt.Errorf("%w: %s needs the role %s, and the caller is %s", errDenied, name, row, who)
}

// identify is who calls.
func (g *guard) identify(ctx context.Context) (admission, error) {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return admission{}, errUnauthenticated
	}
	_, inward := p.AuthInfo.(inwardInfo)
	named := len(metadata.ValueFromIncomingContext(ctx, metadataCaller)) > 0
	if sent := metadata.ValueFromIncomingContext(ctx, "authorization"); len(sent) > 0 {
		a, err := g.bearer(sent) // the gateway's too, so that its streams end with the token
		if err == nil && named && !inward {
			err = forged(a.who)
		}
		return a, err
	}
	if inward {
		who, err := callerSent(ctx)
		return admission{who: who}, err
	}
	info, _ := p.AuthInfo.(shownInfo)
	switch {
	case info.err != nil:
		return admission{}, info.err
	case info.who.Role != certs.Node && named:
		return admission{}, forged(info.who)
	case !named:
		return admission{who: info.who, node: info.who.Role == certs.Node}, nil
	}
	who, err := callerSent(ctx)
	return admission{who: who, node: true}, err
}

// forged refuses whoever is no node and names a caller: somebody is trying.
func forged(by certs.Identity) error {
	return fmt.Errorf("%w: %s is believed from nodes, and this is %s", errDenied, metadataCaller, by)
}

// callerSent reads the metadata of somebody who is believed.
func callerSent(ctx context.Context) (certs.Identity, error) {
	sent := metadata.ValueFromIncomingContext(ctx, metadataCaller)
	if len(sent) != 1 {
		return certs.Identity{}, errUnauthenticated
	}
	who, err := certs.Parse(sent[0])
	if err != nil || who.Role == certs.Node {
		return certs.Identity{}, fmt.Errorf("%w: %s is no caller's", errUnauthenticated, metadataCaller)
	}
	return who, nil
}

// bearer is who a token is for. One that is not known is never quoted.
func (g *guard) bearer(sent []string) (admission, error) {
	reads := g.access.Reads()
	scheme, token, ok := strings.Cut(sent[0], " ")
	if len(sent) != 1 || !ok || !strings.EqualFold(scheme, "bearer") {
		return admission{}, fmt.Errorf("%w: want one authorization, of the form Bearer TOKEN", errUnauthenticated)
	}
	who, known := g.access.Identify(token)
	if !known {
		return admission{}, fmt.Errorf("%w: the token is not known here", errUnauthenticated)
	}
	return admission{who: who, token: token, reads: reads}, nil
}

// still reports whether a stream's token holds, and is cheap where the access file has
// not changed.
func (g *guard) still(a *admission) error {
	if a.token == "" {
		return nil
	}
	reads := g.access.Reads()
	if reads == atomic.LoadUint64(&a.reads) {
		return nil
	}
	if who, known := g.access.Identify(a.token); !known || who != a.who {
		return fmt.Errorf("%w: the token of the stream is no longer known", errUnauthenticated)
	}
	atomic.StoreUint64(&a.reads, reads)
	return nil
}

// submitter is who asks for one of a stream's submissions: whom a node names, and else
// who opened the stream.
func (g *guard) submitter(from *admission, named string) (certs.Identity, error) {
	who := from.who
	switch {
	case from.node:
		var err error
		if who, err = certs.Parse(named); err != nil {
			return certs.Identity{}, fmt.Errorf("%w: a node names no caller", errUnauthenticated)
		}
	case named != "":
		return certs.Identity{}, fmt.Errorf("%w: a submission's caller is believed from nodes, and this is %s", errDenied, who)
	}
	if row := rights[decreev1.Transactions_Submit_FullMethodName]; !row.has(who.Role) {
		return certs.Identity{}, deny(who, decreev1.Transactions_Submit_FullMethodName, row)
	}
	return who, g.still(from)
}

// unary is the interceptor of calls.
func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	heard(ctx)
	a, err := g.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	defer a.pass.Leave()
	return handler(asCaller(ctx, a.who), req)
}

// stream is that of streams. What a stream of submissions carries is admitted one by
// one, and the stream itself costs its caller nothing.
func (g *guard) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	a, err := g.admit(s.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	ctx := context.WithValue(asCaller(s.Context(), a.who), admissionKey{}, &a)
	if _, many := srv.(*transactions); many && info.IsClientStream {
		a.pass.Leave()
		return handler(srv, endingStream{s, ctx})
	}
	defer a.pass.Leave()
	return handler(srv, hearing{heldStream{endingStream{s, ctx}, g, &a}})
}

// heldStream says nothing more once the token that opened it is taken away.
type heldStream struct {
	endingStream
	guard *guard
	from  *admission
}

func (s heldStream) SendMsg(m any) error {
	if err := s.guard.still(s.from); err != nil {
		return refuse(err, "")
	}
	return s.ServerStream.SendMsg(m) //nolint:wrapcheck // a stream's own
}

// admissionKey is where a stream's context has its admission.
type admissionKey struct{}

func admissionOf(ctx context.Context) *admission {
	a, _ := ctx.Value(admissionKey{}).(*admission)
	return a
}

// httpCaller is who makes an HTTP request, found as identify finds it.
func (g *guard) httpCaller(r *http.Request) (certs.Identity, error) {
	if sent := r.Header.Values("Authorization"); len(sent) > 0 {
		a, err := g.bearer(sent)
		return a.who, err
	}
	if r.TLS == nil {
		return certs.Identity{}, errUnauthenticated
	}
	info := shown(*r.TLS)
	if info.err == nil && info.who.Role == certs.Node {
		return certs.Identity{}, fmt.Errorf("%w: nodes do not speak JSON", errDenied)
	}
	return info.who, info.err
}

// identified lets in who is known, and has the request's context say who it is. Without
// Security it is next.
func (s *Server) identified(next http.Handler) http.Handler {
	if s.guard == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := s.guard.httpCaller(r)
		if err != nil {
			if errors.Is(err, errUnauthenticated) {
				w.Header().Set("WWW-Authenticate", `Bearer realm="decree"`)
			}
			writeError(w, status.Convert(refuse(err, "")))
			return
		}
		next.ServeHTTP(w, r.WithContext(asCaller(r.Context(), who)))
	})
}

// inwardMetadata tells the gRPC server who makes the request.
func inwardMetadata(_ context.Context, r *http.Request) metadata.MD {
	if who := callerOf(r.Context()); who != (certs.Identity{}) {
		return metadata.Pairs(metadataCaller, who.String())
	}
	return nil
}

// inwardInfo marks a connection of the gateway's, which only this process can make.
type inwardInfo struct{ credentials.CommonAuthInfo }

func (inwardInfo) AuthType() string { return "inward" }

// shownInfo is what a connection's certificate says.
type shownInfo struct {
	credentials.TLSInfo
	who certs.Identity
	err error // why it is nobody's
}

// shown looks at a certificate that the handshake has verified.
func shown(state tls.ConnectionState) (info shownInfo) {
	if len(state.VerifiedChains) == 0 {
		info.err = fmt.Errorf("%w: show a certificate, or send a bearer token", errUnauthenticated)
		return info
	}
	var err error
	if info.who, err = certs.Of(state.VerifiedChains[0][0]); err != nil {
		info.err = fmt.Errorf("%w: %w", errUnauthenticated, err)
	}
	return info
}

// doorman are the credentials of the gRPC server: TLS for what comes from outside, and
// nothing for the gateway.
type doorman struct {
	tls *tls.Config // nil is plain text
	log hclog.Logger
}

func newDoorman(s Security, log hclog.Logger) *doorman {
	if s.Certificates == nil {
		return &doorman{log: log}
	}
	return &doorman{tls: s.Certificates.Server("h2"), log: log}
}

// ServerHandshake implements credentials.TransportCredentials.
func (d *doorman) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	private := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
	if _, ok := conn.(inwardConn); ok {
		return conn, inwardInfo{private}, nil
	}
	if d.tls == nil {
		return insecure.NewCredentials().ServerHandshake(conn) //nolint:wrapcheck // it does nothing
	}
	secured := tls.Server(conn, d.tls)
	if err := secured.Handshake(); err != nil { // the server has set a deadline
		if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok && plain.Conn != nil {
			sayTLS(plain.Conn)
		}
		d.log.Debug("a connection was refused", "from", conn.RemoteAddr(), "error", err)
		return nil, nil, fmt.Errorf("handshake with %s: %w", conn.RemoteAddr(), err)
	}
	info := shown(secured.ConnectionState())
	info.TLSInfo = credentials.TLSInfo{State: secured.ConnectionState(), CommonAuthInfo: private}
	return secured, info, nil
}

const (
	// plainAnswer is for whoever speaks plain text to a port that speaks TLS. gRPC clients
	// show that it is HTTP/1.1, and the SDK knows what that means.
	plainAnswer = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n" +
		"This port speaks TLS: connect with the cluster's authorities (--ca, DECREE_CA).\n"
	// plainPatience bounds telling them, and plainBytes what they may go on to send.
	plainPatience = time.Second
	plainBytes    = 64 << 10
)

// sayTLS tells it, and hears them out: what is unread when a connection closes takes
// what was said on it away.
func sayTLS(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(plainPatience)) //nolint:errcheck,gosec // it may be anybody
	conn.Write([]byte(plainAnswer))                 //nolint:errcheck,gosec // as above
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite() //nolint:errcheck,gosec // as above
	}
	io.Copy(io.Discard, io.LimitReader(conn, plainBytes)) //nolint:errcheck,gosec // as above
}

func (d *doorman) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a server's")
}

func (d *doorman) Info() credentials.ProtocolInfo {
	if d.tls == nil {
		return insecure.NewCredentials().Info()
	}
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (d *doorman) Clone() credentials.TransportCredentials { return d }

func (d *doorman) OverrideServerName(string) error { return nil }

// inwardListener marks its connections: nobody outside of this process makes one.
type inwardListener struct{ *bufconn.Listener }

type inwardConn struct{ net.Conn }

func (l inwardListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // a Listener's own
	}
	return inwardConn{conn}, nil
}
