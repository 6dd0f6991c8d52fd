package httpparticipant

// These tests hold openapi.yaml and the code together: each schema has the fields
// of its Go type and asks for the same ones, each word of the wire is in it, and
// each of its examples is understood by both ends as what it is an example of.

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// wireTypes are the schemas that have a Go type.
var wireTypes = map[string]reflect.Type{
	"BranchRequest":   reflect.TypeFor[branchRequest](),
	"PrepareRequest":  reflect.TypeFor[prepareRequest](),
	"RecoverRequest":  reflect.TypeFor[recoverRequest](),
	"VoteAnswer":      reflect.TypeFor[voteAnswer](),
	"StatusAnswer":    reflect.TypeFor[statusAnswer](),
	"HeuristicAnswer": reflect.TypeFor[heuristicAnswer](),
	"ErrorAnswer":     reflect.TypeFor[errorAnswer](),
	"RecoverAnswer":   reflect.TypeFor[recoverAnswer](),
	"PreparedBranch":  reflect.TypeFor[preparedBranch](),
}

// node is any part of the document.
type node = map[string]any

// document is openapi.yaml with its references.
type document struct {
	*testing.T
	root node
}

func readDocument(t *testing.T) document {
	t.Helper()
	text, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d := document{T: t}
	if err := yaml.Unmarshal(text, &d.root); err != nil {
		t.Fatal(err)
	}
	return d
}

// at goes down from a node by names, through references.
func (d document) at(from node, path ...string) node {
	d.Helper()
	for _, name := range path {
		next, ok := from[name].(node)
		if !ok {
			d.Fatalf("there is no %q on the way %v", name, path)
		}
		from = d.resolve(next)
	}
	return from
}

func (d document) resolve(n node) node {
	d.Helper()
	ref, ok := n["$ref"].(string)
	if !ok {
		return n
	}
	path, ok := strings.CutPrefix(ref, "#/")
	if !ok || len(n) != 1 {
		d.Fatalf("reference %v, want one into this document and nothing beside it", n)
	}
	return d.at(d.root, strings.Split(path, "/")...)
}

// schemasOf are the names of the schemas that a body may have.
func (d document) schemasOf(schema node) []string {
	d.Helper()
	if ref, ok := schema["$ref"].(string); ok {
		return []string{strings.TrimPrefix(ref, "#/components/schemas/")}
	}
	var names []string
	for _, one := range schema["oneOf"].([]any) {
		names = append(names, d.schemasOf(one.(node))...)
	}
	return names
}

// field is one field of a Go type.
type field struct {
	kind     string // of JSON; "" for any
	required bool
}

// fieldsOf are a type's fields by their JSON names.
func fieldsOf(typ reflect.Type) map[string]field {
	fields := map[string]field{}
	for _, f := range reflect.VisibleFields(typ) {
		if f.Anonymous {
			continue
		}
		name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[name] = field{kind: kindOf(f.Type), required: option != "omitempty"}
	}
	return fields
}

func kindOf(typ reflect.Type) string {
	switch {
	case typ == reflect.TypeFor[json.RawMessage]():
		return ""
	case typ.Kind() == reflect.Pointer:
		return kindOf(typ.Elem())
	case typ.Kind() == reflect.String:
		return "string"
	case typ.Kind() == reflect.Slice:
		return "array"
	default:
		return "integer"
	}
}

func TestSchemasAreTheGoTypes(t *testing.T) {
	d := readDocument(t)
	schemas := d.at(d.root, "components", "schemas")
	for name, typ := range wireTypes {
		schema := d.at(schemas, name)
		properties := d.at(schema, "properties")
		fields := fieldsOf(typ)
		if got, want := slices.Sorted(maps.Keys(properties)), slices.Sorted(maps.Keys(fields)); !slices.Equal(got, want) {
			t.Errorf("%s has the properties %v, %s the fields %v", name, got, typ, want)
			continue
		}
		required, _ := schema["required"].([]any)
		for property, want := range fields {
			if slices.Contains(required, any(property)) != want.required {
				t.Errorf("%s.%s: required is not %v", name, property, want.required)
			}
			described := d.at(properties, property)
			kind, _ := described["type"].(string)
			if _, ok := described["enum"]; ok {
				kind = "string"
			}
			if kind != want.kind {
				t.Errorf("%s.%s is %q, and the field %q", name, property, kind, want.kind)
			}
		}
	}
	for name, schema := range schemas {
		if _, known := wireTypes[name]; !known && schema.(node)["type"] == "object" {
			t.Errorf("schema %s has no Go type", name)
		}
	}
}

