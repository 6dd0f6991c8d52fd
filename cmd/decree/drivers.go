package main

import (
	"github.com/decree-tx/decree/participants"
	grpcparticipant "github.com/decree-tx/decree/participants/grpc"
	httpparticipant "github.com/decree-tx/decree/participants/http"
	"github.com/decree-tx/decree/participants/kv"
	"github.com/decree-tx/decree/participants/mysql"
	"github.com/decree-tx/decree/participants/postgres"
	"github.com/decree-tx/decree/participants/sim"
)

// The names of the drivers for services.
const (
	grpcDriver = "grpc"
	httpDriver = "http"
)

// drivers is every kind of participant that this binary can drive.
func drivers() participants.Drivers {
	return participants.Drivers{
		grpcDriver: grpcparticipant.Driver{},
		httpDriver: httpparticipant.Driver{},
		"kv":       &kv.Driver{},
		"mysql":    mysql.Driver{},
		"postgres": postgres.Driver{},
		"sim":      &sim.Driver{},
	}
}
