package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/cmd/internal/logs"
)

const (
	operatorEnv = "DECREE_OPERATOR"
	// defaultOperator is where the first node of `decree dev` and scripts/cluster.sh
	// serves operators.
	defaultOperator = "127.0.0.1:7501"
	// operatorPatience is long for a process that answers from memory.
	operatorPatience = 5 * time.Second
	// maxOperatorAnswer bounds what is read of an answer.
	maxOperatorAnswer = 1 << 20
)

func (p *program) logLevelCommand() *cobra.Command {
	var address, logger string
	cmd := &cobra.Command{
		Use:   "log-level [LEVEL]",
		Short: "show or change the log levels of a running process",
		Long: `Shows the levels of a process's loggers, or changes one while it runs: to trace,
debug, info, warn, error or off, or to inherit, which is that of the logger above.
The process, a server or a participant, is one that was started with --operator-addr;
it is back at its own --log-level when it starts again.`,
		Example: "  decree log-level\n  decree log-level debug --logger coordinator\n  decree log-level inherit --logger coordinator",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && cmd.Flags().Changed("logger") {
				return usagef("--logger without a level: name one, such as debug")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), operatorPatience)
			defer cancel()
			levels, err := logLevels(ctx, address, logger, strings.Join(args, ""))
			if err != nil {
				return err
			}
			return p.showLevels(levels)
		},
	}
	cmd.Flags().StringVar(&address, "operator", cmp.Or(os.Getenv(operatorEnv), defaultOperator), "operator `address` of the process (env "+operatorEnv+")")
	cmd.Flags().StringVar(&logger, "logger", "", "change only this `name` and what is below it, such as raft or coordinator")
	return cmd
}

// logLevels asks a process for its levels, and changes one first where level is given.
func logLevels(ctx context.Context, address, logger, level string) (all []logs.Level, err error) {
	method, target := http.MethodGet, url.URL{Scheme: "http", Host: address, Path: "/log-level"}
	if level != "" {
		method = http.MethodPut
		target.RawQuery = url.Values{"logger": {logger}, "level": {level}}.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), nil)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--operator %q: want host:port", address)}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("no process serves operators at %s: start it with --operator-addr, or name another with --operator: %w", address, err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxOperatorAnswer))
	switch {
	case err != nil:
		return nil, err
	case response.StatusCode == http.StatusBadRequest:
		return nil, &usageError{errors.New(strings.TrimSpace(string(body)))}
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answers %s: is it a decree process's --operator-addr?", address, response.Status)
	}
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, fmt.Errorf("%s answers with something else than levels: %w", address, err)
	}
	return all, nil
}

func (p *program) showLevels(levels []logs.Level) error {
	if p.out.format == formatJSON {
		p.out.object(levels)
		return nil
	}
	rows := make([][]string, len(levels))
	for i, l := range levels {
		from := ""
		if !l.Own {
			from = "inherited"
		}
		rows[i] = []string{l.Logger, l.Level, from}
	}
	p.out.table([]string{"LOGGER", "LEVEL", ""}, rows)
	return nil
}
