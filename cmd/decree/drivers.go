package main

import (
	"github.com/decree-tx/decree/participants"
	grpcparticipant "github.com/decree-tx/decree/participants/grpc"
	"github.com/decree-tx/decree/participants/kv"
	"github.com/decree-tx/decree/participants/sim"
)

// grpcDriver is the name of the driver for services that speak gRPC.
const grpcDriver = "grpc"

// drivers is every kind of participant that this binary can drive.
func drivers() participants.Drivers {
	return participants.Drivers{
		grpcDriver: grpcparticipant.Driver{},
		"kv":       &kv.Driver{},
		"sim":      &sim.Driver{},
	}
}
