package mysql

// What is proven here: each of a branch's statements is one statement, whatever a
// request writes; what would end or bend the branch is refused by name; and
// arguments keep every digit.

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCompileRefuses(t *testing.T) {
	for sql, word := range map[string]string{
		"":                                       "empty",
		" ; ":                                    "empty",
		"COMMIT":                                 "may not COMMIT",
		"rollback":                               "may not ROLLBACK",
		"BEGIN":                                  "may not BEGIN",
		"START TRANSACTION":                      "may not START",
		"SAVEPOINT a":                            "may not SAVEPOINT",
		"XA END 'a'":                             "may not XA",
		"SET autocommit = 0":                     "may not SET",
		"LOCK TABLES account WRITE":              "may not LOCK",
		"CREATE TABLE x (a INT)":                 "may not CREATE",
		"DROP TABLE account":                     "may not DROP",
		"ALTER TABLE account ADD b INT":          "may not ALTER",
		"TRUNCATE account":                       "may not TRUNCATE",
		"LOAD DATA LOCAL INFILE 'x' INTO y":      "may not LOAD",
		"KILL 1":                                 "may not KILL",
		"PREPARE s FROM 'COMMIT'":                "may not PREPARE",
		"EXECUTE IMMEDIATE 'COMMIT'":             "may not EXECUTE",
		"DO GET_LOCK('a', 0)":                    "may not DO",
		"SELECT get_lock('a', 0)":                "GET_LOCK",
		"SELECT RELEASE_ALL_LOCKS()":             "RELEASE_ALL_LOCKS",
		"SELECT `release_all_locks`()":           "RELEASE_ALL_LOCKS",
		"INSERT INTO a SELECT `Get_Lock`('a',0)": "GET_LOCK",
		"SELECT 1 INTO OUTFILE '/tmp/x'":         "SELECT INTO",
		"SELECT 1 FOR UPDATE INTO OUTFILE '/x'":  "SELECT INTO",
		"SELECT 1; COMMIT":                       "one statement",
		"SELECT ';'":                             "one statement",
		"SELECT 1 -- more":                       "comments",
		"SELECT 1 # more":                        "comments",
		"SELECT 1 /* more */":                    "comments",
		"SELECT 1 /*! , SLEEP(1) */":             "comments",
		"/*M!100000 COMMIT */":                   "comments",
		"SELECT 'open":                           "quote",
		"SELECT `open":                           "quote",
		`SELECT 'open\'`:                         "quote",
		"SELECT 1 \x01":                          "control",
		"(SELECT 1)/* */":                        "comments",
		"UPDATE account SET id = 'a' WHERE --1":  "comments",
	} {
		if _, err := compile(sql); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%q: %v, want a word about %q", sql, err, word)
		}
	}
}

func TestCompileFindsPlaceholdersAndKinds(t *testing.T) {
	for sql, want := range map[string]struct {
		args               int
		reads, rows, calls bool
	}{
		"SELECT n FROM counter WHERE name = ?;":                    {args: 1, reads: true, rows: true},
		"select '?', \"?\", `?`, '''?''', '\\'?' from x where a=?": {args: 1, reads: true, rows: true},
		"(SELECT 1) UNION (SELECT 2)":                              {reads: true, rows: true},
		"WITH a AS (SELECT 1) SELECT * FROM a":                     {reads: true, rows: true},
		"VALUES (1), (2)":                                          {reads: true, rows: true},
		"SELECT n FROM counter FOR UPDATE":                         {rows: true},
		"SELECT n FROM counter LOCK IN SHARE MODE":                 {rows: true},
		"SELECT n FROM counter FOR SHARE":                          {rows: true},
		"SELECT updated FROM share":                                {reads: true, rows: true},
		"UPDATE a SET b = b - ? WHERE c = ?":                       {args: 2},
		"INSERT INTO a VALUES (?, ?, ?)":                           {args: 3},
		"INSERT INTO a VALUES (1) RETURNING id":                    {rows: true},
		"REPLACE a VALUES (1)":                                     {},
		"DELETE FROM a":                                            {},
		"CALL pay(?)":                                              {args: 1, calls: true},
	} {
		c, err := compile(sql)
		if err != nil {
			t.Errorf("%q: %v", sql, err)
			continue
		}
		if len(c.between)-1 != want.args || c.reads != want.reads || c.rows != want.rows || c.calls != want.calls {
			t.Errorf("%q: %d args, %+v; want %+v", sql, len(c.between)-1, c, want)
		}
	}
}

func TestTextKeepsNumbersAndLeavesStringsToTheLibrary(t *testing.T) {
	c, err := compile("SELECT ?, a -?, ?, ?, ?")
	if err != nil {
		t.Fatal(err)
	}
	text, rest, err := c.text([]any{json.Number("12345678901234567890.10"), json.Number("-5"), true, nil, "it's"})
	if err != nil {
		t.Fatal(err)
	}
	if want := "SELECT  12345678901234567890.10 , a - -5 , 1, NULL, ?"; text != want {
		t.Errorf("text %q, want %q", text, want)
	}
	if len(rest) != 1 || rest[0] != "it's" {
		t.Errorf("left to the library: %v", rest)
	}
	for _, bad := range []string{"", "1; COMMIT", "0x1", "1e", "--1", "NaN", strings.Repeat("1", maxNumber+1), " 1", "1 ", "null"} {
		if text, err := number(json.Number(bad)); err == nil {
			t.Errorf("the number %q becomes %q", bad, text)
		}
	}
	if _, _, err := c.text(nil); err == nil {
		t.Error("no arguments fit five placeholders")
	}
}

// FuzzCompile: what is taken holds no semicolon but a last one, and comes back
// from its pieces as it was.
func FuzzCompile(f *testing.F) {
	for _, sql := range []string{"SELECT ?", "UPDATE a SET b = '\\'?' WHERE c = ?", "INSERT INTO `?` VALUES (\"?\", ?)", "SELECT 1 -- x", "SELECT é"} {
		f.Add(sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		c, err := compile(sql)
		if err != nil {
			return
		}
		whole := strings.Join(c.between, "?")
		if strings.Contains(whole, ";") || strings.Contains(whole, "/*") {
			t.Fatalf("%q is taken", sql)
		}
		if !strings.Contains(sql, whole) {
			t.Fatalf("%q became %q", sql, whole)
		}
		if utf8.ValidString(sql) != utf8.ValidString(whole) && utf8.ValidString(sql) {
			t.Fatalf("%q was cut inside a character", sql)
		}
	})
}
