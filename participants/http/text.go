package httpparticipant

import (
	"strconv"
	"strings"
	"unicode"

	"github.com/decree-tx/decree/fsm/txn"
)

// maxName bounds what is quoted of a name that the other side chose.
const maxName = 64

// clean makes a text from the other side fit for a terminal, a log line and the
// replicated log: valid UTF-8, at most limit bytes, and every character that does
// not print, from a line feed to one that turns the direction of writing,
// replaced by its escape.
func clean(s string, limit int) string {
	var b strings.Builder
	for _, r := range s { // what is no UTF-8 reads as U+FFFD
		piece := string(r)
		if !unicode.IsPrint(r) {
			piece = strings.Trim(strconv.QuoteRuneToASCII(r), "'")
		}
		if b.Len()+len(piece) > limit {
			break
		}
		b.WriteString(piece)
	}
	return b.String()
}

// forPeople is clean with the bound of a reason.
func forPeople(s string) string { return clean(s, txn.MaxReasonDetail) }

// afterColon is a service's text behind what this side says, where there is one.
func afterColon(text string) string {
	if text == "" {
		return ""
	}
	return ": " + forPeople(text)
}
