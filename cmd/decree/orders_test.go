package main

// An order service on PostgreSQL and a payment service on MariaDB, each with its
// own code and its own transaction, in one transaction of decree. The first part is
// the application, as a reader may copy it; the second runs it against three nodes
// and two servers. Whoever refuses or dies, and whenever:
//
//   - an order is there exactly where its payment is, and where the customer was
//     told so (R1, R5);
//   - what an application that died had prepared is rolled back by decree (R13);
//   - nothing is left prepared, and no lock (R10).

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/decree-tx/decree/participants/participanttest/databases"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/branch/decreepg"
	"github.com/decree-tx/decree/transport/branch/decreesql"
	"github.com/decree-tx/decree/transport/client"
)

// shop sells things: the order goes into one database, the payment into another.
type shop struct {
	decree   *client.Client
	orders   *pgxpool.Pool // registered as the participant "orders"
	payments *sql.DB       // registered as the participant "payments"
	timeout  time.Duration // of a purchase; 0 is decree's default
}

type purchase struct {
	Item, Customer string
	Price          int
}

// buy makes a purchase whole or not at all. Its result says which; after an error
// nobody knows yet, and the result's TxID is what to ask with.
func (s *shop) buy(ctx context.Context, p purchase) (client.Result, error) {
	tx, err := s.decree.Begin(ctx, s.timeout)
	if err != nil {
		return client.Result{}, err // nothing has begun
	}
	votes, err := s.prepare(ctx, tx, p)
	if err != nil {
		// Nobody commits from here on. To say so frees at once what is prepared; decree
		// would do it by itself when the purchase's time is over.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return tx.Abort(ctx, err.Error())
	}
	return tx.Commit(ctx, votes...)
}

// prepare does both services' work and leaves it prepared. Each branch is enlisted
// before its first statement, so that decree knows of it whatever happens next.
func (s *shop) prepare(ctx context.Context, tx *client.Tx, p purchase) ([]client.BranchVote, error) {
	orders, err := tx.Enlist(ctx, client.External("orders"))
	if err != nil {
		return nil, err
	}
	payment, err := tx.Enlist(ctx, client.External("payments"))
	if err != nil {
		return nil, err
	}
	placed, err := decreepg.Run(ctx, s.orders, orders, p.place)
	if err != nil {
		return nil, err
	}
	paid, err := decreesql.Run(ctx, s.payments, payment, p.pay)
	if err != nil {
		return nil, err
	}
	if refused := placed.Reason() + paid.Reason(); refused != "" {
		return nil, errors.New(refused)
	}
	return []client.BranchVote{orders.Voted(placed), payment.Voted(paid)}, nil
}

// place is the order service's own code.
func (p purchase) place(ctx context.Context, tx pgx.Tx) error {
	taken, err := tx.Exec(ctx, "UPDATE stock SET available = available - 1 WHERE item = $1 AND available > 0", p.Item)
	if err != nil {
		return err
	}
	if taken.RowsAffected() == 0 {
		return fmt.Errorf("%s is sold out", p.Item)
	}
	_, err = tx.Exec(ctx, "INSERT INTO orders (item, customer) VALUES ($1, $2)", p.Item, p.Customer)
	return err
}

