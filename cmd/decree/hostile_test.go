package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// What is proven here: whatever a cluster answers, no command lets it drive the terminal
// or fake a line.

// evil clears a terminal, fakes a line, and turns the direction of writing.
const evil = "\x1b[2J\r\nFAKE\u202e"

// poison puts evil into every text of a message, and one into every list.
func poison(m protoreflect.Message, depth int) {
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		switch {
		case f.IsMap() || depth == 0:
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			poison(m.Mutable(f).List().AppendMutable().Message(), depth-1)
		case f.IsList() && f.Kind() == protoreflect.StringKind:
			m.Mutable(f).List().Append(protoreflect.ValueOfString(evil))
		case f.IsList():
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(evil))
		case f.Kind() == protoreflect.EnumKind:
			m.Set(f, protoreflect.ValueOfEnum(1))
		case f.Kind() == protoreflect.MessageKind && !strings.HasPrefix(string(f.Message().FullName()), "google.protobuf.Struct"):
			poison(m.Mutable(f).Message(), depth-1)
		}
	}
}

func poisoned[M proto.Message](m M) M {
	const depth = 6
	poison(m.ProtoReflect(), depth)
	return m
}

func TestNoAnswerDrivesTheTerminal(t *testing.T) {
	t.Chdir(t.TempDir())
	transaction := poisoned(&decreev1.Transaction{})
	answers := &fakeNode{
		result: poisoned(&decreev1.Result{}), transaction: transaction, timeline: poisoned(&decreev1.GetTimelineResponse{}),
		list: []*decreev1.Transaction{transaction}, events: []*decreev1.Transaction{transaction},
		status: poisoned(&decreev1.StatusResponse{}), check: poisoned(&decreev1.CheckResponse{}), live: poisoned(&decreev1.View{}),
	}
	refuses := &fakeNode{refusal: refuse(codes.FailedPrecondition, "SEALED", evil)}
	for _, cmd := range tree(t) {
		if skippedInTree(cmd) {
			continue
		}
		args := append(argumentsFor(cmd), "--color", "never")
		for name, node := range map[string]*fakeNode{"answers": answers, "refuses": refuses} {
			t.Run(cmd.CommandPath()+" "+name, func(t *testing.T) {
				t.Setenv(endpointsEnv, node.serve(t))
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				var out bytes.Buffer
				Run(ctx, args, strings.NewReader(""), &out, &out)
				for line := range strings.Lines(out.String()) {
					line = strings.TrimSuffix(line, "\n")
					if strings.HasPrefix(line, "FAKE") || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
						t.Errorf("%v prints %q", args, line)
					}
				}
			})
		}
	}
	shown := run(t, answers, "", "tx", "show", someTxID).stdout
	if !strings.Contains(shown, `\x1b[2J\r\nFAKE\u202e`) {
		t.Errorf("the answers were not poisoned:\n%s", shown)
	}
}
