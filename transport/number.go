package transport

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// CarriesNumber reports whether a JSON number survives the way of a branch's json
// field, which is a google.protobuf.Value and so a float64: 9007199254740993 does not,
// nor does 1e400; 0.1 does, since it is written as 0.1 again.
func CarriesNumber(number string) bool {
	f, err := strconv.ParseFloat(number, 64)
	return err == nil && sameDecimal(number, strconv.FormatFloat(f, 'e', -1, 64))
}

// sameDecimal compares two decimal numbers by their values.
func sameDecimal(a, b string) bool {
	return scientific(a) == scientific(b)
}

// decimal is 0.digits * 10^exponent, without zeros at either end of the digits.
type decimal struct {
	negative bool
	digits   string
	exponent int
}

func scientific(s string) (d decimal) {
	s, d.negative = strings.CutPrefix(s, "-")
	mantissa, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	d.exponent, _ = strconv.Atoi(exponent) // of a number that ParseFloat has taken; one past an int is cut off, and differs
	whole, fraction, _ := strings.Cut(mantissa, ".")
	d.digits = strings.TrimLeft(whole+fraction, "0")
	d.exponent += len(d.digits) - len(fraction)
	if d.digits = strings.TrimRight(d.digits, "0"); d.digits == "" {
		return decimal{} // there is one zero
	}
	return d
}

// rounded finds the first number in a JSON text that would be changed on its way;
// empty where there is none.
func rounded(text []byte) string {
	tokens := json.NewDecoder(bytes.NewReader(text))
	tokens.UseNumber()
	for {
		token, err := tokens.Token()
		if err != nil {
			return ""
		}
		if n, ok := token.(json.Number); ok && !CarriesNumber(n.String()) {
			return n.String()
		}
	}
}
