package main

import "github.com/spf13/cobra"

const outputHelp = `Results go to stdout, everything else to stderr. -o json is for programs: its shapes
are part of the interface. Fields are added and never change their meaning; a field
that is not known may be left out of an object. Numbers of 64 bits are strings, as
protobuf has them in JSON; times are RFC 3339 in UTC, durations seconds with an s.

One object on one line, unless it says otherwise:

  tx submit, commit,     {txid, outcome, delivered, reason?, damage}, a Result of the
  abort, inquire         API (transactions.proto)
  tx begin               {txid, deadline}
  tx enlist              {branch, cluster, epoch} for each branch, a line each
  tx show                a Transaction with recordings: [Recording] (timeline.proto)
  tx list                {transactions: [Transaction]}
  tx watch               a Transaction for each change, a line each
  participant put, show  a Participant (participants.proto)
  participant list       {participants: [Participant]}
  participant check      {reachable, error, recovers, prepared}
  cluster status         {cluster, leader, epoch, nodes: [{endpoint, error? or status}]};
                         with --watch such an object a line, and in each node live, a
                         View (live.proto)
  version                {version, revision?, time?, modified?, go, platform, nodes?, mixed?}
  config print           {settings: [{name, value, source, place?}]}
  config check           {ok, problems: [{setting?, place?, problem}]}
  doctor                 {ok, checks: [{check, subject?, result, measured, remedy?}]}
  dev                    {nodes: [{id, grpc, http}], participants: [name], data}, once all
                         is ready
  audit                  AuditRecords, a line each
  health                 {endpoint, serving, error?} for each endpoint, a line each
  log-level              the loggers and their levels
  cert ca, cert issue    {certificate, key, hosts?} for each pair, a line each
  token create           {token, line}
  bench, bank            a report, described by their help
  what only changes      {}
  something

An error is one object on stderr: {error, problems?, hint?, reason?, txid?, exit}, where
reason is the API's (transport/status.go) and exit the exit code. What is only worth
knowing is {warning} there.`

// outputTopic is help that belongs to no command.
func outputTopic() *cobra.Command {
	return &cobra.Command{Use: "output", Short: "what -o json prints, command by command", Long: outputHelp}
}
