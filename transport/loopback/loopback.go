// Package loopback keeps web pages away from what serves its own machine without asking
// who calls.
//
// A browser on the machine reaches such a port for any page that it shows, and trusts the
// page with what comes back if both have one name: the page's owner only has to let that
// name lead to 127.0.0.1 (DNS rebinding; etcd had it as CVE-2018-1099). Then no header
// says that the request crosses origins. What still tells is the name: the page's own is
// in Host, where a caller on the machine has an address, or localhost.
package loopback

import (
	"net"
	"net/http"
	"strings"
)

// Guard refuses a request that came to a loopback address by another name. What comes to
// any other address is let through.
func Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if local(r) && !ours(r.Host) {
			http.Error(w, "this port serves its own machine: call it by address or as localhost; "+
				"a proxy must send such a Host", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// local reports whether a request came to a loopback address.
func local(r *http.Request) bool {
	at, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && at.IP.IsLoopback()
}

// ours reports whether no page can have such a Host: an address is nobody's to lead
// elsewhere, and localhost leads nowhere else (RFC 6761). Browsers always send one.
func ours(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	return host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(host) != nil
}
