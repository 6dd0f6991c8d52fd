package transport

// What is proven: a number that the json field of a branch cannot carry is refused
// rather than rounded, since it may be an amount of money; all others arrive as the
// same value.

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"
)

func TestCarriesNumber(t *testing.T) {
	for number, want := range map[string]bool{
		"0": true, "-0": true, "-0.0": true, "1": true, "1.0": true, "10e-1": true, "0.1": true, "-12.50": true, "1e21": true,
		"9007199254740992": true, "9007199254740993": false, "-9007199254740993": false, "9007199254740993.0": false,
		"123456789012345678": false, "100000000000000000000": true, "0.1000000000000000055511151231257827": false,
		"1e400": false, "1e-400": false, "1E5": true, "0e999999999999999999999": true,
	} {
		if got := CarriesNumber(number); got != want {
			t.Errorf("%s: %t", number, got)
		}
		if !want || strings.Contains(number, "999") {
			continue
		}
		v := &structpb.Value{}
		if err := v.UnmarshalJSON([]byte(number)); err != nil {
			t.Fatalf("%s: %v", number, err)
		}
		text, err := v.MarshalJSON()
		before, _ := new(big.Rat).SetString(number)
		after, ok := new(big.Rat).SetString(string(text))
		if err != nil || !ok || before.Cmp(after) != 0 {
			t.Errorf("%s arrives as %s (%v)", number, text, err)
		}
	}
}

func TestRounded(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":[1,{"b":"9007199254740993"}],"9007199254740993":0.5}`: "",
		`{"a":[1,{"b":9007199254740993}]}`:                          "9007199254740993",
		``:                                                          "",
	} {
		if text != "" && !json.Valid([]byte(text)) {
			t.Fatal(text)
		}
		if got := rounded([]byte(text)); got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}
