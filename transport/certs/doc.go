// Package certs is how those who talk to a decree cluster prove who they are with
// certificates: what a certificate says of its holder, the TLS that nodes, clients and
// participants speak, and the making of certificates for a first cluster.
//
// TLS is 1.3 and nothing below. Certificates, keys and authorities lie in files, and
// are read again while they are used ([Source]), so that they rotate without a restart;
// what was agreed on an open connection stays. A certificate names its holder by one URI:
//
//	decree:///<role>/<name>    such as decree:///client/web or decree:///node/n1
//
// The package knows nothing of what a role may do: that is package transport's.
package certs
