package decreepg

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// Only an error that proves the rollback is a vote of no; any other answer to
// PREPARE, however odd, leaves the branch to decree's abort.
func TestCertainIsWhatProvesTheRollback(t *testing.T) {
	for code, want := range map[string]bool{
		"23505": true, "40001": true, "40P01": true, "0A000": true, "42710": true, "53200": true, "55000": true,
		"57014": false, "57P01": false, "58030": false, "XX000": false, "XX001": false, "F0000": false, "08006": false, "40003": false, "": false, "4": false,
	} {
		if got := certain(&pgconn.PgError{SeverityUnlocalized: "ERROR", Code: code}); got != want {
			t.Errorf("%q is certain: %v, want %v", code, got, want)
		}
	}
	if certain(&pgconn.PgError{SeverityUnlocalized: "FATAL", Code: "23505"}) {
		t.Error("a session's end is taken for a rollback")
	}
}
