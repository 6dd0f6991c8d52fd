package main

import (
	"errors"
	"net"
)

// freeAddresses finds loopback addresses that nobody listens at. They are held
// until all are known, so that none comes twice; another process may still take
// one before it is used.
func freeAddresses(n int) ([]string, error) {
	var addresses []string
	var held []net.Listener
	var failure error
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			failure = err
			break
		}
		held = append(held, l)
		addresses = append(addresses, l.Addr().String())
	}
	for _, l := range held {
		failure = errors.Join(failure, l.Close())
	}
	return addresses, failure
}