func TestWordsAndBoundsAreInTheDocument(t *testing.T) {
	d := readDocument(t)
	schemas := d.at(d.root, "components", "schemas")
	for path, want := range map[string][]any{
		"VoteAnswer.vote":           {voteCommit, voteReadOnly, voteAbort},
		"StatusAnswer.status":       {statusUnknown, statusPrepared, statusCommitted, statusAborted},
		"HeuristicAnswer.heuristic": {heuristicCommit, heuristicAbort, heuristicHazard},
		"ErrorAnswer.error": {errorStaleEpoch, errorInvalid, errorUnauthenticated, errorUnsupported,
			errorUnavailable, errorInternal},
	} {
		schema, property, _ := strings.Cut(path, ".")
		described := d.at(schemas, schema, "properties", property)
		words, ok := described["enum"].([]any)
		if !ok {
			words, _ = described["examples"].([]any)
		}
		if !slices.Equal(words, want) {
			t.Errorf("%s is one of %v, and in the code of %v", path, words, want)
		}
	}
	for path, want := range map[string]int64{
		"Cluster.maxLength":                              participants.MaxClusterID,
		"Number.maximum":                                 txn.MaxBranches,
		"Epoch.maximum":                                  maxEpoch,
		"HorizonMS.maximum":                              maxHorizonMS,
		"RecoverRequest.properties.limit.maximum":        pageLimit,
		"RecoverRequest.properties.cursor.maxLength":     maxCursor,
		"RecoverAnswer.properties.next_cursor.maxLength": maxCursor,
	} {
		steps := strings.Split(path, ".")
		last := len(steps) - 1
		if got, _ := d.at(schemas, steps[:last]...)[steps[last]].(int); int64(got) != want {
			t.Errorf("%s is %d, and in the code %d", path, got, want)
		}
	}
}

// example is one body of the document.
type example struct {
	name    string // for people
	schemas []string
	body    []byte
}

// examplesIn are the examples of a request or response; there must be some.
func (d document) examplesIn(name string, holder node) []example {
	d.Helper()
	media := d.at(holder, "content", contentType)
	schemas := d.schemasOf(media["schema"].(node))
	var found []example
	for key := range d.at(media, "examples") {
		body, err := json.Marshal(d.at(media, "examples", key)["value"])
		if err != nil {
			d.Fatal(err)
		}
		found = append(found, example{name + " " + key, schemas, body})
	}
	if len(found) == 0 {
		d.Errorf("%s has no example", name)
	}
	return found
}

// decodes reports whether the body is one of the example's schemas, strictly.
func (e example) decodes() (names []string) {
	for _, schema := range e.schemas {
		into := json.NewDecoder(bytes.NewReader(e.body))
		into.DisallowUnknownFields()
		typ := wireTypes[schema]
		if err := into.Decode(reflect.New(typ).Interface()); err != nil {
			continue
		}
		if o, err := readObject(e.body); err == nil && hasRequired(o, typ) {
			names = append(names, schema)
		}
	}
	return names
}

func hasRequired(o object, typ reflect.Type) bool {
	for name, f := range fieldsOf(typ) {
		if _, there := o[name]; f.required && !there {
			return false
		}
	}
	return true
}

func TestExamplesAreUnderstood(t *testing.T) {
	d := readDocument(t)
	operations := []operation{opPrepare, opCommit, opAbort, opStatus, opRecover}
	if got := len(d.at(d.root, "paths")); got != len(operations) {
		t.Errorf("%d paths, want %d", got, len(operations))
	}
	for _, op := range operations {
		post := d.at(d.root, "paths", "/"+string(op), "post")
		if post["operationId"] != string(op) {
			t.Errorf("/%s has the id %v", op, post["operationId"])
		}
		for _, e := range d.examplesIn(string(op), d.at(post, "requestBody")) {
			if len(e.decodes()) != 1 {
				t.Errorf("request %s is none of %v: %s", e.name, e.schemas, e.body)
			}
			if err := readRequest(op, e.body); err != nil {
				t.Errorf("request %s: %v", e.name, err)
			}
		}
		for status := range d.at(post, "responses") {
			for _, e := range d.examplesIn(string(op)+" "+status, d.at(post, "responses", status)) {
				if len(e.decodes()) != 1 {
					t.Errorf("response %s is none of %v: %s", e.name, e.schemas, e.body)
				}
				checkResponse(t, op, status, e)
			}
		}
	}
}

// readRequest reads a request as Handler does.
func readRequest(op operation, body []byte) error {
	switch op {
	case opPrepare:
		_, err := readPrepare(body)
		return err
	case opRecover:
		_, err := readRecover(body)
		return err
	default:
		_, err := readBranch(body)
		return err
	}
}

// checkResponse reads a response as Driver does: an answer is one, and anything
// else is ambiguous whatever status code it comes with.
func checkResponse(t *testing.T, op operation, status string, e example) {
	t.Helper()
	code, err := strconv.Atoi(status)
	if err != nil {
		for _, other := range []int{301, 400, 401, 404, 500, 501, 503} {
			if h := hear(reply{other, contentType, e.body}); h != nothing {
				t.Errorf("response %s with %d is heard as %+v", e.name, other, h)
			}
		}
		return
	}
	r := reply{code, contentType, e.body}
	h := hear(r)
	var understood bool
	switch op {
	case opPrepare:
		understood = h.prepare != ""
	case opCommit:
		understood = h.commit != ""
	case opAbort:
		understood = h.abort != ""
	case opStatus:
		understood = h.status != ""
	case opRecover:
		_, _, err := r.page("bank-eu")
		understood = err == nil
	}
	if !understood {
		t.Errorf("response %s is not understood: %d %s", e.name, code, e.body)
	}
}