// pay is the payment service's own code.
func (p purchase) pay(ctx context.Context, tx *sql.Tx) error {
	taken, err := tx.ExecContext(ctx, "UPDATE wallet SET balance = balance - ? WHERE customer = ? AND balance >= ?", p.Price, p.Customer, p.Price)
	if err != nil {
		return err
	}
	if n, err := taken.RowsAffected(); err != nil || n == 0 {
		return errors.Join(fmt.Errorf("%s cannot pay %d", p.Customer, p.Price), err)
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO payments (customer, amount) VALUES (?, ?)", p.Customer, p.Price)
	return err
}

// The databases as the services made them, before decree came.
const (
	orderTables = `CREATE TABLE stock (item text PRIMARY KEY, available int NOT NULL);
CREATE TABLE orders (id serial PRIMARY KEY, item text NOT NULL, customer text NOT NULL);
INSERT INTO stock VALUES ('book', 100), ('last one', 0);`
	paymentTables = `CREATE TABLE wallet (customer VARCHAR(64) PRIMARY KEY, balance INT NOT NULL) ENGINE=InnoDB;
CREATE TABLE payments (id INT AUTO_INCREMENT PRIMARY KEY, customer VARCHAR(64) NOT NULL, amount INT NOT NULL) ENGINE=InnoDB;
INSERT INTO wallet VALUES ('alice', 1000), ('bob', 5);`
)

// wiring is what an application needs to know.
type wiring struct {
	Endpoints        []string
	Orders, Payments string        // data source names
	Timeout          time.Duration // as in shop
	Die              string        // where the application that is to be killed waits for it
}

func (w wiring) open(t testing.TB) *shop {
	t.Helper()
	s := &shop{timeout: w.Timeout}
	var err error
	if s.decree, err = client.New(client.Config{Endpoints: w.Endpoints}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.decree.Close() })
	if s.orders, err = pgxpool.New(t.Context(), w.Orders); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.orders.Close)
	if s.payments, err = sql.Open("mysql", w.Payments); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.payments.Close() })
	return s
}

// market is the shop with all that it stands on.
type market struct {
	*bench
	wiring wiring
	shop   *shop
	sold   int // purchases that were made so far
}

func openMarket(t *testing.T) *market {
	t.Helper()
	postgres := databases.ForTest(t, databases.Postgres, databases.Options{})
	mariadb := databases.ForTest(t, databases.MariaDB, databases.Options{})
	m := &market{bench: startBench(t)}
	for _, s := range m.servers {
		m.wiring.Endpoints = append(m.wiring.Endpoints, s.grpc)
	}
	m.wiring.Orders = m.register("orders", "postgres", postgres, orderTables)
	m.wiring.Payments = m.register("payments", "mysql", mariadb, paymentTables)
	m.shop = m.wiring.open(t)
	return m
}

// register makes a service's database and tells decree of it, by a reference that
// each node resolves for itself.
func (m *market) register(name, driver string, server *databases.Server, tables string) (dsn string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	secret := filepath.Join(m.dir, name+".dsn")
	dsn = server.DSN(name)
	if err := errors.Join(server.Create(ctx, name), server.Exec(ctx, name, tables), os.WriteFile(secret, []byte(dsn), 0o600)); err != nil {
		m.t.Fatal(err)
	}
	config := mustStruct(m.t, map[string]any{"dsn": "file:" + secret, "catalogue": map[string]any{}})
	if _, err := m.client.PutParticipant(ctx, &decreev1.Participant{Name: name, Driver: driver, Config: config}); err != nil {
		m.t.Fatalf("register %s: %v", name, err)
	}
	return dsn
}

// agree waits until nothing is prepared any more, and wants both databases to show
// exactly the purchases that were made.
func (m *market) agree() {
	t := m.t
	t.Helper()
	for _, name := range []string{"orders", "payments"} {
		m.await("nothing prepared at "+name, func(ctx context.Context) bool {
			r, err := m.client.CheckParticipant(ctx, name)
			return err == nil && r.GetReachable() && r.GetPrepared() == 0
		})
	}
	var orders, left, payments, balance int
	err := m.shop.orders.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM orders), (SELECT sum(available) FROM stock)").Scan(&orders, &left)
	if err == nil {
		err = m.shop.payments.QueryRowContext(t.Context(), "SELECT (SELECT COUNT(*) FROM payments), (SELECT SUM(balance) FROM wallet)").Scan(&payments, &balance)
	}
	if err != nil {
		t.Fatal(err)
	}
	if orders != m.sold || left != 100-m.sold || payments != m.sold || balance != 1005-10*m.sold {
		t.Fatalf("%d orders, %d in stock, %d payments, %d in wallets after %d purchases", orders, left, payments, balance, m.sold)
	}
}

var book = purchase{Item: "book", Customer: "alice", Price: 10}

func (m *market) buys(p purchase) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m.bought(m.shop.buy(ctx, p))
}

func (m *market) bought(r client.Result, err error) {
	m.t.Helper()
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.sold++
	m.agree()
}

func TestOrdersAndPayments(t *testing.T) {
	m := openMarket(t)
	scene := func(name string, play func(t *testing.T)) {
		ok := t.Run(name, func(t *testing.T) {
			m.t = t
			play(t)
		})
		if m.t = t; !ok {
			t.FailNow() // the next one would only fail on what this one left
		}
	}

	scene("both commit", func(*testing.T) { m.buys(book) })

	for name, c := range map[string]struct {
		purchase purchase
		says     string
	}{
		"the payment refuses": {purchase{"book", "bob", 10}, "bob cannot pay 10"},
		"the order refuses":   {purchase{"last one", "alice", 10}, "last one is sold out"},
	} {
		scene(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r, err := m.shop.buy(ctx, c.purchase)
			if err != nil || r.Outcome != client.Aborted || r.Reason.Detail != c.says {
				t.Fatalf("%v, %v; want aborted because %s", r, err, c.says)
			}
			m.agree()
		})
	}

	// What the dead left is theirs no more: the stock and the wallet are free again
	// when decree has rolled it back, which the purchase after it needs.
	for _, where := range []string{"between the prepares", "before commit"} {
		scene("the application dies "+where, func(t *testing.T) {
			m.killApplication(where)
			m.agree()
			m.buys(book)
		})
	}

	scene("the leader dies between enlist and commit", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		tx, err := m.shop.decree.Begin(ctx, patience)
		if err != nil {
			t.Fatal(err)
		}
		votes, err := m.shop.prepare(ctx, tx, book)
		if err != nil {
			t.Fatal(err)
		}
		leader, _ := m.leader(0, nil)
		leader.kill()
		defer leader.start()
		m.bought(tx.Commit(ctx, votes...))
	})

	for _, step := range []string{"after-decision", "between-deliveries"} {
		scene("the leader dies "+step, func(t *testing.T) {
			leader, _ := m.leader(0, nil)
			leader.arm(step)
			told := make(chan func(), 1)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				r, err := m.shop.buy(ctx, book)
				told <- func() { m.bought(r, err) }
			}()
			m.await("the leader at "+step, func(context.Context) bool { return leader.hit(step) })
			leader.kill()
			defer func() {
				leader.release(step)
				leader.start()
			}()
			(<-told)()
		})
	}
}

// killApplication lets a process make a purchase, and kills it (kill -9) at the
// given point.
func (m *market) killApplication(where string) {
	t := m.t
	t.Helper()
	w := m.wiring
	w.Timeout, w.Die = 5*time.Second, where // time to look at what it has left
	raw, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	app := exec.Command(os.Args[0], "-test.run=^TestApplicationToKill$")
	app.Env = append(os.Environ(), toKill+"="+string(raw))
	app.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	app.Stderr = os.Stderr
	out, err := app.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if killed := app.Process.Kill(); err != nil || line != where+"\n" || killed != nil {
		t.Errorf("the application said %q, %v, %v", line, err, killed)
	}
	_ = app.Wait() // it was killed
	prepared := 0
	for _, name := range []string{"orders", "payments"} {
		r, err := m.client.CheckParticipant(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		prepared += int(r.GetPrepared())
	}
	if want := map[string]int{"between the prepares": 1, "before commit": 2}[where]; prepared != want {
		t.Errorf("the dead application left %d branches prepared, want %d", prepared, want)
	}
}

const toKill = "DECREE_TEST_APPLICATION"

// TestApplicationToKill is the application that killApplication runs; by itself it
// has nothing to do.
func TestApplicationToKill(t *testing.T) {
	raw := os.Getenv(toKill)
	if raw == "" {
		t.Skip("it is run by TestOrdersAndPayments")
	}
	var w wiring
	if err := json.Unmarshal([]byte(raw), &w); err != nil {
		t.Fatal(err)
	}
	s := w.open(t)
	tx, err := s.decree.Begin(t.Context(), w.Timeout)
	if err != nil {
		t.Fatal(err)
	}
	if w.Die == "between the prepares" {
		orders, err := tx.Enlist(t.Context(), client.External("orders"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decreepg.Run(t.Context(), s.orders, orders, book.place); err != nil {
			t.Fatal(err)
		}
	} else if _, err := s.prepare(t.Context(), tx, book); err != nil {
		t.Fatal(err)
	}
	fmt.Println(w.Die)
	<-t.Context().Done() // it is killed here
}
